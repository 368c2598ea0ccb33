"""Program -> C: the public header and the generated sources around the hand-written csrc/.

The kernels' calls become the cases of one `switch`, which run(), the threads and the profile all
step through; everything else about a program is a macro in program.h.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from levit_deploy import __version__
from levit_deploy.compiler.program import (
    ALIGNMENT_BYTES,
    EIGHT_BIT,
    Arg,
    Entry,
    Identity,
    KernelCall,
    Program,
    Space,
)
from levit_deploy.errors import DeployError
from levit_deploy.models.card import ModelCard
from levit_deploy.runtime.cpu_features import required_bits
from levit_deploy.runtime.digest import LIBRARY_PLACEHOLDER, digest
from levit_deploy.runtime.levit import ABI_VERSION
from levit_deploy.runtime.manifest import Facts, KernelRecord
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.runtime.templating import render
from levit_deploy.targets.system import ObjectFormat, Os
from levit_deploy.targets.toolchain import Toolchain

CSRC = Path(__file__).parent / "csrc"
_NAME_PATTERN = r"[A-Za-z][A-Za-z0-9_]{0,63}"
# Words of C and C++, macros, and headers that a program, or the library itself, includes: NAME.h or
# NAME.hpp would be found in their place.
_TAKEN = """
alignas alignof alloca and arm asm assert auto bitand bitor bool break byteswap case catch char
class compl complex concept const constexpr continue counters cpu crypt ctype decltype default
delete described description dirent dlfcn do double elf else endian enum eof err errno error
explicit export extern false fcntl features fenv float fnmatch for friend getopt glob goto grp i386
iconv if import inline int inttypes iso646 langinfo levit_deploy libgen library limits link linux
locale long malloc math memory module mqueue mutable namespace netdb new nl_types noexcept not null
nullptr operator or override pin poll private profile program protected pthread public pwd regex
register resolv restrict return sched search semaphore setjmp short signal signed sizeof spawn
static stdalign stdarg stdatomic stdbit stdbool stdckdint stddef stderr stdin stdint stdio stdlib
stdnoreturn stdout string strings struct switch syscall syslog taps tar template termios tgmath this
threads throw time true try typedef typeid typename typeof uchar ucontext ulimit union unistd unix
unsigned using utime utmp values version virtual void volatile wait wchar wctype while wordexp xor
"""
_ENTRIES = {
    Entry.BOTH: "ENTRY_FLOAT | ENTRY_8BIT",
    Entry.FLOAT: "ENTRY_FLOAT",
    **dict.fromkeys(EIGHT_BIT.values(), "ENTRY_8BIT"),
}


@dataclass(frozen=True)
class _Colours:
    """What the header says of 8-bit images: `pixels`, how `argument` of `function` is indexed."""

    name: str
    function: str
    argument: str
    pixels: str


_COLOURS = {
    3: _Colours("RGB", EIGHT_BIT[3].function, "rgb", "rgb[row][column][channel]"),
    1: _Colours("grey", EIGHT_BIT[1].function, "gray", "gray[row][column]"),
}


@dataclass(frozen=True)
class Driver:
    """Generated files, and what is to be said of the library that they become.

    `front_header`: of a program with levels, which has no program header and source.
    """

    header: str
    program_header: str
    program_source: str
    constants_source: str
    facts: Facts
    front_header: str = ""


@dataclass(frozen=True)
class Front:
    """What the libraries of all levels say of themselves alike: it is that of the whole."""

    name: str
    workspace_bytes: int
    build_id: str


@dataclass(frozen=True)
class _Step:
    symbol: str
    arguments: str
    tasks: int
    entries: str
    comment: str


def public_functions(name: str, card: ModelCard) -> frozenset[str]:
    """Every symbol that a library called `name` of a model with that card exports."""
    run_8bit = EIGHT_BIT[card.in_chans].function
    return frozenset(
        f"{name}_{function}"
        for function in (
            *(("classify", "softmax", "label") if card.heads else ()),
            "frame_workspace_bytes",
            "run_frame",
            "prepare",
            "describe",
            "preprocessing",
            "workspace_bytes",
            "run",
            run_8bit,
            "threads_create",
            "threads_adopt",
            "threads_destroy",
            "run_threads",
            f"{run_8bit}_threads",
            "self_test",
            "strerror",
        )
    )


def generate_driver(
    program: Program,
    toolchain: Toolchain,
    self_test: SelfTest,
    constants_file: str,
    front: Front | None = None,
) -> Driver:
    """Render the templates for `program`; `constants_file` is what `.incbin` will find. `front`: of
    the library that this one is a level of.

    Raises DeployError if the program's name cannot begin a C symbol.
    """
    normalization, system = program.card.normalization, toolchain.target.system
    check_name(program.name)
    if len(self_test.logits) != program.classes:
        raise ValueError(f"{len(self_test.logits)} self test logits, {program.classes} classes")
    arena_bytes = _round_up(program.arena_bytes)
    scratch_bytes = _round_up(program.scratch_bytes)
    logits_bytes = _round_up(4 * program.classes)
    labels = program.card.labels or tuple(f"class {i}" for i in range(program.classes))
    lengths = [len(label.encode()) + 1 for label in labels]
    constants_digest = hashlib.sha256(program.constants).hexdigest()
    # The last term lets the workspace start at any address.
    workspace_bytes = arena_bytes + scratch_bytes + logits_bytes + ALIGNMENT_BYTES
    if front:
        workspace_bytes = front.workspace_bytes
    settings: dict[str, object] = {
        "program": program,
        "name": program.name,
        "public_name": front.name if front else program.name,
        "owners": [level.name for level in program.levels or (program,)],
        "upper": program.name.upper(),
        "abi_version": ABI_VERSION,
        "tool_version": __version__,
        "arena_bytes": arena_bytes,
        "scratch_bytes": scratch_bytes,
        "workspace_bytes": workspace_bytes,
        "required_cpu": required_bits(toolchain.target),
        "tolerance": _float(self_test.tolerance),
        "self_test_logits": [_float(value) for value in self_test.logits],
        "channels": normalization.channels,
        "colours": _COLOURS[normalization.channels],
        "mean": _floats(normalization.mean),
        "std": _floats(normalization.std),
        "recipe": _comment(program.card.recipe),
        "recipe_bytes": _bytes(program.card.recipe),
        "way": program.card.preprocessing,
        "answers": program.card.heads > 0,
        "labelled": bool(program.card.labels),
        "label_bytes": _bytes("\0".join(labels)),
        "label_starts": list(itertools.accumulate(lengths, initial=0))[:-1],
        "steps": [_step(call) for call in program.calls],
        "kernels": _arities(program.calls),
        "digest": constants_digest,
        "constants_bytes": len(program.constants),
        "constants_digest": digest(program.constants),
        "library_placeholder": LIBRARY_PLACEHOLDER,
        "file": constants_file,
        "format": system.format,
        "prefix": "_" if system.format is ObjectFormat.MACHO else "",
        "api": f"{program.name.upper()}_API " if system.os is Os.WINDOWS else "",
        "library_files": " or ".join(system.libraries(program.name)[-2:]),
    }
    header = render("header.h.j2", settings)
    constants_source = render("constants.c.j2", settings)
    front_header = render("front.h.j2", settings)
    program_header = render("program.h.j2", settings)
    draft = render("program.c.j2", {**settings, "build_id": ""})
    sources = hashlib.sha256()
    for part in (header, program_header, draft, *_hand_written()):
        sources.update(hashlib.sha256(part.encode()).digest())
    facts = Facts(
        **Identity.of(program),
        base_target=toolchain.target.base or toolchain.target.name,
        levels=tuple(level.target for level in program.levels),
        system=str(system),
        toolchain=toolchain.version,
        image_size=program.image_size,
        classes=program.classes,
        card=program.card,
        program_digest=program.digest,
        sources_digest=sources.hexdigest(),
        abi_version=ABI_VERSION,
        workspace_bytes=workspace_bytes,
        arena_bytes=program.arena_bytes,
        scratch_bytes=program.scratch_bytes,
        constants_bytes=len(program.constants),
        kernels=tuple(KernelRecord.of(call) for call in program.calls),
    )
    return Driver(
        header=header,
        program_header=program_header,
        program_source=render(
            "program.c.j2",
            {**settings, "build_id": front.build_id if front else facts.facts_digest},
        ),
        constants_source=constants_source,
        facts=facts,
        front_header=front_header,
    )


def check_name(name: str) -> None:
    """Raise DeployError unless `name` can begin every symbol of a C program."""
    if re.fullmatch(_NAME_PATTERN, name) is None:
        raise DeployError(
            f"`{name}` cannot be a library's name: symbols begin with it",
            hint="use up to 64 letters, digits and underscores, a letter first: --name my_levit",
        )
    if name.lower() in _TAKEN.split():
        raise DeployError(
            f"`{name}` cannot be a library's name: C has something of that name, or a header",
            hint=f"--name levit_{name.lower()}",
        )


def _step(call: KernelCall) -> _Step:
    arguments = "".join(f"{_pointer(arg)}, " for arg in call.args)
    comment = f"{call.symbol}: {call.kind} {call.shape}".replace("*/", "")
    return _Step(call.symbol, arguments, call.tasks, _ENTRIES[call.entry], comment)


def _pointer(arg: Arg) -> str:
    match arg.space:
        case Space.IMAGE:
            return "f->image"
        case Space.LOGITS:
            return "f->logits"
        case Space.CONSTANT:
            return f"c + {arg.offset_bytes}"
        case Space.ARENA:
            return f"a + {arg.offset_bytes}"
        case Space.SCRATCH:
            return f"s + {arg.offset_bytes}"


def _arities(calls: Sequence[KernelCall]) -> dict[str, int]:
    arities: dict[str, int] = {}
    for call in calls:
        if arities.setdefault(call.symbol, len(call.args)) != len(call.args):
            raise ValueError(f"{call.symbol} is called with different numbers of arguments")
    return arities


def _round_up(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _float(value: float) -> str:
    return f"{float(value).hex()}f"


def _floats(values: Sequence[float]) -> str:
    return ", ".join(_float(value) for value in values)


def _comment(text: str) -> str:
    """What may stand inside of a C comment."""
    return text.encode("ascii", "replace").decode().replace("*/", "* /")


def _bytes(text: str) -> str:
    """The initializer of a C string: numbers, so that no character has a meaning of its own."""
    return ", ".join(map(str, (*text.encode(), 0)))


def _hand_written() -> list[str]:
    return [path.read_text() for path in sorted(CSRC.iterdir())]
