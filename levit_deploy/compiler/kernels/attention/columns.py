"""Where attention finds queries, keys and values: columns of a matrix in panels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from levit_deploy.compiler.kernels.attention.spec import PANEL


@dataclass(frozen=True)
class Columns:
    """The columns of one operand of a head, in a matrix of `rows` rows in panels."""

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


def panels_size(rows: int, columns: int) -> int:
    """Values of a matrix in panels, the last of which may not be full."""
    return -(-columns // PANEL) * PANEL * rows
