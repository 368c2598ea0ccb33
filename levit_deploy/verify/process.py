"""Child processes: what they do wrong becomes a RunError, never a crash of ours."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from levit_deploy.verify.runner import RunError

TIMEOUT_S = 600  # the largest variant takes seconds an image under qemu-user


def run_child(command: Sequence[str | Path], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Run `command` to its end; raises RunError in which `what` crashed, hung or failed."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"`{what}` did not finish within {timeout_s:.0f} s") from None
    except OSError as error:
        raise RunError(f"`{what}` could not be started: {error}") from None
    if done.returncode < 0:
        raise RunError(f"`{what}` crashed with {_signal_name(-done.returncode)}")
    if done.returncode > 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RunError(f"`{what}` failed: {last}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
