"""Vectors put together from lanes of other vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import tvm
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

Combine = Callable[[Expr, Expr], Expr]


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
    even_low, even_high = _zip(m0, m2)
    odd_low, odd_high = _zip(m1, m3)
    return [*_zip(even_low, odd_low), *_zip(even_high, odd_high)]


def interleaved(lanes: int) -> list[int]:
    """The order of lanes that mixes two vectors: the first of each, the second of each ..."""
    return [lane for i in range(lanes) for lane in (i, lanes + i)]


def lower_and_upper(first: Expr, second: Expr) -> list[Expr]:
    """Of two registers of 16 bytes: the lower halves of both, and the upper ones."""
    words = [T.reinterpret("int64x2", register) for register in (first, second)]
    return [T.bind(T.reinterpret(str(first.ty), shuffle(words, [i, 2 + i]))) for i in (0, 1)]


def of_both_rows(columns: Expr) -> list[Expr]:
    """Four columns of a row as two registers of 2 rows x 2 columns, both rows being that one."""
    return [T.bind(shuffle([columns], [i, i + 1] * 2)) for i in (0, 2)]


def row_of_two(registers: Sequence[Expr], row: int) -> Expr:
    """Row 0 or 1 of two registers of 2 rows x 2 columns: four columns."""
    return shuffle(registers, (2, 3, 6, 7) if row else (0, 1, 4, 5))


def transpose_square(rows: Sequence[Expr]) -> list[Expr]:
    """As many vectors as each has lanes, 2, 4, 8 ...: lane j of vector i becomes lane i of j."""
    lanes = count = len(rows)
    while count > 1:
        pairs = [(rows[i], rows[i + lanes // 2]) for i in range(lanes // 2)]
        order = interleaved(lanes)
        rows = [T.bind(shuffle(pair, part)) for pair in pairs for part in _halves(order)]
        count //= 2
    return list(rows)


def combine_each(vectors: Sequence[Expr], combine: Combine) -> Expr:
    """Four lanes: all lanes of each of up to four vectors combined, in whatever order. Past the
    last vector it is repeated."""
    a, b, c, d = [*vectors, *[vectors[-1]] * (4 - len(vectors))]
    low = T.bind(combine(*_zip(a, c)))  # a c a c in every 128-bit part
    high = T.bind(combine(*_zip(b, d)))
    vector = T.bind(combine(*_zip(low, high)))  # a b c d
    while lanes_of(vector) > 4:
        vector = T.bind(combine(half(vector, 0), half(vector, 1)))
    return vector


def _zip(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """In every 128-bit part: a0 b0 a1 b1 and a2 b2 a3 b3."""
    lanes = lanes_of(a)
    low = [i for part in range(0, lanes, 4) for k in (0, 1) for i in (part + k, lanes + part + k)]
    return T.bind(shuffle([a, b], low)), T.bind(shuffle([a, b], [i + 2 for i in low]))


def _halves(order: list[int]) -> tuple[list[int], list[int]]:
    middle = len(order) // 2
    return order[:middle], order[middle:]
