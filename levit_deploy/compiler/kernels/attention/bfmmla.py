"""Attention whose two products are of bfloat16 by bfmmla: FEAT_BF16 of ARMv8.6.

    bfloat16 queries, keys, values in panels of 16 columns, mirrored bias
                                                        ->  (tokens, heads * value_dim)

    score[row, key]  = bias + the sum of query[row, d] * key[d]
    e[row, key]      = exp(score - maximum of the row)        float32, see softmax, exponential
    out[row]         = hardswish((the sum of bfloat16(e) * value) * (1 / sum of e))

Sums start from 0, to which `bfmmla` adds four d, or four keys, after the other; all else is
float32. So the result depends neither on the tile nor on the CPU. Queries, keys and values are
brought into pairs of rows and pairs of columns, four d or keys of each: queries for every block of
them, a head's keys and values once for all its tasks in a range. Of an odd number of rows the last
one has a partner that is computed, and not stored.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention import spec as attention_spec
from levit_deploy.compiler.kernels.attention.base import AttentionKernel, Columns, QueryTile
from levit_deploy.compiler.kernels.attention.score_rows import ScoreRows
from levit_deploy.compiler.kernels.attention.softmax import softmax_rows
from levit_deploy.compiler.kernels.attention.spec import AttentionBfmmlaSpec, AttentionTile
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.exponential import ShortExpConstants
from levit_deploy.compiler.kernels.isa.bf16_instructions import bfcvtn, bfmmla
from levit_deploy.compiler.kernels.isa.half_storage import PAIR, QUAD, REGISTER
from levit_deploy.compiler.kernels.isa.lanes import (
    interleaved,
    lower_and_upper,
    row_of_two,
    shuffle,
)
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.product import Accumulators, accumulators, add_matrices
from levit_deploy.targets.target import Target

_TOGETHER = 2  # times four keys in a turn of the loop


def default_tile(spec: AttentionBfmmlaSpec, target: Target) -> AttentionTile:
    """The rows of the float kernel; 16 sums of 2x2 scores, which LLVM does not spill when it
    unrolls their product, and 24 of outputs, with 4 times two rows and 2 columns."""
    rows = attention_spec.default_tile(spec, target).rows
    mr = PAIR * Blocks.of(-(-rows // PAIR), 4).size
    return AttentionTile(rows, mr, 8, mr, min(12, spec.value_dim))


def attention_bfmmla_kernel(
    symbol: str,
    spec: AttentionBfmmlaSpec,
    tile: AttentionTile,
    target: Target,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: as `attention_kernel`, but queries, keys and values are bfloat16."""
    return _BfmmlaAttention(symbol, spec, tile, target, stored).kernel()


