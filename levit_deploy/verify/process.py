"""Child processes: what they do wrong becomes a RunError, never a crash of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.verify.library_worker import ANOTHER_LIBRARY, CANNOT_EXECUTE
from levit_deploy.verify.runner import NotExecutedError, RunError

TIMEOUT_S = 600  # the largest variant takes seconds an image under qemu-user


def worker_command(module: str, *arguments: str | Path) -> tuple[str | Path, ...]:
    """What runs a module of this package in a Python of its own; see start_worker.py."""
    here = Path.cwd()
    path = [place for place in sys.path if place and Path(place).resolve() != here]
    script = Path(__file__).with_name("start_worker.py")
    return (sys.executable, "-E", "-P", script, os.pathsep.join(path), module, *arguments)


def run_child(
    command: Sequence[str | Path], timeout_s: float = TIMEOUT_S, *, level: str | None = None
) -> None:
    """Run `command` to its end. `level`: what a library for several CPUs is to use.

    Raises RunError that says how it crashed, hung or failed; NotExecutedError if this machine does
    not execute it: it cannot be started, ends by SIGSYS as what seccomp forbids does, or says so
    with CANNOT_EXECUTE. Raises DeployError if it ends with ANOTHER_LIBRARY.
    """
    hint = noexec_hint(part for part in command if isinstance(part, Path))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, **({"LEVIT_DEPLOY_LEVEL": level} if level else {})},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"did not finish within {timeout_s:.0f} s") from None
    except OSError as error:
        raise NotExecutedError(f"could not be started: {error.strerror}", hint=hint) from None
    if done.returncode == -signal.SIGSYS:
        raise NotExecutedError("ended by SIGSYS: it made a system call that is forbidden here")
    if done.returncode == CANNOT_EXECUTE:
        raise NotExecutedError(how_it_ended(done.returncode, done.stderr), hint=hint)
    if done.returncode == ANOTHER_LIBRARY:
        raise DeployError(
            f"the library is not the one of its manifest: {how_it_ended(1, done.stderr)}",
            hint="compile the model again",
        )
    if done.returncode != 0:
        raise RunError(how_it_ended(done.returncode, done.stderr))


def noexec_hint(paths: Iterable[Path]) -> str | None:
    """What to do if one of them lies where no file may be executed."""
    for path in paths:
        if path.exists() and os.statvfs(path).f_flag & os.ST_NOEXEC:
            return f"`{path}` may not be executed; choose other folders: TMPDIR=DIR, -o DIR"
    return None


def how_it_ended(returncode: int, stderr: str) -> str:
    """In words, why a process did not end well: its signal, or its last line on stderr."""
    if returncode < 0:
        return f"crashed with {_signal_name(-returncode)}"
    return (stderr.strip().splitlines() or [f"exit code {returncode}"])[-1]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
