"""LeViT's position bias as a small table that is mirrored instead of repeated.

The bias of a query at (qy, qx) and a key at (ky, kx) of the grid depends on |qy - ky| and
|qx - kx| only: the 196 x 196 table of a 14 x 14 grid holds 196 different values. The table kept is

    mirrored[head][|dy|][reach + dx]      14 x 27 values a head

so that for one query the biases of a row of keys are `key_side` consecutive values: those from
dx = -qx on. In the kernel all queries of one column of the grid share qx. For them it expands

    expanded[reach + dy][kx]              27 x 14 values

and the biases of one query and all its keys are again consecutive: those from dy = -qy on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.simd import Simd

_SLACK = 16  # the widest vector: rows are read and written in whole vectors


@dataclass(frozen=True)
class PositionBias:
    """The tables of a `query_side` square grid on a `key_side` square grid with step `stride`."""

    query_side: int
    key_side: int
    stride: int

    @property
    def reach(self) -> int:
        """The largest distance by which a query lies right of, or below, a key that exists."""
        return self.stride * (self.query_side - 1)

    @property
    def span(self) -> int:
        """Different signed distances in one direction."""
        return self.reach + self.key_side

    @property
    def head_size(self) -> int:
        """Values of one head in the mirrored table."""
        return self.key_side * self.span

    def packed_size(self, heads: int) -> int:
        """Values of the mirrored table, with the slack that vectors read at its end."""
        return heads * self.head_size + _SLACK

    def expanded_size(self, padded_keys: int) -> int:
        """Values of the expanded table, with what vectors read and write past its end."""
        return self.reach * self.key_side + padded_keys + _SLACK

    def pack(self, table: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The mirrored table, flat, from `table` (heads, queries, keys).

        None if `table` does not depend on |dy| and |dx| alone.
        """
        query = np.arange(self.query_side) * self.stride
        distance = np.abs(query[:, None] - np.arange(self.key_side))  # (query_side, key_side)
        heads = table.shape[0]
        grid = table.reshape(heads, *distance.shape[:1] * 2, *distance.shape[1:] * 2)
        dy = distance[:, None, :, None]
        dx = distance[None, :, None, :]
        by_distance = np.zeros((heads, self.key_side, self.key_side), np.float32)
        by_distance[:, dy, dx] = grid
        if not np.array_equal(by_distance[:, dy, dx], grid):
            return None
        mirrored = by_distance[:, :, np.abs(np.arange(self.span) - self.reach)]
        packed = np.zeros(self.packed_size(heads), np.float32)
        packed[: mirrored.size] = mirrored.ravel()
        return packed

    def expand(
        self,
        simd: Simd,
        mirrored: tirx.Buffer,
        head: Expr,
        query_x: Expr,
        scratch: tirx.Buffer,
        at: int,
    ) -> None:
        """Emit: scratch[at:] = the expanded table of the queries in column `query_x`.

        Whole vectors are copied, row by row upwards: what one reaches over its row, the next
        replaces.
        """
        left = T.bind(head * self.head_size + self.reach - query_x * self.stride)
        with T.serial(self.span) as row:
            source = T.bind(left + T.abs(row - self.reach) * self.span)
            target = T.bind(at + row * self.key_side)
            for column in range(0, self.key_side, simd.lanes):
                simd.store(scratch, target + column, simd.load(mirrored, source + column))

    def row(self, query_y: Expr) -> Expr:
        """Where the biases of query row `query_y` start in the expanded table."""
        return (self.reach - query_y * self.stride) * self.key_side
