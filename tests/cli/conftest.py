"""Running the command line as a user does: in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


class Cli:
    """`run(*args)` -> finished process; stdout and stderr as text. `folder`: where it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, *args: str | Path) -> list[str]:
        code = "from levit_deploy.cli import main; main()"
        return [sys.executable, "-c", code, *map(str, args)]

    def environment(self, **changes: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **changes}

    def run(self, *args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*args),
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)
