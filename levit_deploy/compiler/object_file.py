"""An ELF object from LLVM -> the same code with hidden symbols and without what nobody needs.

TVM gives every function default visibility, emits DWARF sections that describe its own internals,
and adds conversions from and to half precision under names of the compiler's run-time library.
Here every defined global symbol becomes hidden, and those sections go with their relocations and
symbols. Structures: System V ABI, chapter 4 ("Object Files"), both classes,
little-endian.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace

_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS, _SHT_REL = 2, 4, 8, 9
_SHN_LORESERVE = 0xFF00  # indices from here on are not sections (absolute, common)
_STB_LOCAL, _STV_HIDDEN = 0, 2
# In a section's name, after what tells relocations and unwind tables of it.
_DROPPED = re.compile(r"\.debug_|\.text\.tvm\.fp16\.conv")


@dataclass(frozen=True)
class _Class:
    """struct formats of ELF32 or ELF64.

    `symbol_fields`: where a symbol has st_info, st_other and st_shndx.
    """

    header: str
    section: str
    symbol: str
    symbol_fields: tuple[int, int, int]
    relocation: dict[int, str]
    symbol_shift: int  # r_info is symbol << symbol_shift | type


_CLASSES = {
    1: _Class(
        "<16sHHIIIIIHHHHHH",
        "<10I",
        "<IIIBBH",
        (3, 4, 5),
        {_SHT_REL: "<II", _SHT_RELA: "<IIi"},
        8,
    ),
    2: _Class(
        "<16sHHIQQQIHHHHHH",
        "<IIQQQQIIQQ",
        "<IBBHQQ",
        (1, 2, 3),
        {_SHT_REL: "<QQ", _SHT_RELA: "<QQq"},
        32,
    ),
}


@dataclass(frozen=True)
class _Section:
    name_offset: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int
    content: bytes = b""

    @property
    def relocates(self) -> bool:
        return self.type in (_SHT_REL, _SHT_RELA)


def finish_object(elf: bytes) -> bytes:
    """A relocatable little-endian ELF file, made private and free of the sections above."""
    layout = _CLASSES[elf[4]]
    header = list(struct.unpack_from(layout.header, elf))
    sections = _read_sections(elf, layout, header)
    names = sections[header[-1]].content
    kept = [
        index
        for index, section in enumerate(sections)
        if not _DROPPED.search(_name(names, section))
    ]
    section_map = {old: new for new, old in enumerate(kept)}
    symbol_map: dict[int, int] = {}
    for index in kept:
        if sections[index].type == _SHT_SYMTAB:
            sections[index] = _rewrite_symbols(sections[index], layout, section_map, symbol_map)
    output: list[_Section] = []
    for index in kept:
        section = sections[index]
        if section.relocates:
            section = replace(
                section,
                content=_renumber_relocations(section, layout, symbol_map),
                info=section_map[section.info],
            )
        output.append(replace(section, link=section_map[section.link]))
    header[-1] = section_map[header[-1]]
    return _write(header, output, layout)


def _read_sections(elf: bytes, layout: _Class, header: list[int]) -> list[_Section]:
    table, entry_size, count = header[6], header[11], header[12]
    sections = []
    for index in range(count):
        fields = struct.unpack_from(layout.section, elf, table + index * entry_size)
        section = _Section(*fields)
        if section.type != _SHT_NOBITS:
            content = elf[section.offset : section.offset + section.size]
            section = replace(section, content=content)
        sections.append(section)
    return sections


def _name(names: bytes, section: _Section) -> str:
    return names[section.name_offset : names.index(b"\0", section.name_offset)].decode()


def _rewrite_symbols(
    table: _Section, layout: _Class, section_map: dict[int, int], symbol_map: dict[int, int]
) -> _Section:
    """Drop symbols of dropped sections, hide defined globals; fills `symbol_map` (old -> new)."""
    info, other, shndx = layout.symbol_fields
    content = bytearray()
    locals_ = 0
    for old, entry in enumerate(struct.iter_unpack(layout.symbol, table.content)):
        symbol = list(entry)
        if 0 < symbol[shndx] < _SHN_LORESERVE:
            if symbol[shndx] not in section_map:
                continue
            symbol[shndx] = section_map[symbol[shndx]]
            if symbol[info] >> 4 != _STB_LOCAL:
                symbol[other] = symbol[other] & ~3 | _STV_HIDDEN
        locals_ += symbol[info] >> 4 == _STB_LOCAL
        symbol_map[old] = len(symbol_map)
        content += struct.pack(layout.symbol, *symbol)
    return replace(table, content=bytes(content), info=locals_)


def _renumber_relocations(section: _Section, layout: _Class, symbol_map: dict[int, int]) -> bytes:
    shift, form = layout.symbol_shift, layout.relocation[section.type]
    content = bytearray()
    for offset, info, *addend in struct.iter_unpack(form, section.content):
        symbol, kind = info >> shift, info & ((1 << shift) - 1)
        content += struct.pack(form, offset, symbol_map[symbol] << shift | kind, *addend)
    return bytes(content)


def _write(header: list[int], sections: list[_Section], layout: _Class) -> bytes:
    output = bytearray(struct.calcsize(layout.header))
    entries = bytearray()
    for section in sections:
        output += bytes(-len(output) % max(section.alignment, 1))
        size = section.size if section.type == _SHT_NOBITS else len(section.content)
        offset = len(output) if section.type else 0
        entries += struct.pack(
            layout.section,
            section.name_offset,
            section.type,
            section.flags,
            section.address,
            offset,
            size,
            section.link,
            section.info,
            section.alignment,
            section.entry_size,
        )
        output += section.content
    output += bytes(-len(output) % 8)
    header[6], header[12] = len(output), len(sections)
    struct.pack_into(layout.header, output, 0, *header)
    return bytes(output + entries)
