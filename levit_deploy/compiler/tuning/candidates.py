"""Tiles to try for a kernel: the family's own rule, and its neighbours that fit the registers.

Near is what differs little in the ratio of its sides: 8x32 is as far from 16x32 as from 4x32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from levit_deploy.compiler.kernels import head
from levit_deploy.compiler.kernels.attention import spec as attention
from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.conv import tile as conv
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile
from levit_deploy.compiler.kernels.conv.tile import vectors_of_width
from levit_deploy.compiler.kernels.gemm import float32 as gemm
from levit_deploy.compiler.kernels.gemm.spec import MIN_ACCUMULATORS, GemmSpec, GemmTile
from levit_deploy.compiler.kernels.head import HeadSpec
from levit_deploy.compiler.tuning.legality import Spec, Tile, is_legal
from levit_deploy.targets.target import Target

COUNT = 12
MOST_VECTORS = 8  # of columns
UNROLLS = (4, 8, 16)


def candidates(spec: Spec, target: Target, count: int = COUNT) -> list[Tile]:
    """At most `count` tiles that are possible on `target`, the default first, nearest next."""
    default = default_tile(spec, target)
    tiles = _neighbours(spec, default, target)
    legal = (tile for tile in tiles if is_legal(tile, spec, target))
    return list(itertools.islice(dict.fromkeys([default, *legal]), count))


def default_tile(spec: Spec, target: Target) -> Tile:
    """The rule of the family."""
    match spec:
        case GemmSpec():
            return gemm.default_tile(spec, target)
        case HeadSpec():
            return head.default_tile(spec, target)
        case ConvSpec():
            return conv.default_tile(spec, target)
        case AttentionSpec():
            return attention.default_tile(spec, target)


def _neighbours(spec: Spec, default: Tile, target: Target) -> Iterable[Tile]:
    """The nearest first; not all of them are legal."""
    match spec, default:
        case GemmSpec(), GemmTile():
            return _near_gemm(spec, default, target)
        case HeadSpec(), GemmTile():
            return _near_head(default)
        case ConvSpec(), ConvTile():
            return _near_conv(spec, default, target)
        case AttentionSpec(), AttentionTile():
            return _near_attention(spec, default, target)
    raise AssertionError(f"{default} is no tile of {spec}")


def _near_gemm(spec: GemmSpec, default: GemmTile, target: Target) -> Iterator[GemmTile]:
    columns = -(-spec.columns // target.float_lanes)
    near = _register_tiles(spec.group_rows, columns, (default.mr, default.nr), target)
    yield from (replace(default, depth_unroll=unroll) for unroll in UNROLLS)
    yield from (replace(default, mr=mr, nr=nr) for mr, nr in near)


def _near_head(default: GemmTile) -> Iterator[GemmTile]:
    wider = (default.nr // 2, default.nr, default.nr * 3 // 2, default.nr * 2)
    for nr, unroll in itertools.product(wider, (default.depth_unroll, 2, 8)):
        yield replace(default, nr=nr, depth_unroll=unroll)


def _near_conv(spec: ConvSpec, default: ConvTile, target: Target) -> list[ConvTile]:
    widths = [w for w in range(4, spec.out_channels + 1, 4) if spec.out_channels % w == 0]
    shapes = [
        (Blocks.of(spec.out_size, pixels).size, vectors)
        for vectors in (vectors_of_width(width, target.float_lanes) for width in widths)
        for pixels in range(1, min(spec.out_size, target.vector_registers) + 1)
        if pixels * len(vectors) >= MIN_ACCUMULATORS
    ]
    now = (default.pixels, default.width)
    shapes.sort(key=lambda shape: _distance((shape[0], sum(shape[1])), now))
    cuts = [
        (default.bands, default.panels_apart),
        (min(2 * default.bands, spec.out_size), default.panels_apart),
        (-(-default.bands // 2), default.panels_apart),
        (default.bands, not default.panels_apart),
    ]
    own = [replace(default, bands=bands, panels_apart=apart) for bands, apart in cuts]
    return own + [replace(default, pixels=p, vectors=v) for p, v in shapes]


def _near_attention(
    spec: AttentionSpec, default: AttentionTile, target: Target
) -> Iterator[AttentionTile]:
    """One register tile changed at a time, in turns."""
    lanes = target.float_lanes
    rows = {Blocks.of(spec.query_side, n).size for n in (default.rows // 2 or 1, 2 * default.rows)}
    yield from (replace(default, rows=n) for n in sorted(rows))
    score = (default.score_rows, default.score_columns)
    value = (default.value_rows, default.value_columns)
    scores = _register_tiles(default.rows, -(-spec.keys // lanes), score, target)
    values = _register_tiles(default.rows, spec.value_dim // lanes, value, target)
    for one, other in itertools.zip_longest(scores, values):
        if one:
            yield replace(default, score_rows=one[0], score_columns=one[1])
        if other:
            yield replace(default, value_rows=other[0], value_columns=other[1])


def _register_tiles(
    rows: int, columns: int, near: tuple[int, int], target: Target
) -> list[tuple[int, int]]:
    """(rows, columns in values) of tiles with enough accumulators, each way to cut only once.

    `columns`: of the whole product, in vectors.
    """
    lanes = target.float_lanes
    tiles = {
        (Blocks.of(rows, mr).size, Blocks.of(columns, vectors).size * lanes)
        for mr in range(1, min(rows, target.vector_registers) + 1)
        for vectors in range(1, min(columns, MOST_VECTORS) + 1)
    }
    enough = [(mr, nr) for mr, nr in tiles if mr * nr >= MIN_ACCUMULATORS * lanes]
    return sorted(enough, key=lambda tile: (_distance(tile, near), tile))


def _distance(tile: tuple[int, int], other: tuple[int, int]) -> float:
    return sum(abs(math.log2(a / b)) for a, b in zip(tile, other, strict=True))
