"""Run a Program without the runtime room: its calls, one after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.program import ALIGNMENT_BYTES, Entry, Program, Space
from levit_deploy.targets.target import Target
from tests.compiler.c_calls import CCall, run_c_calls


def run(
    program: Program,
    target: Target,
    image: NDArray[np.generic],
    *,
    entry: Entry = Entry.FLOAT,
    parts: int = 1,
    shift: int = 0,
) -> NDArray[np.float32]:
    """The logits of one image, float NCHW or 8-bit HWC as `entry` says.

    The arena starts as NaNs. Each call's tasks are done in `parts` pieces, last piece first. The
    caller's buffers start `shift` bytes after a multiple of 64.
    """
    logits_bytes = 4 * program.classes
    buffers = {
        Space.CONSTANT: program.constants,
        Space.IMAGE: bytes(shift) + image.tobytes(),
        Space.ARENA: b"\xff" * program.arena_bytes,
        Space.SCRATCH: b"\xff" * program.scratch_bytes,
        Space.LOGITS: bytes(shift + logits_bytes),
    }
    memory, starts = bytearray(), {}
    for space, content in buffers.items():
        starts[space] = len(memory) + shift * (space in (Space.IMAGE, Space.LOGITS))
        memory += content + bytes(-len(content) % ALIGNMENT_BYTES)
    calls = []
    for call in program.calls:
        if call.entry in (Entry.BOTH, entry):
            offsets = tuple(starts[arg.space] + arg.offset_bytes for arg in call.args)
            bounds = [call.tasks * part // parts for part in range(parts + 1)]
            calls += [
                CCall(call.symbol, offsets, bounds[part], bounds[part + 1])
                for part in reversed(range(parts))
            ]
    after = run_c_calls(target, program.kernels_object, calls, bytes(memory))
    start = starts[Space.LOGITS]
    return np.frombuffer(after[start : start + logits_bytes], np.float32)
