"""Where an artifact's folder may go: a free place, or that of an older artifact."""

from __future__ import annotations

import os
import shlex
from contextlib import AbstractContextManager
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.files import new_folder
from levit_deploy.runtime.manifest import FILE_NAME as MANIFEST
from levit_deploy.targets.toolchain import check_place

_OTHER_FOLDERS = "choose other folders: -o DIR, TMPDIR=DIR"


def artifact_folder(destination: Path) -> AbstractContextManager[Path]:
    """An empty folder that becomes `destination` when all is done; see `new_folder`.

    Raises DeployError if `destination` exists and is not an artifact, if the disk is full or if the
    place cannot be written to.
    """
    return new_folder(destination, _check_replaceable, hint=_OTHER_FOLDERS)


def check_destination(destination: Path) -> None:
    """Raise DeployError if `artifact_folder` is bound to fail: asked before long work."""
    check_place(destination.absolute(), hint="-o DIR")
    _check_replaceable(destination)
    parent = destination.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise DeployError(
            f"cannot write `{destination}`: `{parent}` is not a folder", hint="-o DIR"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise DeployError(f"cannot write `{destination}`: `{parent}` is read-only", hint="-o DIR")


def _check_replaceable(destination: Path) -> None:
    while os.path.lexists(destination):
        looked_at = _identity(destination)
        if destination.is_symlink():
            raise DeployError(
                f"`{destination}` is a link, and would be replaced",
                hint=f"name the folder that it is in: -o {shlex.quote(str(_real(destination)))}",
            )
        if (destination / MANIFEST).is_file():
            return
        if _identity(destination) == looked_at:
            raise DeployError(
                f"`{destination}` exists and is not an artifact",
                hint="choose another folder: -o build",
            )
        # In between another build put its folder here.


def _real(link: Path) -> Path:
    return link.resolve().parent


def _identity(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None
