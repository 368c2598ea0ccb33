"""What a library runs under: operating system, C library, format of its files. A value per system.

All that differs from system to system and is not the CPU's is a row of `_FACTS`: what LLVM and zig
call it, what its libraries are called, what they may ask for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from levit_deploy.errors import DeployError


class Arch(StrEnum):
    X86_64 = "x86_64"
    AARCH64 = "aarch64"
    ARMV7 = "armv7"


class Os(StrEnum):
    LINUX = "linux"
    ANDROID = "android"
    WINDOWS = "windows"
    MACOS = "macos"
    IOS = "ios"


class ObjectFormat(StrEnum):
    ELF = "elf"
    COFF = "coff"
    MACHO = "mach-o"


class Family(StrEnum):
    """Systems whose libraries are made and named in one way."""

    GLIBC = "glibc"
    MUSL = "musl"
    ANDROID = "android"
    WINDOWS = "windows"
    MACOS = "macos"
    IOS = "ios"


@dataclass(frozen=True)
class _Facts:
    """`llvm`: triples of what LLVM compiles, without the release; `zig`: of what zig compiles and
    links. `needs`: the libraries that a shared library may ask for. `libc`: what that of a CPU is
    called, where libraries are linked against its functions' names alone. `oldest`: the first
    release that is linked for; `releases`: how they are written behind the name."""

    os: Os
    format: ObjectFormat
    llvm: Mapping[Arch, str]
    zig: Mapping[Arch, str]
    needs: frozenset[str]
    libc: Mapping[Arch, str] = field(default_factory=dict)
    oldest: tuple[int, ...] = ()
    releases: str = ""
    shared: str | None = "lib{}.so"
    static: str = "lib{}.a"
    import_library: str | None = None


_X86_64, _AARCH64, _ARMV7 = Arch
_LINUX = {
    _X86_64: "x86_64-linux-gnu",
    _AARCH64: "aarch64-linux-gnu",
    _ARMV7: "armv7a-linux-gnueabihf",
}
# Alpine's names, which wheels for musl have; musl's loader takes any that begins with `libc.`.
_MUSL = {
    _X86_64: "libc.musl-x86_64.so.1",
    _AARCH64: "libc.musl-aarch64.so.1",
    _ARMV7: "libc.musl-armv7.so.1",
}
_FACTS = {
    Family.GLIBC: _Facts(
        os=Os.LINUX,
        format=ObjectFormat.ELF,
        llvm=_LINUX,
        zig={
            _X86_64: "x86_64-linux-gnu",
            _AARCH64: "aarch64-linux-gnu",
            _ARMV7: "arm-linux-gnueabihf",
        },
        needs=frozenset({"libc.so.6", "libm.so.6"}),
        oldest=(2, 17),
        releases=r"-2\.\d+",
    ),
    Family.MUSL: _Facts(
        os=Os.LINUX,
        format=ObjectFormat.ELF,
        llvm=_LINUX,
        zig={
            _X86_64: "x86_64-linux-musl",
            _AARCH64: "aarch64-linux-musl",
            _ARMV7: "arm-linux-musleabihf",
        },
        needs=frozenset(_MUSL.values()),
        libc=_MUSL,
    ),
    Family.ANDROID: _Facts(
        os=Os.ANDROID,
        format=ObjectFormat.ELF,
        llvm={
            _X86_64: "x86_64-unknown-linux-android",
            _AARCH64: "aarch64-unknown-linux-android",
            _ARMV7: "armv7a-unknown-linux-androideabi",
        },
        zig={  # with musl's headers, whose types are as large as Android's or larger
            _X86_64: "x86_64-linux-musl",
            _AARCH64: "aarch64-linux-musl",
            _ARMV7: "arm-linux-musleabi",
        },
        needs=frozenset({"libc.so"}),
        libc=dict.fromkeys(Arch, "libc.so"),
        oldest=(21,),
        releases=r"(-\d+)?",
    ),
    Family.WINDOWS: _Facts(
        os=Os.WINDOWS,
        format=ObjectFormat.COFF,
        llvm={_X86_64: "x86_64-w64-windows-gnu", _AARCH64: "aarch64-w64-windows-gnu"},
        zig={_X86_64: "x86_64-windows-gnu", _AARCH64: "aarch64-windows-gnu"},
        needs=frozenset({"KERNEL32.dll"}),
        shared="{}.dll",
        static="{}_static.lib",
        import_library="{}.lib",
    ),
    Family.MACOS: _Facts(
        os=Os.MACOS,
        format=ObjectFormat.MACHO,
        llvm={_AARCH64: "arm64-apple-macosx"},
        zig={_AARCH64: "aarch64-macos"},
        needs=frozenset({"/usr/lib/libSystem.B.dylib"}),
        oldest=(11, 0),
        releases=r"(-\d+\.\d+)?",
        shared="lib{}.dylib",
    ),
    Family.IOS: _Facts(
        os=Os.IOS,
        format=ObjectFormat.MACHO,
        llvm={_AARCH64: "arm64-apple-ios"},
        zig={_AARCH64: "aarch64-ios"},
        needs=frozenset(),
        oldest=(13, 0),
        releases=r"(-\d+\.\d+)?",
        shared=None,  # apps link statically; zig cannot link its dynamic libraries
    ),
}
_DEFAULT = {facts.os: family for family, facts in reversed(_FACTS.items())}  # the first of an OS


@dataclass(frozen=True)
class System:
    """`floor`: the oldest release that libraries run on, of glibc or of the system; empty where
    releases do not matter."""

    family: Family
    floor: tuple[int, ...] = ()

    @staticmethod
    def parse(text: str) -> System:
        """Read what `str` gives, such as `glibc-2.17`, `musl` or `android-21`. Other systems than
        glibc need not say the release. Raises DeployError on anything else."""
        name, dash, release = text.partition("-")
        if (
            name not in _FACTS
            or re.fullmatch(_FACTS[Family(name)].releases, dash + release) is None
        ):
            raise DeployError(
                f"unknown C library `{text}`",
                hint="--libc glibc-2.28, --libc musl or --libc android",
            )
        family = Family(name)
        oldest = _FACTS[family].oldest
        floor = tuple(int(part) for part in release.split(".")) if release else oldest
        if floor < oldest:
            raise DeployError(
                f"`{text}` is older than any release that can be linked for",
                hint=f"--libc {System(family, oldest)}",
            )
        return System(family, floor)

    @staticmethod
    def of(os: str, libc: System | None) -> System:
        """That of the options --os and --libc; raises DeployError if they do not fit together."""
        if libc is None:
            family = _DEFAULT[Os(os)]
            return System(family, _FACTS[family].oldest)
        if os != Os.LINUX or libc.os not in (Os.LINUX, Os.ANDROID):
            raise DeployError(f"`--libc {libc}` is none of `{os}`", hint=f"only --os {os}")
        return libc

    def __str__(self) -> str:
        return "-".join(filter(None, (self.family, self.release)))

    @property
    def release(self) -> str:
        """`2.17`, or nothing."""
        return ".".join(map(str, self.floor))

    @property
    def os(self) -> Os:
        return self._facts.os

    @property
    def format(self) -> ObjectFormat:
        return self._facts.format

    @property
    def needs(self) -> frozenset[str]:
        """The libraries that a shared library may ask for."""
        return self._facts.needs

    def libc(self, arch: Arch) -> str | None:
        """What the C library is called that shared libraries are linked against by the names of its
        functions; None where the linker brings its own."""
        return self._facts.libc.get(arch)

    @property
    def reserves_x18(self) -> bool:
        """Whether the system keeps that register of AArch64 for itself."""
        return self.os is not Os.LINUX

    def llvm_triple(self, arch: Arch) -> str:
        """Raises DeployError where there is no such system."""
        release = self.release if self.os is not Os.LINUX else ""
        return _of_arch(self, self._facts.llvm, arch) + release

    def zig_triple(self, arch: Arch) -> str:
        """The same, as zig names what it links for."""
        release = f".{self.release}" if self.release and self.os is not Os.ANDROID else ""
        return _of_arch(self, self._facts.zig, arch) + release

    def shared_library(self, name: str) -> str | None:
        """What the shared library of `name` is called; None where there is none."""
        pattern = self._facts.shared
        return pattern.format(name) if pattern else None

    def static_library(self, name: str) -> str:
        return self._facts.static.format(name)

    def import_library(self, name: str) -> str | None:
        """What programs are linked with that use the shared library, if not that itself."""
        pattern = self._facts.import_library
        return pattern.format(name) if pattern else None

    def libraries(self, name: str) -> tuple[str, ...]:
        """The files of all its libraries."""
        files = (
            self.shared_library(name),
            self.import_library(name),
            self.static_library(name),
        )
        return tuple(file for file in files if file)

    @property
    def _facts(self) -> _Facts:
        return _FACTS[self.family]


def _of_arch(system: System, triples: Mapping[Arch, str], arch: Arch) -> str:
    if arch not in triples:
        raise DeployError(
            f"there are no {system.os} libraries for `{arch}`",
            hint=f"a target of {' or '.join(triples)}: `levit-deploy targets` lists all of them",
        )
    return triples[arch]


OLDEST_GLIBC = System(Family.GLIBC, (2, 17))
MUSL = System(Family.MUSL)
