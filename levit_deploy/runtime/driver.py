"""Program -> C: the public header and the generated sources around the hand-written csrc/.

The kernels' calls become the cases of one `switch`, which run(), the threads and the profile all
step through; everything else about a program is a macro in program.h.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from levit_deploy import __version__
from levit_deploy.compiler.program import (
    ALIGNMENT_BYTES,
    EIGHT_BIT,
    Arg,
    Entry,
    KernelCall,
    Program,
    Space,
)
from levit_deploy.errors import DeployError
from levit_deploy.models.card import ModelCard
from levit_deploy.runtime.cpu_features import required_bits
from levit_deploy.runtime.digest import CODE_PLACEHOLDER, digest
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.targets.system import Os
from levit_deploy.targets.toolchain import Toolchain

ABI_VERSION = 2
CSRC = Path(__file__).parent / "csrc"
_TEMPLATES = Path(__file__).parent / "templates"
_NAME_PATTERN = r"[A-Za-z][A-Za-z0-9_]{0,63}"
# Words of C and C++, macros, and headers that a program, or the library itself, includes: NAME.h
# would be found in their place.
_TAKEN = """
alignas alignof alloca and arm asm assert auto bitand bitor bool break byteswap case catch char
class compl complex concept const constexpr continue cpu crypt ctype decltype default delete
description dirent dlfcn do double elf else endian enum eof err errno error explicit export extern
false fcntl features fenv float fnmatch for friend getopt glob goto grp i386 iconv if import
inline int inttypes iso646 langinfo libgen library limits link linux locale long malloc math
memory module mqueue mutable namespace netdb new nl_types noexcept not null nullptr operator or
override poll private profile program protected pthread public pwd regex register resolv restrict
return sched search semaphore setjmp short signal signed sizeof spawn static stdalign stdarg
stdatomic stdbit stdbool stdckdint stddef stderr stdin stdint stdio stdlib stdnoreturn stdout
string strings struct switch syscall syslog taps tar template termios tgmath this threads throw
time true try typedef typeid typename typeof uchar ucontext ulimit union unistd unix unsigned
using utime utmp values version virtual void volatile wait wchar wctype while wordexp xor
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
    """Generated files by name. `build_id` digests them, the kernels and the constants."""

    workspace_bytes: int
    header: str
    program_header: str
    program_source: str
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
    program: Program, toolchain: Toolchain, self_test: SelfTest, constants_file: str
) -> Driver:
    """Render the templates for `program`; `constants_file` is what `.incbin` will find.

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
    settings: dict[str, object] = {
        "program": program,
        "name": program.name,
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
        "constants_bytes": len(program.constants),
        "constants_digest": digest(program.constants),
        "code_placeholder": CODE_PLACEHOLDER,
        "file": constants_file,
        "exports": sorted(public_functions(program.name, program.card)),
        "api": f"{program.name.upper()}_API " if system.os is Os.WINDOWS else "",
        "libraries": " or ".join(system.libraries(program.name)[-2:]),
    }
    header = _render("header.h.j2", settings)
    program_header = _render("program.h.j2", settings)
    draft = _render("program.c.j2", {**settings, "build_id": ""})
    build_id = hashlib.sha256()
    tools = f"{toolchain.version} {system}"
    for part in (header, program_header, draft, constants_digest, tools, *_hand_written()):
        build_id.update(hashlib.sha256(part.encode()).digest())
    build_id.update(program.kernels_object)
    identity = build_id.hexdigest()[:40]
    return Driver(
        workspace_bytes=workspace_bytes,
        header=header,
        program_header=program_header,
        program_source=_render("program.c.j2", {**settings, "build_id": identity}),
        build_id=identity,
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


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )


def _render(template: str, settings: dict[str, object]) -> str:
    return _environment().get_template(template).render(settings)


def _hand_written() -> list[str]:
    return [path.read_text() for path in sorted(CSRC.iterdir())]
