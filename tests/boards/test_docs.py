"""docs/boards.md, typed as it stands on a board that is one Pi 4 less."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify.report import Verification
from tests.boards import virtual_board
from tests.boards.test_virtual_board import IN_AN_EMULATOR
from tests.boards.virtual_board import URL
from tests.cli.conftest import ROOT

pytestmark = [
    pytest.mark.board,
    pytest.mark.skipif(virtual_board.missing() is not None, reason=f"{virtual_board.missing()}"),
]
PAGE = (ROOT / "docs" / "boards.md").read_text()
FEWER = {"bench": "--rounds 2", "tune": "--candidates 2", "audit": "--images 32"}


def commands() -> list[str]:
    block = re.search(r"^```\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1].replace("\\\n", " ").splitlines()


def test_ten_commands(tmp_path: Path):
    assert len(commands()) == 10
    ours = tmp_path / "bin" / "levit-deploy"
    ours.parent.mkdir()
    code = f"{IN_AN_EMULATOR}from levit_deploy.cli import main; main()"
    ours.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    ours.chmod(ours.stat().st_mode | stat.S_IXUSR)
    with virtual_board.booted("cortex-a72") as board:
        path = f"{ours.parent}:{board.bin}:{os.environ['PATH']}"
        for command in commands():
            fewer = next((more for name, more in FEWER.items() if f" {name} " in command), "")
            done = subprocess.run(
                f"{command} {fewer}",
                shell=True,
                cwd=tmp_path,
                env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert board.shell("find .cache /tmp -type f 2>/dev/null || true") == ""
    folder = tmp_path / "tuned" / "levit_128s-rpi4-int8"
    verification = Verification.load(folder)
    assert verification is not None
    assert verification.machine.endswith(URL)
    assert Artifact.load(folder).manifest.audit is not None
