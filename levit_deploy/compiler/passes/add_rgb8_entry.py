"""Give the program its second entry: the same network on an 8-bit RGB image.

Before: conv_f32(image, w, b, arena[0])
After:  conv_f32(image, w, b, arena[0])        # float only
        conv_rgb8(image, w, b, arena[0])       # rgb8 only

If what reads the image has no 8-bit form, a kernel normalises the image into the arena first, and
the calls that read the image are made twice, from there for this entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from levit_deploy.compiler.flat_program import FlatProgram, Step, Value
from levit_deploy.compiler.kernel_library import KernelLibrary
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.program import Entry, Space

IMAGE = Value(Space.IMAGE)


def add_rgb8_entry(
    flat: FlatProgram,
    library: KernelLibrary,
    make_normalize: Callable[[], Kernel],
    image_bytes: int,
) -> FlatProgram:
    """`image_bytes`: size of the normalised float image that `make_normalize`'s kernel writes."""
    readers = [step for step in flat.steps if IMAGE in step.values]
    if all(step.symbol in library.rgb8_twins for step in readers):
        return _with_twins(flat, library)
    normalize = make_normalize()
    library.kernels[normalize.symbol] = normalize
    normalised = Value(Space.ARENA, len(flat.buffer_bytes))
    steps = [Step(normalize.symbol, (IMAGE, normalised), Entry.RGB8)]
    for step in flat.steps:
        if step in readers:
            from_arena = tuple(normalised if v == IMAGE else v for v in step.values)
            steps.append(replace(step, entry=Entry.FLOAT))
            steps.append(replace(step, values=from_arena, entry=Entry.RGB8))
        else:
            steps.append(step)
    return replace(flat, steps=tuple(steps), buffer_bytes=(*flat.buffer_bytes, image_bytes))


def _with_twins(flat: FlatProgram, library: KernelLibrary) -> FlatProgram:
    steps: list[Step] = []
    for step in flat.steps:
        if IMAGE in step.values:
            steps.append(replace(step, entry=Entry.FLOAT))
            twin = library.rgb8_twins[step.symbol]
            steps.append(replace(step, symbol=twin, entry=Entry.RGB8))
        else:
            steps.append(step)
    return replace(flat, steps=tuple(steps))
