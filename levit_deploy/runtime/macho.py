"""What a Mach-O object or library says of itself: symbols, libraries, the system it is for.

Layouts: Apple, <mach-o/loader.h> and <mach-o/nlist.h>, 64 bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.targets.system import Arch, Os

_MAGIC = 0xFEEDFACF
_ARCH = {0x01000007: Arch.X86_64, 0x0100000C: Arch.AARCH64}
_PLATFORMS = {1: Os.MACOS, 2: Os.IOS}
_STAB, _PRIVATE, _EXTERNAL, _TYPE, _UNDEFINED = 0xE0, 0x10, 0x01, 0x0E, 0x00
_OF_THE_LINKER = frozenset({"__mh_dylib_header", "___dso_handle"})


class _Command(IntEnum):
    SYMTAB = 0x02
    LOAD_DYLIB = 0x0C
    ID_DYLIB = 0x0D
    BUILD_VERSION = 0x32


@dataclass(frozen=True)
class MachO:
    """`defined`: global symbols, of a library those that it exports, as C calls them; `hidden`:
    those of an object that stay in its library. `needed`: install names. `floor`: the oldest
    release of `os`."""

    arch: Arch | None
    os: Os | None
    floor: tuple[int, int] | None
    install_name: str | None
    defined: frozenset[str]
    hidden: frozenset[str]
    undefined: frozenset[str]
    needed: tuple[str, ...]

    @staticmethod
    def read(path: Path) -> MachO:
        """Raises DeployError if `path` is not readable or not such a file."""
        try:
            return MachO.parse(path.read_bytes())
        except OSError as error:
            raise DeployError(f"cannot read `{path}`: {error.strerror}") from error
        except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
            raise DeployError(f"`{path}` is not a Mach-O file, or it is damaged") from error

    @staticmethod
    def parse(data: bytes) -> MachO:
        """Raises ValueError, struct.error or IndexError on anything else than such a file."""
        magic, cpu, _, _, commands = struct.unpack_from("<IIIII", data)
        if magic != _MAGIC:
            raise ValueError("not a 64-bit Mach-O file")
        names: dict[str, set[str]] = {"defined": set(), "hidden": set(), "undefined": set()}
        needed: list[str] = []
        install_name, os, floor = None, None, None
        at = 32
        for _ in range(commands):
            command, size = struct.unpack_from("<II", data, at)
            match command & 0x7FFFFFFF:
                case _Command.SYMTAB:
                    _read_symbols(data, at, names)
                case _Command.LOAD_DYLIB:
                    needed.append(_dylib(data, at))
                case _Command.ID_DYLIB:
                    install_name = _dylib(data, at)
                case _Command.BUILD_VERSION:
                    platform, oldest = struct.unpack_from("<II", data, at + 8)
                    os, floor = _PLATFORMS.get(platform), (oldest >> 16, oldest >> 8 & 0xFF)
            at += size
        return MachO(
            arch=_ARCH.get(cpu),
            os=os,
            floor=floor,
            install_name=install_name,
            needed=tuple(needed),
            **{kind: frozenset(found) for kind, found in names.items()},
        )


def _dylib(data: bytes, at: int) -> str:
    (offset,) = struct.unpack_from("<I", data, at + 8)
    return _string(data, at + offset)


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _read_symbols(data: bytes, at: int, names: dict[str, set[str]]) -> None:
    table, count, strings = struct.unpack_from("<III", data, at + 8)
    for index in range(count):
        offset, kind = struct.unpack_from("<IB", data, table + 16 * index)
        name = _string(data, strings + offset)
        if kind & _STAB or not kind & _EXTERNAL or name in _OF_THE_LINKER:
            continue
        if kind & _TYPE == _UNDEFINED:
            names["undefined"].add(name.removeprefix("_"))
        else:
            names["hidden" if kind & _PRIVATE else "defined"].add(name.removeprefix("_"))
