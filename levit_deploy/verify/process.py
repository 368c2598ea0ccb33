"""Child processes of Python, and what they are told."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def worker_command(module: str, *arguments: str | Path) -> tuple[str | Path, ...]:
    """What runs a module of this package in a Python of its own; see start_worker.py."""
    here = Path.cwd()
    path = [place for place in sys.path if place and Path(place).resolve() != here]
    script = Path(__file__).with_name("start_worker.py")
    return (sys.executable, "-E", "-P", script, os.pathsep.join(path), module, *arguments)


def level_variable(level: str | None) -> dict[str, str]:
    """What tells a library for several CPUs which code to use; nothing for None."""
    return {"LEVIT_DEPLOY_LEVEL": level} if level else {}
