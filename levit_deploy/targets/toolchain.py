"""C compiler, linker and archiver for a target: C sources and objects -> library or program.

`ziglang` from PyPI serves every target on every machine: it brings clang, lld and the symbol
tables of each glibc since 2.17. Where it is missing, the system's `cc` serves the host alone.

Measured (2 cores): zig's first link for a target takes 3-6 s, as it builds its start files once
into the user's cache; every later call takes 0.03-0.2 s. A call is cheap: they are not batched.
"""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from levit_deploy.errors import DeployError
from levit_deploy.targets.system import MUSL, Family, ObjectFormat, Os, System
from levit_deploy.targets.target import Arch, Target

_MACHINE = {Arch.X86_64: "x86_64", Arch.AARCH64: "aarch64", Arch.ARMV7: "armv7l"}
# The hand-written C must run far enough on any CPU of the architecture to say what is missing,
# so it is compiled for the oldest one; only the kernels use the target's own instructions.
_BASELINE = {Arch.X86_64: (), Arch.AARCH64: (), Arch.ARMV7: ("-mcpu=generic+v7a+vfp3d16",)}
# What zig's own notes of what it read, or file names that it makes, cannot hold.
_UNFIT_FOR_TOOLS = re.compile(r"[%:\\\x00-\x1f\x7f]")
_LITTLE_SPACE_BYTES = 64 * 1024  # a disk with less is full: an object does not fit
_COMPILE_FLAGS = (
    "-std=gnu11",
    "-O2",
    "-g0",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-stack-protector",  # its guard is one more symbol that the library would ask of libc
    "-Wall",
    "-Wextra",
    "-Werror",
)
_FORMAT_FLAGS = {
    ObjectFormat.ELF: ("-fPIC", "-fno-asynchronous-unwind-tables"),
    ObjectFormat.COFF: (),  # position independent as it is; without unwind tables nothing debugs it
    ObjectFormat.MACHO: ("-fno-asynchronous-unwind-tables",),
}
# Marks where indirect jumps may land and guards return addresses; see also compiler/llvm_text.py.
_HARDENING = {
    Arch.X86_64: ("-fcf-protection=full",),
    Arch.AARCH64: ("-mbranch-protection=standard",),
    Arch.ARMV7: (),
}
_RESERVE_X18 = ("-Xclang", "-target-feature", "-Xclang", "+reserve-x18")  # zig drops -ffixed-x18
_ELF_LINK_FLAGS = (
    "-nostartfiles",
    "-Wl,-z,relro,-z,now,-z,noexecstack,-z,defs",
    "-Wl,--as-needed",
)
# Floats in registers of integers where functions meet. For a target of soft floats zig forbids all
# vectors that the source does not spell, so the C is compiled for the other one.
_ANDROID_ARMV7_FLAGS = ("-target", "arm-linux-musleabihf", "-mfloat-abi=softfp")
# API 21 reads the older hash table only; pages may have 16 KiB since Android 15.
_ANDROID_LINK_FLAGS = ("-Wl,--hash-style=both", "-Wl,-z,max-page-size=16384")
# Android's libc and musl have their symbols without versions. All that we ask of them: in the one
# since API 21, in the other since 1.1.
_LIBC_FUNCTIONS = """\
__aeabi_memclr __aeabi_memclr4 __aeabi_memclr8 __aeabi_memcpy __aeabi_memcpy4 __aeabi_memcpy8
__aeabi_memmove __aeabi_memset free getauxval getenv getpid memcmp memcpy memmove memset
clock_gettime posix_memalign pthread_create pthread_join pthread_sigmask sched_getaffinity
sched_getcpu sched_setaffinity sched_yield sigfillset syscall
"""


