"""Where every buffer lies in the arena: buffers that live at the same time never overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from levit_deploy.compiler.program import ALIGNMENT_BYTES


@dataclass(frozen=True)
class Lifetime:
    """A buffer of `size_bytes` that holds a value from step `first` through step `last`."""

    size_bytes: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """`offsets_bytes`: one for each lifetime, in their order, multiples of 64."""

    offsets_bytes: tuple[int, ...]
    arena_bytes: int


def aligned(size_bytes: int) -> int:
    """The next multiple of 64."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def plan_memory(lifetimes: Sequence[Lifetime]) -> MemoryPlan:
    """Largest buffer first, each into the lowest gap between those that are alive with it.

    Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
    2020, section 5.2).
    """
    offsets: dict[int, int] = {}
    order = sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].size_bytes, i))
    for index in order:
        lifetime = lifetimes[index]
        neighbours = sorted(
            (offset, aligned(lifetimes[other].size_bytes))
            for other, offset in offsets.items()
            if lifetime.meets(lifetimes[other])
        )
        place = 0
        for offset, size in neighbours:
            if place + lifetime.size_bytes <= offset:
                break
            place = max(place, offset + size)
        offsets[index] = place
    arena = max((offsets[i] + aligned(t.size_bytes) for i, t in enumerate(lifetimes)), default=0)
    return MemoryPlan(tuple(offsets[i] for i in range(len(lifetimes))), arena)
