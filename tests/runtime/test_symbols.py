"""What a library exports and what it asks for; binutils, where they are, read it too."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.elf import Elf
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.system import System
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from tests.machine import prefix_for
from tests.runtime.c_program import self_test_shared_library
from tests.runtime.small_network import SmallNetwork

LIBC = {"libc.so.6", "libm.so.6", "libc.musl-x86_64.so.1"}


@pytest.fixture(
    scope="module",
    params=[
        ("host", "glibc-2.17"),
        ("arm64", "glibc-2.17"),
        ("arm64", "glibc-2.28"),
        ("armv7", "glibc-2.17"),
        ("x86-64", "musl"),
    ],
    ids="-".join,
)
def built(
    request: pytest.FixtureRequest, network: SmallNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    target, libc = request.param
    toolchain = find_toolchain(get_target(target).on(System.parse(libc)))
    folder = tmp_path_factory.mktemp("built")
    program = network.program(toolchain, folder / "work")
    return build_artifact(program, toolchain, network.self_test(), folder)


def binutils(tool: str, *arguments: str | Path) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool}: apt-get install binutils")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout


def declared_functions(header: Path) -> set[str]:
    """Function names in the header's text, types and function pointers left out."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
    text = re.sub(r"typedef[^;{]*;|typedef struct \{.*?\}[^;]*;", "", text, flags=re.DOTALL)
    return set(re.findall(r"\b(small_\w+)\(", text))


def test_exports_are_the_headers_functions(built: Artifact) -> None:
    symbols = Elf.read(built.shared_library).symbols
    exported = {symbol.name for symbol in symbols if symbol.defined}
    assert exported == declared_functions(built.header)
    assert len(exported) == 18


def test_nothing_but_the_c_library_is_needed(built: Artifact) -> None:
    assert LIBC.issuperset(Elf.read(built.shared_library).needed)


MUSL_LOADER = Path("/lib/ld-musl-x86_64.so.1")
MUSL_PROGRAM = """
#include "small.h"
static unsigned char workspace[SMALL_WORKSPACE_BYTES];
static float image[3 * SMALL_IMAGE_SIZE * SMALL_IMAGE_SIZE], logits[SMALL_CLASSES];
int main(void)
{
    small_threads *threads = small_threads_create(2);
    if (!threads || small_run_threads(image, logits, workspace, threads))
        return 1;
    small_threads_destroy(threads);
    return small_self_test(workspace);
}
"""


@pytest.mark.skipif(not MUSL_LOADER.exists(), reason="no musl: apt-get install musl")
def test_musls_loader_takes_it(network: SmallNetwork, tmp_path: Path) -> None:
    """By Alpine's name for musl, and by any."""
    toolchain = find_toolchain(get_target("x86-64").on(System.parse("musl")))
    built = build_artifact(
        network.program(toolchain, tmp_path / "work"), toolchain, network.self_test(), tmp_path
    )
    assert Elf.read(built.shared_library).needed == ("libc.musl-x86_64.so.1",)
    (tmp_path / "main.c").write_text(MUSL_PROGRAM)
    command = (*toolchain.compiler, "-dynamic", "main.c", built.shared_library)
    options = (f"-I{built.folder}", f"-Wl,-rpath,{built.folder}", "-o", "program")
    subprocess.run((*command, *options), cwd=tmp_path, check=True)
    program = tmp_path / "program"
    assert Elf.read(program).needed == ("libsmall.so", "libc.so")
    subprocess.run((MUSL_LOADER, program), check=True)


def test_no_symbol_is_newer_than_the_floor(built: Artifact) -> None:
    releases = {
        tuple(map(int, version.removeprefix("GLIBC_").split(".")))
        for version in Elf.read(built.shared_library).versions
    }
    if built.manifest.system == "musl":
        assert not releases
    else:
        floor = tuple(map(int, built.manifest.system.removeprefix("glibc-").split(".")))
        assert releases
        assert max(releases) <= floor


def test_our_reader_and_binutils_agree(built: Artifact) -> None:
    library = built.shared_library
    elf = Elf.read(library)
    defined = binutils("nm", "-D", "--defined-only", library)
    assert {s.name for s in elf.symbols if s.defined} == {
        line.split()[-1] for line in defined.splitlines()
    }
    needed = re.findall(r"NEEDED.*\[(.*)\]", binutils("readelf", "-dW", library))
    assert set(elf.needed) == set(needed)
    versions = re.findall(r"Name: (GLIBC_[\d.]+)", binutils("readelf", "-VW", library))
    assert set(elf.versions) == set(versions)


