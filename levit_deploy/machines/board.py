"""A board behind a shell: what ssh and adb have in common.

All that is asked of it are `sh` and the tools that session.sh looks for. One connection (a session)
lasts as long as the Board; when it ends, however it ends, the board itself kills what still runs
for it and removes its files. What stays is a cache of a few programs by their SHA-256.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import re
import secrets
import shlex
import socket
import subprocess
import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypeVar

from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import (
    NO_VARIABLES,
    TIMEOUT_S,
    Machine,
    MachineLostError,
    RunError,
    Workplace,
)
from levit_deploy.machines.process import raise_for
from levit_deploy.records import printable
from levit_deploy.targets.host import SYSFS_CACHES, Cpu, caches_in, parse_cpu

TOOLS = "sh, cat, chmod, mkdir, mv, rm, uname"
_SESSION = Path(__file__).with_name("session.sh")
_PATIENCE_S = 60.0  # for what takes a moment; a file gets more, by its size
_SLOWEST_BYTES_S = 100_000
_COMMANDS_AT_ONCE = 8  # sshd's MaxSessions is 10, and the session itself is one
_GOODBYE_S = 5.0  # for the board to remove what is there
_NO_FILE, _DAMAGED = 97, 98  # exit codes
_NO_PROGRAM = 127  # that of shells
_NEEDS = f"a board needs these: {TOOLS}; busybox has them all"
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Answer:
    returncode: int
    stdout: bytes
    stderr: str


class Board(Machine):
    """`command` is what a kind of board adds: how a shell on it gets a command."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[str] = []
        self._lock = threading.RLock()
        self._commands = threading.BoundedSemaphore(_COMMANDS_AT_ONCE)
        self._session: _Session | None = None
        self._identity = secrets.token_hex(8)  # a connection that was lost may hold our own lock
        self._reached = False

    @abstractmethod
    def first_command(self, script: str, stack: ExitStack) -> list[str]:
        """What runs `script` in a shell there, as the connection that others may use; `stack` is
        closed when it ends. Raises DeployError if the program for it is missing here."""

    @abstractmethod
    def command(self, script: str) -> list[str]:
        """What runs `script` in a shell there, while the first command runs."""

    @abstractmethod
    def why_not(self, stderr: str) -> DeployError:
        """Why no connection came about, by what the program for it said."""

    @cached_property
    def _cpu(self) -> Cpu:
        files = " ".join(f"$(cat $index/{name})" for name in ("type", "level", "size"))
        text = self.shell(
            f"uname -s; uname -m; cat /proc/cpuinfo; echo ==; for index in {SYSFS_CACHES}/index*; "
            f'do echo "{files}"; done 2>/dev/null'
        )
        system, machine, rest = text.split("\n", 2)
        cpuinfo, _, caches = rest.rpartition("==\n")
        entries = [line.split() for line in caches.splitlines()]
        whole = (entry for entry in entries if len(entry) == 3)
        return parse_cpu(system, machine, cpuinfo, caches_in(whole))

    def cpu(self) -> Cpu:
        return self._cpu

    def shell(self, script: str) -> str:
        answer = self.again(lambda session: session.ask(script))
        raise_for(answer.returncode, answer.stderr)
        return answer.stdout.decode(errors="replace")

    @contextmanager
    def workplace(self) -> Iterator[Workplace]:
        place = _BoardWorkplace(self)
        try:
            yield place
        finally:
            place.remove()

    def clean(self) -> None:
        """Remove the cache. Raises DeployError if another command uses it."""
        session = self.session()
        if session.cache:
            session.ask(f"rm -rf {shlex.quote(session.cache)}")
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    def session(self) -> _Session:
        """The connection that there is, or a new one.

        Raises DeployError for a board that cannot be used, MachineLostError if one that could be
        used before cannot be reached any more.
        """
        with self._lock:
            if self._session is None or not self._session.alive():
                self.close()
                try:
                    self._session = _Session(self, self._identity, self._commands)
                except DeployError as error:
                    if not self._reached:
                        raise
                    raise MachineLostError(
                        f"`{self.name}` is lost: {error.message}", hint=error.hint
                    ) from error
                self._reached = True
            return self._session

    def again(self, work: Callable[[_Session], _Result]) -> _Result:
        """Do it; where the connection is lost over it, once more with a new one."""
        try:
            return work(self.session())
        except MachineLostError:
            return work(self.session())


