"""Files and folders that appear whole or not at all, and survive a crash of the machine.

A new one is made beside its place under a hidden name, and when it is complete and on the disk it
takes its place in one step. Whatever kills the process leaves the old one, or none; what is left of
the hidden one is removed by the next write to the same place.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from levit_deploy.errors import DeployError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_PARTIAL = re.compile(r"\.(.+)\.partial-[0-9a-f]{8}", re.DOTALL)
_OTHER_FILE = "choose another file: -o FILE"
_FULL = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # None: numpy's


def is_partial(name: str) -> bool:
    """Whether something of that name was to become a file or folder, and did not."""
    return _PARTIAL.fullmatch(name) is not None


def check_writable(path: Path, *, hint: str = _OTHER_FILE) -> None:
    """Raise DeployError if `write_files` is bound to fail: asked before long work, not for it."""
    folder = path.parent
    if not folder.is_dir():
        raise DeployError(f"cannot write `{path}`: `{folder}` is not a folder", hint=hint)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DeployError(f"cannot write `{path}`: `{folder}` is read-only", hint=hint)
    if path.exists() and not path.is_file():
        raise DeployError(f"cannot write `{path}`: it exists and is not a file", hint=hint)


def write_files(contents: Mapping[Path, bytes], *, hint: str = _OTHER_FILE) -> None:
    """Write each path's content; the files take their places when all are complete.

    Whatever stops this leaves the old files, or none. Raises DeployError with `hint` if one of them
    cannot be written, or is there and is no file.
    """
    partials = {}
    with ExitStack() as stack:
        for path, content in contents.items():
            check_writable(path, hint=hint)
            with _explained(path, hint):
                partials[path] = stack.enter_context(_partial(path, Path.touch))
                partials[path].write_bytes(content)
        for path, partial in partials.items():
            with _explained(path, hint):
                put_in_place(partial, path)


@contextmanager
def new_file(path: Path, *, replace: bool, hint: str = _OTHER_FILE) -> Iterator[Path]:
    """Yield an empty file that becomes `path` at the end of the block; its folder is made.

    It is removed instead if the block raises. Raises DeployError if the file exists and not
    `replace`, or with `hint` if it cannot be written.
    """
    if not replace and os.path.lexists(path):
        raise DeployError(f"`{path}` exists", hint=f"replace it with --force, or {hint}")
    with _explained(path, hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path, hint=hint)
        with _partial(path, Path.touch) as partial:
            yield partial
            put_in_place(partial, path)


def put_in_place(partial: Path, path: Path) -> None:
    """Make the complete file `partial`, of the same folder, the file `path`. Raises OSError."""
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


@contextmanager
def new_folder(
    destination: Path, check_replaceable: Callable[[Path], None], *, hint: str
) -> Iterator[Path]:
    """Yield an empty folder that becomes `destination` at the end of the block.

    It is removed instead if the block raises. Of two processes that make one destination each has
    its own folder, and the later one to end stays. `check_replaceable` raises if what is there must
    stay. Raises DeployError with `hint` if the disk is full or the place cannot be written to.
    """
    check_replaceable(destination)
    with _explained(destination, hint):
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _partial(destination, Path.mkdir) as folder:
            yield folder
            check_replaceable(destination)
            for place, _, names in os.walk(folder):
                for name in (*names, "."):
                    _sync(Path(place, name))
            _move_in(folder, destination)
            _sync(destination.parent)


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what was to become `name`, or anything, in `folder`, and nobody works on any more."""
    for path in folder.iterdir():
        match = _PARTIAL.fullmatch(path.name)
        if match is None or name not in (None, match[1]):
            continue
        with suppress(OSError):  # another process was first
            lock = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:  # refused if its maker is at work, or if the file system cannot tell
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(lock)


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read, at once; raises OSError for what is no file, such as a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    return os.fdopen(handle, "rb")


@contextmanager
def _partial(path: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """A new file or folder that is to become `path`; removed at the end if it did not.

    It is locked for as long as this process lives.
    """
    sweep(path.parent, path.name)
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    lock: int | None = None
    try:  # an interrupt may come as soon as it is there
        while lock is None:
            create(partial)
            lock = _locked(partial)
        yield partial
    finally:
        _remove(partial)
        if lock is not None:
            os.close(lock)


def _locked(partial: Path) -> int | None:
    """A handle that holds the lock; None if another process took it for abandoned before."""
    with suppress(FileNotFoundError):
        lock = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if partial.exists():
            return lock
        os.close(lock)
    return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _sync(path: Path) -> None:
    """Return when the file, or the folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move_in(folder: Path, destination: Path) -> None:
    """Put `folder` in the place of `destination`; an old folder ends up as `folder`."""
    while True:
        try:
            folder.rename(destination)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        try:
            _exchange(folder, destination)
            return
        except FileNotFoundError:
            continue  # the old folder went away in between


def _exchange(one: Path, other: Path) -> None:
    code = _renameat2(one, other, _RENAME_EXCHANGE)
    if code in (errno.EINVAL, errno.ENOSYS):
        # The file system cannot exchange: for a moment there is no folder.
        aside = one.with_name(f".{other.name}.partial-{secrets.token_hex(4)}")
        other.rename(aside)
        one.rename(other)
        with suppress(FileNotFoundError):  # swept by another process
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
def _explained(path: Path, hint: str) -> Iterator[None]:
    """What the system refuses, as a DeployError."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise DeployError(
            f"cannot write `{path}`: {error.strerror or error}",
            hint=f"free some space, or {hint}" if full else hint,
        ) from error