def test_hardening(built: Artifact) -> None:
    segments = binutils("readelf", "-lW", built.shared_library)
    assert "GNU_RELRO" in segments
    assert re.search(r"GNU_STACK .* RW +0", segments)
    assert not re.search(r"LOAD .* RWE", segments)
    assert "BIND_NOW" in binutils("readelf", "-dW", built.shared_library)
    assert "TEXTREL" not in binutils("readelf", "-dW", built.shared_library)


def test_no_mutable_data(built: Artifact) -> None:
    """After relocation all of the library is read-only: no state, constants shared by processes."""
    sections = binutils("readelf", "-SW", built.shared_library)
    writable = set(re.findall(r"\] (\.\S+) .* WA? ", sections))
    assert writable <= {".data.rel.ro", ".dynamic", ".got", ".got.plt", ".relro_padding"}
    assert ".data.rel.ro" in writable
    assert re.search(r"\.rodata .* AM?S? ", sections)


def test_archive_symbols_begin_with_the_name(built: Artifact) -> None:
    listing = binutils("nm", "-g", "--defined-only", built.static_library)
    symbols = re.findall(r"^[0-9a-f]+ \w (\S+)$", listing, flags=re.MULTILINE)
    assert len(symbols) > 11
    assert all(symbol.startswith("small_") for symbol in symbols)


def test_kernels_without_the_name_are_refused(
    network: SmallNetwork, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    program = network.program(host_toolchain, tmp_path / "work", "small")
    source = tmp_path / "foreign.c"
    source.write_text("int foreign(void) { return 0; }\n")
    host_toolchain.compile(source, tmp_path / "foreign.o")
    damaged = replace(program, kernels_object=(tmp_path / "foreign.o").read_bytes())
    with pytest.raises(DeployError, match="`foreign`"):
        build_artifact(damaged, host_toolchain, network.self_test(), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("weak", ["", "__attribute__((weak))"])
def test_kernels_that_call_something_unknown_are_refused(
    weak: str, network: SmallNetwork, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    source, kernels = tmp_path / "kernels.c", tmp_path / "kernels.o"
    body = Path(__file__).with_name("kernels.c").read_text()
    called = body.replace("float sum = 0;", "float sum = 0; out_of_nowhere();")
    source.write_text(f"{weak} void out_of_nowhere(void);\n{called}")
    host_toolchain.compile(source, kernels, ("-DNAME_OF_KERNELS=small",))
    program = network.program(host_toolchain, tmp_path / "work")
    damaged = replace(program, kernels_object=kernels.read_bytes())
    with pytest.raises(DeployError, match="out_of_nowhere"):
        build_artifact(damaged, host_toolchain, network.self_test(), tmp_path / "out")


@pytest.mark.skipif(
    shutil.which("cc") is None or platform.libc_ver()[0] != "glibc", reason="no system compiler"
)
def test_system_compiler_must_keep_the_floor(
    network: SmallNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("levit_deploy.targets.toolchain._find_zig", lambda: None)
    own_libc = System.parse(f"glibc-{platform.libc_ver()[1]}")
    toolchain = find_toolchain(get_target("host").on(own_libc))
    program = network.program(toolchain, tmp_path / "work")
    built = build_artifact(program, toolchain, network.self_test(), tmp_path)
    Library(built.folder, threads=2).self_test()
    if own_libc.floor < (2, 34):
        pytest.skip("the system's glibc is old enough for the floor")
    with pytest.raises(DeployError, match=r"newer C library than glibc-2\.17"):
        build_artifact(
            program, find_toolchain(get_target("host")), network.self_test(), tmp_path / "old"
        )


def test_shared_library_itself_runs(built: Artifact, tmp_path: Path) -> None:
    """The bytes of the .so, on its own kind of CPU."""
    target = get_target(built.manifest.target)
    prefix = prefix_for(target)
    output = self_test_shared_library(find_toolchain(target), built, prefix, tmp_path)
    assert output.endswith("relocations, threads yes, success\n")
    assert not output.startswith("0 ")
