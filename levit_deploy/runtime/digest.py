"""What a library's self test finds damage by: digests of its weights and of the rest, in 64 bits.

    mix(sum, word)  = rotate_left(sum ^ word, 29) * FACTOR  mod 2^64
    digest of bytes = blocks of 4096 bytes, mixed one after the other
    of a block      = little-endian words; word i is mixed into lane i mod 4, then the four lanes

Each step is a bijection of the sum and of the word: damage within any 8 bytes is found for certain,
other damage but once in 2^64. Blocks can be digested all at once, here by numpy; the lanes keep a
CPU's multiplier busy (a cryptographic digest would take longer than an inference, and whoever can
write the file can write the digest too). csrc/digest.c computes the same.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from levit_deploy.runtime.elf import Elf
from levit_deploy.runtime.pe import Coff
from levit_deploy.targets.system import ObjectFormat

_BLOCK_BYTES = 4096
_LANES = 4
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
LIBRARY_PLACEHOLDER = 0x6CA95D21F0E83B47  # in a library until it is linked


def digest(data: bytes) -> int:
    """The digest of `data`, 0 of none; zeros fill up its last four words."""
    whole = len(data) // _BLOCK_BYTES * _BLOCK_BYTES
    rest = data[whole:] + bytes(-len(data) % (8 * _LANES))
    parts = (data[:whole], whole // _BLOCK_BYTES), (rest, 1)
    sums = [_digest_blocks(*part) for part in parts if part[0]]
    return _mix_all(np.concatenate(sums)) if sums else 0


def seal(library: Path, constants_bytes: int, form: ObjectFormat) -> None:
    """Put the digest of a shared library into it, in the place of LIBRARY_PLACEHOLDER.

    It is of all that is mapped and not written, but for the file's headers, the constants and the
    digests behind them; of a DLL only of its code. Mach-O libraries stay as they are: each page is
    signed, and the system checks that. Raises ValueError if there is not exactly one such place, or
    if the loader changes the code.
    """
    if form is ObjectFormat.MACHO:
        return
    data, placeholder = library.read_bytes(), LIBRARY_PLACEHOLDER.to_bytes(8, "little")
    if data.count(placeholder) != 1:
        raise ValueError(f"`{library.name}` has {data.count(placeholder)} places for its digest")
    place = data.index(placeholder)
    hole = slice(place - 8 - -(-constants_bytes // 8) * 8, place + 8)
    parts: list[slice] = []
    for part in Elf.parse(data).read_only if form is ObjectFormat.ELF else Coff.parse(data).code:
        if part.start <= hole.start < part.stop:
            parts.append(slice(part.start, hole.start))
            part = slice(hole.stop, part.stop)
        parts.append(part)
    sealed = _mix_all(np.array([digest(data[part]) for part in parts], np.uint64))
    with library.open("r+b") as file:
        file.seek(place)
        file.write(sealed.to_bytes(8, "little"))


def _digest_blocks(data: bytes, count: int) -> NDArray[np.uint64]:
    """Of `count` blocks of the same size."""
    words = np.frombuffer(data, "<u8").reshape(count, -1, _LANES)
    lanes = np.zeros((count, _LANES), np.uint64)
    for step in range(words.shape[1]):
        lanes = _mix(lanes, words[:, step])
    return functools.reduce(_mix, lanes.T, np.zeros(count, np.uint64))


def _mix_all(words: NDArray[np.uint64]) -> int:
    return int(functools.reduce(_mix, words.reshape(-1, 1), np.zeros(1, np.uint64))[0])


def _mix(sums: NDArray[np.uint64], words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = sums ^ words
    return (mixed << np.uint64(29) | mixed >> np.uint64(35)) * _FACTOR
