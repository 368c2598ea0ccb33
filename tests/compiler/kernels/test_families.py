"""Every kernel family of the registry, on every target: right, and the same bits however cut."""

from __future__ import annotations

import numpy as np
import pytest

from levit_deploy.compiler.tiles.registry import FAMILIES
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.compiler.kernels import (
    attention_bf16_cases,
    attention_cases,
    attention_half_cases,
    attention_int8_cases,
    bf16_cases,
    conv_bf16_cases,
    conv_cases,
    conv_half_cases,
    conv_int16_cases,
    gemm_cases,
    half_cases,
    head_cases,
    int8_cases,
)
from tests.compiler.kernels.kernel_targets import EVEX_256, FMA_TARGET
from tests.compiler.kernels.suite import Suite, assert_same_bytes, written

SUITES = {
    "gemm": gemm_cases.SUITE,
    "gemm half": half_cases.HALF_SUITE,
    "gemm bf16": bf16_cases.SUITE,
    "gemm bfmmla": bf16_cases.ARM_SUITE,
    "gemm stored half": half_cases.STORED_SUITE,
    "gemm int8": int8_cases.SUITE,
    "head": head_cases.SUITE,
    "conv": conv_cases.SUITE,
    "conv int16": conv_int16_cases.SUITE,
    "conv half": conv_half_cases.SUITE,
    "conv bf16": conv_bf16_cases.SUITE,
    "attention": attention_cases.SUITE,
    "attention bf16": attention_bf16_cases.SUITE,
    "attention bfmmla": attention_bf16_cases.ARM_SUITE,
    "attention half": attention_half_cases.SUITE,
    "attention int8": attention_int8_cases.SUITE,
}
# What others cover: the instructions in registers of another size; armv7's run in whole nets too.
SLOW = {
    ("attention int8", target): pytest.mark.slow
    for target in (EVEX_256, get_target("x86-64-v4"), get_target("armv7"))
}
EVERY = [
    pytest.param(suite, target, id=f"{name}-{target.name}", marks=SLOW.get((name, target), ()))
    for name, suite in SUITES.items()
    for target in suite.targets
]


def test_every_family_has_a_suite() -> None:
    assert {suite.family.name for suite in SUITES.values()} == {row.name for row in FAMILIES}


@pytest.mark.parametrize(("suite", "target"), EVERY)
def test_family(suite: Suite, target: Target, subtests: pytest.Subtests) -> None:
    result = written(suite, target)
    for name, case in suite.cases.items():
        with subtests.test(name):
            case.check(result.cases[name], target)
    whole = result.cases[suite.cut]
    with subtests.test("any split of the tasks gives the same bits"):
        assert_same_bytes(result.in_parts, whole)
    with subtests.test("tasks write disjoint parts"):
        for place, buffer in enumerate(whole):
            parts = [part[place].view(np.uint8) for part in result.by_task]
            times = sum((part != 0xFF).astype(int) for part in parts)
            assert times.max() == 1
            np.testing.assert_array_equal(np.minimum.reduce(parts), buffer.view(np.uint8))
    assert len(result.by_tile) > 2
    for tile, buffers in result.by_tile.items():
        with subtests.test(f"tile {tile} gives the same bits"):
            assert_same_bytes(buffers, whole)
    if target.fma and target is not FMA_TARGET and FMA_TARGET in suite.targets:
        there = written(suite, FMA_TARGET)
        for name, case in suite.cases.items():
            if case.portable:
                with subtests.test(f"the same bits as {FMA_TARGET.name}", case=name):
                    assert_same_bytes(result.cases[name], there.cases[name])
