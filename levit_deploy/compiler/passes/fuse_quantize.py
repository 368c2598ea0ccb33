"""Let the kernel that makes a tensor make its 8-bit copy too.

Before: gemm_int8(x, w, arena[1]);  quantize(arena[1], c, arena[2])
After:  gemm_int8_quantized(x, w, c, arena[2])                   nobody else reads arena[1]
        gemm_int8_and_quantized(x, w, c, arena[1], arena[2])     somebody does
The same for what float kernels make: the last convolution, attention, the mean.
"""

from __future__ import annotations

from dataclasses import replace

from levit_deploy.compiler.flat_program import FlatProgram, Step, Value
from levit_deploy.compiler.kernel_library import KernelLibrary
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.program import Space


def fuse_quantize(flat: FlatProgram, library: KernelLibrary) -> FlatProgram:
    """Where the library can; the kernels that are no longer called leave it.

    Of several 8-bit copies of one tensor the first is fused.
    """
    steps: list[Step] = []
    writers: dict[Value, int] = {}  # the tensor that a step writes -> where the step is
    for step in flat.steps:
        tensor = step.values[0]
        writer = writers.get(tensor)
        if step.symbol in library.quantizers and writer is not None:
            fused = _fused(steps[writer], step, library, _is_read(tensor, flat, step))
            if fused:
                steps[writer] = fused
                continue
        writers[step.values[-1]] = len(steps)
        steps.append(step)
    called = {step.symbol for step in steps}
    for gone in {step.symbol for step in flat.steps} - called:
        del library.kernels[gone]
    return replace(flat, steps=tuple(steps))


def _is_read(tensor: Value, flat: FlatProgram, quantize: Step) -> bool:
    """Whether anything but `quantize` and the step that writes the tensor needs it."""
    uses = [step for step in flat.steps if step is not quantize and tensor in step.values]
    return tensor.space is Space.LOGITS or len(uses) > 1


def _fused(writer: Step, quantize: Step, library: KernelLibrary, keep: bool) -> Step | None:
    make = library.quantizing_twins.get(writer.symbol)
    if make is None:
        return None
    symbol = f"{writer.symbol}_{'and_' * keep}quantized"
    if symbol not in library.kernels:
        library.kernels[symbol] = make(symbol, Stored.BOTH if keep else Stored.QUANTIZED)
    *inputs, tensor = writer.values
    _, constants, copy = quantize.values
    return Step(symbol, (*inputs, constants, *([tensor] if keep else []), copy))
