"""Program: a compiled model as plain data. Importable without tvm; the runtime room links it.

A program is an object file of kernels, a block of constants, and the order in which the kernels
run. Every kernel is a C function

    int32_t symbol(T0 *arg0, T1 *arg1, ..., int32_t begin, int32_t end);

which does tasks [begin, end) of its `tasks`; tasks are independent, any split over threads gives
the same bits. Pointers never alias; all but the caller's own buffers are aligned to 64 bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from levit_deploy.models.card import ModelCard

ALIGNMENT_BYTES = 64


class Space(StrEnum):
    """Where a kernel argument lives."""

    IMAGE = "image"  # the caller's image: float NCHW, or 8-bit HWC for calls of those entries
    LOGITS = "logits"  # the caller's output
    CONSTANT = "constant"  # offset into Program.constants
    ARENA = "arena"  # offset into the arena, shared by all workers
    SCRATCH = "scratch"  # offset into the worker's own scratch


class Entry(StrEnum):
    """Which of the library's entry points makes the call."""

    BOTH = "both"
    FLOAT = "float"
    RGB8 = "rgb8"
    GRAY8 = "gray8"

    @property
    def function(self) -> str:
        """What the entry point is called in C, after `<name>_`."""
        return "run" if self is Entry.FLOAT else f"run_{self}"


# That for 8-bit images, by their channels; a library has it beside Entry.FLOAT.
EIGHT_BIT = {3: Entry.RGB8, 1: Entry.GRAY8}


@dataclass(frozen=True)
class Arg:
    space: Space
    offset_bytes: int = 0


@dataclass(frozen=True)
class KernelCall:
    """One step. `kind`, `shape`, `tile` are for people: the compile log and the profile.

    `exactness`: why no integer in it saturates or wraps; empty for kernels of floats.
    """

    symbol: str
    args: tuple[Arg, ...]
    tasks: int
    entry: Entry
    kind: str
    shape: str
    tile: str
    multiply_adds: int
    bytes_moved: int
    exactness: str = ""


@dataclass(frozen=True)
class QuantizedTensor:
    """An 8-bit tensor (rows, channels), complete in the arena when the call `step` is done.

    x is stored as the byte x * inverse_scales[channel] + zero, rounded and limited; the byte is an
    int8 if `signed`, else a uint8. (row, channel) lies at
    row // 2 * strides[0] + row % 2 * strides[1] + channel // 8 * strides[2] + channel % 8
    behind `offset_bytes`; what is in between is not defined. `readers`: the matrix products, nodes
    of the ONNX graph, that read it. `step`: index into Program.calls.
    """

    readers: tuple[str, ...]
    step: int
    offset_bytes: int
    size_bytes: int
    rows: int
    channels: int
    signed: bool
    zero: int
    inverse_scales: tuple[float, ...]
    strides: tuple[int, int, int]


@dataclass(frozen=True)
class Identity:
    """What was compiled for what, as every record about it says.

    `name`: the library's, a C identifier; `model`: the variant's, such as `levit_128s`.
    `weights_digest`: canonical SHA-256 of the checkpoint, hexadecimal.
    """

    name: str
    model: str
    precision: str
    target: str
    weights_digest: str

    @classmethod
    def of(cls, other: Identity) -> dict[str, Any]:
        """The values of this class's fields in another record of the same thing."""
        return {field.name: getattr(other, field.name) for field in fields(cls)}


@dataclass(frozen=True)
class Program(Identity):
    """Everything the runtime room needs to make a library.

    `card`: how pictures become its images, and what its outputs mean.
    `kernels_object`: relocatable ELF with one hidden function for each symbol in `calls`.
    `levels`: of a program for several CPUs, the programs for each, the most capable first, which
    have the same constants. It has no kernels of its own; calls and tensors are those of the first,
    sizes the largest.
    `tensors`: what is 8 bits between the calls, in the order in which it is made.
    `selftest_image_offset`: of room in the arena for an 8-bit image that stays untouched until the
    first call has read it.
    """

    image_size: int
    classes: int
    card: ModelCard
    kernels_object: bytes
    constants: bytes
    calls: tuple[KernelCall, ...]
    tensors: tuple[QuantizedTensor, ...]
    arena_bytes: int
    scratch_bytes: int
    selftest_image_offset: int
    levels: tuple[Program, ...] = ()

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of what is executed: kernels, constants, and calls."""
        digest = hashlib.sha256()
        for one in self.levels or (self,):
            for part in (one.kernels_object, one.constants, repr(one.calls).encode()):
                digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()
