"""What an ELF file says of itself: CPU, needed libraries, symbols and their versions.

Read here, not by `readelf`: a machine that has only Python must be able to check and to load a
library. Layouts: System V ABI, chapters 4 and 5; symbol versions: Linux Standard Base 10.7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.targets.target import Arch

_ARCH = {62: Arch.X86_64, 183: Arch.AARCH64, 40: Arch.ARMV7}  # e_machine
_DYNAMIC_NEEDED = 1
_HIDDEN = 2  # st_other
_LOADED, _WRITABLE = 1, 2  # p_type, p_flags


class _SectionType(IntEnum):
    SYMTAB = 2
    DYNAMIC = 6
    DYNSYM = 11
    NOTE = 7
    GNU_VERNEED = 0x6FFFFFFE


# Of GNU_PROPERTY_X86_FEATURE_1_AND and GNU_PROPERTY_AARCH64_FEATURE_1_AND: bits and their names.
_HARDENING = {0xC0000002: {1: "IBT", 2: "SHSTK"}, 0xC0000000: {1: "BTI", 2: "PAC"}}
_GNU_PROPERTIES = 5  # type of a note


@dataclass(frozen=True)
class Symbol:
    name: str
    defined: bool
    weak: bool
    local: bool
    hidden: bool


@dataclass(frozen=True)
class Elf:
    """A little-endian ELF object or shared library.

    `symbols`: of a shared library the dynamic ones, of an object all named ones.
    `needed`: the libraries it asks for. `versions`: the symbol versions it asks of them, such as
    `GLIBC_2.17`. `read_only`: where in the file is what is mapped and never written, without the
    headers. `alignments`: of loaded segments. `dynamic`: tags of the dynamic section. `hardening`:
    what all of its code is marked for, of IBT and SHSTK (x86 CET), BTI and PAC (AArch64).
    """

    arch: Arch | None
    symbols: tuple[Symbol, ...]
    needed: tuple[str, ...]
    versions: tuple[str, ...]
    read_only: tuple[slice, ...]
    alignments: tuple[int, ...]
    dynamic: frozenset[int]
    hardening: frozenset[str]

    @staticmethod
    def read(path: Path) -> Elf:
        """Raises DeployError if `path` is not readable or not such a file."""
        try:
            return Elf.parse(path.read_bytes())
        except OSError as error:
            raise DeployError(f"cannot read `{path}`: {error.strerror}") from error
        except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
            raise DeployError(f"`{path}` is not an ELF file, or it is damaged") from error

    @staticmethod
    def parse(data: bytes) -> Elf:
        """Raises ValueError, struct.error or IndexError on anything else than an ELF file."""
        if data[:4] != b"\x7fELF" or data[5] != 1:
            raise ValueError("not a little-endian ELF file")
        reader = _Reader(data, wide=data[4] == 2)
        dynamic = reader.of_type(_SectionType.DYNSYM)
        table = dynamic or reader.of_type(_SectionType.SYMTAB)
        (machine,) = struct.unpack_from("<H", data, 18)
        return Elf(
            arch=_ARCH.get(machine),
            symbols=tuple(symbol for section in table for symbol in reader.symbols(section)),
            needed=tuple(n for s in reader.of_type(_SectionType.DYNAMIC) for n in reader.needed(s)),
            versions=tuple(
                v for s in reader.of_type(_SectionType.GNU_VERNEED) for v in reader.versions(s)
            ),
            read_only=tuple(
                slice(segment.begin, segment.end)
                for segment in reader.loaded()
                if not segment.writable
            ),
            alignments=tuple(segment.alignment for segment in reader.loaded()),
            dynamic=frozenset(
                tag for s in reader.of_type(_SectionType.DYNAMIC) for tag, _ in reader.dynamic(s)
            ),
            hardening=frozenset(
                name for s in reader.of_type(_SectionType.NOTE) for name in reader.hardening(s)
            ),
        )


@dataclass(frozen=True)
class _Section:
    type: int
    offset: int
    size: int
    link: int
    info: int


@dataclass(frozen=True)
class _Segment:
    """`begin` and `end` in the file, the file's headers left out."""

    begin: int
    end: int
    alignment: int
    writable: bool


