"""Every target as a row of data; a new CPU or board is one entry here.

Cache sizes are those of the smallest common core of the class, so that tiles derived from them
fit every member. Sources of the figures: Intel 64 and IA-32 Optimization Reference Manual
(Nehalem, Haswell, Skylake Server, Gracemont chapters), Arm Technical Reference Manuals of the
named cores, and the board vendors' documentation. Register counts: Intel SDM volume 1 (16 XMM and
YMM, 32 ZMM), Arm ARM (32 V registers in AArch64, 16 Q registers in AArch32).
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import partial

from levit_deploy.errors import DeployError
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.host import Cpu, host_target, last_fitting, read_cpu
from levit_deploy.targets.system import Os
from levit_deploy.targets.target import Arch, Emulator, Int8Dot, Target

KIB = 1024
HOST = "host"

# The x86-64 psABI's micro-architecture levels, as /proc/cpuinfo spells their vector-era flags
# (`abm` is LZCNT). LLVM uses all of them once `cpu` names the level, so all are checked.
_X86_V2 = ("sse4_2", "popcnt")
_X86_V3 = (*_X86_V2, "avx2", "fma", "bmi1", "bmi2", "abm", "movbe", "f16c")
_X86_V4 = (*_X86_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_X86_V4_VNNI = (*_X86_V4, "avx512_vnni")

_X86_64 = partial(Target, arch=Arch.X86_64)
_AARCH64 = partial(
    Target,
    arch=Arch.AARCH64,
    vector_bytes=16,
    vector_registers=32,
    fma=True,
)

# What LLVM gives a Cortex-A53 beside its order of instructions, and ARMv7-A need not have.
_NOT_IN_ARMV7 = (
    *("-v8", "-mp", "-hwdiv", "-hwdiv-arm", "-crc", "-crypto", "-aes", "-sha2"),
    *("-acquire-release", "-trustzone", "-fp-armv8d16sp", "-vfp4d16sp", "-fp16"),
)

_CPUS = (
    # Least demanding first within an architecture: a host gets the last row that it can run.
    _X86_64(
        name="x86-64",
        description="x86-64-v2: SSE4.2, no FMA (Nehalem 2008, Goldmont and newer)",
        cpu="x86-64-v2",
        features=(),
        vector_bytes=16,
        vector_registers=16,
        fma=False,
        int8_dot=Int8Dot.MADD,
        l1d_bytes=24 * KIB,  # Goldmont; Nehalem has 32
        l2_bytes=256 * KIB,  # Nehalem
        required_features=_X86_V2,
        emulator=Emulator("qemu-x86_64", "Nehalem"),
    ),
    _X86_64(
        name="x86-64-v3",
        description="AVX2 and FMA (Haswell 2013, Zen 2017 and newer)",
        cpu="x86-64-v3",
        features=(),
        vector_bytes=32,
        vector_registers=16,
        fma=True,
        int8_dot=Int8Dot.MADD,
        l1d_bytes=32 * KIB,
        l2_bytes=256 * KIB,  # Haswell; Zen has 512
        required_features=_X86_V3,
        emulator=Emulator("qemu-x86_64", "Haswell"),
    ),
    _X86_64(
        name="x86-64-v3-vnni",
        description="AVX2 with AVX-VNNI (Alder Lake 2021, N100, Zen 5 and newer)",
        cpu="x86-64-v3",
        features=("+avxvnni", "+fast-dpwssd"),  # or LLVM makes pmaddwd and paddd of vpdpwssd
        vector_bytes=32,
        vector_registers=16,
        fma=True,
        int8_dot=Int8Dot.VPDPBUSD,
        l1d_bytes=32 * KIB,  # Gracemont; Golden Cove has 48
        l2_bytes=512 * KIB,  # Gracemont: 2 MiB shared by four cores
        required_features=(*_X86_V3, "avx_vnni"),
        emulator=None,  # qemu's x86 has no AVX-VNNI
    ),
    _X86_64(
        name="x86-64-v4",
        description="AVX-512 F/BW/CD/DQ/VL (Skylake Server 2017 and newer)",
        cpu="x86-64-v4",
        features=("-prefer-256-bit",),
        vector_bytes=64,
        vector_registers=32,
        fma=True,
        int8_dot=Int8Dot.MADD,
        l1d_bytes=32 * KIB,
        l2_bytes=1024 * KIB,
        required_features=_X86_V4,
        emulator=None,  # qemu's x86 has no AVX-512
    ),
    _X86_64(
        name="x86-64-v4-vnni",
        description="AVX-512 with VNNI (Cascade Lake 2019, Ice Lake, Zen 4 and newer)",
        cpu="x86-64-v4",
        features=("-prefer-256-bit", "+avx512vnni", "+fast-dpwssd"),
        vector_bytes=64,
        vector_registers=32,
        fma=True,
        int8_dot=Int8Dot.VPDPBUSD,
        l1d_bytes=32 * KIB,  # Cascade Lake, Zen 4; Ice Lake has 48
        l2_bytes=1024 * KIB,
        required_features=_X86_V4_VNNI,
        emulator=None,
    ),
    _X86_64(
        name="x86-64-v4-bf16",
        description="AVX-512 with VNNI and BF16 (Cooper Lake 2020, Zen 4, Sapphire Rapids)",
        cpu="x86-64-v4",
        features=("-prefer-256-bit", "+avx512vnni", "+fast-dpwssd", "+avx512bf16"),
        vector_bytes=64,
        vector_registers=32,
        fma=True,
        int8_dot=Int8Dot.VPDPBUSD,
        halves=frozenset({HalfFormat.BF16}),
        l1d_bytes=32 * KIB,  # Cooper Lake, Zen 4; Sapphire Rapids has 48
        l2_bytes=1024 * KIB,
        required_features=(*_X86_V4_VNNI, "avx512_bf16"),
        emulator=None,
    ),
    _AARCH64(
        name="arm64",
        description="ARMv8.0 with NEON (Cortex-A53, A72 and newer)",
        cpu="cortex-a72",
        features=(),
        int8_dot=Int8Dot.MLAL,
        l1d_bytes=32 * KIB,  # Cortex-A72, and the usual choice for Cortex-A53
        l2_bytes=512 * KIB,  # shared by the cluster
        required_features=(),
        emulator=Emulator("qemu-aarch64", "cortex-a72"),
    ),
    _AARCH64(
        name="arm64-dotprod",
        description="ARMv8.2 with dot product (Cortex-A76, Neoverse N1 and newer)",
        cpu="cortex-a76",
        features=(),
        int8_dot=Int8Dot.SDOT,
        halves=frozenset({HalfFormat.FP16}),  # every such core has FEAT_FP16 too
        l1d_bytes=64 * KIB,
        l2_bytes=256 * KIB,  # Cortex-A76: 128 to 512
        required_features=("asimdhp", "asimddp"),
        emulator=Emulator("qemu-aarch64", "cortex-a76"),
    ),
    _AARCH64(
        name="arm64-i8mm",
        description="ARMv8.6 with matrix multiply (Neoverse V1, Cortex-A710 and newer)",
        cpu="neoverse-v1",
        features=("-sve",),  # fixed-width kernels; SVE is not in every such core
        int8_dot=Int8Dot.SMMLA,
        halves=frozenset({HalfFormat.FP16, HalfFormat.BF16}),
        l1d_bytes=64 * KIB,
        l2_bytes=512 * KIB,  # Cortex-A710: 256 or 512; Neoverse V1 has 1024
        # Both are mandatory there, and no core has one of them only.
        required_features=("asimdhp", "asimddp", "i8mm", "bf16"),
        emulator=Emulator("qemu-aarch64", "max,sve=off"),
    ),
    Target(
        name="armv7",
        description="32-bit ARMv7-A with NEON, hard float, no FMA (Cortex-A7, A9 and newer)",
        arch=Arch.ARMV7,
        cpu="cortex-a53",  # in 32 bits its model alone does not hoist loads until LLVM spills
        features=("+neon", "+use-misched", *_NOT_IN_ARMV7),
        vector_bytes=16,
        vector_registers=16,
        fma=False,
        int8_dot=Int8Dot.MLAL,
        l1d_bytes=32 * KIB,
        l2_bytes=512 * KIB,
        required_features=("neon",),
        emulator=Emulator("qemu-arm", "cortex-a9"),  # the last core without VFPv4's FMA
    ),
)
_BY_NAME = {target.name: target for target in _CPUS}

# The core that qemu-user gives a board's code, where it is not the board's own.
_EMULATED_AS = {"neoverse-v1": "max,sve=off", "cortex-a78ae": "cortex-a76"}


# In AArch64 LLVM's model of the Cortex-A53 hoists the weights of a whole turn of the loop, and then
# spills them. That of its successor, without what came with ARMv8.2, does not.
_SCHEDULED_AS = {
    "cortex-a53": (
        "cortex-a55",
        ("-dotprod", "-fullfp16", "-lse", "-rdm", "-ras", "-rcpc"),
    )
}


def _board(name: str, description: str, base: str, cpu: str, l1d_kib: int, l2_kib: int) -> Target:
    """The target `base` with a board's own scheduling model and caches."""
    emulator = Emulator("qemu-aarch64", _EMULATED_AS.get(cpu, cpu))
    scheduled_as, features = _SCHEDULED_AS.get(cpu, (cpu, _BY_NAME[base].features))
    return replace(
        _BY_NAME[base],
        name=name,
        description=description,
        cpu=scheduled_as,
        features=features,
        l1d_bytes=l1d_kib * KIB,
        l2_bytes=l2_kib * KIB,
        emulator=emulator,
        base=base,
    )


