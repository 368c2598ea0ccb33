"""examples/c, built by CMake as its README says, and the code in docs/c-api.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.driver import public_functions
from levit_deploy.targets.toolchain import Toolchain
from tests.runtime.small_network import CLASSES, SmallNetwork, random_rgb

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

    rgb = random_rgb(0)
    (tmp_path / "image.rgb").write_bytes(rgb.tobytes())
    done = subprocess.run(
        [build / "classify", "image.rgb"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["image.rgb"]
    expected = network.logits_rgb8(rgb)
    assert [int(words[1].rstrip(":")) for words in lines[1:]] == list(np.argsort(-expected))
    np.testing.assert_allclose(
        [float(words[2]) for words in lines[1:]], np.sort(expected)[::-1], atol=1e-3
    )
    assert len(lines) == 1 + CLASSES

    (tmp_path / "short.rgb").write_bytes(rgb.tobytes()[:-1])
    done = subprocess.run(
        [build / "classify", "short.rgb"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "short.rgb: not a raw image" in done.stderr


def test_code_of_the_document_compiles(
    levit: Artifact, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "c-api.md").read_text()
    blocks = re.findall(r"^```c\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    (tmp_path / "document.c").write_text("\n".join(blocks))
    flags = ("-std=c99", "-Wno-unknown-pragmas", "-pedantic", f"-I{levit.folder}")
    host_toolchain.compile(tmp_path / "document.c", tmp_path / "document.o", flags)


def test_document_names_every_function_and_code(levit: Artifact) -> None:
    text = (ROOT / "docs" / "c-api.md").read_text()
    for function in public_functions("NAME", 3) | public_functions("NAME", 1):
        assert f"{function}(" in text
    for code in re.findall(r"LEVIT_128S_(ERROR_\w+|OK)\b", levit.header.read_text()):
        assert f"`NAME_{code}`" in text
