"""One file over HTTP, whole and checked, or not at all.

URL -> `NAME.part` (kept when cut off) -> SHA-256 checked -> renamed to `NAME`. A lock file lets
one process download while others wait for its result. Where no SHA-256 is known, `NAME.version`
remembers what the server called this version of the file, and it is asked again the next time.
Nothing that is said of a URL has its user, query or fragment: these hold passwords.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from levit_deploy.errors import DeployError
from levit_deploy.files import put_in_place, write_files
from levit_deploy.urls import public

TIMEOUT_S = 30.0  # without any byte
AGENT = "levit-deploy"
VERSION_HEADERS = ("ETag", "Last-Modified")
ATTEMPTS = 4  # how often a cut-off transfer is taken up again in one go
CHUNK_BYTES = 1 << 18
MAX_BYTES = 1 << 32  # of one file; the largest LeViT's checkpoint, with all of training, has 2 GB

_OTHER_CACHE = "choose another cache: XDG_CACHE_HOME=DIR"

# Called with the bytes had so far and those in all, if the server says.
Progress = Callable[[int, int | None], None]


def ignore_progress(done_bytes: int, total_bytes: int | None) -> None:
    """Show nothing."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None,
    progress: Progress = ignore_progress,
    timeout_s: float = TIMEOUT_S,
) -> str | None:
    """Make `path` the file at `url`; nothing is fetched if it is there already.

    `sha256`: the beginning of the file's hexadecimal SHA-256; None if unknown: then only the
    length is checked, an earlier, unfinished download is not continued, and a file that the server
    has another version of by now is fetched again. Returns what is to be told of that, if anything.
    Raises DeployError if the server or the disk fails, or the content is not as expected, or more
    than MAX_BYTES.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_name(path.name + ".lock")):
            version = path.with_name(path.name + ".version")
            now = "" if sha256 else _version(url, timeout_s)
            then = version.read_text() if version.is_file() else ""
            changed = path.is_file() and bool(now) and then != now
            if is_intact(path, sha256) and not changed:
                return None
            if sha256 is None or part.is_symlink() or not part.is_file():
                part.unlink(missing_ok=True)
            continued = part.exists()
            _transfer(url, part, progress, timeout_s)
            if continued and not is_intact(part, sha256):
                part.unlink()
                _transfer(url, part, progress, timeout_s)
            if not is_intact(part, sha256):
                found = _sha256(part)
                part.unlink()
                raise DeployError(
                    f"`{public(url)}` has SHA-256 `{found}`, expected it to begin with `{sha256}`",
                    hint="try again; a proxy may have answered in the server's place",
                )
            version.unlink(missing_ok=True)
            put_in_place(part, path)
            if now:
                write_files({version: now.encode()}, hint=_OTHER_CACHE)
            told = f"`{public(url)}` has changed since it was downloaded: fetched again"
            return told if changed and then else None
    except OSError as error:  # the server's errors are DeployErrors by now
        raise DeployError(
            f"cannot write `{error.filename or part}`: {os.strerror(error.errno or 0)}",
            hint=f"free some space, or {_OTHER_CACHE}",
        ) from error


def _version(url: str, timeout_s: float) -> str:
    """What the server calls the present version of the file; empty if it does not say."""
    request = urllib.request.Request(url, headers={"User-Agent": AGENT}, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            headers = [(name, response.headers.get(name)) for name in VERSION_HEADERS]
    except (OSError, ValueError, http.client.HTTPException):
        return ""  # no network, or a server that knows no HEAD: what is there is used
    return "".join(f"{name}: {value}\n" for name, value in headers if value)


def is_intact(path: Path, sha256: str | None) -> bool:
    """Whether the file is there and its SHA-256 begins so."""
    return path.is_file() and (sha256 is None or _sha256(path).startswith(sha256))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Exclusive among processes; ends with the process, whatever way it ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _transfer(url: str, part: Path, progress: Progress, timeout_s: float) -> None:
    """Append to `part` what it lacks, again where the connection is cut off."""
    for _ in range(ATTEMPTS):
        if _transfer_once(url, part, progress, timeout_s):
            return
    raise DeployError(
        f"`{public(url)}` was cut off {ATTEMPTS} times, last at {part.stat().st_size} bytes",
        hint="run the same command again: it goes on where it stopped",
    )


def _transfer_once(url: str, part: Path, progress: Progress, timeout_s: float) -> bool:
    """Whether the file is complete after one request."""
    had = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout_s
        )
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # nothing left to send; the hash tells whether that is right
        raise DeployError(f"`{public(url)}` answers {error.code} {error.reason}") from error
    except (ValueError, http.client.InvalidURL) as error:
        raise DeployError(
            f"`{public(url)}` is not a URL that can be fetched",
            hint="download it otherwise, and pass the file: --weights FILE",
        ) from error
    except (http.client.HTTPException, ConnectionResetError):
        part.touch()
        return False
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DeployError(f"cannot reach `{public(url)}`: {reason}") from error
    with response:
        start, total = _extent(url, response)
        _check_size(url, part, total or 0)
        if start not in (0, had):
            part.unlink()  # not what was asked for: begin anew
            return False
        with part.open("ab" if start else "wb") as file:
            return _copy(url, response, file, start, total, progress, timeout_s)


def _check_size(url: str, part: Path, size: int) -> None:
    """Raise DeployError for what is no checkpoint any more, and keep nothing of it."""
    if size > MAX_BYTES:
        part.unlink(missing_ok=True)
        raise DeployError(
            f"`{public(url)}` has more than {MAX_BYTES >> 30} GiB",
            hint="download it otherwise, and pass the file: --weights FILE",
        )


def _extent(url: str, response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where in the file the body starts, and how long the whole file is."""
    match = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status == http.client.PARTIAL_CONTENT and match:
        return int(match[1]), int(match[2])
    length = response.headers.get("Content-Length")
    if length and re.fullmatch(r"[0-9]{1,18}", length) is None:
        raise DeployError(
            f"`{public(url)}` answers with a length that is no number: `{length[:40]}`",
            hint="download it otherwise, and pass the file: --weights FILE",
        )
    return 0, int(length) if length else None


def _copy(
    url: str,
    response: http.client.HTTPResponse,
    file: IO[bytes],
    start: int,
    total: int | None,
    progress: Progress,
    timeout_s: float,
) -> bool:
    done = start
    while True:
        progress(done, total)
        try:
            chunk = response.read1(CHUNK_BYTES)  # what is there, before a time-out
        except TimeoutError as error:
            raise DeployError(f"`{public(url)}` sent nothing for {timeout_s:g} s") from error
        except (OSError, http.client.HTTPException):
            return False
        if not chunk:
            return total is None or done >= total
        file.write(chunk)
        done += len(chunk)
        _check_size(url, Path(file.name), done)
