"""Attention whose two products are of float16: FEAT_FP16 of ARMv8.2.

    float16 queries, keys, values in panels of 16 columns, mirrored bias
                                                        ->  (tokens, heads * value_dim)

    score[row, key]  = bias + the float16 chain of query[row, d] * key[d]
    e[row, key]      = exp(score - maximum of the row)        float32, see softmax, exponential
    out[row]         = hardswish((float16 chains of float16(e) * value) * (1 / sum of e))

Chains, and how they are added up, are those of half_chains; all else is float32. So the result
depends neither on the tile nor on the CPU.
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention import spec as attention_spec
from levit_deploy.compiler.kernels.attention.base import AttentionKernel, QueryTile
from levit_deploy.compiler.kernels.attention.softmax import softmax_rows
from levit_deploy.compiler.kernels.attention.spec import AttentionHalfSpec, AttentionTile
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.exponential import ShortExpConstants
from levit_deploy.compiler.kernels.half_chains import LANES, HalfChains, chain_memory
from levit_deploy.compiler.kernels.isa.lanes import concat, transpose_square
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.half_format import HALF_CHAIN
from levit_deploy.targets.target import Target


def is_supported(spec: AttentionHalfSpec) -> bool:
    """Whether `attention_half_kernel` can make it: heads whose parts are whole registers."""
    whole = spec.key_dim % LANES == spec.value_dim % attention_spec.PANEL == 0
    return whole and spec.key_dim <= HALF_CHAIN


def default_tile(spec: AttentionHalfSpec, target: Target) -> AttentionTile:
    """The rows of the float kernel; register tiles of 14 or 16 accumulators, which divide 7, 14 and
    4 rows: few enough for every CPU's schedule of two vectors and a value of each row."""
    rows = attention_spec.default_tile(spec, target).rows
    mr = Blocks.of(rows, 7).size
    columns = (2 if mr > 4 else 4) * LANES
    return AttentionTile(rows, mr, columns, mr, min(columns, spec.value_dim))


def attention_half_kernel(
    symbol: str,
    spec: AttentionHalfSpec,
    tile: AttentionTile,
    target: Target,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: as `attention_kernel`, but queries, keys and values are float16."""
    return _HalfAttention(symbol, spec, tile, target, stored).kernel()


class _HalfAttention(AttentionKernel):
    kind = "attention half"
    constants = ShortExpConstants()
    input_type = "float16"
    lanes = LANES

    def reserve_operands(self) -> None:
        self.keys_at = self.reserve_halves(self.spec.key_dim * self.padded_keys)

    def reserve_weights(self) -> None:
        tile, spec = self.tile, self.spec
        rows = Blocks.of(tile.rows, tile.value_rows).size
        self.weights_at = self.reserve_halves(tile.rows * self.padded_keys)
        self.chains_at = self.reserve_halves(chain_memory(rows, self.value_blocks.size, spec.keys))

    def start_head(self, head: Expr) -> None:
        """Keys as the weights of a product: panel after panel, each [key_dim][keys]. The last
        vector is filled up with the last key."""
        spec = self.spec
        self.halves = T.decl_buffer((2 * self.scratch_size,), "float16", data=self.scratch.data)

        def panel(start: Expr | int, vectors: int) -> None:
            at = T.bind(self.keys_at + start * (LANES * spec.key_dim))
            for v in range(vectors):
                keys = [T.min((start + v) * LANES + i, spec.keys - 1) for i in range(LANES)]
                for d in range(0, spec.key_dim, LANES):
                    rows = [
                        T.bind(self.simd.load(self.k.buffer, self.k.at(head, d, key)))
                        for key in keys
                    ]
                    for step, vector in enumerate(transpose_square(rows)):
                        place = ((d + step) * vectors + v) * LANES
                        self.simd.store(self.halves, at + place, vector)

        self.key_panels.each(panel)

    def scores(self, tile: QueryTile) -> None:
        spec, simd, vectors = self.spec, self.simd, range(tile.vectors)
        query = T.bind((tile.y + tile.row) * spec.query_side + tile.x)
        tokens = [query + i * spec.query_side for i in range(tile.mr)]
        panel = T.bind(self.keys_at + tile.vector * (LANES * spec.key_dim))
        chain = HalfChains(simd, tile.mr, tile.vectors, spec.key_dim, None)

        def steps(first: Expr, count: int, starts: bool) -> None:
            at = [T.bind(self.q.at(tile.head, first, token)) for token in tokens]
            keys = T.bind(panel + first * (tile.vectors * LANES))
            places = [
                [keys + (k * tile.vectors + v) * LANES for v in vectors] for k in range(count)
            ]
            chain.multiply(self.q.buffer, at, self.halves, places, starts)

        chain.add(steps)
        for i in range(tile.mr):
            row = self.bias.row(tile.y + tile.row + i)
            bias = T.bind(self.bias_at + row + tile.vector * LANES)
            row = (tile.row + i) * self.padded_keys
            at = T.bind(self.scores_at + row + tile.vector * LANES)
            for v in vectors:
                start = simd.load(self.scratch, bias + v * LANES)
                simd.store(self.scratch, at + v * LANES, chain.total(i, v, start))

    def loaded_constants(self) -> list[Expr]:
        """Each once, as the two registers of eight lanes."""
        narrow = Simd(self.simd.isa)
        places = [self.constants_at + i * LANES for i in range(len(self.constants))]
        return [concat(*[T.bind(narrow.load(self.scratch, at))] * 2) for at in places]

    def weights(self) -> None:
        constants = ShortExpConstants(*self.loaded_constants())
        with T.serial(self.tile.rows) as row:
            rounded = T.bind(self.weights_at + row * self.padded_keys)

            def store(row: int, column: Expr | int, value: Expr) -> None:
                half = T.cast(value, f"float16x{LANES}")
                self.simd.store(self.halves, rounded + column, half)

            [inverse] = softmax_rows(self.score_rows(row, 1), constants, store)
            T.buffer_store(self.scratch, inverse, [self.inverse_at + row])

    def values(self, tile: QueryTile) -> None:
        simd, keys = self.simd, self.spec.keys
        memory = self.halves if keys > HALF_CHAIN else None
        chains = HalfChains(simd, tile.mr, tile.vectors, keys, memory, self.chains_at)
        weights = T.bind(self.weights_at + tile.row * self.padded_keys)
        columns = [(tile.vector + v) * LANES for v in range(tile.vectors)]

        def steps(first: Expr, count: int, starts: bool) -> None:
            at = [weights + i * self.padded_keys + first for i in range(tile.mr)]
            places = [
                [self.v.at(tile.head, column, first + k) for column in columns]
                for k in range(count)
            ]
            chains.multiply(self.halves, at, self.v.buffer, places, starts, padded=True)

        chains.add(steps)
        for i in range(tile.mr):
            inverse = T.bind(simd.splat(self.scratch[self.inverse_at + tile.row + i]))
            zero = simd.splat(0.0)
            z = [T.bind(chains.total(i, v, zero) * inverse) for v in range(tile.vectors)]
            self.store_output(tile, i, z)
