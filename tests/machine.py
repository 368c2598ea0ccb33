"""What this machine can run: every test that executes code of a CPU asks here first.

On a CPU that has the target's instructions the code runs as it is, elsewhere under qemu-user;
where neither can, the test is skipped and says what is missing. What ran is counted.
"""

from __future__ import annotations

from collections import Counter

import pytest

from levit_deploy.targets.emulator import emulator_command, missing_emulator, run_prefix
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.table import TARGETS
from levit_deploy.targets.target import Arch, Target

executions: Counter[Arch] = Counter()  # in this process


def prefix_for(target: Target) -> tuple[str, ...]:
    """What to put before a program of `target`; empty where this CPU runs it."""
    return _found(target, run_prefix(target))


def emulator_for(target: Target) -> tuple[str, ...]:
    """qemu-user as the CPU of `target`, even where this machine has one."""
    return _found(target, emulator_command(target))


def require_native(target: Target, what: str) -> None:
    """Skip the test unless this CPU runs `target`; `what` cannot be done under an emulator."""
    if run_prefix(target) != ():
        pytest.skip(f"{what} needs a CPU of `{target.name}`")
    executions[target.arch] += 1


def foreign_target() -> Target:
    """One of another architecture than this machine's, with an emulator."""
    arch = read_cpu().arch
    return next(t for t in TARGETS.values() if t.arch is not arch and t.emulator is not None)


def never_run() -> list[Arch]:
    """Architectures of which this machine can run a target and no test did."""
    possible = {target.arch for target in TARGETS.values() if run_prefix(target) is not None}
    return sorted(possible - executions.keys())


def _found(target: Target, prefix: tuple[str, ...] | None) -> tuple[str, ...]:
    if prefix is None:
        missing, hint = missing_emulator(target)
        pytest.skip(f"{missing}: {hint}")
    executions[target.arch] += 1
    return prefix
