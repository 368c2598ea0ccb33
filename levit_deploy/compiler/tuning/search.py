"""The tiles of one kernel that are worth a try, and which of them is the best: by its times where
its code runs, by its assembly elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import tvm

from levit_deploy.compiler.codegen import object_of
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.tiles.registry import Spec, Tile, family_of
from levit_deploy.compiler.tuning.assembly import (
    Loop,
    compiled,
    hot_loops,
    instructions_per_multiply_add,
    spills,
)
from levit_deploy.targets.target import Target

COUNT = 12  # tiles that are tried for a kernel
ROUNDS = 5
FINALISTS = 3
MARGIN = 0.02  # by which a tile must be better than the default, in each pass

# Of kernels (by index), in so many rounds: microseconds of each, None for one that is wrong.
Times = Callable[[Sequence[int], int], Sequence[float | None]]


@dataclass(frozen=True)
class Candidate:
    """A tile, its kernel, and what LLVM made of that. `loops`: where it multiplies."""

    tile: Tile
    kernel: Kernel
    module: tvm.runtime.Module
    loops: list[Loop]

    def emit(self) -> bytes:
        """The kernel as an object."""
        return object_of(self.module)


def compile_candidates(spec: Spec, target: Target, count: int, pool: Executor) -> list[Candidate]:
    """At most `count` tiles of `spec`, the default first, compiled at one time; none of them spills
    more than that does, for blocks at the edges of an image spill a little with every tile."""
    tiles = candidates(spec, target, count)
    found = list(pool.map(partial(_compile, spec, target), range(len(tiles)), tiles))
    return [one for one in found if spills(one.loops) <= spills(found[0].loops)]


def _compile(spec: Spec, target: Target, index: int, tile: Tile) -> Candidate:
    kernel = generate(f"k{index}", spec, tile, target)
    module = compiled(kernel, target)
    return Candidate(tile, kernel, module, hot_loops(str(module.inspect_source("asm"))))


def candidates(spec: Spec, target: Target, count: int = COUNT) -> list[Tile]:
    """At most `count` tiles that are possible on `target`, the default first, nearest next."""
    family = family_of(spec)
    default = family.default_tile(spec, target)
    near = family.neighbours(spec, default, target)
    legal = (tile for tile in near if family.is_legal(tile, spec, target))
    return list(itertools.islice(dict.fromkeys([default, *legal]), count))


def generate(symbol: str, spec: Spec, tile: Tile, target: Target) -> Kernel:
    """The kernel of `spec`, with a float result."""
    kernel: Kernel = family_of(spec).generate(symbol, spec, tile, target, Stored.FLOAT)
    return kernel


def cheapest(found: Sequence[Candidate]) -> tuple[int, float]:
    """(the candidate with the fewest instructions, those in units of the default's)."""
    costs = [instructions_per_multiply_add(candidate.loops) for candidate in found]
    return _best([cost / costs[0] for cost in costs])


def fastest(times: Times, count: int) -> tuple[int, float, float]:
    """(the best kernel, its time in units of kernel 0's, its microseconds).

    The fastest of a first pass are timed again, and the worse of two ratios counts. A kernel that
    is wrong takes part in nothing.
    """
    first = {i: time for i, time in enumerate(times(range(count), ROUNDS)) if time is not None}
    finalists = [0, *sorted(first.keys() - {0}, key=lambda index: first[index])[:FINALISTS]]
    pairs = zip(finalists, times(finalists, ROUNDS), strict=True)
    second = {index: time for index, time in pairs if time is not None}
    kept = list(second)
    ratios = [max(first[index] / first[0], second[index] / second[0]) for index in kept]
    best, ratio = _best(ratios)
    return kept[best], ratio, min(first[kept[best]], second[kept[best]])


def _best(ratios: Sequence[float]) -> tuple[int, float]:
    """(index, ratio) of the smallest, or of the default, 0, if that is not smaller by MARGIN."""
    index = min(range(len(ratios)), key=lambda i: ratios[i])
    return (index, ratios[index]) if ratios[index] <= 1 - MARGIN else (0, 1.0)
