"""Four values of each of `lanes` rows -> four vectors, each with one value of every row.

The registers are filled so that only 4 x 4 transpositions inside their 128-bit parts are left to
do, which are single instructions on every target (unpack, zip).
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.lanes import shuffle


def transpose_quads(quads: list[Expr]) -> list[Expr]:
    """`quads`: a float32x4 of each row, as many as a register has lanes.

    Returns registers 0 to 3; lane j of register d is value d of row j.
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
