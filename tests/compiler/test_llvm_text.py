"""Objects of kernels on every system: what is hidden, dropped, reserved and hardened."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy.compiler.codegen import emit_object, translate
from levit_deploy.compiler.kernels.gemm.float32 import default_tile, gemm_kernel
from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.compiler.tuning.assembly import lower
from levit_deploy.runtime.elf import Elf
from levit_deploy.runtime.macho import MachO
from levit_deploy.runtime.pe import Coff
from levit_deploy.targets.system import ObjectFormat, System
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Arch, Target
from tests.compiler.kernels.gemm_cases import STREAM

EVERYWHERE = [
    ("x86-64-v3", "glibc-2.17"),
    ("arm64", "glibc-2.17"),
    ("armv7", "glibc-2.17"),
    ("arm64", "android"),
    ("armv7", "android"),
    ("x86-64-v3", "windows"),
    ("arm64", "windows"),
    ("arm64", "macos"),
    ("arm64", "ios"),
]
# Instructions that do nothing but mark and guard.
HARDENING = re.compile(r"\s(endbr64|bti\b|paciasp|autiasp|hint)")


@pytest.fixture(scope="module", params=EVERYWHERE, ids="-".join)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Target, Path, Path]:
    """A target; the object of a kernel as TVM makes it, and as it is linked."""
    name, system = request.param
    target = get_target(name).on(System.parse(system))
    spec = replace(STREAM, rows=23, columns=75, depth=37)
    kernel = gemm_kernel("gemm", spec, default_tile(spec, target), target)
    folder = tmp_path_factory.mktemp("objects")
    functions = lower(kernel, target)
    translate(functions, llvm_target(target)).write_to_file(str(folder / "plain.o"), "o")
    (folder / "finished.o").write_bytes(emit_object(functions, target))
    return target, folder / "plain.o", folder / "finished.o"


def defined(target: Target, path: Path) -> set[str]:
    """Global symbols that other libraries could clash with."""
    match target.system.format:
        case ObjectFormat.ELF:
            return {s.name for s in Elf.read(path).symbols if s.defined and not s.local}
        case ObjectFormat.COFF:
            return set(Coff.read(path).defined)
        case ObjectFormat.MACHO:
            return set(MachO.read(path).hidden | MachO.read(path).defined)


def test_only_the_kernel_is_defined_and_it_is_hidden(made: tuple[Target, Path, Path]) -> None:
    target, plain, finished = made
    assert len(defined(target, plain)) > 1
    assert defined(target, finished) == {"gemm"}
    if target.system.format is ObjectFormat.ELF:
        assert [s.name for s in Elf.read(finished).symbols if s.hidden] == ["gemm"]
    if target.system.format is ObjectFormat.MACHO:
        assert MachO.read(finished).hidden == {"gemm"}


def test_no_debug_section_is_left(made: tuple[Target, Path, Path]) -> None:
    _, plain, finished = made
    assert b"debug_info" in plain.read_bytes()
    assert b"debug_" not in finished.read_bytes()
    assert b"fp16.conv" not in finished.read_bytes()


def code(path: Path) -> list[str]:
    """Instructions of the kernel, without addresses; padding and hardening left out."""
    if shutil.which("llvm-objdump") is None:
        pytest.skip("no llvm-objdump: apt-get install llvm")
    command = ("llvm-objdump", "-d", "--no-show-raw-insn", "--no-leading-addr", str(path))
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    body = re.split(r"<(?:gemm|ltmp0)>:", text)[1].split("\n\n")[0]
    body = re.sub(r"0x[0-9a-f]+|@? ?imm = .*|<.*>|//.*", "", body)
    return [
        line.strip()
        for line in body.splitlines()
        if line.strip() and not HARDENING.search(line) and "nop" not in line
    ]


def test_the_code_is_what_it_was(made: tuple[Target, Path, Path]) -> None:
    target, plain, finished = made
    if target.arch is Arch.ARMV7:
        pytest.skip("made smaller on purpose")
    assert code(finished) == code(plain)


def test_x18_is_left_to_the_system(made: tuple[Target, Path, Path]) -> None:
    target, _, finished = made
    if target.arch is not Arch.AARCH64:
        pytest.skip("a register of AArch64")
    uses = [line for line in code(finished) if re.search(r"\b[xw]18\b", line)]
    assert bool(uses) == (not target.system.reserves_x18)


def test_elf_objects_say_that_they_are_hardened(made: tuple[Target, Path, Path]) -> None:
    target, plain, finished = made
    if target.system.format is not ObjectFormat.ELF:
        pytest.skip("a note of ELF")
    assert Elf.read(plain).hardening == frozenset()
    assert (
        Elf.read(finished).hardening
        == {
            Arch.X86_64: {"IBT", "SHSTK"},
            Arch.AARCH64: {"BTI", "PAC"},
            Arch.ARMV7: set(),
        }[target.arch]
    )
