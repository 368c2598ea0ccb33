"""Vectors put together from lanes of other vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tvm
from tvm import tirx
from tvm.ir import Expr


def lanes_of(vector: Expr) -> int:
    """How many values `vector` holds."""
    return int(tvm.DataType(str(vector.ty)).lanes)


def shuffle(vectors: Sequence[Expr], lanes: Iterable[int]) -> Expr:
    """The named lanes of the concatenation of `vectors`."""
    return tirx.Shuffle(list(vectors), [tirx.const(lane, "int32") for lane in lanes])


def concat(*vectors: Expr) -> Expr:
    """The concatenation of 1, 2, 4 ... vectors, in pairs."""
    if len(vectors) == 1:
        return vectors[0]
    if len(vectors) == 2:
        return shuffle(vectors, range(2 * lanes_of(vectors[0])))
    return concat(*(concat(*vectors[i : i + 2]) for i in range(0, len(vectors), 2)))


def half(vector: Expr, which: int) -> Expr:
    """The lower (0) or upper (1) half of the lanes of `vector`."""
    count = lanes_of(vector) // 2
    return shuffle([vector], range(which * count, (which + 1) * count))
