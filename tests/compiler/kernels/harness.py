"""Run generated kernels as the product makes them: many in one object, called as C functions.

All buffers of all calls lie in one piece of memory, and nothing in it may change but outputs and
scratch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.codegen import emit_object, lower_kernels
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.compiler.program import ALIGNMENT_BYTES
from levit_deploy.targets.target import Target
from tests.compiler.c_calls import CCall, run_c_calls

Array = NDArray[np.float32]
Buffer = NDArray[np.generic]
Ranges = Sequence[tuple[int, int]]

_MARK = 0x5A  # between buffers


@dataclass(frozen=True)
class Call:
    """One kernel, its inputs and constants, and what its outputs hold before.

    `ranges`: of tasks, one after the other; by default all at once. The caller's own buffers
    (`kernel.unaligned`) start `shift` bytes after a multiple of 64.
    """

    kernel: Kernel
    inputs: Sequence[Buffer]
    outputs: Sequence[Buffer]
    ranges: Ranges | None = None
    shift: int = 0


def undefined(size: int, dtype: str = "float32") -> Buffer:
    """Memory whose content no kernel may rely on: NaN as float."""
    return np.full(size * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype)


def run(calls: Sequence[Call], target: Target) -> list[list[Buffer]]:
    """The outputs of each call, flat. Skips the test where nothing runs `target`."""
    kernels = {id(call.kernel): call.kernel for call in calls}
    symbols = {key: f"kernel_{n}" for n, key in enumerate(kernels)}
    memory = _Memory()
    places = [memory.place(call) for call in calls]
    c_calls = [
        CCall(symbols[id(call.kernel)], tuple(offsets), begin, end)
        for call, offsets in zip(calls, places, strict=True)
        for begin, end in call.ranges or [(0, call.kernel.tasks)]
    ]
    kernels_object = _object({symbols[key]: kernel for key, kernel in kernels.items()}, target)
    after = memory.checked(run_c_calls(target, kernels_object, c_calls, bytes(memory.content)))
    return [
        [
            np.frombuffer(after[offset : offset + output.nbytes], output.dtype)
            for output, offset in zip(call.outputs, offsets[len(call.inputs) :], strict=False)
        ]
        for call, offsets in zip(calls, places, strict=True)
    ]


def run_one(kernel: Kernel, target: Target, inputs: Iterable[Buffer], output_size: int) -> Buffer:
    """The flat float output of one kernel."""
    [[output]] = run([Call(kernel, [*inputs], [undefined(output_size)])], target)
    return output


class _Memory:
    """All buffers one behind the other; `content`: what is in them before."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._written: list[slice] = []
        self._pad()

    def place(self, call: Call) -> list[int]:
        """Offsets of the inputs, the outputs and the scratch."""
        scratch = [undefined(call.kernel.scratch_bytes, "uint8")] * bool(call.kernel.scratch_bytes)
        offsets = []
        for position, buffer in enumerate([*call.inputs, *call.outputs, *scratch]):
            self.content += bytes([_MARK]) * (call.shift * (position in call.kernel.unaligned))
            offsets.append(len(self.content))
            self.content += buffer.tobytes()
            if position >= len(call.inputs):
                self._written.append(slice(offsets[-1], len(self.content)))
            self._pad()
        return offsets

    def checked(self, after: bytes) -> bytes:
        """`after`, if it differs from before in outputs and scratch alone."""
        masked = bytearray(after)
        for part in self._written:
            masked[part] = self.content[part]
        assert masked == self.content, "a kernel wrote beyond its outputs"
        return after

    def _pad(self) -> None:
        """To the next multiple of 64 that leaves 64 bytes free."""
        free = -len(self.content) % ALIGNMENT_BYTES + ALIGNMENT_BYTES
        self.content += bytes([_MARK]) * free


def _object(kernels: dict[str, Kernel], target: Target) -> bytes:
    llvm = llvm_target(target)
    unaligned = {symbol: kernel.unaligned for symbol, kernel in kernels.items()}
    return emit_object(lower_kernels(kernels, unaligned, llvm), target)
