"""qemu-user: where it is, and the command line that runs a program of another CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.target import Emulator, Target

INSTALL_HINT = "apt-get install qemu-user"


def find_emulator(emulator: Emulator) -> Path | None:
    """The emulator's program, dynamic or static build; None if it is not installed."""
    for name in (emulator.binary, f"{emulator.binary}-static"):
        if path := shutil.which(name):
            return Path(path)
    return None


def run_prefix(target: Target) -> tuple[str, ...] | None:
    """What to put before a program of `target` to run it on this machine.

    Nothing on a CPU that runs it, else the emulator; None where there is none. Raises DeployError
    on a machine of no architecture that we know.
    """
    return () if read_cpu().runs(target) else emulator_command(target)


def emulator_command(target: Target) -> tuple[str, ...] | None:
    """qemu-user as the CPU of `target`, also where this machine has one; None if it is missing."""
    if target.emulator is None:
        return None
    path = find_emulator(target.emulator)
    return None if path is None else (str(path), "-cpu", target.emulator.cpu)


def missing_emulator(target: Target) -> tuple[str, str]:
    """(what is missing, what to do) for a target without `run_prefix` or `emulator_command`."""
    if target.emulator is None:
        return (
            f"qemu-user cannot run `{target.name}` code, and this CPU lacks it",
            f"copy the folder to a `{target.name}` machine and run `levit-deploy verify` there",
        )
    return f"no emulator for {target.base or target.name}", INSTALL_HINT
