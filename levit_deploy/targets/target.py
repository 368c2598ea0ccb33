"""What code is made for, a CPU under a system: a value, never a name to be compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.system import OLDEST_GLIBC, System
from levit_deploy.targets.system import Arch as Arch


class Int8Dot(StrEnum):
    """The instruction that multiplies 8-bit integers and sums them in 32 bits.

    MADD: pmaddubsw on operands that cannot saturate it, and pmaddwd (x86).
    VPDPBUSD: x86 AVX-VNNI or AVX-512 VNNI. MLAL: smull/smlal/sadalp (NEON).
    SDOT: ARMv8.2 dotprod. SMMLA: ARMv8.6 i8mm.
    """

    MADD = "pmadd"
    VPDPBUSD = "vpdpbusd"
    MLAL = "smlal"
    SDOT = "sdot"
    SMMLA = "smmla"


@dataclass(frozen=True)
class Emulator:
    """How qemu-user runs this target's code: `binary -cpu cpu program`."""

    binary: str
    cpu: str


@dataclass(frozen=True)
class Target:
    """One CPU type, and the system on it. Sizes are bytes; `features` are LLVM attribute names with
    their sign.

    `fma`: fused multiply-add exists and every kernel uses it, so all such targets compute the same
    bits. `required_features`: what the library checks for when it is entered, and what a host must
    have to run it, as Linux names them in /proc/cpuinfo; empty where the base architecture has
    everything. `halves`: the 16-bit floats that it multiplies. `emulator`: None where qemu-user
    lacks an instruction that the target uses.
    `levels`: of one that stands for all CPUs of an architecture, the most capable first; everything
    else is then that of the least demanding one, which is its base.
    """

    name: str
    description: str
    arch: Arch
    cpu: str
    features: tuple[str, ...]
    vector_bytes: int
    vector_registers: int
    fma: bool
    int8_dot: Int8Dot
    l1d_bytes: int
    l2_bytes: int
    required_features: tuple[str, ...]
    emulator: Emulator | None
    halves: frozenset[HalfFormat] = frozenset()
    base: str | None = None  # the target that a board name stands for
    levels: tuple[Target, ...] = ()
    system: System = OLDEST_GLIBC

    @property
    def float_lanes(self) -> int:
        """float32 values in one vector register."""
        return self.vector_bytes // 4

    @property
    def triple(self) -> str:
        """What LLVM calls architecture and system."""
        return self.system.llvm_triple(self.arch)

    def on(self, system: System) -> Target:
        """The same CPU under another system; raises DeployError where there is no such thing."""
        system.llvm_triple(self.arch)
        levels = tuple(level.on(system) for level in self.levels)
        return replace(self, system=system, levels=levels)

    def levels_for(self, precision: str) -> tuple[Target, ...]:
        """Those of `levels` whose kernels differ in it; floats know nothing of dot products, and
        8 bits nothing of 16-bit floats."""
        distinct: dict[object, Target] = {}
        for level in self.levels:
            own = level.int8_dot if precision == "int8" else precision in level.halves
            distinct[level.vector_bytes, level.fma, own] = level
        return tuple(distinct.values())
