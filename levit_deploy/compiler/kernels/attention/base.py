"""What attention kernels share, whatever their arithmetic: parameters, tasks, blocks of queries.

A task is one head and one column of the query grid. Its queries share the horizontal part of the
position bias (see position_bias), and their scores stay in the L1 cache from the first product to
the second. What is made once for a head serves all its tasks in a range.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.activation import activate
from levit_deploy.compiler.kernels.attention.score_rows import ScoreRows
from levit_deploy.compiler.kernels.attention.spec import PANEL, QUAD, AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.lanes import transpose_quads
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel, kernel_function, parameter, task_range
from levit_deploy.compiler.kernels.output import Output, Stored
from levit_deploy.targets.target import Target

LINE_FLOATS = 16  # a cache line

# For some keys: what gives four words of each, from the given word on, as float32x4.
QuadsOf = Callable[[list[Expr]], Callable[[int], list[Expr]]]


@dataclass(frozen=True)
class Columns:
    """Where queries, keys or values are: columns of a matrix of `rows` rows in panels."""

    buffer: tirx.Buffer
    rows: int
    stride: int  # columns from a head to the next
    first: int
    offset: int = 0  # of the matrix in the buffer

    @property
    def alignment(self) -> int:
        """So many columns, from a multiple of it on, lie side by side in every head."""
        return math.gcd(PANEL, self.stride, self.first)

    def at(self, head: Expr | int, column: Expr | int, row: Expr | int) -> Expr:
        column = head * self.stride + self.first + column
        return self.offset + (column // PANEL * self.rows + row) * PANEL + column % PANEL


@dataclass(frozen=True)
class QueryTile:
    """A register tile: `mr` queries (y + row + i, x) of a head, times `vectors` vectors of keys or
    of the head's value columns, the first of which is number `vector`."""

    head: Expr
    x: Expr
    y: Expr
    row: Expr | int
    mr: int
    vector: Expr | int
    vectors: int


