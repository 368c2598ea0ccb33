"""Folders that appear whole or not at all.

A folder is built beside its final place, under a hidden name, and put there in one step that also
takes the old one away. Whatever kills the process leaves the old folder, or none; what is left of
the hidden one is removed by the next build into the same place.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.runtime.manifest import FILE_NAME as MANIFEST

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_MARK = ".partial-"


@contextmanager
def staged_folder(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `destination` at the end of the block.

    It is removed instead if the block raises. Of two builds into one destination each has its own
    folder, and the later one to end stays. Raises DeployError if `destination` exists and is not
    an artifact, if the disk is full or if the place cannot be written to.
    """
    _check_replaceable(destination)
    staging = destination.parent / f".{destination.name}{_MARK}{secrets.token_hex(4)}"
    lock: int | None = None
    try:  # an interrupt may come as soon as the folder is there
        with _readable_errors(destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(destination)
            lock = _create_locked(staging)
            yield staging
            _check_replaceable(destination)
            _move_in(staging, destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def check_destination(destination: Path) -> None:
    """Raise DeployError if `staged_folder` is bound to fail: asked before long work, not for it."""
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
        if (destination / MANIFEST).is_file():
            return
        if _identity(destination) == looked_at:
            raise DeployError(
                f"`{destination}` exists and is not an artifact",
                hint="choose another folder: -o build",
            )
        # In between another build put its folder here.


def _identity(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def _create_locked(staging: Path) -> int:
    """Make the folder; it is locked for as long as this process lives."""
    while True:
        staging.mkdir()
        # Before it is locked, another build may take it for abandoned and remove it.
        with suppress(FileNotFoundError):
            lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # some network file systems cannot lock a folder
                fcntl.flock(lock, fcntl.LOCK_EX)
            if staging.exists():
                return lock
            os.close(lock)


def _remove_abandoned(destination: Path) -> None:
    for folder in destination.parent.glob(f".{destination.name}{_MARK}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # its build is running, or the file system cannot tell
        finally:
            os.close(lock)


def _move_in(staging: Path, destination: Path) -> None:
    """Put `staging` in the place of `destination`; an old folder ends up as `staging`."""
    while True:
        try:
            staging.rename(destination)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        try:
            _exchange(staging, destination)
            return
        except FileNotFoundError:
            continue  # the old folder went away in between


def _exchange(one: Path, other: Path) -> None:
    code = _renameat2(one, other, _RENAME_EXCHANGE)
    if code in (errno.EINVAL, errno.ENOSYS):
        # The file system cannot exchange: for a moment there is no folder.
        aside = one.with_name(f"{one.name}.old")
        other.rename(aside)
        one.rename(other)
        aside.rename(one)
    elif code != 0:
        raise OSError(code, os.strerror(code), str(other))


def _renameat2(source: Path, destination: Path, flags: int) -> int:
    """The system call, which Python lacks; 0 or an errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(source), os.fsencode(destination)
    failed = libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], flags)
    return ctypes.get_errno() if failed else 0


@contextmanager
def _readable_errors(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # None: numpy's
        hint = "free some space, or choose other folders: -o DIR, TMPDIR=DIR" if full else "-o DIR"
        raise DeployError(
            f"cannot write `{destination}`: {error.strerror or error}", hint=hint
        ) from error
