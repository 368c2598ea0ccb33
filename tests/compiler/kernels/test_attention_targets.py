"""attention on every kind of CPU: the same bits where there is FMA, and the code that is made."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.compiler.kernels.attention.spec import AttentionSpec
from levit_deploy.compiler.tuning.assembly import assembly, innermost_loops, spills
from levit_deploy.targets.table import get_target
from tests.compiler.kernels.attention_cases import AttentionCase, plain, shrinking
from tests.compiler.kernels.linked import run_linked
from tests.compiler.kernels.running import Array

# 49 keys: the last vector is not full at any width. Key parts that share a panel.
CASES = (
    AttentionCase.random(plain(7), scale=3),
    AttentionCase.random(shrinking(4, heads=3, key_dim=8, value_dim=16)),
)


def compute(case: AttentionCase, target_name: str, folder: Path) -> Array:
    target = get_target(target_name)
    return run_linked(case.kernel(target), target, case.inputs(), case.output_size, folder)


@pytest.mark.parametrize("name", ["x86-64-v4", "arm64"])
@pytest.mark.parametrize("case", CASES)
def test_fma_targets_give_the_same_bits(case: AttentionCase, name: str, tmp_path: Path) -> None:
    other = compute(case, name, tmp_path / name)
    np.testing.assert_array_equal(other, compute(case, "x86-64-v3", tmp_path / "v3"))


@pytest.mark.parametrize("name", ["x86-64", "armv7"])
@pytest.mark.parametrize("case", CASES)
def test_targets_without_fma_are_close(case: AttentionCase, name: str, tmp_path: Path) -> None:
    expected, error = case.reference()
    assert (np.abs(compute(case, name, tmp_path) - expected) <= error).all()


MULTIPLY_ADD = {
    "x86-64": r"\bmulps\b",
    "x86-64-v3": r"\bvfmadd\d+ps\b.*%ymm",
    "x86-64-v4": r"\bvfmadd\d+ps\b.*%zmm",
    "arm64": r"\bfmla\t",
    "armv7": r"\b(vmla|vmul)\.f32\tq",
}
EXPONENT = r"pslld|\tv?shl"  # only in softmax


def count(pattern: str, lines: list[str]) -> int:
    return sum(bool(re.search(pattern, line)) for line in lines)


@pytest.mark.parametrize("spec", [plain(14), shrinking(14)], ids=["plain", "shrinking"])
@pytest.mark.parametrize("name", MULTIPLY_ADD)
def test_products_stay_in_registers(name: str, spec: AttentionSpec) -> None:
    case = AttentionCase.random(spec)
    code = assembly(case.kernel(get_target(name)), get_target(name))
    products = [
        loop
        for loop in innermost_loops(code)
        if count(MULTIPLY_ADD[name], loop) >= 24 and not count(EXPONENT, loop)
    ]
    assert len(products) >= 3
    for loop in products:
        assert spills([loop]) <= len(loop) // 25
