"""A machine that runs our programs: this one, an emulator on it, or a board."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import IO

from levit_deploy.errors import DeployError
from levit_deploy.targets.host import Cpu
from levit_deploy.targets.target import Target

TIMEOUT_S = 600  # the largest variant takes seconds an image under qemu-user
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


class RunError(DeployError):
    """The thing under test crashed, hung or returned an error code: a result, not our failure."""


class NotExecutedError(RunError):
    """The machine did not let it begin: nothing is known of what it computes."""


class MachineLostError(DeployError):
    """The machine does not answer any more: nothing is known of what ran on it."""


class Workplace(ABC):
    """A folder on a machine, of one command alone. Usable by several threads; names are their
    matter. `put` may hold on to the file until the workplace is gone: it is not to be changed."""

    @abstractmethod
    def put(self, path: Path, name: str, *, executable: bool = False) -> None:
        """The file `path` as `name` there, instead of one that is there already."""

    @abstractmethod
    def run(
        self,
        command: Sequence[str],
        timeout_s: float = TIMEOUT_S,
        *,
        env: Mapping[str, str] = NO_VARIABLES,
    ) -> str:
        """What a program printed, run to its end in the workplace.

        `command`: the name of a program that was put, and plain arguments or names of files there.
        `env`: variables that it gets beside those of the machine. Raises RunError that says how it
        crashed, hung or failed, NotExecutedError if the machine does not execute it,
        MachineLostError if the machine is gone.
        """

    @abstractmethod
    def start(self, command: Sequence[str], stderr: IO[str]) -> subprocess.Popen[bytes]:
        """A program that keeps running, with pipes to its stdin and from its stdout.

        It is to end when its stdin does. `stderr`: a file here that gets what it says.
        """

    @abstractmethod
    def get(self, name: str) -> bytes:
        """The content of a file there; raises RunError if there is none."""


class Machine(ABC):
    """`name`: in reports, such as `this CPU` or `ssh://pi@host`. `emulated`: whether it takes
    seconds for what a CPU does in milliseconds, and its times say nothing. `notes`: what a user
    should know of it, found so far."""

    name: str
    emulated: bool = False
    notes: Sequence[str] = ()

    @abstractmethod
    def cpu(self) -> Cpu:
        """Its CPU, read there once; raises DeployError if it is of no architecture that we know."""

    @abstractmethod
    def workplace(self) -> AbstractContextManager[Workplace]:
        """A new folder there, which is gone at the end whatever happens."""

    @abstractmethod
    def shell(self, script: str) -> str:
        """What a POSIX shell script printed there; raises RunError if it failed."""

    def close(self) -> None:  # noqa: B027 (only boards have one)
        """End the connection to it, if there is one; the next use makes another."""

    def loads(self, target: Target) -> bool:
        """Whether this Python can load a shared library for `target`, to run it on the machine."""
        return False
