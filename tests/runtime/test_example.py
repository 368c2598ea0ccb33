"""examples/c, built by CMake as its README says, and the code in docs/c-api.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.driver import public_functions
from levit_deploy.runtime.levit import Format, Frame
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.toolchain import Toolchain
from tests.runtime.small_network import CARD, SmallNetwork

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "c"


@pytest.fixture(scope="module")
def levit(
    network: SmallNetwork, host_toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    """The small network under the name that the example and the document use."""
    folder = tmp_path_factory.mktemp("levit")
    program = network.program(host_toolchain, folder / "work", "levit_128s")
    return build_artifact(program, host_toolchain, network.self_test(), folder)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake: pip install cmake")
@pytest.mark.parametrize("shared", ["OFF", "ON"])
def test_example(
    shared: str,
    levit: Artifact,
    network: SmallNetwork,
    host_toolchain: Toolchain,
    tmp_path: Path,
) -> None:
    # -O2 from the start: for unoptimised programs zig would build its sanitizers first.
    compiler = {"CC": " ".join(host_toolchain.compiler), "CFLAGS": "-O2", "LDFLAGS": "-O2"}
    environment = {**os.environ, **compiler}
    build = tmp_path / "cmake"
    settings = (f"-DARTIFACT={levit.folder}", f"-DSHARED={shared}", "-DCMAKE_BUILD_TYPE=Release")
    for command in (
        ("cmake", "-S", EXAMPLE, "-B", build, *settings),
        ("cmake", "--build", build),
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.ppm")
    y, uv = (rng.integers(0, 256, (rows, 80), dtype=np.uint8) for rows in (40, 20))
    (tmp_path / "frame.yuv").write_bytes(y.tobytes() + uv.tobytes())
    raw = "80x40:nv12:frame.yuv"
    library = Library(levit.folder)
    for name, frame in (
        ("photo.ppm", Frame.of(photo)),
        (raw, Frame((y, uv), 80, 40, Format.NV12)),
    ):
        printed = classify(build, tmp_path, name).stdout.splitlines()
        assert printed[0] == name
        assert printed[1:] == [
            f"  {100 * answer.probability:6.2f} %  {answer.label}"
            for answer in library.classify(frame)
        ]
    assert classify(build, tmp_path, "--bench", "3", raw).stdout.endswith(" ms\n")

    (tmp_path / "short.ppm").write_bytes((tmp_path / "photo.ppm").read_bytes()[:-1])
    done = classify(build, tmp_path, "short.ppm")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "short.ppm: no picture that this program reads\n"


def classify(build: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [build / "classify", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("document", "count"), [("c-api.md", 4), ("camera.md", 1)])
def test_code_of_the_documents_compiles(
    document: str, count: int, levit: Artifact, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / document).read_text()
    blocks = re.findall(r"^```c\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == count
    (tmp_path / "document.c").write_text("\n".join(blocks))
    flags = ("-std=c99", "-Wno-unknown-pragmas", "-pedantic", f"-I{levit.folder}")
    host_toolchain.compile(tmp_path / "document.c", tmp_path / "document.o", flags)


_STAND_IN = """
#pragma once
#include <cstddef>
namespace cv {
struct Mat {
    unsigned char *data;
    std::size_t step[1];
    int cols, rows;
};
}
"""
_MAIN = """
#include <cstdio>
int main()
{
    static unsigned char pixels[60 * 90 * 3];
    for (int i = 0; i < 60 * 90 * 3; i++)
        pixels[i] = static_cast<unsigned char>(i * 7919 % 251);
    std::printf("%d", best_class({pixels, {90 * 3}, 90, 60}));
}
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler: apt-get install g++")
def test_cpp_of_the_document_classifies(levit: Artifact, tmp_path: Path) -> None:
    """OpenCV's headers come with no wheel: what the code uses of them is made here."""
    text = (ROOT / "docs" / "camera.md").read_text()
    (block,) = re.findall(r"^```cpp\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "opencv2").mkdir()
    (tmp_path / "opencv2" / "core.hpp").write_text(_STAND_IN)
    (tmp_path / "main.cpp").write_text(block + _MAIN)
    flags = ("-O1", "-std=c++11", "-Wall", "-Werror", f"-I{tmp_path}", f"-I{levit.folder}")
    inputs = (tmp_path / "main.cpp", levit.static_library, "-o", tmp_path / "main")
    subprocess.run(["c++", *flags, *inputs], check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    bgr = (np.arange(60 * 90 * 3) * 7919 % 251).astype(np.uint8).reshape(60, 90, 3)
    frame = Frame((bgr,), 90, 60, Format.BGR)
    assert int(done.stdout) == Library(levit.folder).classify(frame, 1)[0].class_index


def test_python_of_the_document_classifies(
    levit: Artifact, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    text = (ROOT / "docs" / "camera.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.syspath_prepend(levit.folder)
    monkeypatch.delitem(sys.modules, "levit", raising=False)
    rgb = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    exec(block, {"rgb": rgb})
    library = Library(levit.folder)
    turned = np.ascontiguousarray(rgb[::-1, ::-1, ::-1])
    expected = [library.classify(picture, 1)[0].label for picture in (rgb, turned)]
    assert capsys.readouterr().out.splitlines() == expected


def test_document_names_every_function_and_code(levit: Artifact) -> None:
    text = (ROOT / "docs" / "c-api.md").read_text()
    grey = replace(CARD, in_chans=1)
    for function in public_functions("NAME", CARD) | public_functions("NAME", grey):
        assert f"{function}(" in text
    for code in re.findall(r"LEVIT_128S_(ERROR_\w+|OK)\b", levit.header.read_text()):
        assert f"`NAME_{code}`" in text
