"""What a COFF object or a PE library says of itself: symbols, exports, imports, code.

Layouts: Microsoft, "PE Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.targets.system import Arch

_ARCH = {0x8664: Arch.X86_64, 0xAA64: Arch.AARCH64}
_EXTERNAL = 2  # storage class
_POINTER = ".refptr."  # what the compiler adds to reach a symbol that may be far; merged by name
_EXECUTABLE = 0x20000000
_EXPORTS, _IMPORTS, _RELOCATIONS = 0, 1, 5  # data directories


@dataclass(frozen=True)
class _Section:
    address: int
    size: int
    offset: int
    stored: int
    executable: bool


@dataclass(frozen=True)
class Coff:
    """`defined`: global symbols of an object, exports of a library. `undefined`: of an object what
    it asks for. `needed`: the libraries that a library imports from. `code`: where in the file its
    executable sections are."""

    arch: Arch | None
    defined: frozenset[str]
    undefined: frozenset[str]
    needed: tuple[str, ...]
    code: tuple[slice, ...]

    @staticmethod
    def read(path: Path) -> Coff:
        """Raises DeployError if `path` is not readable or not such a file."""
        try:
            return Coff.parse(path.read_bytes())
        except OSError as error:
            raise DeployError(f"cannot read `{path}`: {error.strerror}") from error
        except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
            raise DeployError(f"`{path}` is not a PE file, or it is damaged") from error

    @staticmethod
    def parse(data: bytes) -> Coff:
        """Raises ValueError, struct.error or IndexError on anything else than such a file, and on a
        library whose code the loader changes."""
        return _parse_library(data) if data[:2] == b"MZ" else _parse_object(data)


def _parse_object(data: bytes) -> Coff:
    machine, _, _, table, count = struct.unpack_from("<HHIII", data)
    defined: set[str] = set()
    undefined: set[str] = set()
    strings = table + 18 * count
    index = 0
    while index < count:
        name, _, section, _, kind, more = struct.unpack_from("<8sIhHBB", data, table + 18 * index)
        index += 1 + more
        if kind == _EXTERNAL:
            zeros, offset = struct.unpack("<II", name)
            text = name.rstrip(b"\0").decode() if zeros else _string(data, strings + offset)
            if not text.startswith(_POINTER):
                (defined if section > 0 else undefined).add(text)
    return Coff(_ARCH[machine], frozenset(defined), frozenset(undefined), (), ())


def _parse_library(data: bytes) -> Coff:
    (header,) = struct.unpack_from("<I", data, 60)
    if data[header : header + 4] != b"PE\0\0":
        raise ValueError("not a PE file")
    machine, count = struct.unpack_from("<HH", data, header + 4)
    (optional,) = struct.unpack_from("<H", data, header + 20)
    sections = [_section(data, header + 24 + optional + 40 * index) for index in range(count)]
    directories = [
        struct.unpack_from("<II", data, header + 24 + 112 + 8 * index) for index in range(6)
    ]
    code = [section for section in sections if section.executable]
    for address in _relocated(data, sections, *directories[_RELOCATIONS]):
        if any(part.address <= address < part.address + part.size for part in code):
            raise ValueError("the loader changes its code")
    return Coff(
        _ARCH[machine],
        frozenset(_exported(data, sections, directories[_EXPORTS][0])),
        frozenset(),
        tuple(_imported(data, sections, directories[_IMPORTS][0])),
        tuple(slice(part.offset, part.offset + part.size) for part in code),
    )


def _section(data: bytes, at: int) -> _Section:
    size, address, stored, offset = struct.unpack_from("<IIII", data, at + 8)
    (flags,) = struct.unpack_from("<I", data, at + 36)
    return _Section(address, size, offset, stored, bool(flags & _EXECUTABLE))


def _place(sections: list[_Section], address: int) -> int:
    """Where in the file is what will be at `address`?"""
    for section in sections:
        if section.address <= address < section.address + section.stored:
            return section.offset + address - section.address
    raise ValueError(f"nothing is at {address:#x}")


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _exported(data: bytes, sections: list[_Section], table: int) -> Iterator[str]:
    if table:
        at = _place(sections, table)
        (count,) = struct.unpack_from("<I", data, at + 24)
        (names,) = struct.unpack_from("<I", data, at + 32)
        for index in range(count):
            (name,) = struct.unpack_from("<I", data, _place(sections, names) + 4 * index)
            yield _string(data, _place(sections, name))


def _imported(data: bytes, sections: list[_Section], table: int) -> Iterator[str]:
    at = _place(sections, table) if table else 0
    while at:
        (name,) = struct.unpack_from("<I", data, at + 12)
        if not name:
            break
        yield _string(data, _place(sections, name))
        at += 20


def _relocated(data: bytes, sections: list[_Section], table: int, size: int) -> Iterator[int]:
    """Addresses that the loader writes to."""
    at = _place(sections, table) if size else 0
    end = at + size
    while at < end:
        page, length = struct.unpack_from("<II", data, at)
        for (entry,) in struct.iter_unpack("<H", data[at + 8 : at + length]):
            if entry >> 12:
                yield page + (entry & 0xFFF)
        at += length
