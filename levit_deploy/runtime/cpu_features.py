"""Names of CPU features, as Linux gives them in /proc/cpuinfo -> the register bits that tell.

Sources: Intel SDM volume 2A, CPUID (avx_vnni, avx512_bf16: leaf 7, subleaf 1), and volume 1, 13.3
for XCR0; Linux arch/arm64/include/uapi/asm/hwcap.h and arch/arm/include/uapi/asm/hwcap.h.
"""

from __future__ import annotations

from enum import Enum, auto

from levit_deploy.errors import DeployError
from levit_deploy.targets.target import Arch, Target


class Register(Enum):
    """What csrc/cpu.h reads; the names are those of its REQUIRED_ macros."""

    LEAF1_ECX = auto()
    LEAF7_EBX = auto()
    LEAF7_ECX = auto()
    LEAF7_1_EAX = auto()
    EXTENDED1_ECX = auto()
    XCR0 = auto()
    HWCAP = auto()
    HWCAP2 = auto()


_R = Register
_X86 = {
    "ssse3": (_R.LEAF1_ECX, 9),
    "fma": (_R.LEAF1_ECX, 12),
    "sse4_1": (_R.LEAF1_ECX, 19),
    "sse4_2": (_R.LEAF1_ECX, 20),
    "movbe": (_R.LEAF1_ECX, 22),
    "popcnt": (_R.LEAF1_ECX, 23),
    "avx": (_R.LEAF1_ECX, 28),
    "f16c": (_R.LEAF1_ECX, 29),
    "bmi1": (_R.LEAF7_EBX, 3),
    "avx2": (_R.LEAF7_EBX, 5),
    "bmi2": (_R.LEAF7_EBX, 8),
    "avx512f": (_R.LEAF7_EBX, 16),
    "avx512dq": (_R.LEAF7_EBX, 17),
    "avx512cd": (_R.LEAF7_EBX, 28),
    "avx512bw": (_R.LEAF7_EBX, 30),
    "avx512vl": (_R.LEAF7_EBX, 31),
    "avx512_vnni": (_R.LEAF7_ECX, 11),
    "avx_vnni": (_R.LEAF7_1_EAX, 4),
    "avx512_bf16": (_R.LEAF7_1_EAX, 5),
    "abm": (_R.EXTENDED1_ECX, 5),
}
_AARCH64 = {
    "asimd": (_R.HWCAP, 1),
    "asimdhp": (_R.HWCAP, 10),
    "asimdrdm": (_R.HWCAP, 12),
    "asimddp": (_R.HWCAP, 20),
    "i8mm": (_R.HWCAP2, 13),
    "bf16": (_R.HWCAP2, 14),
}
_ARMV7 = {
    "neon": (_R.HWCAP, 12),
    "vfpv3": (_R.HWCAP, 13),
    "vfpv4": (_R.HWCAP, 16),
    "idiva": (_R.HWCAP, 17),
}
_FEATURES = {Arch.X86_64: _X86, Arch.AARCH64: _AARCH64, Arch.ARMV7: _ARMV7}

_OSXSAVE = 1 << 27  # leaf 1 ECX: XGETBV may be used
_AVX = 1 << 28
_XCR0_AVX = 0x06  # XMM and YMM
_XCR0_AVX512 = 0xE6  # and opmask, upper ZMM, ZMM16-31
_BEYOND_AVX = (_R.LEAF7_EBX, _R.LEAF7_ECX, _R.LEAF7_1_EAX)


def required_bits(target: Target) -> dict[Register, int]:
    """The bits of every register that a CPU must have to run code for `target`.

    On x86 a feature of leaf 7 implies AVX: it is checked first, so that leaf 7 is known to exist,
    and the operating system must save its registers.
    """
    known = _FEATURES[target.arch]
    masks = dict.fromkeys(Register, 0)
    for feature in target.required_features:
        if feature not in known:
            raise DeployError(
                f"target `{target.name}` requires `{feature}`, which the library cannot check for",
                hint=f"one of {', '.join(known)}",
            )
        register, bit = known[feature]
        masks[register] |= 1 << bit
    if masks[_R.LEAF1_ECX] & _AVX or any(masks[register] for register in _BEYOND_AVX):
        masks[_R.LEAF1_ECX] |= _AVX | _OSXSAVE
        wide = any(feature.startswith("avx512") for feature in target.required_features)
        masks[_R.XCR0] = _XCR0_AVX512 if wide else _XCR0_AVX
    return masks
