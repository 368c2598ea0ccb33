"""Our exp against numpy in float64, and the softmax's defined order of summation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.score_rows import ScoreRows
from levit_deploy.compiler.kernels.attention.softmax import softmax_rows
from levit_deploy.compiler.kernels.exponential import ExpConstants, exponential
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.targets.target import Target
from tests.compiler.kernels.running import Array, run

COUNT = 1 << 20


def exponentials(target: Target, values: NDArray[np.float32]) -> Array:
    simd = Simd(isa_of(target))
    constants = ExpConstants(*map(simd.splat, ExpConstants()))
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("exponentials")
        source = T.arg("source", T.Buffer((values.size,), "float32"))
        result = T.arg("result", T.Buffer((values.size,), "float32"))
        begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
        with T.serial(begin, end) as i:
            simd.store(
                result,
                i * simd.lanes,
                exponential(simd, simd.load(source, i * simd.lanes), constants),
            )
    return run(_kernel(builder.get(), values.size // simd.lanes), target, [values], values.size)


def softmax_and_inverses(target: Target, scores: Array, columns: int) -> tuple[Array, Array]:
    """`scores` (rows, stride) after softmax_rows, and what it returns."""
    simd = Simd(isa_of(target))
    constants = ExpConstants(*map(simd.splat, ExpConstants()))
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("softmax")
        source = T.arg("source", T.Buffer((scores.size,), "float32"))
        result = T.arg("result", T.Buffer((scores.size + len(scores),), "float32"))
        begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
        with T.serial(begin, end) as task:
            with T.serial(scores.size) as i:
                T.buffer_store(result, source[i], [i])
            at = [T.bind((task + row) * scores.shape[1]) for row in range(len(scores))]
            inverses = softmax_rows(ScoreRows(simd, result, at, columns), constants)
            for row, inverse in enumerate(inverses):
                T.buffer_store(result, inverse, [scores.size + row])
    out = run(_kernel(builder.get(), 1), target, [scores], scores.size + len(scores))
    return out[: scores.size].reshape(scores.shape), out[scores.size :]


def _kernel(func: tirx.PrimFunc, tasks: int) -> Kernel:
    symbol = str(func.attrs["global_symbol"])
    return Kernel(symbol, func, tasks, "test", "", "", 0, 0)


def test_exponential_is_accurate_over_its_whole_range(host_target: Target) -> None:
    x = np.linspace(-87.3, 0, COUNT, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    error = np.abs(exponentials(host_target, x) / exact - 1)
    allowed = 2e-7 + (3e-9 if host_target.fma else 6e-8) * np.abs(x)
    worst = np.argmax(error / allowed)
    assert error[worst] <= allowed[worst], f"{error[worst]:.3g} at {x[worst]}"


def test_exponential_near_zero_is_accurate(host_target: Target) -> None:
    x = -np.geomspace(1e-40, 1, COUNT, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(exponentials(host_target, x) / exact - 1).max() <= 2e-7


def test_exponential_of_special_values(host_target: Target) -> None:
    largest = np.finfo(np.float32).max
    x = np.array([0, -0.0, -87.7, -88, -100, -1e30, -largest, -np.inf, np.nan], np.float32)
    x = np.pad(x, (0, 16 - x.size), constant_values=-1)
    got = exponentials(host_target, x)
    np.testing.assert_array_equal(got[:2], 1)
    np.testing.assert_array_equal(got[2:9], 0)


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("columns", [1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 49, 63, 64, 65, 196])
def test_sums_are_taken_in_the_documented_order(
    host_target: Target, columns: int, rows: int
) -> None:
    rng = np.random.default_rng(columns)
    scores = rng.normal(0, 4, size=(rows, -(-columns // 16) * 16 + 16)).astype(np.float32)
    scores[:, columns:] = 1e9  # must not matter
    weights, inverses = softmax_and_inverses(host_target, scores, columns)
    for row in range(rows):
        partial = np.zeros(16, np.float32)
        for j in range(columns):
            partial[j % 16] += weights[row, j]
        while partial.size > 1:
            partial = partial[: partial.size // 2] + partial[partial.size // 2 :]
        assert inverses[row] == np.float32(1) / partial[0]
    assert (weights[:, :columns].max(axis=1) == 1).all()
    wanted = scores[:, :columns].astype(np.float64)
    exact = np.exp(wanted - wanted.max(axis=1, keepdims=True))
    np.testing.assert_allclose(weights[:, :columns], exact, rtol=2e-6, atol=0)
