"""The tests of a kernel family, made from its row in the registry.

A suite adds what a row cannot know: layers with their numbers, and what must come out.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.tiles.registry import AnyFamily
from levit_deploy.targets.target import Target
from tests.compiler.kernels.harness import Buffer, Call, Ranges, run
from tests.machine import prefix_for

TILES = 2  # nearest to the default one, and as many of the farthest
WIDTHS = (4, 8, 16)  # float32 values in the vectors that there are
AROUND_VECTORS = tuple(sorted({width + d for width in WIDTHS for d in (-1, 0, 1)}))

Tile = Any


@dataclass(frozen=True)
class Case:
    """One layer. `check` raises AssertionError unless the outputs are right.

    `tile`: by default that of the family; `generate`, too. `portable`: whether targets with FMA
    write the same bytes.
    """

    spec: Any
    inputs: Callable[[Tile, Target], Sequence[Buffer]]
    outputs: Callable[[Target], Sequence[Buffer]]
    check: Callable[[Sequence[Buffer], Target], None]
    tile: Callable[[Target], Tile] | None = None
    generate: Callable[[str, Any, Tile, Target, Stored], Kernel] | None = None
    stored: Stored = Stored.FLOAT
    portable: bool = True


@dataclass(frozen=True)
class Suite:
    """`cut`: the case whose work is also cut in other ways: the bits must not depend on it."""

    family: AnyFamily
    targets: tuple[Target, ...]
    cases: Mapping[str, Case]
    cut: str

    def __hash__(self) -> int:
        return id(self)

    def tile(self, case: Case, target: Target) -> Tile:
        return case.tile(target) if case.tile else self.family.default_tile(case.spec, target)

    def tiles(self, target: Target) -> list[Tile]:
        """The nearest that a search would try, the farthest, and that with shared constants."""
        spec, family = self.cases[self.cut].spec, self.family
        default = family.default_tile(spec, target)
        near = dict.fromkeys(
            tile
            for tile in family.neighbours(spec, default, target)
            if tile != default and family.is_legal(tile, spec, target)
        )
        every = list(near)
        shared = [family.shared_tile(spec, target)] if family.shared_tile else []
        return list(dict.fromkeys([*every[:TILES], *every[-TILES:], *shared]))


@dataclass(frozen=True)
class Written:
    """What one target's kernels wrote: each case, and the suite's `cut` in other ways."""

    cases: dict[str, list[Buffer]]
    in_parts: list[Buffer]
    by_task: list[list[Buffer]]
    by_tile: dict[str, list[Buffer]]


@functools.lru_cache(maxsize=2)
def written(suite: Suite, target: Target) -> Written:
    """In one program. Skips the test where nothing runs `target`."""
    prefix_for(target)

    @functools.cache
    def kernel(spec: Any, tile: Tile, stored: Stored, generate: Any) -> Kernel:
        return (generate or suite.family.generate)("kernel", spec, tile, target, stored)

    def call(case: Case, tile: Tile, ranges: Ranges | None = None) -> Call:
        made = kernel(case.spec, tile, case.stored, case.generate)
        return Call(made, case.inputs(tile, target), case.outputs(target), ranges)

    calls = [call(case, suite.tile(case, target)) for case in suite.cases.values()]
    cut = suite.cases[suite.cut]
    own = suite.tile(cut, target)
    tasks = kernel(cut.spec, own, cut.stored, cut.generate).tasks
    assert tasks > 2
    bounds = sorted({0, 1, tasks // 2, tasks - 1, tasks})
    calls.append(call(cut, own, list(itertools.pairwise(bounds))[::-1]))
    calls += [call(cut, own, [(task, task + 1)]) for task in range(tasks)]
    tiles = suite.tiles(target)
    calls += [call(cut, tile) for tile in tiles]
    buffers = iter(run(calls, target))
    return Written(
        {name: next(buffers) for name in suite.cases},
        next(buffers),
        [next(buffers) for _ in range(tasks)],
        {repr(tile): next(buffers) for tile in tiles},
    )


def assert_same_bytes(some: Sequence[Buffer], others: Sequence[Buffer]) -> None:
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))


def assert_within(got: Buffer, expected: Buffer, error: Buffer) -> None:
    """Every element is at most `error` away."""
    off = np.abs(got - expected)
    assert (off <= error).all(), f"worst is {np.nanmax(off / error):.3g} of the bound"