class _Session:
    """One connection, and the folder `work` there. `cache`: the folder for programs, or empty.

    `check`: `sha256` or `size`, by which the board can tell whether it got a file as it was sent.
    """

    def __init__(self, board: Board, identity: str, commands: threading.BoundedSemaphore) -> None:
        self._board, self._commands = board, commands
        self._mark = f"levit-deploy-{secrets.token_hex(8)}"
        who = f"{getpass.getuser()}@{socket.gethostname()}"
        script = _SESSION.read_text()
        arguments = (self._mark, identity, re.sub(r"[^\w@.-]", "_", who))
        with ExitStack() as stack:
            self._stderr = stack.enter_context(TemporaryFile("w+", errors="replace"))
            self._process = subprocess.Popen(
                board.first_command(_in_sh(script, *arguments), stack),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C is for us: we end it in order
            )
            stack.callback(_end, self._process)
            self._begin()
            self._stack = stack.pop_all()
        # Also at the end of this process, and if nobody holds the board any more.
        self.close = weakref.finalize(self, self._stack.close)

    def _begin(self) -> None:
        board, said = self._board, self._process.stdout
        assert said is not None
        watchdog = threading.Timer(_PATIENCE_S, self._process.kill)
        watchdog.start()
        try:
            for line in said:
                mark, _, text = line.rstrip("\n").partition(" ")
                if mark != self._mark:  # what a login shell says before
                    continue
                word, _, rest = text.partition(" ")
                match word:
                    case "note":
                        if (note := printable(f"{board.name}: {rest}")) not in board.notes:
                            board.notes.append(note)
                    case "busy":
                        raise DeployError(
                            f"`{board.name}` is in use by {printable(rest)}",
                            hint="wait until that command has ended",
                        )
                    case "missing":
                        raise DeployError(
                            f"`{board.name}` has no {printable(', '.join(rest.split()))}",
                            hint=_NEEDS,
                        )
                    case "nowhere":
                        raise DeployError(
                            f"no folder of `{board.name}` lets programs run, or there is no space: "
                            + "; ".join(board.notes),
                            hint="free some space there, or name a folder with TMPDIR in the "
                            "environment of its shell",
                        )
                    case "cache":
                        self.cache = rest
                    case "ready":
                        self.check, _, self.work = rest.partition(" ")
                        return
            code = self._process.wait()
        finally:
            watchdog.cancel()
        if code == _NO_PROGRAM:
            raise DeployError(f"`{board.name}` has no POSIX shell", hint=_NEEDS)
        self._stderr.seek(0)
        raise board.why_not(self._stderr.read())

    def alive(self) -> bool:
        return self.close.alive and self._process.poll() is None

    def ask(
        self, script: str, content: IO[bytes] | None = None, timeout_s: float = _PATIENCE_S
    ) -> _Answer:
        """Run `script` in a subshell there. Its stdin is `content`, or has nothing and ends when
        this call does, also by an error. Raises RunError if that takes too long, MachineLostError
        if there is no answer.
        """
        mark = f"{self._mark} ended"
        read, write = os.pipe()
        with self._commands:
            try:
                process = subprocess.Popen(
                    self._board.command(self.marked(f'( {script}\n); echo "{mark} $?" >&2')),
                    stdin=read if content is None else content,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
                try:
                    stdout, said = process.communicate(timeout=timeout_s)
                except subprocess.TimeoutExpired:
                    raise RunError(f"did not finish within {timeout_s:.0f} s") from None
                finally:
                    _end(process)
            finally:
                os.close(read)
                os.close(write)
        stderr = said.decode(errors="replace")
        before, found, after = stderr.rpartition(mark)
        if not found:
            self.close()
            last = (stderr.strip().splitlines() or ["no answer"])[-1]
            raise MachineLostError(
                f"the connection to `{self._board.name}` was lost: {printable(last)}",
                hint="see whether it is on and in the network, and give the command again",
            )
        return _Answer(int(after.split()[0]), stdout.partition(self.begin)[2], before)

    def marked(self, script: str) -> str:
        """A command for a shell there; what `script` prints comes after `begin`."""
        return _in_sh(f"echo {self._mark}; {script}")

    @property
    def begin(self) -> bytes:
        return f"{self._mark}\n".encode()

    def send(self, path: Path, place: str, *, executable: bool) -> None:
        """A file here as `place` there, by way of the cache if it is a program.

        Raises DeployError if there is no space."""
        if not executable:
            self._upload(path, _digest(path), place, _quoted("cat >{}", place))
            return
        digest = _digest(path)
        there = f"{self.cache}/{digest[0]}/{digest}" if self.cache else place
        enter = _quoted("cat {} >{} && chmod 700 {}", there, place, place)
        if self.cache:
            known = (
                f"{_quoted('[ -f {} ]', there)} && {self._check(path, digest, there)} && {enter}"
            )
            if self.ask(known).returncode == 0:
                return
            slot, part = there.rpartition("/")[0], f"{there}.part"
            self._upload(
                path,
                digest,
                part,  # one program for each first digit: the cache stays small
                _quoted("rm -rf {}; mkdir -p {} && cat >{}", slot, slot, part),
                f"{_quoted('mv {} {}', part, there)} && {enter}",
            )
        else:
            write, finish = _quoted("cat >{}", place), _quoted("chmod 700 {}", place)
            self._upload(path, digest, place, write, finish)

    def _upload(self, path: Path, digest: str, place: str, begin: str, end: str = ":") -> None:
        size = path.stat().st_size
        damaged = f"{{ {_quoted('rm -f {}', place)}; exit {_DAMAGED}; }}"
        failed = f"{{ {_quoted('rm -f {}', place)}; exit 1; }}"
        script = (
            f"{{ {begin}; }} || {failed}; {self._check(path, digest, place)} || {damaged}; {end}"
        )
        with path.open("rb") as content:
            answer = self.ask(script, content, _PATIENCE_S + size / _SLOWEST_BYTES_S)
        if answer.returncode == _DAMAGED:
            raise MachineLostError(
                f"`{path.name}` arrived damaged on `{self._board.name}`",
                hint="give the command again; if it stays, look at its storage",
            )
        if answer.returncode:
            why = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
            raise DeployError(
                f"cannot write {size} bytes to `{place.rpartition('/')[0]}` on "
                f"`{self._board.name}`: {printable(why)}",
                hint=f"free some space there; levit-deploy boards {self._board.name} --clean "
                "removes what is kept",
            )

    def _check(self, path: Path, digest: str, place: str) -> str:
        """A command that fails unless the file there is the one here."""
        match self.check:
            case "sha256":
                return f'[ "$({_quoted("sha256sum <{}", place)})" = "{digest}  -" ]'
            case "size":
                return f'[ "$({_quoted("wc -c <{}", place)})" -eq {path.stat().st_size} ]'
        return ":"


class _BoardWorkplace(Workplace):
    """A folder in that of the session; where that had to be made anew, with all files again."""

    def __init__(self, board: Board) -> None:
        self._board, self._name = board, secrets.token_hex(4)
        self._files: dict[str, tuple[Path, bool]] = {}
        self._lock = threading.Lock()
        self._session: _Session | None = None
        board.again(self._folder)

    def put(self, path: Path, name: str, *, executable: bool = False) -> None:
        def put(session: _Session) -> None:
            session.send(path, f"{self._folder(session)}/{name}", executable=executable)

        self._board.again(put)
        self._files[name] = path, executable

    def run(
        self,
        command: Sequence[str],
        timeout_s: float = TIMEOUT_S,
        *,
        env: Mapping[str, str] = NO_VARIABLES,
    ) -> str:
        variables = [f"{name}={shlex.quote(value)}" for name, value in env.items()]
        words = " ".join([*variables, *map(shlex.quote, (f"./{command[0]}", *command[1:]))])
        # Whatever ends the connection ends stdin; then the program is killed.
        script = (
            f"exec 3<&0; {words} </dev/null 3<&- & program=$!; "
            "{ read -r end <&3; kill -9 $program; } >/dev/null 2>&1 & watch=$!; "
            "wait $program; code=$?; kill $watch; exit $code"
        )
        answer = self._board.again(
            lambda session: session.ask(f"{self._enter(session)}; {script}", timeout_s=timeout_s)
        )
        raise_for(answer.returncode, answer.stderr)
        return answer.stdout.decode(errors="replace")

    def start(self, command: Sequence[str], stderr: IO[str]) -> subprocess.Popen[bytes]:
        words = " ".join(map(shlex.quote, (f"./{command[0]}", *command[1:])))

        def start(session: _Session) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                self._board.command(session.marked(f"{self._enter(session)}; {words}")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
            assert process.stdout is not None
            while process.stdout.readline() not in (session.begin, b""):
                pass
            return process

        return self._board.again(start)

    def get(self, name: str) -> bytes:
        session = self._board.session()
        if session is not self._session:
            raise MachineLostError(
                f"the connection to `{self._board.name}` was lost, and `{name}` with it",
                hint="give the command again",
            )
        file = shlex.quote(f"{self._folder(session)}/{name}")
        answer = session.ask(f"[ -f {file} ] || exit {_NO_FILE}; cat {file}", timeout_s=TIMEOUT_S)
        if answer.returncode == _NO_FILE:
            raise RunError(f"wrote no `{name}`")
        raise_for(answer.returncode, answer.stderr)
        return answer.stdout

    def remove(self) -> None:
        session = self._session
        if session and session.alive():
            with contextlib.suppress(DeployError):  # else the board does it
                session.ask(_quoted("rm -rf {}", self._folder(session)))

    def _enter(self, session: _Session) -> str:
        return f"{_quoted('cd {}', self._folder(session))} || exit {_NO_FILE}"

    def _folder(self, session: _Session) -> str:
        folder = f"{session.work}/{self._name}"
        with self._lock:
            if session is not self._session:
                session.ask(_quoted("mkdir {}", folder))
                for name, (path, executable) in self._files.items():
                    session.send(path, f"{folder}/{name}", executable=executable)
                self._session = session
        return folder


def _digest(path: Path) -> str:
    """Hexadecimal SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _in_sh(script: str, *arguments: str) -> str:
    """A command for any login shell that runs `script` in a POSIX one."""
    return " ".join(["exec sh -c", *map(shlex.quote, (script, "sh", *arguments))])


def _quoted(command: str, *words: str) -> str:
    return command.format(*map(shlex.quote, words))


def _end(process: subprocess.Popen[Any]) -> None:
    """Close its stdin, upon which what it runs on the board ends, and see that it ends itself."""
    with process:
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GOODBYE_S)
        process.kill()
