"""Vectors put together from lanes of other vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tvm
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T


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


def transpose_quads(quads: list[Expr]) -> list[Expr]:
    """`quads`, a float32x4 of each of as many rows as a register has lanes -> four registers; lane
    j of register d is value d of row j.

    The registers are filled so that only 4 x 4 transpositions inside their 128-bit parts are left
    to do, which are single instructions on every target (unpack, zip).
    """
    lanes = len(quads)
    # Part p of register m holds row 4 p + m.
    m0, m1, m2, m3 = (T.bind(shuffle(quads[m::4], range(lanes))) for m in range(4))
    even_low, even_high = _zip(m0, m2, lanes)
    odd_low, odd_high = _zip(m1, m3, lanes)
    return [*_zip(even_low, odd_low, lanes), *_zip(even_high, odd_high, lanes)]


def _zip(a: Expr, b: Expr, lanes: int) -> tuple[Expr, Expr]:
    """In every 128-bit part: a0 b0 a1 b1 and a2 b2 a3 b3."""
    low = [i for part in range(0, lanes, 4) for k in (0, 1) for i in (part + k, lanes + part + k)]
    return T.bind(shuffle([a, b], low)), T.bind(shuffle([a, b], [i + 2 for i in low]))
