"""finish_object on objects of every architecture: what it hides, drops and leaves as it was."""

import shutil
import subprocess
from pathlib import Path

import pytest

from levit_deploy.compiler.object_file import finish_object
from levit_deploy.runtime.elf import Elf
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from tests.machine import prefix_for

SOURCE = """
static int table[4] = {1, 2, 3, 4};
int counter;
__attribute__((noinline)) static int inner(int i) { return table[i & 3] + counter; }
int twice(int i) { return 2 * inner(i); }
extern int elsewhere(int);
int calls_out(int i) { return elsewhere(twice(i)); }
"""
MAIN = """
extern int counter;
int calls_out(int);
int elsewhere(int i) { return i + 1; }
int main(void) { counter = 10; return calls_out(2) == 27 ? 0 : 1; }
"""
every_architecture = pytest.mark.parametrize("name", ["x86-64", "arm64", "armv7"])


def compile_object(name: str, folder: Path) -> Path:
    (folder / "source.c").write_text(SOURCE)
    command = [*find_toolchain(get_target(name)).compiler, "-g", "-O1", "-fPIC"]
    subprocess.run([*command, "-c", "source.c", "-o", "plain.o"], cwd=folder, check=True)
    finished = folder / "finished.o"
    finished.write_bytes(finish_object((folder / "plain.o").read_bytes()))
    return finished


@every_architecture
def test_debug_sections_go_and_definitions_are_hidden(name: str, tmp_path: Path) -> None:
    finished = compile_object(name, tmp_path)
    assert b".debug_info" in (tmp_path / "plain.o").read_bytes()
    assert {s.name for s in Elf.read(tmp_path / "plain.o").symbols if s.hidden} == set()
    symbols = {symbol.name: symbol for symbol in Elf.read(finished).symbols}
    assert not [name for name in symbols if name.startswith(".debug")]
    for name in ("twice", "calls_out", "counter"):
        assert symbols[name].hidden
        assert not symbols[name].local
    assert not symbols["elsewhere"].defined
    assert not symbols["elsewhere"].hidden


def llvm(tool: str, *arguments: str | Path) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool}: apt-get install llvm")
    return subprocess.run([tool, *arguments], check=True, capture_output=True, text=True).stdout


@every_architecture
def test_as_llvm_reads_it(name: str, tmp_path: Path) -> None:
    """No debug section is left, and code and relocations are what they were."""
    finished = compile_object(name, tmp_path)
    sections = llvm("llvm-readelf", "-SW", finished)
    assert ".debug" not in sections.replace(".debug_str_offsets", "")

    def code(path: Path) -> list[str]:
        return llvm("llvm-objdump", "-d", "-r", path).splitlines()[4:]

    assert code(finished) == code(tmp_path / "plain.o")


@every_architecture
def test_the_finished_object_still_links_and_runs(name: str, tmp_path: Path) -> None:
    prefix = prefix_for(get_target(name))
    finished = compile_object(name, tmp_path)
    (tmp_path / "main.c").write_text(MAIN)
    program = tmp_path / "main"
    find_toolchain(get_target(name)).link_program([tmp_path / "main.c", finished], program)
    subprocess.run([*prefix, program], check=True)
