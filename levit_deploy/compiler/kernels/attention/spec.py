"""What an attention layer is, how its work is cut, and what the kernel expects of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.attention.position_bias import PositionBias
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.family import CutBy
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.product import steps_together
from levit_deploy.targets.target import Target

PANEL = 16  # columns in a panel of the inputs
QUAD = 4  # columns that the kernel takes together; a head's parts are multiples of it


@dataclass(frozen=True)
class AttentionTile:
    """How the work of a task is cut.

    `rows`: queries whose scores are in cache together. The products' register tiles are at most
    `score_rows` x `score_columns` scores and `value_rows` x `value_columns` outputs; columns are
    float32 values, multiples of the vector width.
    """

    rows: int
    score_rows: int
    score_columns: int
    value_rows: int
    value_columns: int

    def __str__(self) -> str:
        score = f"{self.score_rows}x{self.score_columns}"
        return f"{self.rows} rows, {score}, {self.value_rows}x{self.value_columns}"


@dataclass(frozen=True)
class AttentionSpec(CutBy[AttentionTile]):
    """Attention of `heads` heads over a square grid of key tokens.

    Queries are a `query_side` square grid that lies on the `key_side` square grid with step
    `stride` (1: plain, 2: shrinking). Inputs come in PANELS layout (see gemm.Layout).
    `fused_qkv`: queries, keys and values are columns of one matrix, a head at a time
    [q key_dim | k key_dim | v value_dim]; otherwise two matrices: queries [heads * key_dim], and
    [k key_dim | v value_dim] a head at a time. The q scale is already in the weights.
    Output: (query_side ** 2, heads * value_dim) row-major, after the activation.
    """

    heads: int
    key_dim: int
    value_dim: int
    query_side: int
    key_side: int
    stride: int
    fused_qkv: bool
    activation: Activation = Activation.HARDSWISH

    @property
    def queries(self) -> int:
        return self.query_side**2

    @property
    def keys(self) -> int:
        return self.key_side**2

    @property
    def position_bias(self) -> PositionBias:
        return PositionBias(self.query_side, self.key_side, self.stride)


class AttentionHalfSpec(AttentionSpec):
    """Attention of float16 queries, keys and values, multiplied as they are; else as
    `AttentionSpec`."""


class AttentionInt8Spec(AttentionSpec):
    """Attention whose two products are of 8-bit integers; else as `AttentionSpec`."""


class AttentionBf16Spec(AttentionSpec):
    """Attention whose queries, keys and values are bfloat16, multiplied as they are."""


class AttentionBfmmlaSpec(AttentionBf16Spec):
    """The same, multiplied by bfmmla, whose sums are other ones."""


def is_supported(spec: AttentionSpec) -> bool:
    """Whether `attention_kernel` can make it; every LeViT's attention is."""
    return spec.key_dim % QUAD == 0 and spec.value_dim % PANEL == 0


def default_tile(spec: AttentionSpec, target: Target) -> AttentionTile:
    """As many rows as leave the scores half of L1; register tiles that fill the registers."""
    cached_rows = max(target.l1d_bytes // 2 // (4 * spec.keys), 1)
    rows = Blocks.of(spec.query_side, cached_rows).size
    score_tile = _register_tile(rows, spec.keys, isa_of(target))
    value_tile = _register_tile(rows, spec.value_dim, isa_of(target))
    return AttentionTile(rows, *score_tile, *value_tile)


def pack_bias(table: NDArray[np.float32], spec: AttentionSpec) -> NDArray[np.float32] | None:
    """The kernel's flat constant from `table` (heads, queries, keys).

    None if `table` is not of the form that the kernel needs: a function of |dy| and |dx| alone.
    """
    return spec.position_bias.pack(table)


def _register_tile(rows: int, columns: int, isa: Isa) -> tuple[int, int]:
    """(rows, columns) of a product's register tile: m rows and v vectors of columns.

    They need m * v sums, and registers for the factors of a step. By lane: a pair of vectors at a
    time, and of each row the values of some steps; v = 4, which makes these loads few, and m = 5 of
    32 registers; of 16 registers v = 2, m = 4. Broadcast: v vectors and 1 value; without FMA 1
    product. v = 4 where the sums of all rows then fit, else 3 where the columns divide so, else 2:
    at least 8 sums, which the latency of 4 cycles at two multiply-adds a cycle asks for, also in a
    block of 4 rows. m = 4 of 16 registers (6 with v = 2). At most 8 rows: more save few loads, and
    make LLVM spill.
    """
    vectors = -(-columns // isa.lanes)
    if isa.multiplies_by_lane:
        v = min(vectors, 4 if isa.registers == 32 else 2)
        m = (isa.registers - 2) // (v + steps_together(isa) // isa.lanes)
    else:
        spare = isa.registers - (1 if isa.fma else 2)
        v = Blocks.of(vectors, 4 if 4 * (rows + 1) <= spare else 3).size
        m = (spare - v) // v
    return min(m, rows, 8), v * isa.lanes
