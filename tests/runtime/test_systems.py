"""Artifacts for other systems than Linux, and hardened ones: rules of their loaders, executed code.

What qemu and wine run is executed; what neither runs is looked at.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.elf import Elf
from levit_deploy.runtime.macho import MachO
from levit_deploy.runtime.pe import Coff
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.targets.emulator import run_prefix
from levit_deploy.targets.system import Arch, Os, System
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from tests.compiler.levit import exported_tiny
from tests.compiler.quantized import quantized_tiny
from tests.machine import emulator_for, prefix_for
from tests.runtime.c_program import link_dll, link_static, load_library_program, run
from tests.runtime.small_network import SmallNetwork

PAGE_BYTES = 16384
# Tags of the dynamic section (elf.h).
HASH, SONAME, RPATH, TEXTREL, RUNPATH, VERNEED = 4, 14, 15, 22, 29, 0x6FFFFFFE
SELF_TEST = """
#include "small.h"
static unsigned char workspace[SMALL_WORKSPACE_BYTES];
int main(void) { return small_self_test(workspace); }
"""


def build(network: SmallNetwork, name: str, system: str, folder: Path) -> Artifact:
    toolchain = find_toolchain(get_target(name).on(System.parse(system)))
    program = network.program(toolchain, folder / "work")
    return build_artifact(program, toolchain, network.self_test(), folder)


@pytest.fixture(scope="module", params=["arm64", "armv7", "x86-64"])
def android(
    request: pytest.FixtureRequest, network: SmallNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    return build(network, request.param, "android", tmp_path_factory.mktemp("android"))


def test_android_loads_it_since_api_21(android: Artifact) -> None:
    """What bionic's linker asks of a library: android-changes-for-ndk-developers.md."""
    elf = Elf.read(android.shared_library)
    assert android.folder.name == f"small-{android.manifest.target}-android-fp32"
    assert elf.needed == ("libc.so",)
    assert elf.versions == ()
    assert {HASH, SONAME} <= elf.dynamic
    assert not elf.dynamic & {RPATH, RUNPATH, TEXTREL, VERNEED}
    assert all(alignment >= PAGE_BYTES for alignment in elf.alignments)
    assert b"libc.so.6" not in android.shared_library.read_bytes()


@pytest.mark.parametrize("name", ["arm64", "x86-64", "armv7"])
def test_android_code_runs(name: str, network: SmallNetwork, tmp_path: Path) -> None:
    """The objects of the static library, linked with another C library."""
    built = build(network, name, "android", tmp_path)
    toolchain = find_toolchain(built.manifest.device)
    run(link_static(toolchain, SELF_TEST, [built], tmp_path), prefix_for(toolchain.target))


@pytest.mark.parametrize(
    ("name", "marks"),
    [("x86-64", {"IBT", "SHSTK"}), ("arm64", {"BTI", "PAC"}), ("armv7", set())],
)
def test_all_code_of_a_library_is_hardened(
    name: str, marks: set[str], network: SmallNetwork, tmp_path: Path
) -> None:
    built = build(network, name, "glibc-2.17", tmp_path)
    assert Elf.read(built.shared_library).hardening == marks


def test_code_runs_where_jumps_must_land_on_marks(tmp_path: Path) -> None:
    """As a CPU with BTI and PAC executes the kernels of a LeViT."""
    target = get_target("arm64")
    command = (emulator_for(target)[0], "-cpu", "max,sve=off")
    exported = exported_tiny()
    program = compile_model(exported, target, name="small")
    toolchain = find_toolchain(target)
    anything = SelfTest((0.0,) * program.classes, 1e30)
    built = build_artifact(program, toolchain, anything, tmp_path)
    assert Elf.read(built.shared_library).hardening == {"BTI", "PAC"}
    loader = load_library_program(toolchain, tmp_path)
    output = run(loader, command, arguments=(str(built.shared_library), "small"))
    assert output.endswith("success\n")


