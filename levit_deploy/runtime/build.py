"""Program -> artifact: generate, compile, link, check what came out, publish."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from levit_deploy.compiler.program import Program
from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact, DebugBuild, Taps, folder_name
from levit_deploy.runtime.bill import FILE_NAME as BILL
from levit_deploy.runtime.bill import bill_of_materials
from levit_deploy.runtime.digest import seal
from levit_deploy.runtime.driver import CSRC, Driver, Front, generate_driver, public_functions
from levit_deploy.runtime.elf import Elf
from levit_deploy.runtime.handout import handout
from levit_deploy.runtime.macho import MachO
from levit_deploy.runtime.manifest import (
    Facts,
    FileRecord,
    Manifest,
    Provenance,
    package_versions,
)
from levit_deploy.runtime.pe import Coff
from levit_deploy.runtime.publish import artifact_folder
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.targets.system import Family, ObjectFormat, Os, System
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain

FRAME_SOURCES = ("frame.c", "resample.c", "colour.c", "answers.c")
_CONSTANTS, _CONSTANTS_SOURCE, _EXPORTS = "constants.bin", "constants.c", "exports.h"
# Loaders accept these unresolved: threads are only made in programs that have them.
_OPTIONAL_SYMBOLS = frozenset({"pthread_create", "pthread_join", "pthread_sigmask"})


def build_artifact(
    program: Program,
    toolchain: Toolchain,
    self_test: SelfTest,
    parent: Path,
    *,
    command_line: Iterable[str] = (),
    provenance: Provenance | None = None,
    add_files: Callable[[Path], None] | None = None,
    check: Callable[[Artifact], None] | None = None,
) -> Artifact:
    """Make `parent`/<name>-<target>-<precision>, replacing an older one when all is done.

    `add_files` may put more files and folders into the one that it is given; the manifest lists
    them. `check` sees the complete artifact before it is put in place; it may add verify.json, and
    if it or `add_files` raises nothing is put in place. The libraries depend on `program`,
    `toolchain` and `self_test` alone, to the byte. Raises DeployError if a tool fails, if the
    library would ask for more than the C library, or if the folder cannot be written.
    """
    system = toolchain.target.system
    destination = parent / folder_name(program.name, program.target, program.precision, system.os)
    with artifact_folder(destination) as folder:
        driver = _make_libraries(program, toolchain, self_test, folder)
        exports = public_functions(program.name, program.card)
        if shared := system.shared_library(program.name):
            _check_shared_library(folder / shared, exports, system)
        if add_files is not None:
            add_files(folder)
        manifest = Manifest(
            **Facts.of(driver.facts),
            build_id=driver.facts.facts_digest,
            command_line=tuple(command_line),
            provenance=provenance,
            versions=package_versions(),
            files=_file_records(folder),
        )
        manifest = _add(folder, manifest, handout(Artifact(folder, manifest), toolchain.target))
        manifest = _add(folder, manifest, {BILL: bill_of_materials(manifest)})
        manifest.save(folder)
        if check is not None:
            check(Artifact(folder, manifest))
    return Artifact(destination, manifest)


def build_debug(
    program: Program, toolchain: Toolchain, self_test: SelfTest, folder: Path
) -> DebugBuild:
    """Put the debug build of `program` (see artifact.py) into `folder`, which is made for it."""
    folder.mkdir(parents=True)
    _make_libraries(program, toolchain, self_test, folder, ("taps.c",))
    build = DebugBuild(folder, Taps.of(program, toolchain.target.system))
    build.taps.save(folder)
    return build


def generate_sources(
    program: Program,
    toolchain: Toolchain,
    self_test: SelfTest,
    folder: Path,
    front: Front | None = None,
) -> Driver:
    """Write all that a library is made of into `folder`: C, kernels, constants.

    A program with levels gets what is before them; `front`: of which the program is a level.
    """
    driver = generate_driver(program, toolchain, self_test, _CONSTANTS, front)
    for source in CSRC.iterdir():
        shutil.copyfile(source, folder / source.name)
    (folder / f"{program.name}.h").write_text(driver.header)
    if front is None:
        (folder / _CONSTANTS_SOURCE).write_text(driver.constants_source)
        (folder / _CONSTANTS).write_bytes(program.constants)
        if toolchain.target.system.os is Os.WINDOWS:
            names = sorted(public_functions(program.name, program.card))
            text = "".join(f" -export:{name}" for name in names)
            (folder / _EXPORTS).write_text(f'#define EXPORTS "{text}"\n')
    if program.levels:
        (folder / "front.h").write_text(driver.front_header)
    else:
        (folder / "program.h").write_text(driver.program_header)
        (folder / "program.c").write_text(driver.program_source)
        (folder / f"{program.name}_kernels.o").write_bytes(program.kernels_object)
    return driver


def _make_libraries(
    program: Program,
    toolchain: Toolchain,
    self_test: SelfTest,
    folder: Path,
    extra_sources: tuple[str, ...] = (),
) -> Driver:
    """Put the library in both forms and its header into `folder`."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".work-") as name:
        work = Path(name)
        driver = generate_sources(program, toolchain, self_test, work)
        if program.levels:
            objects = _compile_levels(program, toolchain, self_test, driver, work)
        else:
            objects = _compile(program.name, toolchain, work, extra_sources)
        system = toolchain.target.system
        _check_objects(program.name, objects, system.format)
        if shared := system.shared_library(program.name):
            toolchain.link_shared(objects.shared, work / shared)
            seal(work / shared, len(program.constants), system.format)
        toolchain.archive(objects.static, work / system.static_library(program.name))
        for file in (*system.libraries(program.name), f"{program.name}.h"):
            (work / file).replace(folder / file)
    return driver


