"""The order of compilation: ExportedModel + Target -> Program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from levit_deploy.compiler.codegen import emit_object, lower_kernels
from levit_deploy.compiler.flat_program import FlatProgram, Step
from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.compiler.lower.network import lower_network
from levit_deploy.compiler.memory_plan import Placement, place
from levit_deploy.compiler.program import KernelCall, Program, QuantizedTensor, Space
from levit_deploy.compiler.tiles.table import TileTable, packaged_tiles
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import ExportedModel
from levit_deploy.targets.target import Target


def compile_model(
    exported: ExportedModel,
    target: Target,
    *,
    tiles: TileTable | None = None,
    dump_ir: Path | None = None,
    on_phase: Callable[[str], None] | None = None,
    name: str | None = None,
) -> Program:
    """Compile a model to kernels, constants and the list of calls.

    `dump_ir`: a folder that gets each phase's result as text. `on_phase` is told the name
    of each phase before it runs. `name` starts every symbol (default: the model's name).
    The same arguments give the same bytes. Raises DeployError if the graph is no LeViT, if there is
    no kernel for a layer, or if `dump_ir` cannot be written.
    """
    name = name or exported.name
    llvm = llvm_target(target)
    phase = _Phases(dump_ir, on_phase)

    # Phase 1: the network that the graph says
    phase.begin("read_network")
    network = exported.network
    phase.end(lambda: repr(network))

    # Phase 2: a flat list of kernel calls, for a float and for an 8-bit image
    phase.begin("lower_network")
    flat = lower_network(network, name, target, tiles or packaged_tiles(), exported.normalization)
    phase.end(flat.text)

    # Phase 3: a place for every value
    phase.begin("plan_memory")
    placement = place(flat, image_bytes=network.stem[0].inputs * network.image_size**2)
    calls = _calls(flat, placement)
    phase.end(lambda: "\n".join(map(str, calls)))

    # Phase 4: kernels become C functions
    phase.begin("lower_kernels")
    functions = lower_kernels(flat.kernels, _callers_buffers(flat), llvm)
    phase.end(lambda: "\n".join(func.script(show_meta=False) for func in functions.values()))

    # Phase 5: machine code
    phase.begin("emit_object")
    kernels_object = emit_object(functions, target)

    return Program(
        name=name,
        model=exported.name,
        precision=network.precision.value,
        target=target.name,
        image_size=network.image_size,
        classes=network.outputs,
        card=exported.card,
        weights_digest=exported.weights_digest,
        kernels_object=kernels_object,
        constants=placement.constants,
        calls=calls,
        tensors=_tensors(flat, placement),
        arena_bytes=placement.arena_bytes,
        scratch_bytes=placement.scratch_bytes,
        selftest_image_offset=placement.selftest_image_offset,
    )


class _Phases:
    """Announces each phase and writes its result to `NN_phase.txt`."""

    def __init__(self, folder: Path | None, on_phase: Callable[[str], None] | None) -> None:
        self.folder = folder
        self.on_phase = on_phase
        self.count = 0
        self.name = ""

    def begin(self, name: str) -> None:
        self.count += 1
        self.name = name
        if self.on_phase:
            self.on_phase(name)

    def end(self, result: Callable[[], str]) -> None:
        if self.folder:
            path = self.folder / f"{self.count:02}_{self.name}.txt"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                path.write_text(result())
            except OSError as error:
                raise DeployError(
                    f"cannot write `{path}`: {error.strerror}",
                    hint="choose another folder with --dump-ir",
                ) from error


def _callers_buffers(flat: FlatProgram) -> dict[str, set[int]]:
    """For each symbol the positions of arguments that are the caller's image or logits."""
    positions: dict[str, set[int]] = {step.symbol: set() for step in flat.steps}
    for step in flat.steps:
        for position, value in enumerate(step.values):
            if value.space in (Space.IMAGE, Space.LOGITS):
                positions[step.symbol].add(position)
    return positions


def _calls(flat: FlatProgram, placement: Placement) -> tuple[KernelCall, ...]:
    calls = []
    for step, args in zip(flat.steps, placement.args, strict=True):
        kernel = flat.kernels[step.symbol]
        call = KernelCall(
            symbol=step.symbol,
            args=args,
            tasks=kernel.tasks,
            entry=step.entry,
            kind=kernel.kind,
            shape=kernel.shape,
            tile=kernel.tile,
            multiply_adds=kernel.multiply_adds,
            bytes_moved=kernel.bytes_moved,
            exactness=_exactness(step, flat),
        )
        calls.append(call)
    return tuple(calls)


def _exactness(step: Step, flat: FlatProgram) -> str:
    kernel = flat.kernels[step.symbol]
    if kernel.prove_exact is None:
        return kernel.exactness
    constant = step.values[1]
    assert constant.space is Space.CONSTANT, "the weights of an integer kernel come second"
    return kernel.prove_exact(flat.constants[constant.index].view(np.int8))


def _tensors(flat: FlatProgram, placement: Placement) -> tuple[QuantizedTensor, ...]:
    """A buffer is written by the first step that names it."""
    written: dict[int, tuple[int, int]] = {}  # buffer -> (step, offset)
    for position, (step, args) in enumerate(zip(flat.steps, placement.args, strict=True)):
        for value, arg in zip(step.values, args, strict=False):  # scratch comes behind the values
            if value.space is Space.ARENA:
                written.setdefault(value.index, (position, arg.offset_bytes))
    tensors = [
        QuantizedTensor(
            readers=tuple(copy.readers),
            step=written[buffer][0],
            offset_bytes=written[buffer][1],
            size_bytes=flat.buffer_bytes[buffer],
            rows=copy.rows,
            channels=copy.channels,
            signed=copy.signed,
            zero=copy.zero,
            inverse_scales=tuple(copy.inverse_scales.tolist()),
            strides=copy.strides,
        )
        for buffer, copy in flat.quantized.items()
    ]
    return tuple(sorted(tensors, key=lambda tensor: tensor.step))
