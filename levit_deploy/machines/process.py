"""Child processes: what they do wrong becomes a RunError, never a crash of ours."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import NO_VARIABLES, TIMEOUT_S, NotExecutedError, RunError

CANNOT_EXECUTE = 126  # exit code, as of shells: found, but may not be executed
ANOTHER_LIBRARY = 125  # exit code: not the one that was described


def run_child(
    command: Sequence[str | Path],
    timeout_s: float = TIMEOUT_S,
    *,
    env: Mapping[str, str] = NO_VARIABLES,
    folder: Path | None = None,
) -> str:
    """Run `command` to its end, and give what it printed. `env`: variables beside those of this
    process; `folder`: where it runs, if not here.

    Raises RunError that says how it crashed, hung or failed; NotExecutedError if this machine does
    not execute it: it cannot be started, ends by SIGSYS as what seccomp forbids does, or says so
    with CANNOT_EXECUTE. Raises DeployError if it ends with ANOTHER_LIBRARY.
    """
    hint = noexec_hint(part for part in command if isinstance(part, Path))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, **env},
            cwd=folder,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"did not finish within {timeout_s:.0f} s") from None
    except OSError as error:
        raise NotExecutedError(f"could not be started: {error.strerror}", hint=hint) from None
    raise_for(done.returncode, done.stderr, hint)
    return done.stdout


def raise_for(returncode: int, stderr: str, hint: str | None = None) -> None:
    """The errors of `run_child` for what a program ended with; a negative code is a signal, and so
    is what a shell makes of one. `hint`: what lets it be executed, if it was not.
    """
    if 128 < returncode <= 128 + signal.SIGRTMAX:
        returncode = 128 - returncode
    if returncode == -signal.SIGSYS:
        raise NotExecutedError("ended by SIGSYS: it made a system call that is forbidden here")
    if returncode == CANNOT_EXECUTE:
        raise NotExecutedError(how_it_ended(returncode, stderr), hint=hint)
    if returncode == ANOTHER_LIBRARY:
        raise DeployError(
            f"the library is not the one of its manifest: {how_it_ended(1, stderr)}",
            hint="compile the model again",
        )
    if returncode != 0:
        raise RunError(how_it_ended(returncode, stderr))


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
