"""Find the best tile of one kernel: by time where its code runs, by its assembly elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from levit_deploy import __version__
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.tiles.registry import Spec, Tile, family_of
from levit_deploy.compiler.tiles.table import TileRow
from levit_deploy.compiler.tuning.assembly import (
    assembly,
    hot_loops,
    instructions_per_multiply_add,
    spills,
)
from levit_deploy.compiler.tuning.timing import KernelTimer
from levit_deploy.targets.host import Cpu
from levit_deploy.targets.table import HOST
from levit_deploy.targets.target import Target
from levit_deploy.targets.toolchain import Toolchain

COUNT = 12  # tiles that are tried for a kernel
ROUNDS = 5
FINALISTS = 3
MARGIN = 0.02  # by which a tile must be better than the default, in each pass


@dataclass(frozen=True)
class Search:
    """`cpu`: of this machine. `count`: how many tiles of a kernel are tried, the default too."""

    toolchain: Toolchain
    cpu: Cpu
    count: int = COUNT

    @property
    def target(self) -> Target:
        return self.toolchain.target

    @property
    def row_target(self) -> str:
        """What rows are filed under: `host` means nothing on another machine."""
        return (self.target.base or HOST) if self.target.name == HOST else self.target.name

    @property
    def measured_on(self) -> str:
        """The CPU, or `modelled`, and this tool's version."""
        modelled = "modelled: instructions of the hot loops"
        what = self.cpu.model if self.cpu.runs(self.target) else modelled
        return f"{what}, levit-deploy {__version__}"

    def find(self, spec: Spec, work: Path) -> TileRow:
        """The row of the best tile; it is the default where none is better by MARGIN.

        `work`: an empty folder. Raises DeployError if kernels cannot be built, or the machine is
        too noisy to time them.
        """
        tiles = candidates(spec, self.target, self.count)
        kernels = [generate(f"k{i}", spec, tile, self.target) for i, tile in enumerate(tiles)]
        loops = [hot_loops(assembly(kernel, self.target)) for kernel in kernels]
        # Blocks at the edges of an image spill a little with every tile, so the default's count.
        kept = [i for i, loop in enumerate(loops) if spills(loop) <= spills(loops[0])]
        microseconds = None
        if self.cpu.runs(self.target):
            timer = KernelTimer([kernels[i] for i in kept], self.toolchain, work)
            at, ratio, microseconds = fastest(timer, len(kept))
        else:
            costs = [instructions_per_multiply_add(loops[i]) for i in kept]
            at, ratio = _best([cost / costs[0] for cost in costs])
        return TileRow(
            target=self.row_target,
            spec=spec,
            tile=tiles[kept[at]],
            measured_on=self.measured_on,
            microseconds=microseconds,
            ratio=ratio,
        )


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


def fastest(timer: KernelTimer, count: int) -> tuple[int, float, float]:
    """(the best kernel, its time in units of kernel 0's, its microseconds).

    The fastest of a first pass are timed again, and the worse of two ratios counts.
    """
    first = timer.microseconds(range(count), ROUNDS)
    finalists = sorted(range(1, count), key=lambda index: first[index])[:FINALISTS]
    second = timer.microseconds([0, *finalists], ROUNDS)
    ratios = [1.0] + [
        max(first[index] / first[0], again / second[0])
        for index, again in zip(finalists, second[1:], strict=True)
    ]
    best, ratio = _best(ratios)
    index = [0, *finalists][best]
    return index, ratio, min(first[index], second[best])


def _best(ratios: Sequence[float]) -> tuple[int, float]:
    """(index, ratio) of the smallest, or of the default, 0, if that is not smaller by MARGIN."""
    index = min(range(len(ratios)), key=lambda i: ratios[i])
    return (index, ratios[index]) if ratios[index] <= 1 - MARGIN else (0, 1.0)