_BOARDS = (
    _board("rpi3", "Raspberry Pi 3 (BCM2837)", "arm64", "cortex-a53", 32, 512),
    _board("rpi4", "Raspberry Pi 4 (BCM2711)", "arm64", "cortex-a72", 32, 1024),
    _board("rpi5", "Raspberry Pi 5 (BCM2712)", "arm64-dotprod", "cortex-a76", 64, 512),
    _board("graviton2", "AWS Graviton2", "arm64-dotprod", "neoverse-n1", 64, 1024),
    _board("graviton3", "AWS Graviton3", "arm64-i8mm", "neoverse-v1", 64, 1024),
    _board("imx8mp", "NXP i.MX 8M Plus", "arm64", "cortex-a53", 32, 512),
    _board("jetson-orin", "NVIDIA Jetson Orin", "arm64-dotprod", "cortex-a78ae", 64, 256),
)


def _any(name: str, description: str, arch: Arch) -> Target:
    levels = tuple(target for target in _CPUS[::-1] if target.arch is arch)
    base = levels[-1]
    return replace(base, name=name, description=description, base=base.name, levels=levels)


_ANY = (
    _any("x86-64-any", "every x86-64 since 2008: the library chooses its code", Arch.X86_64),
    _any("arm64-any", "every 64-bit ARM: the library chooses its code", Arch.AARCH64),
)

