"""Divisions by constants without a division: the same integers, below and above zero."""

import ctypes
import itertools
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from levit_deploy.compiler.codegen import finish, translate
from levit_deploy.compiler.kernels.attention.spec import AttentionSpec
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, Layout
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.compiler.small_code import multiplier, small_code
from levit_deploy.compiler.tiles.registry import Spec, family_of
from levit_deploy.compiler.tuning.assembly import lower
from levit_deploy.compiler.tuning.search import generate
from levit_deploy.targets.table import get_target

ARMV7 = get_target("armv7")
SPECS = (
    GemmSpec(49, 128, 128, Activation.NONE, False, Layout.PANELS, gather_side=14),
    ConvSpec(56, 32, 64, Activation.HARDSWISH, Source.PADDED, Destination.PADDED),
    AttentionSpec(2, 16, 32, query_side=7, key_side=7, stride=1, fused_qkv=True),
)

DIVISORS = (1, 2, 3, 7, 28, 49, 64, 100, 196, 641, 65537, (1 << 31) - 1)
LARGEST = (1 << 31) - 1


def around(divisor: int) -> list[int]:
    """Dividends where a quotient changes, up to the largest."""
    whole = (
        0,
        divisor,
        2 * divisor,
        LARGEST // 2 // divisor * divisor,
        LARGEST // divisor * divisor,
    )
    near = {middle + d for middle in (*whole, LARGEST) for d in (-1, 0, 1)}
    return sorted(x for x in near if 0 <= x <= LARGEST)


@pytest.mark.parametrize("divisor", [*DIVISORS, *range(3, 3000, 41)])
def test_the_multiplier(divisor: int):
    factor, shift = multiplier(divisor)
    for x in around(divisor):
        assert x * factor >> shift == x // divisor


def test_what_llvm_makes_of_the_text(tmp_path: Path):
    """Functions of every kind of division, by LLVM; compared with Python's integers."""
    kinds = ("sdiv", "srem", "udiv", "urem")
    functions = [
        f"define i32 @{kind}_{c}(i32 %x) {{\n  %1 = {kind} i32 %x, {c}\n  ret i32 %1\n}}\n"
        for kind, c in itertools.product(kinds, DIVISORS[1:])
    ]
    functions.append(
        "define i8 @unsigned(i8 %x) {\n  %1 = udiv i8 %x, 13\n  ret i8 %1\n}\n"
        "define i8 @small(i8 %x) {\n  %1 = sdiv i8 %x, 13\n  %2 = srem i8 %x, 14\n"
        "  %3 = mul i8 %2, 13\n  %4 = add i8 %1, %3\n  ret i8 %4\n}\n"
    )
    text = small_code("".join(functions))
    assert not any(f" {kind} " in text for kind in kinds)
    (tmp_path / "functions.ll").write_text(text)
    zig = (sys.executable, "-m", "ziglang", "cc", "-shared", "-o", "functions.so", "functions.ll")
    subprocess.run(zig, cwd=tmp_path, check=True, capture_output=True)
    library = ctypes.CDLL(str(tmp_path / "functions.so"))
    for kind, c in itertools.product(kinds, DIVISORS[1:]):
        function = library[f"{kind}_{c}"]
        for x in around(c):
            quotient, rest = divmod(x, c)
            expected = quotient if kind.endswith("div") else rest
            assert function(x) == expected
            if kind.startswith("s"):
                assert function(-x) == -expected
    assert all(library.unsigned(x) & 255 == x // 13 for x in range(256))
    small = library.small
    small.restype = ctypes.c_int8
    for x in range(128):
        assert small(x) == ctypes.c_int8(x // 13 + x % 14 * 13).value
        assert small(-x) == ctypes.c_int8(-(x // 13) - x % 14 * 13).value


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: family_of(spec).name)
def test_kernels_multiply_and_add_in_one_instruction(spec: Spec):
    """What was a product and an addition; and nothing is called."""
    kernel = generate("k", spec, family_of(spec).default_tile(spec, ARMV7), ARMV7)
    module = translate(lower(kernel, ARMV7), llvm_target(ARMV7))
    plain, finished = (
        Counter(re.findall(r"^\t([\w.]+)\t", str(code.inspect_source("asm")), re.MULTILINE))
        for code in (module, finish(module, ARMV7))
    )
    assert plain["vmla.f32"] == 0
    assert finished["vmla.f32"] > 0.9 * plain["vadd.f32"] > 0
    assert finished["bl"] == 0
