"""Feature bits, against the compiler's and the kernel's own headers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.runtime.cpu_features import Register, required_bits
from levit_deploy.targets.table import TARGETS, get_target
from levit_deploy.targets.toolchain import find_toolchain

# Feature -> the name of its bit in <cpuid.h> (clang's) or <asm/hwcap.h> (Linux's).
X86 = {
    "ssse3": "bit_SSSE3",
    "fma": "bit_FMA",
    "sse4_1": "bit_SSE41",
    "sse4_2": "bit_SSE42",
    "movbe": "bit_MOVBE",
    "popcnt": "bit_POPCNT",
    "avx": "bit_AVX",
    "f16c": "bit_F16C",
    "bmi1": "bit_BMI",
    "avx2": "bit_AVX2",
    "bmi2": "bit_BMI2",
    "avx512f": "bit_AVX512F",
    "avx512dq": "bit_AVX512DQ",
    "avx512cd": "bit_AVX512CD",
    "avx512bw": "bit_AVX512BW",
    "avx512vl": "bit_AVX512VL",
    "avx512_vnni": "bit_AVX512VNNI",
    "avx_vnni": "bit_AVXVNNI",
    "avx512_bf16": "bit_AVX512BF16",
    "abm": "bit_ABM",
}
AARCH64 = {
    "asimd": "HWCAP_ASIMD",
    "asimdhp": "HWCAP_ASIMDHP",
    "asimdrdm": "HWCAP_ASIMDRDM",
    "asimddp": "HWCAP_ASIMDDP",
    "i8mm": "HWCAP2_I8MM",
    "bf16": "HWCAP2_BF16",
}
ARMV7 = {
    "neon": "HWCAP_NEON",
    "vfpv3": "HWCAP_VFPv3",
    "vfpv4": "HWCAP_VFPv4",
    "idiva": "HWCAP_IDIVA",
}
OSXSAVE, AVX = 1 << 27, 1 << 28  # of leaf 1


@pytest.mark.parametrize(
    ("target", "header", "names"),
    [
        ("x86-64", "cpuid.h", X86),
        ("arm64", "asm/hwcap.h", AARCH64),
        ("armv7", "asm/hwcap.h", ARMV7),
    ],
)
def test_bits_are_those_of_the_headers(
    target: str, header: str, names: dict[str, str], tmp_path: Path
) -> None:
    base = get_target(target)
    lines = [f"#include <{header}>"]
    for feature, macro in names.items():
        masks = required_bits(replace(base, required_features=(feature,)))
        own = {r: m for r, m in masks.items() if r is not Register.XCR0 and m}
        register = max(own, key=lambda r: r.value)  # LEAF1_ECX may be implied
        bits = own[register] & ~(OSXSAVE if register is Register.LEAF1_ECX else 0)
        lines.append(f'_Static_assert((unsigned){macro} == {bits}u, "{feature}");')
        if register.name.startswith("HWCAP"):
            assert register.name == macro.split("_")[0]
    source = tmp_path / "check.c"
    source.write_text("\n".join(lines) + "\n")
    find_toolchain(base).compile(source, tmp_path / "check.o")


def test_wide_registers_must_be_saved_by_the_operating_system() -> None:
    avx2 = required_bits(get_target("x86-64-v3"))
    assert avx2[Register.XCR0] == 0b110
    assert avx2[Register.LEAF1_ECX] & (OSXSAVE | AVX) == OSXSAVE | AVX
    assert required_bits(get_target("x86-64-v4"))[Register.XCR0] == 0b11100110
    assert required_bits(get_target("x86-64"))[Register.XCR0] == 0


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_can_be_checked(name: str) -> None:
    target = get_target(name)
    assert any(required_bits(target).values()) == bool(target.required_features)


def test_unknown_feature() -> None:
    with pytest.raises(DeployError, match="`amx_tile`"):
        required_bits(replace(get_target("x86-64"), required_features=("amx_tile",)))
