"""Toolchain: what it finds, what it makes, and what it says when it cannot."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.targets import toolchain as module
from levit_deploy.targets.system import MUSL
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from tests.machine import prefix_for

HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'


@pytest.fixture
def without_zig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_find_zig", lambda: None)


@pytest.mark.parametrize("name", ["host", "arm64", "armv7"])
def test_static_program_runs(name: str, tmp_path: Path) -> None:
    toolchain = find_toolchain(get_target(name))
    prefix = prefix_for(toolchain.target)
    (tmp_path / "hello.c").write_text(HELLO)
    toolchain.link_program([tmp_path / "hello.c"], tmp_path / "hello")
    done = subprocess.run([*prefix, tmp_path / "hello"], capture_output=True, check=True)
    assert done.stdout == b"hello\n"


def test_object_does_not_depend_on_its_folder(tmp_path: Path) -> None:
    toolchain = find_toolchain(get_target("arm64"))
    objects = []
    for folder in (tmp_path / "a", tmp_path / "some" / "where"):
        folder.mkdir(parents=True)
        (folder / "hello.c").write_text(HELLO)
        toolchain.compile(folder / "hello.c", folder / "hello.o")
        toolchain.archive([folder / "hello.o"], folder / "libhello.a")
        objects.append((folder / "libhello.a").read_bytes())
        assert {path.name for path in folder.iterdir()} == {"hello.c", "hello.o", "libhello.a"}
    assert objects[0] == objects[1]


def test_compiler_errors_are_told(tmp_path: Path) -> None:
    (tmp_path / "broken.c").write_text("int f(void) { return missing; }\n")
    toolchain = find_toolchain(get_target("arm64"))
    with pytest.raises(DeployError, match=r"cannot compile `broken\.o` for `arm64`.*missing"):
        toolchain.compile(tmp_path / "broken.c", tmp_path / "broken.o")


def test_no_cross_linker(without_zig: None) -> None:
    with pytest.raises(DeployError, match="no cross linker for `armv7`") as caught:
        find_toolchain(get_target("armv7"))
    assert caught.value.hint == "pip install ziglang"


def test_system_compiler_does_not_serve_another_libc(without_zig: None) -> None:
    with pytest.raises(DeployError, match="no cross linker for `host`"):
        find_toolchain(get_target("host").on(MUSL))


@pytest.mark.skipif(
    shutil.which("cc") is None or platform.libc_ver()[0] != "glibc", reason="no system compiler"
)
def test_system_compiler_serves_the_host(without_zig: None, tmp_path: Path) -> None:
    toolchain = find_toolchain(get_target("host"))
    assert toolchain.compiler == (shutil.which("cc"),)
    (tmp_path / "hello.c").write_text("int f(int x) { return x + 1; }\n")
    toolchain.compile(tmp_path / "hello.c", tmp_path / "hello.o")
    toolchain.link_shared([tmp_path / "hello.o"], tmp_path / "libhello.so")
    toolchain.archive([tmp_path / "hello.o"], tmp_path / "libhello.a")