class _Reader:
    """Tables of one file; `wide` for 64 bits."""

    def __init__(self, data: bytes, wide: bool) -> None:
        self.data = data
        self.wide = wide
        (table,) = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
        size, count = struct.unpack_from("<HH", data, 58 if wide else 46)
        self.sections = [self._section(table + i * size) for i in range(count)]

    def _section(self, at: int) -> _Section:
        layout = "<IIQQQQII" if self.wide else "<IIIIIIII"
        _, kind, _, _, offset, size, link, info = struct.unpack_from(layout, self.data, at)
        return _Section(kind, offset, size, link, info)

    def loaded(self) -> Iterator[_Segment]:
        (table,) = struct.unpack_from(
            "<Q" if self.wide else "<I", self.data, 32 if self.wide else 28
        )
        step, count = struct.unpack_from("<HH", self.data, 54 if self.wide else 42)
        for at in (table + i * step for i in range(count)):
            if self.wide:
                kind, flags, offset, _, _, size, _, align = struct.unpack_from(
                    "<IIQQQQQQ", self.data, at
                )
            else:
                kind, offset, _, _, size, _, flags, align = struct.unpack_from(
                    "<IIIIIIII", self.data, at
                )
            if kind == _LOADED:
                begin = offset or table + step * count
                yield _Segment(begin, offset + size, align, bool(flags & _WRITABLE))

    def of_type(self, kind: _SectionType) -> list[_Section]:
        return [section for section in self.sections if section.type == kind]

    def _string(self, table: int, index: int) -> str:
        begin = self.sections[table].offset + index
        return self.data[begin : self.data.index(b"\0", begin)].decode()

    def symbols(self, section: _Section) -> list[Symbol]:
        layout = struct.Struct("<IBBHQQ" if self.wide else "<IIIBBH")
        found = []
        for at in range(section.offset, section.offset + section.size, layout.size):
            fields = layout.unpack_from(self.data, at)
            info, other, index = fields[1:4] if self.wide else fields[3:6]
            if name := self._string(section.link, fields[0]):
                binding = info >> 4
                found.append(
                    Symbol(
                        name,
                        defined=index != 0,
                        weak=binding == 2,
                        local=binding == 0,
                        hidden=other & 3 == _HIDDEN,
                    )
                )
        return found

    def dynamic(self, section: _Section) -> Iterator[tuple[int, int]]:
        layout = struct.Struct("<qQ" if self.wide else "<iI")
        yield from layout.iter_unpack(self._content(section))

    def needed(self, section: _Section) -> list[str]:
        return [
            self._string(section.link, value)
            for tag, value in self.dynamic(section)
            if tag == _DYNAMIC_NEEDED
        ]

    def hardening(self, section: _Section) -> Iterator[str]:
        """Of a section of notes, those of the GNU properties."""
        data = self._content(section)
        name_size, size, kind = struct.unpack_from("<III", data)
        if data[12 : 12 + name_size] != b"GNU\0" or kind != _GNU_PROPERTIES:
            return
        at, end = 16, 16 + size
        while at < end:
            kind, length = struct.unpack_from("<II", data, at)
            if kind in _HARDENING:
                (bits,) = struct.unpack_from("<I", data, at + 8)
                yield from (name for bit, name in _HARDENING[kind].items() if bits & bit)
            at += 8 + length + -length % (8 if self.wide else 4)

    def _content(self, section: _Section) -> bytes:
        return self.data[section.offset : section.offset + section.size]

    def versions(self, section: _Section) -> list[str]:
        found = []
        at = section.offset
        for _ in range(section.info):
            _, count, _, first, following = struct.unpack_from("<HHIII", self.data, at)
            entry = at + first
            for _ in range(count):
                _, _, _, name, step = struct.unpack_from("<IHHII", self.data, entry)
                found.append(self._string(section.link, name))
                entry += step
            at += following
        return found
