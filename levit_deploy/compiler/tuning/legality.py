"""Which tiles a kernel family can generate for a target.

Legal is what computes the right result and keeps its accumulators in registers; whether it is fast
is for measurements to say.
"""

from __future__ import annotations

from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmTile
from levit_deploy.compiler.kernels.head import HeadSpec
from levit_deploy.targets.target import Target

Spec = GemmSpec | HeadSpec | ConvSpec | AttentionSpec
Tile = GemmTile | ConvTile | AttentionTile


def is_legal(tile: Tile, spec: Spec, target: Target) -> bool:
    """Whether `tile` is one of the family of `spec` and possible on `target`."""
    match tile, spec:
        case GemmTile(), GemmSpec():
            return _legal_gemm(tile, target)
        case GemmTile(), HeadSpec():
            return tile.mr == 1 and _legal_gemm(tile, target)
        case ConvTile(), ConvSpec():
            return _legal_conv(tile, spec, target)
        case AttentionTile(), AttentionSpec():
            return _legal_attention(tile, spec, target)
    return False


def _legal_gemm(tile: GemmTile, target: Target) -> bool:
    return (
        tile.lanes == target.float_lanes
        and tile.depth_unroll >= 1
        and _fits(tile.mr, tile.nr, target)
    )


def _legal_attention(tile: AttentionTile, spec: AttentionSpec, target: Target) -> bool:
    return (
        1 <= tile.rows <= spec.query_side
        and _fits(tile.score_rows, tile.score_columns, target)
        and _fits(tile.value_rows, tile.value_columns, target)
    )


def _fits(rows: int, columns: int, target: Target) -> bool:
    """Whether rows x columns accumulators leave a register for each of the two factors."""
    vectors, rest = divmod(columns, target.float_lanes)
    return rows >= 1 and vectors >= 1 and not rest and rows * vectors <= _accumulators(target)


def _legal_conv(tile: ConvTile, spec: ConvSpec, target: Target) -> bool:
    lanes = {1 << bit for bit in range(2, target.float_lanes.bit_length())}
    return (
        lanes.issuperset(tile.vectors)
        and len(tile.vectors) > 0
        and spec.out_channels % tile.width == 0
        and tile.pixels >= 1
        and tile.pixels * len(tile.vectors) <= _accumulators(target)
        and 1 <= tile.bands <= spec.out_size
    )


def _accumulators(target: Target) -> int:
    return target.vector_registers - 2
