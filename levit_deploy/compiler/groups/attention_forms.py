"""The two forms of attention's arithmetic that groups are made of: float32 and 8 bits.

float:  softmax(matmul(q, permute(k, (0, 1, 3, 2))) + [bias]); matmul(.., v)
8 bits: as calibration.attention writes it:
    k1 = round(k / sk), v1 = round(v / sv), q1 = round(q * sk / sq)
    where a step s of x is (max(abs(x)) + 1e-30) / 127
    e = exp(scores - max(scores)) of scores = matmul(q1, permute(k1)) * sq + [bias]
    w = matmul(round(matmul(e * 254, [cumulative])), [differences])
    matmul(w, v1) / sum(w) * sv
"""

from __future__ import annotations

import numpy as np
from tvm import relax
from tvm.relax.dpl import DFPattern, is_const, is_expr, is_op

from levit_deploy.compiler.groups.group import Parts
from levit_deploy.compiler.groups.patterns import numbers_of, permuted
from levit_deploy.compiler.kernels.attention.packed_dot import LARGEST, LARGEST_WEIGHT
from levit_deploy.compiler.kernels.attention.score_rows import PARTIAL_SUMS

_SMALLEST = 1e-30
_CUMULATIVE, _DIFFERENCES = "cumulative", "differences"


def attend_float(
    q: DFPattern, k: DFPattern, v: DFPattern, table: DFPattern
) -> tuple[DFPattern, dict[str, DFPattern]]:
    """The context (1, heads, queries, value_dim), and constants by name."""
    products = is_op("relax.matmul")(q, permuted(k, 0, 1, 3, 2))
    scores = is_op("relax.nn.softmax")(is_op("relax.add")(products, table))
    weights = scores.has_attr({"axis": -1})
    return is_op("relax.matmul")(weights, v), {}


def attend_int8(
    q: DFPattern, k: DFPattern, v: DFPattern, table: DFPattern
) -> tuple[DFPattern, dict[str, DFPattern]]:
    """As `attend_float`."""
    multiply, divide, matmul = (is_op(f"relax.{op}") for op in ("multiply", "divide", "matmul"))
    add, rounded = is_op("relax.add"), is_op("relax.round")

    def step(x: DFPattern, axis: int) -> DFPattern:
        most = is_op("relax.max")(is_op("relax.abs")(x)).has_attr({"axis": [axis]})
        return divide(add(most, _number(_SMALLEST)), _number(LARGEST))

    key_step, value_step = step(k, 2), step(v, 2)
    scaled = multiply(q, key_step)
    query_step = step(scaled, 3)
    keys = permuted(rounded(divide(k, key_step)), 0, 1, 3, 2)
    products = multiply(matmul(rounded(divide(scaled, query_step)), keys), query_step)
    scores = add(products, table)
    largest = is_op("relax.max")(scores).has_attr({"axis": [3]})
    exact = multiply(
        is_op("relax.exp")(is_op("relax.subtract")(scores, largest)), _number(LARGEST_WEIGHT)
    )
    cumulative, differences = is_const(), is_const()
    weights = matmul(rounded(matmul(exact, cumulative)), differences)
    total = is_op("relax.sum")(weights).has_attr({"axis": [3]})
    mean = divide(matmul(weights, rounded(divide(v, value_step))), total)
    constants = {_CUMULATIVE: cumulative, _DIFFERENCES: differences}
    return multiply(mean, value_step), constants


def is_int8(parts: Parts) -> bool:
    """Which of the two forms matched."""
    return _CUMULATIVE in parts


def rounds_as_kernel(parts: Parts, keys: int) -> bool:
    """Whether what rounding takes from a weight goes where the kernel gives it."""
    place = np.arange(keys)
    same_chain = (place[:, None] - place) % PARTIAL_SUMS == 0
    cumulative = same_chain & (place[:, None] <= place)
    differences = np.eye(keys) - np.eye(keys, k=PARTIAL_SUMS)
    return np.array_equal(numbers_of(parts[_CUMULATIVE]), cumulative) and np.array_equal(
        numbers_of(parts[_DIFFERENCES]), differences
    )


def _number(value: float) -> DFPattern:
    return is_expr(relax.const(value, "float32"))
