"""A length cut into blocks of nearly equal size: how kernels divide rows and columns.

49 rows in blocks of at most 6 -> 4 blocks of 6 and 5 of 5: nothing is left over, nothing is
computed twice, and at most two sizes of the unrolled inner kernel are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.tirx.script import builder as T


@dataclass(frozen=True)
class Blocks:
    """`count` blocks; the first `large` of them hold `size` things, the others `size - 1`."""

    size: int
    large: int
    count: int

    @staticmethod
    def of(total: int, at_most: int) -> Blocks:
        """`total` >= 1 things in the fewest blocks of at most `at_most`."""
        count = -(-total // at_most)
        size = -(-total // count)
        return Blocks(size, total - count * (size - 1), count)

    @property
    def sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Each size, and how many blocks have it."""
        return (self.size, self.large), (self.size - 1, self.count - self.large)

    @property
    def smallest(self) -> int:
        return self.size if self.large == self.count else self.size - 1

    def branch(self, index: Expr | int, body: Callable[[int], None]) -> None:
        """Emit `body(size)` for the size that block `index` has."""
        if self.large == self.count:
            body(self.size)
            return
        with T.If(index < self.large):
            with T.Then():
                body(self.size)
            with T.Else():
                body(self.size - 1)

    def start(self, index: Expr | int, size: int) -> Expr | int:
        """First thing of block `index`, which is known to have `size`."""
        return index * size + (0 if size == self.size else self.large)

    def each(self, body: Callable[[Expr | int, int], None]) -> None:
        """Emit `body(start, size)` for every block: a loop over the large ones, then the rest."""
        with T.serial(self.large) as index:
            body(self.start(index, self.size), self.size)
        if self.large < self.count:
            with T.serial(self.count - self.large) as index:
                body(self.start(index + self.large, self.size - 1), self.size - 1)
