"""The arm64 wheel where there is no compiler and no torch: a clean Debian root, under qemu-user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from levit_deploy.runtime.levit import Format, Frame
from levit_deploy.runtime.loader import Library
from tests.cli.conftest import Cli
from tests.packaging.conftest import build_small
from tests.packaging.test_wheel import APP

MIRROR = "http://deb.debian.org/debian"
QEMU = "qemu-aarch64-static"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        None in map(shutil.which, ("debootstrap", QEMU)) or os.geteuid() != 0,
        reason="needs root: apt-get install debootstrap qemu-user-static",
    ),
]


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian 12 for arm64 with python3, pip and Pillow.

    Its packages are unpacked and not configured, so that no binfmt_misc is needed.
    """
    root = tmp_path_factory.mktemp("debian")
    packages = "--include=python3,python3-pip,python3-pil"
    command = ["debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", packages]
    if subprocess.run([*command, "bookworm", str(root), MIRROR], check=False).returncode:
        pytest.skip(f"no Debian from {MIRROR}")
    for package in (root / "var" / "cache" / "apt" / "archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    shutil.copy(str(shutil.which(QEMU)), root)
    return root


def test_pip_installs_it_and_it_classifies(cli: Cli, debian: Path, jpeg: Path) -> None:
    artifact = build_small("arm64", cli.folder / "arm64")
    made = json.loads(cli.run("package", artifact.folder, "--as", "wheel", "--json").stdout)
    wheel = Path(made["path"])
    for path in (wheel, jpeg):
        shutil.copy(path, debian / "tmp")
    python = ["chroot", str(debian), f"/{QEMU}", "-E", "PYTHONPATH=/opt/app", "/usr/bin/python3"]
    options = ("--no-index", "--no-deps", "--target", "/opt/app")
    subprocess.run([*python, "-m", "pip", "install", *options, f"/tmp/{wheel.name}"], check=True)

    def printed(code: str) -> str:
        command = [*python, "-c", code, "/tmp/cat.jpg"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    app = json.loads(printed(APP))
    decode = "import sys; from PIL import Image; print(Image.open(sys.argv[1]).tobytes().hex())"
    frame = Frame.of_bytes(bytes.fromhex(printed(decode)), 90, 60, Format.RGB)
    host = Library(build_small("host", cli.folder / "host").folder)
    assert [answer[1] for answer in app["answers"]] == [a.label for a in host.classify(frame)]
    assert app["modules"] == []
