"""What a machine is and how it is doing, in one round trip: facts.sh, and what it printed read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from levit_deploy.machines.machine import Machine
from levit_deploy.targets.core_names import core_names
from levit_deploy.targets.host import ARCH_OF_MACHINE, Cpu, caches_in, parse_cpuinfo
from levit_deploy.targets.target import Arch

_SCRIPT = Path(__file__).with_name("facts.sh")
_CORES = "/sys/devices/system/cpu/cpu"
_ZONES = "/sys/class/thermal/thermal_zone"
_OF_A_CPU = ("cpu", "soc", "pkg", "core", "package")  # what types of thermal zones have in them


@dataclass(frozen=True)
class Cores:
    """Cores of one kind, by their numbers. None: the kernel does not say.

    `capacity`: of 1024 that the fastest core of the machine has. `mhz`: the clock of each at the
    moment that it was read.
    """

    name: str
    numbers: tuple[int, ...]
    capacity: int | None
    max_mhz: int | None
    mhz: tuple[int | None, ...]
    governor: str | None
    l1d_bytes: int | None
    l2_bytes: int | None
    l3_bytes: int | None


@dataclass(frozen=True)
class Facts:
    """A machine at one moment. None, or an empty text: it does not say.

    `cpu`: None for one of no architecture that we know. `board`: what device tree or firmware call
    it. `system`: name, release and machine of the kernel. `cores`: the fastest first. `libc`:
    `glibc-2.36`, `musl`, `android-33`. `programs_32bit`: on a 64-bit kernel. `throttled`: the bits
    of `vcgencmd get_throttled`. `pmus`: the cores of each kind of counters, by the kernel's number
    of it, where there are several kinds. `perf_event_paranoid`: above 2 no counters for others than
    root. `no_exec`: the folder for temporary files, if nothing in it may be executed. `runtimes`:
    which peers its Python has; None: no Python.
    """

    cpu: Cpu | None
    board: str
    system: str
    cores: tuple[Cores, ...]
    libc: str | None
    programs_32bit: bool
    free_bytes: int | None
    temperature_c: float | None
    throttled: int | None
    pmus: Mapping[int, tuple[int, ...]]
    perf_event_paranoid: int | None
    no_exec: str | None
    runtimes: tuple[str, ...] | None

    @property
    def fastest_first(self) -> tuple[int, ...]:
        """The numbers of all cores."""
        return tuple(itertools.chain.from_iterable(kind.numbers for kind in self.cores))

    def kind_of(self, core: int) -> Cores:
        return next(kind for kind in self.cores if core in kind.numbers)


def read_facts(machine: Machine) -> Facts:
    """Those of `machine` now. Raises MachineLostError, or RunError if its shell does not work."""
    return parse_facts(machine.shell(_SCRIPT.read_text()))


def parse_facts(text: str) -> Facts:
    """The facts in what facts.sh printed; what is not there, or is no number, is not known."""
    files = _files(text)
    cpuinfo = files.get("/proc/cpuinfo", "")
    system = files.get("uname", "")
    arch = ARCH_OF_MACHINE.get((system.split() or [""])[-1])
    cores = _cores(files, cpuinfo)
    cpu = None
    if arch:
        model, features = parse_cpuinfo(cpuinfo)
        first = cores[0] if cores else None
        l1d, l2 = (first.l1d_bytes, first.l2_bytes) if first else (None, None)
        cpu = Cpu(arch, model, features, l1d, l2)
    memory = re.search(r"^MemAvailable:\s*(\d+) kB", files.get("/proc/meminfo", ""), re.M)
    pmus = {
        kind: _numbers(cpus)
        for name, cpus in files.items()
        if name.endswith("/cpus") and (kind := _integer(files, name.removesuffix("cpus") + "type"))
    }
    tmp = files.get("tmp", "/tmp")
    return Facts(
        cpu=cpu,
        board=_board(files, cpuinfo),
        system=system,
        cores=cores,
        libc=_libc(files),
        programs_32bit=arch is Arch.AARCH64 and _loads_32bit_only(files.get("loaders", "")),
        free_bytes=int(memory[1]) * 1024 if memory else None,
        temperature_c=_temperature(files),
        throttled=_throttled(files),
        pmus=pmus if len(pmus) > 1 else {},
        perf_event_paranoid=_integer(files, "/proc/sys/kernel/perf_event_paranoid"),
        no_exec=tmp if _is_no_exec(tmp, files.get("/proc/mounts", "")) else None,
        runtimes=tuple(files["python3"].split()) if "python3" in files else None,
    )


def _files(text: str) -> dict[str, str]:
    """{name: content} of what the script printed, without blanks around it."""
    pieces = re.split(r"^@ (.*)\n", text.replace("\0", ""), flags=re.M)[1:]
    return dict(zip(pieces[::2], (piece.strip() for piece in pieces[1::2]), strict=True))


def _integer(files: Mapping[str, str], name: str, base: int = 10) -> int | None:
    try:
        return int(files.get(name, ""), base)
    except ValueError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """`0-2,7` -> 0, 1, 2, 7"""
    spans = (part.split("-") for part in text.split(",") if re.fullmatch(r"\d+(-\d+)?", part))
    return tuple(number for span in spans for number in range(int(span[0]), int(span[-1]) + 1))


def _cores(files: Mapping[str, str], cpuinfo: str) -> tuple[Cores, ...]:
    def khz(core: int, name: str) -> int | None:
        return _integer(files, f"{_CORES}{core}/cpufreq/{name}")

    def mhz(core: int, name: str) -> int | None:
        found = khz(core, name)
        return None if found is None else round(found / 1000)

    def kind(core: int) -> tuple[int, int, str]:
        capacity = _integer(files, f"{_CORES}{core}/cpu_capacity") or 0
        return -capacity, -(khz(core, "cpuinfo_max_freq") or 0), names[core]

    names = core_names(cpuinfo)
    kinds = []
    for (capacity, _, name), group in itertools.groupby(sorted(names, key=kind), key=kind):
        numbers = tuple(sorted(group))
        governors = (files.get(f"{_CORES}{core}/cpufreq/scaling_governor", "") for core in numbers)
        caches = _caches(files, numbers) or _caches(files, sorted(names))
        kinds.append(
            Cores(
                name=name,
                numbers=numbers,
                capacity=-capacity or None,
                max_mhz=mhz(numbers[0], "cpuinfo_max_freq"),
                mhz=tuple(mhz(core, "scaling_cur_freq") for core in numbers),
                governor=", ".join(sorted(set(filter(None, governors)))) or None,
                l1d_bytes=caches.get(1),
                l2_bytes=caches.get(2),
                l3_bytes=caches.get(3),
            )
        )
    return tuple(kinds)


def _caches(files: Mapping[str, str], numbers: Iterable[int]) -> dict[int, int]:
    """{level: bytes}, of the first of these cores whose caches were read."""
    for core in numbers:
        folder = f"{_CORES}{core}/cache/index"
        entries = {name.rpartition("/")[0] for name in files if name.startswith(folder)}
        if caches := caches_in(
            tuple(files.get(f"{entry}/{name}", "") for name in ("type", "level", "size"))
            for entry in entries
        ):
            return caches
    return {}


def _board(files: Mapping[str, str], cpuinfo: str) -> str:
    if tree := files.get("/proc/device-tree/model"):
        return tree
    if of_a_pi := re.search(r"^Model\s*: (.*)", cpuinfo, re.M):
        return of_a_pi[1]
    dmi = "/sys/devices/virtual/dmi/id"
    names = (files.get(f"{dmi}/{name}") for name in ("sys_vendor", "product_name"))
    return " ".join(filter(None, names))


def _libc(files: Mapping[str, str]) -> str | None:
    said, loaders = files.get("ldd", ""), files.get("loaders", "")
    if release := files.get("getprop"):
        return f"android-{release}"
    if glibc := re.match(r"ldd \(.*\) (2\.\d+)", said):
        return f"glibc-{glibc[1]}"
    if said.startswith("musl libc"):
        return "musl"
    if "/ld-linux" in loaders.replace("/ld-linux*", ""):
        return "glibc"
    return "musl" if "/ld-musl-" in loaders else None


def _loads_32bit_only(loaders: str) -> bool:
    return "armhf" in loaders and "aarch64" not in loaders and "linker64" not in loaders


def _temperature(files: Mapping[str, str]) -> float | None:
    """Of the hottest thermal zone of the CPU, or of all if none says that it is one."""
    zones = {
        name: millidegrees / 1000
        for name in files
        if name.startswith(_ZONES) and name.endswith("/temp")
        if (millidegrees := _integer(files, name)) is not None
    }

    def is_of_a_cpu(zone: str) -> bool:
        kind = files.get(zone.removesuffix("temp") + "type", "").lower()
        return any(word in kind for word in _OF_A_CPU)

    of_cpu = [value for zone, value in zones.items() if is_of_a_cpu(zone)]
    return max(of_cpu or zones.values(), default=None)


def _throttled(files: Mapping[str, str]) -> int | None:
    """From the firmware's tool (`throttled=0x50005`), or from its file (`50005`)."""
    if said := re.search(r"throttled=0x([0-9a-fA-F]+)", files.get("vcgencmd", "")):
        return int(said[1], 16)
    names = (name for name in files if name.endswith("firmware/get_throttled"))
    return _integer(files, next(names, ""), 16)


def _is_no_exec(folder: str, mounts: str) -> bool:
    """Whether the file system that `folder` lies on is mounted noexec, as /proc/mounts says."""
    options = {
        fields[1]: fields[3].split(",")
        for line in mounts.splitlines()
        if len(fields := line.split()) > 3
    }
    on = [place for place in options if f"{folder}/".startswith(f"{place.rstrip('/')}/")]
    return bool(on) and "noexec" in options[max(on, key=len)]
