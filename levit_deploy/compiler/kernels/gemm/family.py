"""The families of matrix products: of floats of 32 and 16 bits, and of 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.family import Family, float_only
from levit_deploy.compiler.kernels.fp16_chains import LANES
from levit_deploy.compiler.kernels.gemm import bf16, bfmmla, float32, fp16, int8, stored_half
from levit_deploy.compiler.kernels.gemm.spec import (
    GemmBf16Spec,
    GemmBfmmlaSpec,
    GemmFp16Spec,
    GemmInt8Spec,
    GemmSpec,
    GemmStoredHalfSpec,
    GemmTile,
    Layout,
)
from levit_deploy.compiler.kernels.isa.half_storage import PAIR
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.register_tiles import fits, most_accumulators, near_tiles
from levit_deploy.targets.target import Target

UNROLLS = (4, 8, 16)
UNROLLS_INT8 = (1, 2, 4)  # of steps that take several k
UNROLLS_BFMMLA = (2, 4, 8)  # times four k


def is_legal(tile: GemmTile, spec: object, target: Target) -> bool:
    """Whether a float product can be cut so."""
    return _is_whole(tile, target) and fits(tile.mr, tile.nr, target)


def _is_legal_bfmmla(tile: GemmTile, spec: GemmBfmmlaSpec, target: Target) -> bool:
    rows = -(-tile.mr // PAIR) * PAIR
    return _is_whole(tile, target) and fits(rows, tile.nr, target)


def _is_legal_int8(tile: GemmTile, spec: GemmInt8Spec, target: Target) -> bool:
    family = isa_of(target).products.tile_for(tile.shared)
    rows = -(-tile.mr // family.row_alignment) * family.row_alignment
    unit = family.vector_alignment * target.float_lanes
    columns = -(-tile.nr // unit) * unit
    whole = _is_whole(tile, target) and tile.nr % tile.lanes == 0
    return whole and fits(rows, columns, target, family.sums_per_vector)


def _is_whole(tile: GemmTile, target: Target) -> bool:
    shares = not tile.shared or tile == tile.for_sharing()
    return shares and tile.lanes == target.float_lanes and tile.depth_unroll >= 1


def _near(spec: GemmSpec, default: GemmTile, target: Target) -> Iterator[GemmTile]:
    yield from (replace(default, depth_unroll=unroll) for unroll in UNROLLS)
    near = near_tiles(spec.group_rows, spec.columns, (default.mr, default.nr), target)
    yield from (replace(default, mr=mr, nr=nr) for mr, nr in near)


def _near_bfmmla(spec: GemmBfmmlaSpec, default: GemmTile, target: Target) -> Iterator[GemmTile]:
    yield from (replace(default, depth_unroll=unroll) for unroll in UNROLLS_BFMMLA)
    near = near_tiles(spec.group_rows, spec.columns, (default.mr, default.nr), target)
    yield from (replace(default, mr=mr, nr=nr) for mr, nr in near if mr % PAIR == 0)


def _near_int8(spec: GemmInt8Spec, default: GemmTile, target: Target) -> Iterator[GemmTile]:
    sums = isa_of(target).products.tile.sums_per_vector
    yield from (replace(default, depth_unroll=unroll) for unroll in UNROLLS_INT8)
    near = near_tiles(spec.group_rows, spec.columns, (default.mr, default.nr), target, sums)
    yield from (replace(default, mr=mr, nr=nr) for mr, nr in near)


def _is_legal_fp16(tile: GemmTile, spec: GemmFp16Spec, target: Target) -> bool:
    shares = not tile.shared or tile == tile.for_sharing()
    vectors, rest = divmod(tile.nr, LANES)
    fitting = 1 <= tile.mr <= fp16.ROWS and tile.mr * vectors <= most_accumulators(target)
    own = tile.lanes == LANES and tile.depth_unroll == fp16.UNROLL
    return shares and own and not rest and fitting


def _near_fp16(spec: GemmFp16Spec, default: GemmTile, target: Target) -> Iterator[GemmTile]:
    yield default
    for mr, vectors in ((4, 4), (4, 6), (5, 4), (6, 4), (7, 4), (8, 2), (8, 3)):
        yield replace(default, mr=Blocks.of(spec.group_rows, mr).size, nr=vectors * LANES)


def _symbol(spec: GemmSpec, tile: GemmTile) -> str:
    """Such as gemm_r196_n256_k128_hardswish_panels_6x16_u4."""
    words = ["gemm_int8" if isinstance(spec, GemmInt8Spec) else "gemm"]
    words += ["fp16"] * isinstance(spec, GemmFp16Spec)
    words += ["bfmmla"] * isinstance(spec, GemmBfmmlaSpec)
    words += ["bf16"] * (type(spec) is GemmBf16Spec)
    if isinstance(spec, GemmStoredHalfSpec):
        words += ["stored", spec.format.value]
    words += [f"r{spec.rows}", f"n{spec.columns}", f"k{spec.depth}"]
    words += [spec.activation.value] * (spec.activation is not Activation.NONE)
    words += ["residual"] * spec.residual
    words += [spec.layout.value] * (spec.layout is not Layout.ROWS)
    words += [f"gather{spec.gather_side}"] * bool(spec.gather_side)
    return "_".join([*words, str(tile).replace(" ", "_"), f"u{tile.depth_unroll}"])


GEMM = Family(
    name="gemm",
    spec=GemmSpec,
    tile=GemmTile,
    default_tile=float32.default_tile,
    is_legal=is_legal,
    neighbours=_near,
    generate=float_only(float32.gemm_kernel),
    symbol=_symbol,
    shared_tile=partial(float32.default_tile, shared=True),
)
GEMM_STORED_HALF = Family(
    name="gemm stored half",
    spec=GemmStoredHalfSpec,
    tile=GemmTile,
    default_tile=float32.default_tile,
    is_legal=is_legal,
    neighbours=_near,
    generate=float_only(stored_half.stored_half_kernel),
    symbol=_symbol,
    shared_tile=partial(float32.default_tile, shared=True),
)
GEMM_FP16 = Family(
    name="gemm fp16",
    spec=GemmFp16Spec,
    tile=GemmTile,
    default_tile=fp16.default_tile,
    is_legal=_is_legal_fp16,
    neighbours=_near_fp16,
    generate=fp16.fp16_kernel,
    symbol=_symbol,
    shared_tile=partial(fp16.default_tile, shared=True),
)
GEMM_BF16 = Family(
    name="gemm bf16",
    spec=GemmBf16Spec,
    tile=GemmTile,
    default_tile=bf16.default_tile,
    is_legal=is_legal,
    neighbours=_near,
    generate=bf16.bf16_kernel,
    symbol=_symbol,
    shared_tile=partial(bf16.default_tile, shared=True),
)
GEMM_BFMMLA = Family(
    name="gemm bfmmla",
    spec=GemmBfmmlaSpec,
    tile=GemmTile,
    default_tile=bfmmla.default_tile,
    is_legal=_is_legal_bfmmla,
    neighbours=_near_bfmmla,
    generate=bfmmla.bfmmla_kernel,
    symbol=_symbol,
    shared_tile=partial(bfmmla.default_tile, shared=True),
)
GEMM_INT8 = Family(
    name="gemm int8",
    spec=GemmInt8Spec,
    tile=GemmTile,
    default_tile=int8.default_tile,
    is_legal=_is_legal_int8,
    neighbours=_near_int8,
    generate=int8.gemm_int8_kernel,
    symbol=_symbol,
    shared_tile=partial(int8.default_tile, shared=True),
)