@dataclass(frozen=True)
class Toolchain:
    """Commands that build for one target. `version` names the tool for the manifest.

    Every method writes `output` and raises DeployError with the tool's own words if that fails.
    Same inputs, same bytes: file names are the only paths that a tool sees.
    """

    target: Target
    version: str
    compiler: tuple[str, ...]
    static_compiler: tuple[str, ...]  # makes programs that need no files of the target's system
    archiver: tuple[str, ...]
    vector_flags: tuple[str, ...] = ()  # for C that may use all of the target's instructions

    def compile(self, source: Path, output: Path, flags: Iterable[str] = ()) -> None:
        """C -> object: position independent, hidden symbols, warnings are errors."""
        dialect = (*_COMPILE_FLAGS, *_compile_flags(self.target))
        self._run(
            (*self.compiler, *dialect, *flags, "-c", _beside(source, output)), "compile", output
        )

    def link_shared(self, objects: Iterable[Path], output: Path) -> None:
        """Objects -> shared library that names itself by its file name; for Windows also the import
        library, beside it."""
        names = [_beside(path, output) for path in objects]
        flags: tuple[str, ...]
        match self.target.system.family:
            case Family.WINDOWS:
                implib = self.target.system.import_library(output.stem)
                flags = ("-nostdlib", f"-Wl,--out-implib,{implib}")
                names += ["-lkernel32", "-lcompiler_rt"]
            case Family.MACOS | Family.IOS:
                flags = (f"-Wl,-install_name,@rpath/{output.name}",)
            case family:
                android = _ANDROID_LINK_FLAGS if family is Family.ANDROID else ()
                flags = (*_ELF_LINK_FLAGS, *android, f"-Wl,-soname,{output.name}")
                if libc := self.target.system.libc(self.target.arch):
                    flags += ("-nostdlib", "-Wl,--gc-sections")
                    names += [self._make_libc(output.with_name(libc)), "-lcompiler_rt"]
        self._run((*self.compiler, "-shared", "-O2", "-s", *flags, *names), "link", output)
        _write_anew(output)

    def _make_libc(self, output: Path) -> str:
        """What a library is linked against: names without code. Its own, in its folder."""
        source = output.with_suffix(".c")
        functions = (f"void {name}(void) {{}}\n" for name in _LIBC_FUNCTIONS.split())
        source.write_text("".join(functions))
        flags = ("-shared", "-nostdlib", "-fno-builtin", "-w", f"-Wl,-soname,{output.name}")
        self._run((*self.compiler, *flags, source.name), "link", output)
        return output.name

    def link_program(self, inputs: Iterable[Path], output: Path, flags: Iterable[str] = ()) -> None:
        """C sources, objects and archives -> static program, which an emulator runs as it is."""
        names = (_beside(path, output) for path in inputs)
        static = ("-static",) if self.target.system.format is ObjectFormat.ELF else ()
        self._run((*self.static_compiler, "-O2", *static, *flags, *names), "link", output)

    def archive(self, objects: Iterable[Path], output: Path) -> None:
        """Objects -> static library, without times or owners."""
        output.unlink(missing_ok=True)
        self.add_to_archive(objects, output)

    def add_to_archive(self, objects: Iterable[Path], output: Path) -> None:
        """The same, beside what is in the static library already."""
        names = [_beside(path, output) for path in objects]
        command = (*self.archiver, "rcsD", output.name, *names)
        self._run(command, "archive", output, names_output=True)

    def _run(
        self, command: tuple[str, ...], verb: str, output: Path, names_output: bool = False
    ) -> None:
        if not names_output:
            command = (*command, "-o", output.name)
        place = output.parent.absolute()
        check_place(place, hint="choose other folders: TMPDIR=DIR, -o DIR")
        with tempfile.TemporaryDirectory(dir=place, prefix=".zig-") as scratch:
            environment = {
                **os.environ,
                "ZIG_LOCAL_CACHE_DIR": scratch,  # a cached object must not outlive its inputs
                "ZIG_GLOBAL_CACHE_DIR": str(_zig_cache()),
                "TMPDIR": scratch,
                "SOURCE_DATE_EPOCH": "0",
            }
            done = subprocess.run(
                command,
                cwd=output.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode != 0:
                raise self._failure(f"cannot {verb} `{output.name}`", done, output.parent)

    def _failure(
        self, what: str, done: subprocess.CompletedProcess[str], folder: Path
    ) -> DeployError:
        words = (done.stderr or done.stdout).strip().splitlines()
        full = os.strerror(errno.ENOSPC)
        if any(full in line or "NoSpaceLeft" in line for line in words) or _is_full(folder):
            return DeployError(
                f"{what}: {full}", hint="free some space, or choose another disk: -o DIR"
            )
        errors = [line for line in words if "error" in line] or words
        if done.returncode < 0:
            errors.append(f"killed by {signal.Signals(-done.returncode).name}")
        reason = "; ".join(errors[:3]) or f"exit status {done.returncode}"
        return DeployError(f"{what} for `{self.target.name}`: {reason}", hint="levit-deploy doctor")


def check_place(folder: Path, *, hint: str) -> None:
    """Raise DeployError if the tools cannot work in a folder of that name."""
    if found := _UNFIT_FOR_TOOLS.search(str(folder)):
        raise DeployError(
            f"the linker cannot work in `{folder}`: there is {found[0]!r} in its name", hint=hint
        )


def find_toolchain(target: Target) -> Toolchain:
    """The tools that build for `target`: zig, or for this machine's own CPU the system's `cc`.

    Raises DeployError if there are none.
    """
    if zig := _find_zig():
        return _zig_toolchain(zig, target)
    compiler, archiver = shutil.which("cc"), shutil.which("ar")
    if (
        compiler
        and archiver
        and target.system.family is Family.GLIBC
        and platform.machine() == _MACHINE[target.arch]
        and platform.libc_ver()[0] == "glibc"
    ):
        first_line = subprocess.run(
            (compiler, "--version"), capture_output=True, text=True, check=True
        ).stdout.splitlines()[0]
        return Toolchain(
            target,
            first_line,
            (compiler,),
            (compiler,),
            (archiver,),
            _vector_flags(target, target.cpu),
        )
    raise DeployError(f"no cross linker for `{target.name}`", hint="pip install ziglang")


def _zig_toolchain(zig: Path, target: Target) -> Toolchain:
    def compiler(system: System) -> tuple[str, ...]:
        baseline = _BASELINE[target.arch]
        triple = system.zig_triple(target.arch)
        return (str(zig), "cc", "-target", triple, *baseline, "-fno-sanitize=all")

    version = f"zig {importlib.metadata.version('ziglang')}"
    return Toolchain(
        target,
        version,
        compiler(target.system),
        compiler(MUSL if target.system.format is ObjectFormat.ELF else target.system),
        (str(zig), "ar"),
        _vector_flags(target, target.cpu.replace("-", "_")),
    )


def _compile_flags(target: Target) -> tuple[str, ...]:
    """What the C of every library gets, beside its dialect."""
    system = target.system
    hardening = _HARDENING[target.arch] if system.format is ObjectFormat.ELF else ()
    reserved = system.reserves_x18 and target.arch is Arch.AARCH64
    softfp = system.os is Os.ANDROID and target.arch is Arch.ARMV7  # its calling convention
    return (
        *_FORMAT_FLAGS[system.format],
        *hardening,
        *(_RESERVE_X18 if reserved else ()),
        *(_ANDROID_ARMV7_FLAGS if softfp else ()),
        *(("-isystem", str(_darwin_headers())) if system.family is Family.IOS else ()),
    )


def _vector_flags(target: Target, cpu: str) -> tuple[str, ...]:
    """`cpu`: as the compiler spells it. AArch64's C gains by dot products alone."""
    match target.arch:
        case Arch.X86_64:
            vnni = [f"-m{feature[1:]}" for feature in target.features if "vnni" in feature]
            return f"-march={cpu}", f"-mprefer-vector-width={8 * target.vector_bytes}", *vnni
        case Arch.AARCH64:
            return ("-mcpu=generic+dotprod",) if "asimddp" in target.required_features else ()
        case Arch.ARMV7:
            return ("-mcpu=generic+v7a+neon",)


def _find_zig() -> Path | None:
    spec = importlib.util.find_spec("ziglang")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "zig"
        if os.access(path, os.X_OK):
            return path
    return None


def _darwin_headers() -> Path:
    """zig finds them for macOS only; those of iOS are the same."""
    zig = _find_zig()
    assert zig is not None
    return zig.parent / "lib" / "libc" / "include" / "any-darwin-any"


def _zig_cache() -> Path:
    """Where zig keeps the start files that it builds once for a target."""
    if preset := os.environ.get("ZIG_GLOBAL_CACHE_DIR"):
        return Path(preset)
    return Path(platformdirs.user_cache_dir("levit-deploy")) / "zig"


def _beside(path: Path, output: Path) -> str:
    """`path` as seen from the folder of `output`, where the tools run."""
    return os.path.relpath(path, output.parent)


def _write_anew(file: Path) -> None:
    """The same file, but written at once, so that it lies in large pages of the page cache.

    A linker writes many small pieces, and each image reads all weights: the TLB misses cost time.
    How much: `levit-deploy bench DIR` with and without this.
    """
    content, mode = file.read_bytes(), file.stat().st_mode
    file.unlink()
    file.write_bytes(content)
    file.chmod(mode)


def _is_full(folder: Path) -> bool:
    """Tools that find no space may die without a word."""
    return shutil.disk_usage(folder).free < max(
        _LITTLE_SPACE_BYTES, sum(path.stat().st_size for path in folder.iterdir())
    )