@dataclass(frozen=True)
class _Objects:
    """What each form of the library is made of."""

    shared: tuple[Path, ...]
    static: tuple[Path, ...]


def _compile(
    name: str, toolchain: Toolchain, work: Path, extra_sources: tuple[str, ...]
) -> _Objects:
    """Compile what `generate_sources` wrote; objects are called by the library's name."""
    compiled = partial(_compiled, name, toolchain, work)
    constants = (_CONSTANTS_SOURCE,) if (work / _CONSTANTS_SOURCE).exists() else ()
    weak = ("-DWEAK_PTHREAD",) if toolchain.target.system.os is Os.LINUX else ()
    common = (
        *(compiled(source) for source in ("program.c", "library.c", *constants, *extra_sources)),
        *(compiled(source, flags=toolchain.vector_flags) for source in ("tasks.c", *FRAME_SOURCES)),
        work / f"{name}_kernels.o",
    )
    return _Objects(
        shared=(
            *common,
            compiled("digest.c", "_shared", ("-DSHARED",)),
            compiled("threads.c", "_shared", weak),
            *_of_a_dll(name, toolchain, work),
        ),
        # In an archive a member that nobody asks for is left out: no threads, no -pthread.
        static=(*common, compiled("digest.c"), compiled("threads.c")),
    )


def _compile_levels(
    program: Program, toolchain: Toolchain, self_test: SelfTest, driver: Driver, work: Path
) -> _Objects:
    """Compile what is before the levels, and a complete library for each without constants."""
    name = program.name
    front = Front(name, driver.facts.workspace_bytes, driver.facts.facts_digest)
    sources = ("front.c", "front_threads.c", _CONSTANTS_SOURCE)
    parts = tuple(_compiled(name, toolchain, work, source) for source in sources)
    common = _Objects((*parts, *_of_a_dll(name, toolchain, work)), parts)
    for level in program.levels:
        folder = work / level.target
        folder.mkdir()
        own = find_toolchain(get_target(level.target).on(toolchain.target.system))
        generate_sources(level, own, self_test, folder, front)
        objects = _compile(level.name, own, folder, ("level.c",))
        common = _Objects(common.shared + objects.shared, common.static + objects.static)
    return common


def _of_a_dll(name: str, toolchain: Toolchain, work: Path) -> tuple[Path, ...]:
    exports = (work / _EXPORTS).exists()
    return (_compiled(name, toolchain, work, "windows.c"),) if exports else ()


def _compiled(
    name: str,
    toolchain: Toolchain,
    work: Path,
    source: str,
    suffix: str = "",
    flags: tuple[str, ...] = (),
) -> Path:
    output = work / f"{name}_{Path(source).stem}{suffix}.o"
    toolchain.compile(work / source, output, flags)
    return output


def _check_objects(name: str, objects: _Objects, form: ObjectFormat) -> None:
    """Two libraries must link into one program: every global symbol begins with the name."""
    for path in objects.static:
        for symbol in _globals(path, form):
            if not symbol.startswith(f"{name}_"):
                raise DeployError(
                    f"`{path.name}` defines `{symbol}`, which lacks the prefix `{name}_`"
                )


def _globals(path: Path, form: ObjectFormat) -> Iterable[str]:
    """What an object defines for others."""
    match form:
        case ObjectFormat.ELF:
            symbols = Elf.read(path).symbols
            return [symbol.name for symbol in symbols if symbol.defined and not symbol.local]
        case ObjectFormat.COFF:
            return Coff.read(path).defined
        case ObjectFormat.MACHO:
            macho = MachO.read(path)
            return macho.defined | macho.hidden


def _check_shared_library(library: Path, exports: frozenset[str], system: System) -> None:
    """The contract of docs/c-api.md: what it exports, and what it asks of the system."""
    unresolved: set[str] = set()
    newer: set[str] = set()
    match system.format:
        case ObjectFormat.ELF:
            elf = Elf.read(library)
            exported = {symbol.name for symbol in elf.symbols if symbol.defined}
            needed = set(elf.needed)
            unresolved = {s.name for s in elf.symbols if s.weak and not s.defined}
            floor = system.floor if system.family is Family.GLIBC else ()
            newer = {v for v in elf.versions if _glibc_release(v) > floor}
        case ObjectFormat.COFF:
            coff = Coff.read(library)
            exported, needed = set(coff.defined), set(coff.needed)
        case ObjectFormat.MACHO:
            macho = MachO.read(library)
            exported, needed = set(macho.defined), set(macho.needed)
    for found, what in (
        (exported ^ exports, "exports differ from the header"),
        (needed - system.needs, "it needs other libraries than the C library"),
        (unresolved - _OPTIONAL_SYMBOLS, "it has unresolved symbols"),
        (newer, f"it needs a newer C library than {system}"),
    ):
        if found:
            raise DeployError(
                f"`{library.name}` cannot be shipped: {what}: {', '.join(sorted(found))}",
                hint="pip install ziglang",
            )


def _glibc_release(version: str) -> tuple[int, ...]:
    """`GLIBC_2.17` -> (2, 17)."""
    return tuple(int(part) for part in version.removeprefix("GLIBC_").split("."))


def _add(folder: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> Manifest:
    """Write files into the artifact; its manifest with them. What was there is not read again."""
    records = dict(manifest.files)
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        records[name] = FileRecord.of(path)
    return replace(manifest, files=dict(sorted(records.items(), key=lambda item: Path(item[0]))))


def _file_records(folder: Path) -> dict[str, FileRecord]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileRecord.of(path) for path in files}
