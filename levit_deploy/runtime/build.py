"""Program -> artifact: generate, compile, link, check what came out, publish."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from levit_deploy.compiler.program import Identity, Program
from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact, DebugBuild, Taps, folder_name
from levit_deploy.runtime.digest import seal
from levit_deploy.runtime.driver import ABI_VERSION, CSRC, Driver, generate_driver, public_functions
from levit_deploy.runtime.elf import Elf
from levit_deploy.runtime.macho import MachO
from levit_deploy.runtime.manifest import (
    FileRecord,
    KernelRecord,
    Manifest,
    Provenance,
    package_versions,
)
from levit_deploy.runtime.pe import Coff
from levit_deploy.runtime.publish import artifact_folder
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.targets.system import Family, ObjectFormat, Os, System
from levit_deploy.targets.toolchain import Toolchain

FRAME_SOURCES = ("frame.c", "resample.c", "colour.c", "answers.c")
_CONSTANTS = "constants.bin"
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
        manifest = _manifest(program, toolchain, driver, tuple(command_line), provenance, folder)
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
    program: Program, toolchain: Toolchain, self_test: SelfTest, folder: Path
) -> Driver:
    """Write all that a library is made of into `folder`: C, kernels, constants."""
    driver = generate_driver(program, toolchain, self_test, _CONSTANTS)
    for source in CSRC.iterdir():
        shutil.copyfile(source, folder / source.name)
    (folder / f"{program.name}.h").write_text(driver.header)
    (folder / "program.h").write_text(driver.program_header)
    (folder / "program.c").write_text(driver.program_source)
    (folder / _CONSTANTS).write_bytes(program.constants)
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
        objects = _compile(program.name, toolchain, work, extra_sources)
        system = toolchain.target.system
        _check_objects(program.name, objects, system.format)
        if shared := system.shared_library(program.name):
            toolchain.link_shared(objects.shared, work / shared)
            seal(work / shared, system.format)
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

    def compiled(source: str, suffix: str = "", flags: tuple[str, ...] = ()) -> Path:
        output = work / f"{name}_{Path(source).stem}{suffix}.o"
        toolchain.compile(work / source, output, flags)
        return output

    common = (
        *(compiled(source) for source in ("program.c", "library.c", *extra_sources)),
        *(compiled(source, flags=toolchain.vector_flags) for source in ("tasks.c", *FRAME_SOURCES)),
        work / f"{name}_kernels.o",
        compiled("constants.c"),
    )
    windows = toolchain.target.system.os is Os.WINDOWS
    weak = ("-DWEAK_PTHREAD",) if toolchain.target.system.os is Os.LINUX else ()
    return _Objects(
        shared=(
            *common,
            compiled("digest.c", "_shared", ("-DSHARED",)),
            compiled("threads.c", "_shared", weak),
            *((compiled("windows.c"),) if windows else ()),
        ),
        # In an archive a member that nobody asks for is left out: no threads, no -pthread.
        static=(*common, compiled("digest.c"), compiled("threads.c")),
    )


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
    newer: frozenset[str] = frozenset()
    match system.format:
        case ObjectFormat.ELF:
            elf = Elf.read(library)
            exported = {symbol.name for symbol in elf.symbols if symbol.defined}
            needed, unresolved = set(elf.needed), _unresolved(elf)
            floor = system.floor if system.family is Family.GLIBC else ()
            newer = frozenset(v for v in elf.versions if _glibc_release(v) > floor)
        case ObjectFormat.COFF:
            coff = Coff.read(library)
            exported, needed, unresolved = set(coff.defined), set(coff.needed), set()
        case ObjectFormat.MACHO:
            macho = MachO.read(library)
            exported, needed, unresolved = set(macho.defined), set(macho.needed), set()
    for found, what in (
        (exported ^ exports, "exports differ from the header"),
        (needed - system.needs, "it needs other libraries than the C library"),
        (unresolved, "it has unresolved symbols"),
        (newer, f"it needs a newer C library than {system}"),
    ):
        if found:
            raise DeployError(
                f"`{library.name}` cannot be shipped: {what}: {', '.join(sorted(found))}",
                hint="pip install ziglang",
            )


def _unresolved(elf: Elf) -> set[str]:
    optional = {symbol.name for symbol in elf.symbols if symbol.weak and not symbol.defined}
    return optional - _OPTIONAL_SYMBOLS


def _glibc_release(version: str) -> tuple[int, ...]:
    """`GLIBC_2.17` -> (2, 17)."""
    return tuple(int(part) for part in version.removeprefix("GLIBC_").split("."))


def _manifest(
    program: Program,
    toolchain: Toolchain,
    driver: Driver,
    command_line: tuple[str, ...],
    provenance: Provenance | None,
    folder: Path,
) -> Manifest:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Manifest(
        **Identity.of(program),
        base_target=toolchain.target.base or toolchain.target.name,
        system=str(toolchain.target.system),
        image_size=program.image_size,
        classes=program.classes,
        card=program.card,
        program_digest=program.digest,
        build_id=driver.build_id,
        abi_version=ABI_VERSION,
        workspace_bytes=driver.workspace_bytes,
        arena_bytes=program.arena_bytes,
        scratch_bytes=program.scratch_bytes,
        constants_bytes=len(program.constants),
        command_line=command_line,
        provenance=provenance,
        toolchain=toolchain.version,
        versions=package_versions(),
        kernels=tuple(KernelRecord.of(call) for call in program.calls),
        files={path.relative_to(folder).as_posix(): FileRecord.of(path) for path in files},
    )
