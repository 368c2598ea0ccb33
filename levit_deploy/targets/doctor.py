"""What this machine has, what it lacks, and what to type: `levit-deploy doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from packaging.requirements import Requirement

from levit_deploy.errors import DeployError
from levit_deploy.targets.emulator import INSTALL_HINT, find_emulator
from levit_deploy.targets.table import HOST, TARGETS, get_target
from levit_deploy.targets.target import Emulator
from levit_deploy.targets.toolchain import find_toolchain

DISTRIBUTION = "levit-deploy"
# PyPI's torch for Linux brings CUDA, of which nothing is used: 6.4 GB in all, without it 2.5.
_CPU_TORCH = "pip install torch --index-url https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `hint`: what to type if it is not `ok`.

    `required`: without it nothing compiles; otherwise only some command or target is affected.
    """

    what: str
    ok: bool
    detail: str
    hint: str | None = None
    required: bool = True


def diagnose() -> tuple[Finding, ...]:
    """All findings of this machine, in the order in which a user would fix them."""
    return (
        *check_packages(),
        check_linker(),
        check_host(),
        *check_emulators(),
        check_writable(Path(platformdirs.user_cache_dir(DISTRIBUTION))),
    )


def check_packages() -> tuple[Finding, ...]:
    """The packages that this one was installed with, against the versions it was made for."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return (Finding(DISTRIBUTION, False, "not installed", f"pip install {DISTRIBUTION}"),)
    needed = [Requirement(text) for text in requirements]
    return tuple(check_package(each) for each in needed if each.marker is None)


def check_package(requirement: Requirement) -> Finding:
    """Whether the installed version satisfies `requirement`; of torch also which build it is."""
    hint = _CPU_TORCH if requirement.name == "torch" else f'pip install "{requirement}"'
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(requirement.name, False, "not installed", hint)
    ok = requirement.specifier.contains(version, prereleases=True)
    detail = version if ok else f"{version}, needs {requirement.specifier}"
    if any(
        each.startswith("nvidia-") for each in importlib.metadata.requires(requirement.name) or ()
    ):
        detail += f", with 4 GB for GPUs that nothing here uses; without them: {_CPU_TORCH}"
    return Finding(requirement.name, ok, detail, None if ok else hint)


def check_linker() -> Finding:
    """Whether libraries can be linked for other machines than this one."""
    foreign = next(target for target in TARGETS.values() if target.arch.value != platform.machine())
    try:
        return Finding("cross linker", True, find_toolchain(foreign).version)
    except DeployError as error:
        detail = "not installed: only this machine's own CPU can be linked for"
        return Finding("cross linker", False, detail, error.hint)


def check_host() -> Finding:
    """Which target `host` is."""
    try:
        host = get_target(HOST)
    except DeployError as error:
        return Finding("host CPU", False, error.message, error.hint, required=False)
    return Finding("host CPU", True, f"{host.base} on {platform.machine()}")


def check_emulators() -> tuple[Finding, ...]:
    """qemu-user for every architecture that an artifact can be verified for."""
    emulators = {t.emulator.binary: t.emulator for t in TARGETS.values() if t.emulator}
    return tuple(check_emulator(emulator) for emulator in emulators.values())


def check_emulator(emulator: Emulator) -> Finding:
    path = find_emulator(emulator)
    if path is None:
        detail = "not installed: artifacts for it are not executed before they are handed over"
        return Finding(emulator.binary, False, detail, INSTALL_HINT, required=False)
    return Finding(emulator.binary, True, str(path))


def check_writable(folder: Path) -> Finding:
    """Whether `folder`, or its nearest parent that exists, can be written to."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    ok = os.access(existing, os.W_OK | os.X_OK)
    return Finding(
        "cache folder",
        ok,
        str(folder) if ok else f"`{existing}` is not writable",
        None if ok else "choose another: export XDG_CACHE_HOME=DIR",
        required=False,
    )