class AttentionKernel(ABC):
    """Emits the kernel around the steps of a subclass.

    In the scratch buffer lie, at `keys_at`, a head's keys in panels; at `bias_at`, the expanded
    position biases; at `scores_at`, the scores of a block of queries; at `inverse_at`, one over the
    sum of weights of each; and, at `constants_at`, registers of `constants`.
    """

    kind: str
    keys_at: int
    constants: tuple[Expr | float, ...]
    input_type: ClassVar[str] = "float32"  # of queries, keys and values
    row_alignment: ClassVar[int] = 1  # queries that belong together in a register tile
    lanes: ClassVar[int | None] = None  # of vectors of keys and columns; default: a register's

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
        self.simd = Simd(isa_of(target), self.lanes)
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
        self.reserve_operands()
        self.bias_at = self.reserve(self.bias.expanded_size(self.padded_keys))
        self.scores_at = self.reserve(tile.rows * self.padded_keys)
        self.reserve_weights()
        self.inverse_at = self.reserve(tile.rows)
        self.constants_at = self.reserve(len(self.constants) * lanes)

    def reserve(self, size: int) -> int:
        """Where `size` values of the scratch buffer start, at a cache line."""
        start = self.scratch_size
        self.scratch_size += -(-size // LINE_FLOATS) * LINE_FLOATS
        return start

    @abstractmethod
    def reserve_operands(self) -> None:
        """Reserve scratch for what both products read, and set `constants`."""

    @abstractmethod
    def reserve_weights(self) -> None:
        """Reserve scratch for weights, unless they take the place of their scores."""

    def reserve_halves(self, size: int) -> int:
        """As `reserve`, of 16-bit values."""
        return 2 * self.reserve(-(-size // 2))

    @property
    def exactness(self) -> str:
        """See Kernel."""
        return ""

    @abstractmethod
    def start_head(self, head: Expr) -> None:
        """Emit what is done for a head."""

    def start_block(self, head: Expr, x: Expr, y: Expr) -> None:
        """Emit what is done for a block of queries, from (y, x) down: nothing."""
        return

    @abstractmethod
    def scores(self, tile: QueryTile) -> None:
        """Emit scores, of the panel of keys that starts with the tile."""

    @abstractmethod
    def weights(self) -> None:
        """Emit the weights of all rows from their scores, and the inverses of their sums."""

    @abstractmethod
    def values(self, tile: QueryTile) -> None:
        """Emit the output, of some of the head's columns."""

    @property
    def value_alignment(self) -> int:
        """All blocks of values start at a column that is a multiple of it."""
        alike = self.value_blocks.large == self.value_blocks.count
        return math.gcd(
            self.spec.value_dim, self.simd.lanes * (self.value_blocks.size if alike else 1)
        )

    def kernel(self) -> Kernel:
        spec, side = self.spec, self.spec.query_side
        inputs = self.kv_size + (0 if spec.fused_qkv else self.q_size)
        with kernel_function(self.symbol) as builder:
            self.declare_inputs()
            mirrored = parameter("mirrored_bias", self.bias.packed_size(spec.heads))
            self.output = Output.declare(
                self.stored,
                spec.queries,
                spec.heads * spec.value_dim,
                self.simd,
                self.value_alignment,
            )
            self.scratch = parameter("scratch", self.scratch_size)
            begin, end = task_range()

            self.simd.store_constants(self.scratch, self.constants_at, self.constants)
            with T.serial(begin // side, (end + side - 1) // side) as head:
                self.start_head(head)
                first = T.bind(T.max(begin - head * side, 0))
                with T.serial(first, T.min(end - head * side, side)) as x:
                    self.bias.expand(self.simd, mirrored, head, x, self.scratch, self.bias_at)
                    self.grid_column(head, x)
        return Kernel(
            symbol=self.symbol,
            func=builder.get(),
            tasks=spec.heads * side,
            scratch_bytes=4 * self.scratch_size,
            kind=self.kind,
            shape=f"{spec.heads} heads {spec.key_dim}+{spec.value_dim}, "
            f"{spec.queries} queries {spec.keys} keys{self.stored.words}",
            tile=str(self.tile),
            multiply_adds=spec.heads * spec.queries * spec.keys * (spec.key_dim + spec.value_dim),
            bytes_moved=np.dtype(self.input_type).itemsize * inputs
            + 4 * self.bias.packed_size(spec.heads)
            + self.stored.value_bytes * spec.queries * spec.heads * spec.value_dim,
            exactness=self.exactness,
        )

    def declare_inputs(self) -> None:
        """Parameters: qkv, or queries and keys_values."""
        spec, key = self.spec, self.spec.key_dim
        if spec.fused_qkv:
            kv, first = parameter("qkv", self.kv_size, self.input_type), key
            self.q = Columns(kv, spec.queries, self.head_columns, 0)
        else:
            queries = parameter("queries", self.q_size, self.input_type)
            self.q = Columns(queries, spec.queries, key, 0)
            kv, first = parameter("keys_values", self.kv_size, self.input_type), 0
        self.k = Columns(kv, spec.keys, self.head_columns, first)
        self.v = Columns(kv, spec.keys, self.head_columns, first + key)

    def grid_column(self, head: Expr, x: Expr) -> None:
        """All queries of column `x` of the grid, `tile.rows` at a time. The last block may redo
        queries of the one before."""
        side, rows = self.spec.query_side, self.tile.rows
        with T.serial(-(-side // rows)) as index:
            y = T.bind(T.min(index * rows, side - rows))

            def each_tile(
                body: Callable[[QueryTile], None], at_most: int, vector: Expr | int, vectors: int
            ) -> None:
                together = self.row_alignment
                Blocks.of(-(-rows // together), -(-at_most // together)).each(
                    lambda row, mr: body(
                        QueryTile(head, x, y, row * together, mr * together, vector, vectors)
                    )
                )

            self.start_block(head, x, y)
            self.key_panels.each(partial(each_tile, self.scores, self.tile.score_rows))
            self.weights()
            self.value_blocks.each(partial(each_tile, self.values, self.tile.value_rows))

    def loaded_constants(self) -> list[Expr]:
        return self.simd.load_constants(self.scratch, self.constants_at, len(self.constants))

    def score_rows(self, first: Expr | int, count: int) -> ScoreRows:
        """The scores of some rows of a block."""
        starts = [T.bind(self.scores_at + (first + i) * self.padded_keys) for i in range(count)]
        return ScoreRows(self.simd, self.scratch, starts, self.spec.keys)

    def transpose_keys(self, depth: int, quads_of: QuadsOf) -> None:
        """A head's keys, of `depth` words, as the weights of a matrix product: a panel of
        `score_columns` keys after the other, each [depth][keys]. The last vector is filled up with
        the last key."""
        keys, lanes = self.spec.keys, self.simd.lanes

        def panel(start: Expr | int, vectors: int) -> None:
            at = T.bind(self.keys_at + start * (lanes * depth))
            for v in range(vectors):
                tokens = [(start + v) * lanes + i for i in range(lanes)]
                if keys % lanes:
                    tokens = [T.min(token, keys - 1) for token in tokens]
                quads = quads_of(tokens)
                for first in range(0, depth, QUAD):
                    for step, vector in enumerate(transpose_quads(quads(first))):
                        place = ((first + step) * vectors + v) * lanes
                        self.simd.store(self.scratch, at + place, vector)

        self.key_panels.each(panel)

    def store_output(self, tile: QueryTile, i: int, values: list[Expr]) -> None:
        """Emit the activation of `values`, registers of row `i` of the tile, and store them."""
        token = T.bind((tile.y + (tile.row + i)) * self.spec.query_side + tile.x)
        channel = T.bind(tile.head * self.spec.value_dim + tile.vector * self.simd.lanes)
        active = [activate(self.simd, self.spec.activation, z) for z in values]
        self.output.store(self.simd, token, channel, active)


def panels_size(rows: int, columns: int) -> int:
    """Values of a matrix in panels, the last of which may not be full."""
    return -(-columns // PANEL) * PANEL * rows
