"""docs/packages.md, typed as it stands: commands, Python, C and C++."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import ROOT
from tests.packaging.conftest import LABELS, build_small

TEXT = (ROOT / "docs" / "packages.md").read_text()
MAIN = "int main() { static std::uint8_t rgb[90 * 60 * 3]; return print_labels(rgb, 90, 60); }\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(
    None in map(shutil.which, ("cc", "c++", "cmake", "pkg-config")),
    reason="no tools: apt-get install g++ cmake pkg-config",
)
def test_what_the_page_says_works(tmp_path: Path, jpeg: Path, only_pillow: Path) -> None:
    artifact = build_small("host", tmp_path / "work", "levit_128s")
    (tmp_path / "build").mkdir()
    shutil.move(artifact.folder, tmp_path / "build" / "levit_128s-host-fp32")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(jpeg, tmp_path / "cat.jpg")
    (tmp_path / "picture.rgb").write_bytes(np.random.default_rng(0).bytes(90 * 60 * 3))
    (source,) = blocks("c")
    (tmp_path / "main.c").write_text(source)
    (cpp,) = blocks("cpp")
    (tmp_path / "labels.cpp").write_text(cpp + MAIN)

    venv.create(tmp_path / "app", symlinks=True)
    bin_folder = tmp_path / "app" / "bin"
    own = f"exec env PYTHONPATH={ROOT} {sys.executable} -m"
    for name, command in (
        ("pip", f"{own} pip --python {bin_folder}/python"),
        ("levit-deploy", f"{own} levit_deploy.cli"),
    ):
        (bin_folder / name).write_text(f'#!/bin/sh\n{command} "$@"\n')
        (bin_folder / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(only_pillow),
        "PIP_NO_INDEX": "1",
    }

    def shell(commands: str) -> list[str]:
        done = subprocess.run(
            ["sh", "-eu", "-c", commands],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, commands + done.stdout + done.stderr
        return done.stdout.splitlines()

    wheel, cmake, pkg_config, cargo = blocks("sh")
    best = shell(wheel)[-1]
    assert best in LABELS
    assert {line.split("  ")[1] for line in shell(cmake)[-5:]} == set(LABELS)
    shell(pkg_config)
    if shutil.which("cargo"):
        assert {line.split("  ")[1] for line in shell(cargo)[-5:]} == set(LABELS)
    flags = "$(PKG_CONFIG_PATH=prefix/lib/pkgconfig pkg-config --cflags --libs levit_128s)"
    shell(f"c++ -std=c++17 -Wall -Wextra -Werror labels.cpp {flags} -o labels")
    assert len(shell("LD_LIBRARY_PATH=prefix/lib ./labels")) == 3

    (python,) = blocks("python")
    rgb = "rgb = memoryview(bytes(90 * 60 * 3)).cast('B', (60, 90, 3))\n"
    (tmp_path / "page.py").write_text(f"nv12 = bytes(640 * 480 * 3 // 2)\n{rgb}{python}")
    printed = shell("python page.py")
    assert len(printed) == 4
    assert printed[0].endswith(f"%  {best}")
