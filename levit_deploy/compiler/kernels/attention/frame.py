"""What attention kernels share, whatever their arithmetic: parameters, tasks, blocks of queries.

A task is one head and one column of the query grid. Its queries share the horizontal part of the
position bias (see position_bias), and their scores stay in the L1 cache from the first product to
the second. What is made once for a head serves all its tasks in a range.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.columns import Columns, panels_size
from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Output, Stored
from levit_deploy.targets.target import Target

LINE_FLOATS = 16  # a cache line


@dataclass(frozen=True)
class QueryBlock:
    """What a register tile is part of: queries (y + row, x) of a head."""

    head: Expr
    x: Expr
    y: Expr


class AttentionFrame(ABC):
    """Emits the kernel around the steps of a subclass, which reserves the scratch buffer.

    `bias_at`: where the expanded position biases start.
    """

    kind: str
    bias_at: int
    exactness = ""  # see Kernel

    def __init__(
        self,
        symbol: str,
        spec: AttentionSpec,
        tile: AttentionTile,
        target: Target,
        stored: Stored,
    ) -> None:
        self.symbol = symbol
        self.stored = stored
        self.spec = spec
        self.tile = tile
        self.simd = Simd(target)
        self.bias = spec.position_bias
        lanes = self.simd.lanes
        key_vectors = -(-spec.keys // lanes)
        self.padded_keys = key_vectors * lanes
        self.key_panels = Blocks.of(key_vectors, tile.score_columns // lanes)
        self.value_blocks = Blocks.of(spec.value_dim // lanes, tile.value_columns // lanes)

        self.head_columns = spec.key_dim * (2 if spec.fused_qkv else 1) + spec.value_dim
        self.kv_size = panels_size(spec.keys, spec.heads * self.head_columns)
        self.q_size = panels_size(spec.queries, spec.heads * spec.key_dim)

        self.scratch_size = 0

    def reserve(self, size: int) -> int:
        """Where `size` values of the scratch buffer start, at a cache line."""
        start = self.scratch_size
        self.scratch_size += -(-size // LINE_FLOATS) * LINE_FLOATS
        return start

    @abstractmethod
    def start(self) -> None:
        """Emit what is done once."""

    @abstractmethod
    def start_head(self, head: Expr) -> None:
        """Emit what is done for a head."""

    @abstractmethod
    def scores(
        self, block: QueryBlock, row: Expr | int, mr: int, vector: Expr | int, vectors: int
    ) -> None:
        """Emit `mr` rows of scores, of the panel of keys that starts at vector `vector`."""

    @abstractmethod
    def weights(self) -> None:
        """Emit the weights of all rows from their scores, and the inverses of their sums."""

    @abstractmethod
    def values(
        self, block: QueryBlock, row: Expr | int, mr: int, vector: Expr | int, vectors: int
    ) -> None:
        """Emit `mr` rows of the output, `vectors` vectors of the head's columns."""

    @property
    def value_granule(self) -> int:
        """All blocks of values start at a column that is a multiple of it."""
        alike = self.value_blocks.large == self.value_blocks.count
        return math.gcd(
            self.spec.value_dim, self.simd.lanes * (self.value_blocks.size if alike else 1)
        )

    def kernel(self) -> Kernel:
        spec = self.spec
        inputs = self.kv_size + (0 if spec.fused_qkv else self.q_size)
        outputs = spec.queries * spec.heads * spec.value_dim
        dims = f"{spec.key_dim}+{spec.value_dim}"
        return Kernel(
            symbol=self.symbol,
            func=self.func(),
            tasks=spec.heads * spec.query_side,
            scratch_bytes=4 * self.scratch_size,
            unaligned=(),
            kind=self.kind,
            shape=f"{spec.heads} heads {dims}, {spec.queries} queries {spec.keys} keys"
            + f" {self.stored}" * self.stored.quantized,
            tile=str(self.tile),
            multiply_adds=spec.heads * spec.queries * spec.keys * (spec.key_dim + spec.value_dim),
            bytes_moved=4 * (inputs + self.bias.packed_size(spec.heads))
            + self.stored.value_bytes * outputs,
            exactness=self.exactness,
        )

    def func(self) -> tirx.PrimFunc:
        spec, side, key = self.spec, self.spec.query_side, self.spec.key_dim
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(self.symbol)
            T.func_attr({"tirx.noalias": True})
            if spec.fused_qkv:
                qkv = _parameter("qkv", self.kv_size)
                self.q = Columns(qkv, spec.queries, self.head_columns, 0)
                self.k = Columns(qkv, spec.keys, self.head_columns, key)
                self.v = Columns(qkv, spec.keys, self.head_columns, 2 * key)
            else:
                self.q = Columns(_parameter("queries", self.q_size), spec.queries, key, 0)
                kv = _parameter("keys_values", self.kv_size)
                self.k = Columns(kv, spec.keys, self.head_columns, 0)
                self.v = Columns(kv, spec.keys, self.head_columns, key)
            mirrored = _parameter("mirrored_bias", self.bias.packed_size(spec.heads))
            self.output = Output.declare(
                self.stored,
                rows=spec.queries,
                channels=spec.heads * spec.value_dim,
                target=self.simd.target,
                granule=self.value_granule,
            )
            self.scratch = _parameter("scratch", self.scratch_size)
            begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())

            self.start()
            with T.serial(begin // side, (end + side - 1) // side) as head:
                self.start_head(head)
                first = T.bind(T.max(begin - head * side, 0))
                with T.serial(first, T.min(end - head * side, side)) as x:
                    self.bias.expand(self.simd, mirrored, head, x, self.scratch, self.bias_at)
                    self.grid_column(head, x)
        return builder.get()

    def grid_column(self, head: Expr, x: Expr) -> None:
        """All queries of column `x` of the grid, `tile.rows` at a time. The last block may redo
        queries of the one before."""
        side, rows = self.spec.query_side, self.tile.rows
        with T.serial(-(-side // rows)) as index:
            y = T.bind(T.min(index * rows, side - rows))
            block = QueryBlock(head, x, y)

            def scores(vector: Expr | int, vectors: int) -> None:
                tiles = Blocks.of(rows, self.tile.score_rows)
                tiles.each(lambda row, mr: self.scores(block, row, mr, vector, vectors))

            def values(vector: Expr | int, vectors: int) -> None:
                tiles = Blocks.of(rows, self.tile.value_rows)
                tiles.each(lambda row, mr: self.values(block, row, mr, vector, vectors))

            self.key_panels.each(scores)
            self.weights()
            self.value_blocks.each(values)

    def store_output(
        self,
        block: QueryBlock,
        row: Expr | int,
        vector: Expr | int,
        values: list[Expr],
    ) -> None:
        """Emit the hardswish of `values`, registers of one row from vector `vector` on, and store
        them."""
        token = T.bind((block.y + row) * self.spec.query_side + block.x)
        channel = T.bind(block.head * self.spec.value_dim + vector * self.simd.lanes)
        self.output.store(self.simd, token, channel, [self.simd.hardswish(z) for z in values])


def _parameter(name: str, size: int) -> tirx.Buffer:
    return T.arg(name, T.Buffer((size,), "float32"))
