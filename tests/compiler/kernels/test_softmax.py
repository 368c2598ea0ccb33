"""Our exp against numpy in float64, and the softmax's defined order of summation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.score_rows import ScoreRows
from levit_deploy.compiler.kernels.attention.softmax import softmax_rows
from levit_deploy.compiler.kernels.exponential import ExpConstants, exponential
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.targets.target import Arch, Target
from tests.compiler.kernels.harness import Array, Call, run, undefined
from tests.compiler.kernels.kernel_targets import FLOAT_TARGETS

COUNT = 1 << 18
COLUMNS = (1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 49, 63, 64, 65, 196)
every_target = pytest.mark.parametrize("target", FLOAT_TARGETS, ids=lambda target: target.name)


def exponentials(target: Target, *values: Array) -> list[Array]:
    """exp of COUNT values each."""
    simd = Simd(isa_of(target))
    constants = ExpConstants(*map(simd.splat, ExpConstants()))
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("exponentials")
        source = T.arg("source", T.Buffer((COUNT,), "float32"))
        result = T.arg("result", T.Buffer((COUNT,), "float32"))
        begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
        with T.serial(begin, end) as i:
            simd.store(
                result,
                i * simd.lanes,
                exponential(simd, simd.load(source, i * simd.lanes), constants),
            )
    kernel = _kernel(builder.get(), COUNT // simd.lanes)
    calls = [Call(kernel, [array], [undefined(COUNT)]) for array in values]
    return [output for [output] in run(calls, target)]


def softmax(target: Target, scores: Array, columns: int) -> Call:
    """Gives `scores` (rows, stride) after softmax_rows, and then what it returns."""
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
            inverses = softmax_rows(
                ScoreRows(simd, result, at, columns),
                constants,
                lambda row, column, value: simd.store(result, at[row] + column, value),
            )
            for row, inverse in enumerate(inverses):
                T.buffer_store(result, inverse, [scores.size + row])
    return Call(_kernel(builder.get(), 1), [scores], [undefined(scores.size + len(scores))])


def _kernel(func: tirx.PrimFunc, tasks: int) -> Kernel:
    symbol = str(func.attrs["global_symbol"])
    return Kernel(symbol, func, tasks, "test", "", "", 0, 0)


@every_target
def test_exponential_is_accurate_over_its_whole_range(target: Target) -> None:
    x = np.linspace(-87.3, 0, COUNT, dtype=np.float32)
    near_zero = -np.geomspace(1e-40, 1, COUNT, dtype=np.float32)
    largest = np.finfo(np.float32).max
    special = [0, -0.0, -87.7, -88, -100, -1e30, -largest, -np.inf, np.nan]
    padded = np.pad(np.float32(special), (0, COUNT - len(special)), constant_values=-1)
    everywhere, at_zero, of_special = exponentials(target, x, near_zero, padded)

    exact = np.exp(x.astype(np.float64))
    error = np.abs(everywhere / exact - 1)
    allowed = 2e-7 + (3e-9 if target.fma else 6e-8) * np.abs(x)
    if target.arch is Arch.ARMV7:
        allowed = allowed + np.finfo(np.float32).tiny / exact  # NEON there has no denormals
    worst = np.argmax(error / allowed)
    assert error[worst] <= allowed[worst], f"{error[worst]:.3g} at {x[worst]}"
    assert np.abs(at_zero / np.exp(near_zero.astype(np.float64)) - 1).max() <= 2e-7
    np.testing.assert_array_equal(of_special[:2], 1)
    np.testing.assert_array_equal(of_special[2:9], 0)


@every_target
def test_sums_are_taken_in_the_documented_order(target: Target, subtests: pytest.Subtests) -> None:
    cases = {}
    for columns, rows in itertools.product(COLUMNS, (1, 2, 4)):
        rng = np.random.default_rng(columns)
        scores = rng.normal(0, 4, size=(rows, -(-columns // 16) * 16 + 16)).astype(np.float32)
        scores[:, columns:] = 1e9  # must not matter
        cases[columns, rows] = scores
    calls = [softmax(target, scores, columns) for (columns, _), scores in cases.items()]
    for ((columns, rows), scores), [out] in zip(cases.items(), run(calls, target), strict=True):
        with subtests.test(columns=columns, rows=rows):
            weights = out[: scores.size].reshape(scores.shape)
            for row, inverse in enumerate(out[scores.size :]):
                partial = np.zeros(16, np.float32)
                for j in range(columns):
                    partial[j % 16] += weights[row, j]
                while partial.size > 1:
                    partial = partial[: partial.size // 2] + partial[partial.size // 2 :]
                assert inverse == np.float32(1) / partial[0]
            assert (weights[:, :columns].max(axis=1) == 1).all()
            wanted = scores[:, :columns].astype(np.float64)
            exact = np.exp(wanted - wanted.max(axis=1, keepdims=True))
            np.testing.assert_allclose(weights[:, :columns], exact, rtol=2e-6, atol=0)
