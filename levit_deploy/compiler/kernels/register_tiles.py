"""Ways to cut a product into register tiles: which fit, and which are near to a given one.

Near is what differs little in the ratio of its sides: 8x32 is as far from 16x32 as from 4x32.
"""

from __future__ import annotations

import math

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.targets.target import Target

# A multiply-add takes about four cycles and two start in each (Zen, Cortex-A76; Skylake Server
# with 512 bits): fewer independent accumulators leave the units idle.
MIN_ACCUMULATORS = 8
MOST_VECTORS = 8  # of columns


def most_accumulators(target: Target) -> int:
    """As many as leave a register for each of the two factors."""
    return target.vector_registers - 2


def fits(rows: int, columns: int, target: Target, sums: int = 1) -> bool:
    """Whether rows x columns outputs have accumulators in registers, `sums` for each vector."""
    vectors, rest = divmod(columns, target.float_lanes)
    count = rows * vectors * sums
    return rows >= 1 and vectors >= 1 and not rest and count <= most_accumulators(target)


def near_tiles(
    rows: int, columns: int, near: tuple[int, int], target: Target, sums: int = 1
) -> list[tuple[int, int]]:
    """(rows, columns) of tiles of a product of `rows` x `columns` values with enough accumulators,
    `sums` for each vector, each way to cut only once; the nearest to `near` first."""
    lanes = target.float_lanes
    vectors_of_product = -(-columns // lanes)
    tiles = {
        (Blocks.of(rows, mr).size, Blocks.of(vectors_of_product, vectors).size * lanes)
        for mr in range(1, min(rows, target.vector_registers) + 1)
        for vectors in range(1, min(vectors_of_product, MOST_VECTORS) + 1)
    }
    enough = [(mr, nr) for mr, nr in tiles if mr * nr * sums >= MIN_ACCUMULATORS * lanes]
    return sorted(enough, key=lambda tile: (distance(tile, near), tile))


def distance(tile: tuple[int, int], other: tuple[int, int]) -> float:
    """How many times a side must be doubled or halved to make one of the other."""
    return sum(abs(math.log2(a / b)) for a, b in zip(tile, other, strict=True))