TARGETS: dict[str, Target] = {target.name: target for target in (*_CPUS, *_BOARDS, *_ANY)}


# What people ask for and is not built: said to be that, not taken for a misspelt board.
NOT_YET = frozenset({"wasm", "riscv64", "armv6", "cuda"})


def fitting_target(cpu: Cpu) -> Target:
    """The most capable class of CPUs whose code `cpu` runs; raises DeployError if there is none."""
    return last_fitting(cpu, _CPUS)


def get_target(name: str) -> Target:
    """The target called `name`; `host` is detected.

    Raises DeployError for an unknown name, with the nearest ones as a hint.
    """
    if name == HOST:
        return host_target(read_cpu(), _CPUS)
    if name in TARGETS:
        return TARGETS[name]
    if name.lower() in list(Os):
        option = "--libc android" if name.lower() == Os.ANDROID else f"--os {name.lower()}"
        raise DeployError(
            f"`{name}` is a system, not a CPU", hint=f"{option}, and --target is its CPU"
        )
    if name.lower() in NOT_YET:
        raise DeployError(
            f"`{name}` is not a target yet: there are libraries for x86-64 and ARM",
            hint="`levit-deploy targets` lists all of them",
        )
    near = difflib.get_close_matches(name, [HOST, *TARGETS], n=2, cutoff=0.5)
    hint = f"did you mean `{'` or `'.join(near)}`? " if near else ""
    raise DeployError(
        f"unknown target `{name}`", hint=f"{hint}`levit-deploy targets` lists all of them"
    )
