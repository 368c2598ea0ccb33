"""finish_object on objects of this machine's compiler and of a 32-bit one, read by readelf."""

import subprocess
import sys
from pathlib import Path

import pytest

from levit_deploy.compiler.object_file import finish_object

SOURCE = """
static int table[4] = {1, 2, 3, 4};
int counter;
__attribute__((noinline)) static int inner(int i) { return table[i & 3] + counter; }
int twice(int i) { return 2 * inner(i); }
extern int elsewhere(int);
int calls_out(int i) { return elsewhere(twice(i)); }
"""
TRIPLES = ["x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf"]


def compile_object(triple: str, folder: Path) -> Path:
    (folder / "source.c").write_text(SOURCE)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-g", "-O1", "-fPIC"]
    subprocess.run([*command, "-c", "source.c", "-o", "plain.o"], cwd=folder, check=True)
    finished = folder / "finished.o"
    finished.write_bytes(finish_object((folder / "plain.o").read_bytes()))
    return finished


def readelf(path: Path, *options: str) -> str:
    return subprocess.run(
        ["llvm-readelf", *options, str(path)], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("triple", TRIPLES)
def test_debug_sections_go_and_definitions_are_hidden(triple: str, tmp_path: Path) -> None:
    finished = compile_object(triple, tmp_path)
    assert ".debug_info" in readelf(tmp_path / "plain.o", "-SW")
    assert ".debug" not in readelf(finished, "-SW").replace(".debug_str_offsets", "")
    symbols = {
        fields[-1]: fields
        for fields in map(str.split, readelf(finished, "-sW").splitlines())
        if len(fields) == 8
    }
    for name in ("twice", "calls_out", "counter"):
        assert symbols[name][4:6] == ["GLOBAL", "HIDDEN"]
    assert symbols["elsewhere"][4:7] == ["GLOBAL", "DEFAULT", "UND"]


@pytest.mark.parametrize("triple", TRIPLES)
def test_code_and_relocations_are_kept(triple: str, tmp_path: Path) -> None:
    finished = compile_object(triple, tmp_path)

    def code(path: Path) -> list[str]:
        text = subprocess.run(
            ["llvm-objdump", "-d", "-r", str(path)], check=True, capture_output=True, text=True
        ).stdout
        return text.splitlines()[4:]

    assert code(finished) == code(tmp_path / "plain.o")


def test_the_finished_object_still_links_and_runs(tmp_path: Path) -> None:
    compile_object("x86_64-linux-gnu", tmp_path)
    (tmp_path / "main.c").write_text(
        "extern int counter; int calls_out(int); int elsewhere(int i) { return i + 1; }\n"
        "int main(void) { counter = 10; return calls_out(2) == 27 ? 0 : 1; }\n"
    )
    subprocess.run(["gcc", "main.c", "finished.o", "-o", "main"], cwd=tmp_path, check=True)
    subprocess.run(["./main"], cwd=tmp_path, check=True)
