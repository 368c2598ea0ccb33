"""What runs programs of another CPU or system: qemu-user and wine, and their command lines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import platformdirs

from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.system import ObjectFormat, Os
from levit_deploy.targets.target import Arch, Emulator, Target

_DEBIAN_WINE = "/usr/lib/wine"  # where the package wine64 has it, outside of PATH
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
    match target.system.format:
        case ObjectFormat.ELF:  # a static program asks nothing of the system but Linux
            return () if read_cpu().runs(target) else emulator_command(target)
        case ObjectFormat.COFF:
            return _wine_command() if read_cpu().runs(target) else None
        case ObjectFormat.MACHO:
            return None


def _wine_command() -> tuple[str, ...] | None:
    path = shutil.which("wine64", path=f"{os.environ.get('PATH', os.defpath)}:{_DEBIAN_WINE}")
    if path is None:
        return None
    home = Path(platformdirs.user_cache_dir("levit-deploy")) / "wine"
    home.mkdir(parents=True, exist_ok=True)
    return ("env", f"WINEPREFIX={home}", "WINEDEBUG=-all", path)


def spelled(command: tuple[str, ...]) -> str:
    """A command of `run_prefix` in a report: without folders and variables."""
    if command[0] == "env":
        command = command[3:]
    return " ".join((Path(command[0]).name, *command[1:]))


def emulator_command(target: Target) -> tuple[str, ...] | None:
    """qemu-user as the CPU of `target`, also where this machine has one; None if it is missing."""
    if target.emulator is None:
        return None
    path = find_emulator(target.emulator)
    return None if path is None else (str(path), "-cpu", target.emulator.cpu)


def missing_emulator(target: Target) -> tuple[str, str]:
    """(what is missing, what to do) for a target without `run_prefix` or `emulator_command`."""
    if target.system.format is not ObjectFormat.ELF:
        runs_elsewhere = f"copy the folder to a `{target.name}` machine with {target.system.os}"
        if target.system.os is Os.WINDOWS and target.arch is Arch.X86_64:
            if _wine_command():
                return f"this CPU lacks what `{target.name}` code uses", runs_elsewhere
            return f"nothing here runs {target.system.os} programs", "apt-get install wine64"
        return f"checked, not executed: nothing runs {target.system.os} programs", runs_elsewhere
    if target.emulator is None:
        return (
            f"qemu-user cannot run `{target.name}` code, and this CPU lacks it",
            f"copy the folder to a `{target.name}` machine and run `levit-deploy verify` there",
        )
    return f"no emulator for {target.base or target.name}", INSTALL_HINT
