"""Who only looks at, runs or packs an artifact needs none of what makes one."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Spawner

# Importing one of them ends with an ImportError, as if it were not installed.
BLOCKED = (
    "import sys\n"
    "sys.modules.update(dict.fromkeys(('torch', 'tvm', 'onnx', 'onnxsim', 'onnxruntime')))\n"
    "from levit_deploy.cli import main\n"
    "main()\n"
)


@pytest.mark.parametrize(
    "args",
    [
        ("inspect", "{artifact}"),
        ("classify", "{artifact}", "{picture}"),
        ("package", "{artifact}", "--as", "wheel", "-o", "{folder}"),
        ("bench", "{artifact}", "--against", "none", "--rounds", "1"),
        ("targets",),
        ("completion", "bash"),
    ],
    ids=lambda args: args[0],
)
def test_it_runs(args: tuple[str, ...], fp32: Path, spawner: Spawner, tmp_path: Path) -> None:
    picture = tmp_path / "grey.png"
    Image.new("RGB", (40, 30), "grey").save(picture)
    places = {"artifact": fp32, "picture": picture, "folder": tmp_path / "dist"}
    done = spawner.run(*(arg.format(**places) for arg in args), code=BLOCKED)
    assert done.returncode == 0, done.stderr
