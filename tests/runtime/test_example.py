"""examples/c, built by CMake as its README says, classifies a raw image."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.runtime.build import build_artifact
from levit_deploy.targets.toolchain import Toolchain
from tests.runtime.small_network import CLASSES, SmallNetwork, random_rgb

EXAMPLE = Path(__file__).parents[2] / "examples" / "c"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake: pip install cmake")
@pytest.mark.parametrize("shared", ["OFF", "ON"])
def test_example(
    shared: str, network: SmallNetwork, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    artifact = build_artifact(
        network.program(host_toolchain, tmp_path / "work", "levit_128s"),
        host_toolchain,
        network.self_test(),
        tmp_path,
    )
    # -O2 from the start: for unoptimised programs zig would build its sanitizers first.
    compiler = {"CC": " ".join(host_toolchain.compiler), "CFLAGS": "-O2", "LDFLAGS": "-O2"}
    environment = {**os.environ, **compiler}
    build = tmp_path / "cmake"
    settings = (f"-DARTIFACT={artifact.folder}", f"-DSHARED={shared}", "-DCMAKE_BUILD_TYPE=Release")
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
