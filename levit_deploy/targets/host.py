"""What CPU is this: /proc/cpuinfo and sysfs -> the most capable target that it runs."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.targets.core_names import core_names
from levit_deploy.targets.target import Arch, Target

ARCH_OF_MACHINE = {
    "x86_64": Arch.X86_64,
    "aarch64": Arch.AARCH64,
    "armv7l": Arch.ARMV7,
    "armv8l": Arch.ARMV7,  # a 32-bit process on a 64-bit ARM kernel
}
_FEATURE_KEYS = ("flags", "Features")  # x86, ARM
SYSFS_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Cpu:
    """The CPU of this machine. Cache sizes are None where the kernel does not tell."""

    arch: Arch
    model: str
    features: frozenset[str]
    l1d_bytes: int | None
    l2_bytes: int | None

    def runs(self, target: Target) -> bool:
        """Whether code for `target` executes here without an emulator."""
        return self.arch is target.arch and self.features.issuperset(target.required_features)


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """(kinds of cores, features that every core has) from the text of /proc/cpuinfo.

    x86 lists `flags`, ARM lists `Features`.
    """
    features: frozenset[str] | None = None
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in _FEATURE_KEYS:
            core = frozenset(value.split())
            features = core if features is None else features & core
    kinds = dict.fromkeys(name for name in core_names(text).values() if name)
    return " + ".join(kinds), features or frozenset()


def parse_caches(folder: Path) -> dict[int, int]:
    """{level: bytes} of the data or unified caches that sysfs lists in `folder`."""
    entries = []
    for index in folder.glob("index*"):
        with contextlib.suppress(OSError):  # virtual machines and old ARM kernels leave files out
            entries.append(
                tuple((index / name).read_text().strip() for name in ("type", "level", "size"))
            )
    return caches_in(entries)


def caches_in(entries: Iterable[Sequence[str]]) -> dict[int, int]:
    """{level: bytes} of the data or unified caches among (type, level, size) as sysfs has them."""
    return {
        int(level): int(size.removesuffix("K")) * 1024
        for kind, level, size in entries
        if kind in ("Data", "Unified") and level.isdigit() and size.removesuffix("K").isdigit()
    }


def parse_cpu(system: str, machine: str, cpuinfo: str, caches: Mapping[int, int]) -> Cpu:
    """`system` and `machine` as `uname -s` and `-m` say, the text of /proc/cpuinfo, and {level:
    bytes}; raises DeployError for an architecture that we do not know."""
    arch = ARCH_OF_MACHINE.get(machine)
    if system != "Linux" or arch is None:
        raise DeployError(
            f"`{system} {machine}` cannot run the libraries made here",
            hint="name the device's target: `levit-deploy targets` lists all of them",
        )
    model, features = parse_cpuinfo(cpuinfo)
    return Cpu(arch, model, features, caches.get(1), caches.get(2))


def read_cpu() -> Cpu:
    """The CPU of this machine; raises DeployError where it is of no architecture we know."""
    cpuinfo = Path("/proc/cpuinfo")
    return parse_cpu(
        platform.system(),
        platform.machine(),
        cpuinfo.read_text() if cpuinfo.exists() else "",
        parse_caches(SYSFS_CACHES),
    )


def last_fitting(cpu: Cpu, candidates: Iterable[Target]) -> Target:
    """The last of `candidates` that `cpu` runs; raises DeployError if it runs none."""
    fitting = [target for target in candidates if cpu.runs(target)]
    if not fitting:
        raise DeployError(
            f"this CPU (`{cpu.model}`) is older than every target",
            hint="name the device's target: `levit-deploy targets` lists all of them",
        )
    return fitting[-1]


def host_target(cpu: Cpu, candidates: Iterable[Target]) -> Target:
    """The last of `candidates` that `cpu` runs, with the caches of `cpu`, under the name `host`.

    Raises DeployError if it runs none.
    """
    best = last_fitting(cpu, candidates)
    description = f"this machine: {cpu.model or best.description}"
    return replace(with_caches(best, cpu), name="host", description=description, base=best.name)


def with_caches(target: Target, cpu: Cpu) -> Target:
    """`target` with the caches of `cpu`, as far as they are known."""
    l1d, l2 = cpu.l1d_bytes or target.l1d_bytes, cpu.l2_bytes or target.l2_bytes
    return replace(target, l1d_bytes=l1d, l2_bytes=l2)
