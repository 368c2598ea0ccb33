"""Attention beyond test_families: its bias tables, what it supports, the code of its loops."""

from __future__ import annotations

import re

import pytest

from levit_deploy.compiler.kernels.attention import int8
from levit_deploy.compiler.kernels.attention.float32 import attention_kernel
from levit_deploy.compiler.kernels.attention.spec import (
    AttentionSpec,
    default_tile,
    is_supported,
    pack_bias,
)
from levit_deploy.compiler.tuning.assembly import assembly, innermost_loops, spills
from levit_deploy.targets.table import get_target
from tests.compiler.kernels.attention_cases import (
    PARTS_OF_PANELS,
    WHOLE_SPECS,
    AttentionLayer,
    plain,
    shrinking,
)


def test_dense_tables_are_not_kept() -> None:
    spec = plain(14, heads=4)
    packed = pack_bias(AttentionLayer.random(spec).bias, spec)
    assert packed is not None
    assert packed.size <= 4 * 14 * 27 + 16


def test_another_form_of_bias_is_declined() -> None:
    spec = plain(4)
    bias = AttentionLayer.random(spec).bias
    bias[1, 3, 2] += 1
    assert pack_bias(bias, spec) is None


def test_every_levit_is_supported() -> None:
    assert all(is_supported(spec) for spec in (*WHOLE_SPECS, *PARTS_OF_PANELS))
    assert not is_supported(plain(4, key_dim=6))
    assert not is_supported(plain(4, value_dim=24))


def test_what_is_supported_in_8_bits() -> None:
    assert all(map(int8.is_supported, WHOLE_SPECS))
    assert not int8.is_supported(plain(4, key_dim=8))
    assert int8.is_supported(plain(64))  # at 1024 px


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
    target = get_target(name)
    kernel = attention_kernel("attention", spec, default_tile(spec, target), target)
    code = assembly(kernel, target)
    products = [
        loop
        for loop in innermost_loops(code)
        if count(MULTIPLY_ADD[name], loop) >= 24 and not count(EXPONENT, loop)
    ]
    assert len(products) >= 3
    for loop in products:
        assert spills([loop]) <= len(loop) // 25
