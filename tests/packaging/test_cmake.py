"""C and C++ apps that find a library by CMake or pkg-config, built and run."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.levit import Frame
from levit_deploy.runtime.loader import Library
from tests.cli.conftest import ROOT, Cli

HERE = Path(__file__).parent
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")
pytestmark = pytest.mark.skipif(
    None in map(shutil.which, ("cc", "c++", "cmake", "pkg-config")),
    reason="no tools: apt-get install g++ cmake pkg-config",
)


@pytest.fixture
def prefix(cli: Cli, artifact: Artifact) -> Path:
    """What a cmake package unpacks to, in a place that it was not made for."""
    done = cli.run("package", artifact.folder, "--as", "cmake", "--version", "1.2", "--json")
    with tarfile.open(json.loads(done.stdout)["path"]) as archive:
        archive.extractall(cli.folder / "some where", filter="data")
    (folder,) = (cli.folder / "some where").iterdir()
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 x 60 pixels of RGB."""
    path = tmp_path_factory.mktemp("picture") / "picture.rgb"
    path.write_bytes(np.random.default_rng(2).bytes(90 * 60 * 3))
    return path


def frame_of(picture: Path) -> Frame:
    return Frame.of(np.fromfile(picture, np.uint8).reshape(60, 90, 3))


def run(*command: str | Path, **environment: str) -> bytes:
    done = subprocess.run(command, env=environment or None, capture_output=True, check=False)
    assert done.returncode == 0, (done.returncode, (done.stdout + done.stderr).decode())
    return done.stdout


def test_cmake_finds_the_package(
    prefix: Path, artifact: Artifact, picture: Path, tmp_path: Path
) -> None:
    configure = ("cmake", "-S", ROOT / "examples" / "cpp", "-B", tmp_path / "b", "-DMODEL=small")
    run(*configure, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "b")
    expected = [
        f"{answer.probability:.9g}  {answer.label}"
        for answer in Library(artifact.folder).classify(frame_of(picture))
    ]
    for kind in ("static", "shared"):
        printed = run(tmp_path / "b" / f"classify_{kind}", "90", "60", picture)
        assert printed.decode().splitlines() == expected


@pytest.mark.parametrize(
    ("version", "found"), [("1.2", True), ("1", True), ("1.3", False), ("0.9", False), ("2", False)]
)
def test_cmake_compares_versions(prefix: Path, tmp_path: Path, version: str, found: bool) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\n"
        "project(app NONE)\n"
        f"find_package(small {version} CONFIG QUIET)\n"
        'file(WRITE "${CMAKE_BINARY_DIR}/found" "${small_FOUND} ${small_VERSION}")\n'
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={prefix}")
    assert (tmp_path / "b" / "found").read_text() == ("1 1.2" if found else "0 ")


@pytest.mark.parametrize("packed", [True, False], ids=["package", "artifact"])
def test_pkg_config_finds_it(
    packed: bool, prefix: Path, artifact: Artifact, picture: Path, tmp_path: Path
) -> None:
    """A C program and a C++ program, which give the bits that Python gives."""
    libraries = prefix / "lib" if packed else artifact.folder
    place = tmp_path / "p"  # pkg-config has no way to say a space that every shell takes
    place.symlink_to(prefix if packed else artifact.folder)
    configs = place / "lib" / "pkgconfig" if packed else place
    environment = {"PKG_CONFIG_PATH": str(configs), "PATH": "/usr/bin:/bin"}
    flags = run("pkg-config", "--cflags", "--libs", "small", **environment).decode().split()
    expected = Library(artifact.folder).run_frame(frame_of(picture)).tobytes()
    run("cc", "-std=c99", *WARNINGS, HERE / "app.c", *flags, "-o", tmp_path / "c")
    for way in (("-fno-exceptions", "-fno-rtti"), ("-DLEVIT_DEPLOY_EXCEPTIONS",)):
        run("c++", "-std=c++17", *WARNINGS, *way, HERE / "app.cpp", *flags, "-o", tmp_path / "cpp")
        for program in ("c", "cpp"):
            printed = run(tmp_path / program, picture, LD_LIBRARY_PATH=str(libraries))
            assert printed == expected