@pytest.mark.parametrize(("system", "os"), [("macos", Os.MACOS), ("ios", Os.IOS)])
def test_libraries_for_apples_systems(
    system: str, os: Os, network: SmallNetwork, tmp_path: Path
) -> None:
    """Looked at, not executed."""
    built = build(network, "arm64", system, tmp_path)
    (tmp_path / "objects").mkdir()
    command = ("ar", "x", built.static_library.absolute())
    subprocess.run(command, cwd=tmp_path / "objects", check=True)
    objects = [MachO.read(path) for path in (tmp_path / "objects").glob("*.o")]
    assert len(objects) > 8
    for file in objects:
        assert (file.arch, file.os) == (Arch.AARCH64, os)
        assert all(name.startswith("small_") for name in file.defined | file.hidden)
    assert run_prefix(built.manifest.device) is None
    if os is Os.MACOS:
        library = MachO.read(built.shared_library)
        assert (library.arch, library.os, library.floor) == (Arch.AARCH64, os, (11, 0))
        assert library.install_name == "@rpath/libsmall.dylib"
        assert library.needed == ("/usr/lib/libSystem.B.dylib",)
        assert "small_run" in library.defined


@pytest.mark.parametrize("name", ["x86-64", "arm64"])
def test_dlls(name: str, network: SmallNetwork, tmp_path: Path) -> None:
    built = build(network, name, "windows", tmp_path)
    dll = Coff.read(built.shared_library)
    assert dll.arch is built.manifest.device.arch
    assert "small_run" in dll.defined
    assert all(symbol.startswith("small_") for symbol in dll.defined)
    assert dll.needed == ("KERNEL32.dll",)
    assert {"small.dll", "small.lib", "small_static.lib", "small.h"} <= set(built.manifest.files)


@pytest.mark.skipif(
    shutil.which("llvm-objdump") is None, reason="no llvm-objdump: apt-get install llvm"
)
@pytest.mark.parametrize("system", ["android", "macos", "windows"])
def test_no_code_uses_the_register_of_the_system(
    system: str, network: SmallNetwork, tmp_path: Path
) -> None:
    built = build(network, "arm64", system, tmp_path)
    command = ("llvm-objdump", "-d", "--no-show-raw-insn", built.static_library)
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    code = [line.split("\t", 1)[-1] for line in text.splitlines() if "\t" in line]
    assert len(code) > 1000
    assert not [line for line in code if re.search(r"\b[xw]18\b", line)]


DLL_PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "small.h"

int main(void)
{
    static float image[3 * SMALL_IMAGE_SIZE * SMALL_IMAGE_SIZE];
    static float logits[SMALL_CLASSES], again[SMALL_CLASSES];
    void *workspace = malloc(SMALL_WORKSPACE_BYTES);
    for (int i = 0; i < 3 * SMALL_IMAGE_SIZE * SMALL_IMAGE_SIZE; i++)
        image[i] = (float)(i * 2654435761u >> 20) / 2048 - 1;
    if (small_self_test(workspace) || small_run(image, logits, workspace))
        return 1;
    for (int count = 1; count <= 4; count++) {
        small_threads *threads = small_threads_create(count);
        for (int i = 0; i < 50; i++) {
            memset(again, 0, sizeof again);
            if (!threads || small_run_threads(image, again, workspace, threads))
                return 2;
            if (memcmp(again, logits, sizeof logits))
                return 3;
        }
        small_threads_destroy(threads);
    }
    for (int i = 0; i < SMALL_CLASSES; i++) {
        unsigned bits;
        memcpy(&bits, &logits[i], sizeof bits);
        printf("%08x ", bits);
    }
    return 0;
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_dll_computes_the_bits_of_linux(precision: str, tmp_path: Path) -> None:
    """Under wine: the DLL, its threads, and the calling convention; 6 to 15 of XMM are kept."""
    target = get_target("x86-64-v3")
    windows = target.on(System.of("windows", None))
    prefix = run_prefix(windows)
    if not prefix:
        pytest.skip("no wine, or no AVX2: apt-get install wine64")
    exported = exported_tiny() if precision == "fp32" else quantized_tiny()
    results = []
    for each in (target, windows):
        toolchain = find_toolchain(each)
        folder = tmp_path / each.system.os
        folder.mkdir()
        program = compile_model(exported, each, name="small")
        anything = SelfTest((0.0,) * program.classes, 1e30)
        built = build_artifact(program, toolchain, anything, folder)
        if each is target:
            results.append(run(link_static(toolchain, DLL_PROGRAM, [built], folder)))
        else:
            results.append(run(link_dll(toolchain, DLL_PROGRAM, built, folder), prefix))
    assert results[0] == results[1]
    assert len(results[0].split()) == 10