class _BfmmlaAttention(AttentionKernel):
    kind = "attention bfmmla"
    constants = ShortExpConstants()
    input_type = "uint16"
    row_alignment: ClassVar = PAIR

    @property
    def pairs(self) -> int:
        """Of rows in a block of queries."""
        return -(-self.tile.rows // PAIR)

    def reserve_operands(self) -> None:
        self.key_quads = self.padded_keys // QUAD
        self.keys_at = self.reserve_halves(self.padded_keys * self.spec.key_dim)
        self.values_at = self.reserve_halves(self.padded_keys * self.spec.value_dim)
        self.queries_at = self.reserve_halves(PAIR * self.pairs * self.spec.key_dim)

    def reserve_weights(self) -> None:
        self.weights_at = self.reserve_halves(PAIR * self.pairs * self.padded_keys)
        self.reserve(self.tile.rows % PAIR * self.padded_keys)  # scores of a partner

    def start_head(self, head: Expr) -> None:
        size = 2 * self.scratch_size
        self.halves = T.decl_buffer((size,), self.input_type, data=self.scratch.data)
        self.key_panels.each(partial(self.pack_keys, head))
        self.value_blocks.each(partial(self.pack_values, head))

    def pack_keys(self, head: Expr, start: Expr | int, vectors: int) -> None:
        """A panel of `scores`, [key_dim / 4][pairs of keys][2][4]. Past the last key it is
        repeated."""
        last, lanes = self.spec.keys - 1, self.simd.lanes
        at = T.bind(self.keys_at + start * (lanes * self.spec.key_dim))
        for pair in range(PAIR * vectors):
            keys = [T.min(start * lanes + PAIR * pair + i, last) for i in range(PAIR)]
            self.pack_rows(self.k, head, keys, at + pair * REGISTER, PAIR * vectors)

    def start_block(self, head: Expr, x: Expr, y: Expr) -> None:
        """Queries: [pairs of rows][key_dim / 4][2][4]."""
        spec = self.spec
        with T.serial(self.pairs) as pair:
            rows = [PAIR * pair, T.min(PAIR * pair + 1, self.tile.rows - 1)]
            tokens = [(y + row) * spec.query_side + x for row in rows]
            at = T.bind(self.queries_at + pair * (PAIR * spec.key_dim))
            self.pack_rows(self.q, head, tokens, at, 1)

    def pack_rows(
        self, source: Columns, head: Expr, rows: list[Expr], at: Expr, apart: int
    ) -> None:
        """Two rows of `key_dim`: registers of four d of each, `apart` registers from each other."""
        for d in range(0, self.spec.key_dim, REGISTER):
            places = [source.at(head, d, row) for row in rows]
            kind = f"{self.input_type}x{REGISTER}"
            loaded = [T.bind(source.buffer.vload([place], kind)) for place in places]
            for i, pair in enumerate(lower_and_upper(*loaded)):
                self.keep(at + (d // QUAD + i) * (apart * REGISTER), pair)

    def pack_values(self, head: Expr, start: Expr | int, vectors: int) -> None:
        """A panel of `values`, [keys / 4][pairs of columns][2][4]; zeros past the last key."""
        spec, columns = self.spec, self.simd.lanes
        at = T.bind(self.values_at + start * (columns * self.padded_keys))

        def pack(quad: Expr | int, count: int) -> None:
            for v in range(vectors):
                column = (start + v) * columns
                rows = [
                    T.bind(self.v.buffer.vload([place], f"{self.input_type}x{columns}"))
                    for place in (self.v.at(head, column, QUAD * quad + i) for i in range(count))
                ]
                rows += [T.broadcast(T.cast(0, self.input_type), columns)] * (QUAD - count)
                mixed = [shuffle(rows[i : i + 2], interleaved(columns)) for i in (0, 2)]
                words = [T.bind(T.reinterpret("int32x4", pair)) for pair in mixed]
                order = interleaved(columns)
                for i in range(PAIR):
                    place = at + ((quad * vectors + v) * PAIR + i) * REGISTER
                    self.keep(place, shuffle(words, order[4 * i : 4 * i + 4]))

        with T.serial(spec.keys // QUAD) as quad:
            pack(quad, QUAD)
        if spec.keys % QUAD:
            pack(spec.keys // QUAD, spec.keys % QUAD)

    def keep(self, at: Expr, register: Expr) -> None:
        """Store a register of bfloat16."""
        value = T.reinterpret(f"{self.input_type}x{REGISTER}", register)
        T.buffer_store(self.halves, value, [T.ramp(at, 1, REGISTER)])

    def operand(self, at: Expr | int) -> Expr:
        return T.bind(self.halves.vload([at], f"{self.input_type}x{REGISTER}"))

    def zeros(self, tile: QueryTile) -> Accumulators:
        """By pair of rows and pair of columns."""
        acc = accumulators(self.simd, tile.mr // PAIR, PAIR * tile.vectors)
        for row in acc:
            for register in row:
                self.simd.store(register, 0, self.simd.splat(0.0))
        return acc

    def multiply(self, acc: Accumulators, rows: list[Expr], columns: Expr) -> None:
        """Add four products of each: of the operands at `rows` and from `columns` on."""

        def factors(some: range) -> list[Expr]:
            return [self.operand(columns + j * REGISTER) for j in some]

        add_matrices(self.simd, acc, [self.operand(row) for row in rows], factors, bfmmla)

    def row(self, acc: Accumulators, i: int, v: int) -> Expr:
        """Four columns of a row of sums."""
        pair = [self.simd.load(register, 0) for register in acc[i // PAIR][PAIR * v :][:PAIR]]
        return T.bind(row_of_two(pair, i % PAIR))

    def scores(self, tile: QueryTile) -> None:
        spec, simd, lanes = self.spec, self.simd, self.simd.lanes
        acc, size = self.zeros(tile), PAIR * spec.key_dim
        first = T.bind(self.queries_at + tile.row * spec.key_dim)
        panel = T.bind(self.keys_at + tile.vector * (lanes * spec.key_dim))
        for quad in range(spec.key_dim // QUAD):
            rows = [first + i * size + quad * REGISTER for i in range(tile.mr // PAIR)]
            self.multiply(acc, rows, panel + quad * (PAIR * tile.vectors * REGISTER))
        for i in range(tile.mr):
            y = tile.y + tile.row + i
            if self.may_lack(tile, i):
                y = T.min(y, spec.query_side - 1)
            bias = T.bind(self.bias_at + self.bias.row(y) + tile.vector * lanes)
            at = T.bind(self.scores_at + (tile.row + i) * self.padded_keys + tile.vector * lanes)
            for v in range(tile.vectors):
                score = self.row(acc, i, v) + simd.load(self.scratch, bias + v * lanes)
                simd.store(self.scratch, at + v * lanes, score)

    def weights(self) -> None:
        constants = ShortExpConstants(*self.loaded_constants())

        def keep(start: Expr, row: int, column: Expr | int, value: Expr) -> None:
            at = start + column * PAIR
            T.buffer_store(self.halves, bfcvtn(value), [T.ramp(at, 1, QUAD)])

        with T.serial(self.tile.rows) as row:
            pair = row // PAIR * (PAIR * self.padded_keys)
            start = T.bind(self.weights_at + pair + row % PAIR * QUAD)
            rows: ScoreRows = self.score_rows(row, 1)
            [inverse] = softmax_rows(rows, constants, partial(keep, start))
            T.buffer_store(self.scratch, inverse, [self.inverse_at + row])

    def values(self, tile: QueryTile) -> None:
        acc, size = self.zeros(tile), PAIR * self.padded_keys
        first = T.bind(self.weights_at + tile.row * self.padded_keys)
        panel = T.bind(self.values_at + tile.vector * (self.simd.lanes * self.padded_keys))

        def step(quad: Expr | int) -> None:
            rows = [first + i * size + quad * REGISTER for i in range(tile.mr // PAIR)]
            self.multiply(acc, rows, panel + quad * (PAIR * tile.vectors * REGISTER))

        turns = self.key_quads // _TOGETHER
        if turns:
            with T.serial(turns) as turn:
                for i in range(_TOGETHER):
                    step(turn * _TOGETHER + i)
        for quad in range(turns * _TOGETHER, self.key_quads):
            step(quad)
        for i in range(tile.mr):
            if not self.may_lack(tile, i):
                self.finish_row(tile, acc, i)
                continue
            with T.If(tile.row + i < self.tile.rows), T.Then():
                self.finish_row(tile, acc, i)

    def may_lack(self, tile: QueryTile, i: int) -> bool:
        """Whether row `i` of a tile may be one that there is not."""
        return i == tile.mr - 1 and self.tile.rows % PAIR != 0

    def finish_row(self, tile: QueryTile, acc: Accumulators, i: int) -> None:
        inverse = T.bind(self.simd.splat(self.scratch[self.inverse_at + tile.row + i]))
        z = [T.bind(self.row(acc, i, v) * inverse) for v in range(tile.vectors)]
        self.store_output(tile, i, z)
