"""Attention whose two products are of bfloat16: AVX512_BF16.

    queries, keys, values in panels of 16 columns, mirrored bias  ->  (tokens, heads * value_dim)

As in `float32`, but for the operands: queries, keys and values are bfloat16, and weights, once
they have been summed up, are rounded to it (`vcvtneps2bf16`). Both products are chains of
`vdpbf16ps`, over pairs of d from the bias on, and over pairs of keys from 0 on; a last key without
another one is paired with zeros. A head's keys and values are brought into order once for all its
tasks in a range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.base import Columns
from levit_deploy.compiler.kernels.attention.float32 import FloatAttention
from levit_deploy.compiler.kernels.attention.score_rows import ScoreRows
from levit_deploy.compiler.kernels.attention.spec import PANEL, AttentionBf16Spec, AttentionTile
from levit_deploy.compiler.kernels.isa.bf16_instructions import vcvtneps2bf16, vdpbf16ps
from levit_deploy.compiler.kernels.isa.lanes import interleaved, shuffle
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.product import Arithmetic
from levit_deploy.targets.target import Target


def is_supported(spec: AttentionBf16Spec) -> bool:
    """Whether `attention_bf16_kernel` can make it; that of every LeViT is."""
    return spec.key_dim % PANEL == 0 and spec.value_dim % PANEL == 0


def attention_bf16_kernel(
    symbol: str,
    spec: AttentionBf16Spec,
    tile: AttentionTile,
    target: Target,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: as `attention_kernel`."""
    return _Bf16Attention(symbol, spec, tile, target, stored).kernel()


class _Bf16Attention(FloatAttention):
    kind = "attention bf16"
    input_type = "uint16"
    step: ClassVar = 2

    def reserve_weights(self) -> None:
        self.weight_stride = self.padded_keys // 2
        self.weights_at = self.reserve(self.tile.rows * self.weight_stride)

    def start_head(self, head: Expr) -> None:
        def quads_of(keys: list[Expr]) -> Callable[[int], list[Expr]]:
            def quads(word: int) -> list[Expr]:
                places = [self.k.at(head, 2 * word, key) for key in keys]
                loaded = [self.k.buffer.vload([at], "uint16x8") for at in places]
                return [T.reinterpret("float32x4", quad) for quad in loaded]

            return quads

        self.transpose_keys(self.spec.key_dim // 2, quads_of)
        source, pairs = self.v, self.key_steps
        self.v = Columns(self.scratch, pairs, 0, 0, self.values_at)
        with T.serial(self.spec.keys // 2) as pair:
            self.pair_values(head, source, pair, 2)
        if self.spec.keys % 2:
            self.pair_values(head, source, T.int32(pairs - 1), 1)

    def pair_values(self, head: Expr, source: Columns, pair: Expr, count: int) -> None:
        """The values of two keys, column by column side by side; or of one and zeros."""
        lanes = self.simd.lanes
        for column in range(0, self.spec.value_dim, lanes):
            rows = [
                T.bind(source.buffer.vload([source.at(head, column, 2 * pair + i)], "uint16x16"))
                for i in range(count)
            ]
            rows += [T.broadcast(T.cast(0, "uint16"), lanes)] * (2 - count)
            mixed = shuffle(rows, interleaved(lanes))
            words = T.reinterpret(self.simd.type(), mixed)
            self.simd.store(self.scratch, self.v.at(0, column, pair), words)

    def keep_weights(self, rows: ScoreRows, row: int, column: Expr | int, value: Expr) -> None:
        words = T.reinterpret("float32x8", vcvtneps2bf16(value))
        start = (rows.starts[row] - self.scores_at) // 2 + self.weights_at
        T.buffer_store(self.scratch, words, [T.ramp(start + column // 2, 1, 8)])

    def arithmetic(self) -> Arithmetic:
        lanes = self.simd.lanes

        def splats(buffer: tirx.Buffer, at: Expr | int, count: int) -> list[Expr]:
            return [T.broadcast(_word(buffer, at + i), lanes) for i in range(count)]

        def multiply_add(value: Expr, vector: Expr, total: Expr) -> Expr:
            return vdpbf16ps(total, T.reinterpret(f"int32x{lanes}", vector), value)

        return Arithmetic(splats, multiply_add)


def _word(buffer: tirx.Buffer, at: Expr) -> Expr:
    """Word `at` of queries or of the scratch: two neighbouring values."""
    if buffer.dtype == "uint16":
        return T.reinterpret("int32", buffer.vload([2 * at], "uint16x2"))
    return T.reinterpret("int32", buffer[at])
