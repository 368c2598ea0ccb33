"""The families of attention: in float32, float16, bfloat16 and 8 bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from levit_deploy.compiler.kernels.attention import bf16, bfmmla, float32, fp16, int8, spec
from levit_deploy.compiler.kernels.attention.spec import (
    AttentionBf16Spec,
    AttentionBfmmlaSpec,
    AttentionFp16Spec,
    AttentionInt8Spec,
    AttentionSpec,
    AttentionTile,
)
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.family import Family
from levit_deploy.compiler.kernels.fp16_chains import LANES
from levit_deploy.compiler.kernels.isa.half_storage import PAIR
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.register_tiles import fits, most_accumulators, near_tiles
from levit_deploy.targets.target import Target


def _is_legal(tile: AttentionTile, spec: AttentionSpec, target: Target) -> bool:
    return (
        1 <= tile.rows <= spec.query_side
        and fits(tile.score_rows, tile.score_columns, target)
        and fits(tile.value_rows, tile.value_columns, target)
    )


def _near(spec: AttentionSpec, default: AttentionTile, target: Target) -> Iterator[AttentionTile]:
    """One register tile changed at a time, in turns."""
    rows = {Blocks.of(spec.query_side, n).size for n in (default.rows // 2 or 1, 2 * default.rows)}
    yield from (replace(default, rows=n) for n in sorted(rows))
    score = (default.score_rows, default.score_columns)
    value = (default.value_rows, default.value_columns)
    scores = near_tiles(default.rows, spec.keys, score, target)
    values = near_tiles(default.rows, spec.value_dim, value, target)
    for one, other in itertools.zip_longest(scores, values):
        if one:
            yield replace(default, score_rows=one[0], score_columns=one[1])
        if other:
            yield replace(default, value_rows=other[0], value_columns=other[1])


def _is_legal_fp16(tile: AttentionTile, spec: AttentionFp16Spec, target: Target) -> bool:
    shapes = ((tile.score_rows, tile.score_columns), (tile.value_rows, tile.value_columns))
    return 1 <= tile.rows <= spec.query_side and all(
        rows >= 1
        and columns % LANES == 0
        and 0 < rows * columns // LANES <= most_accumulators(target)
        for rows, columns in shapes
    )


def _near_fp16(
    spec: AttentionFp16Spec, default: AttentionTile, target: Target
) -> Iterator[AttentionTile]:
    yield from (replace(default, rows=n) for n in (default.rows // 2 or 1, 1) if n != default.rows)
    for rows, vectors in ((7, 2), (5, 4), (4, 4), (6, 3)):
        yield replace(default, score_rows=rows, score_columns=vectors * LANES)
        yield replace(default, value_rows=rows, value_columns=vectors * LANES)


def _is_legal_bfmmla(tile: AttentionTile, spec: AttentionBfmmlaSpec, target: Target) -> bool:
    shapes = ((tile.score_rows, tile.score_columns), (tile.value_rows, tile.value_columns))
    together = PAIR
    return 1 <= tile.rows <= spec.query_side and all(
        fits(-(-rows // together) * together, columns, target) for rows, columns in shapes
    )


def _near_bfmmla(
    spec: AttentionBfmmlaSpec, default: AttentionTile, target: Target
) -> Iterator[AttentionTile]:
    yield from (replace(default, rows=n) for n in (default.rows // 2 or 1, 1) if n != default.rows)
    for rows, columns in ((8, 8), (8, 12), (4, 16), (6, 16)):
        yield replace(default, score_rows=rows, score_columns=columns)
        yield replace(default, value_rows=rows, value_columns=columns)


def _symbol(spec: AttentionSpec, tile: AttentionTile) -> str:
    """Such as attention_h4_q196_k196_d16_v32_b14_4x32_4x32."""
    words = ["attention" if spec.fused_qkv else "shrinking"]
    words += ["fp16"] * isinstance(spec, AttentionFp16Spec)
    words += ["int8"] * isinstance(spec, AttentionInt8Spec)
    words += ["bfmmla"] * isinstance(spec, AttentionBfmmlaSpec)
    words += ["bf16"] * (type(spec) is AttentionBf16Spec)
    words += [f"h{spec.heads}", f"q{spec.queries}", f"k{spec.keys}"]
    words += [f"d{spec.key_dim}", f"v{spec.value_dim}"]
    words += [spec.activation.value] * (spec.activation is not Activation.HARDSWISH)
    words += [f"b{tile.rows}", f"{tile.score_rows}x{tile.score_columns}"]
    return "_".join([*words, f"{tile.value_rows}x{tile.value_columns}"])


ATTENTION = Family(
    name="attention",
    spec=AttentionSpec,
    tile=AttentionTile,
    default_tile=spec.default_tile,
    is_legal=_is_legal,
    neighbours=_near,
    generate=float32.attention_kernel,
    symbol=_symbol,
)
ATTENTION_BF16 = Family(
    name="attention bf16",
    spec=AttentionBf16Spec,
    tile=AttentionTile,
    default_tile=spec.default_tile,
    is_legal=_is_legal,
    neighbours=_near,
    generate=bf16.attention_bf16_kernel,
    symbol=_symbol,
)
ATTENTION_BFMMLA = Family(
    name="attention bfmmla",
    spec=AttentionBfmmlaSpec,
    tile=AttentionTile,
    default_tile=bfmmla.default_tile,
    is_legal=_is_legal_bfmmla,
    neighbours=_near_bfmmla,
    generate=bfmmla.attention_bfmmla_kernel,
    symbol=_symbol,
)
ATTENTION_FP16 = Family(
    name="attention fp16",
    spec=AttentionFp16Spec,
    tile=AttentionTile,
    default_tile=fp16.default_tile,
    is_legal=_is_legal_fp16,
    neighbours=_near_fp16,
    generate=fp16.attention_fp16_kernel,
    symbol=_symbol,
)
ATTENTION_INT8 = Family(
    name="attention int8",
    spec=AttentionInt8Spec,
    tile=AttentionTile,
    default_tile=int8.default_tile,
    is_legal=_is_legal,
    neighbours=_near,
    generate=int8.attention_int8_kernel,
    symbol=_symbol,
)
