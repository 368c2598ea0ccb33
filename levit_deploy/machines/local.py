"""This machine: its CPU, or an emulator before each program."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from levit_deploy.machines.machine import NO_VARIABLES, TIMEOUT_S, Machine, RunError, Workplace
from levit_deploy.machines.process import run_child
from levit_deploy.targets.emulator import spelled
from levit_deploy.targets.host import Cpu, read_cpu
from levit_deploy.targets.system import Family
from levit_deploy.targets.target import Target


class LocalMachine(Machine):
    """`emulator`: the command before a program's own, empty where this CPU runs it."""

    def __init__(self, emulator: tuple[str, ...] = ()) -> None:
        self._emulator = emulator
        self.emulated = emulator != ()
        self.name = spelled(emulator) if emulator else "this CPU"

    def cpu(self) -> Cpu:
        """The one of this machine, also under an emulator."""
        return read_cpu()

    @contextmanager
    def workplace(self) -> Iterator[Workplace]:
        with tempfile.TemporaryDirectory(prefix="levit-deploy-") as folder:
            yield _LocalWorkplace(Path(folder), self._emulator)

    def shell(self, script: str) -> str:
        return run_child(("sh", "-c", script))

    def loads(self, target: Target) -> bool:
        libc = platform.libc_ver()[0] or Family.MUSL
        return not self.emulated and target.system.family == libc and read_cpu().runs(target)


class _LocalWorkplace(Workplace):
    def __init__(self, folder: Path, emulator: tuple[str, ...]) -> None:
        self._folder, self._emulator = folder, emulator

    def put(self, path: Path, name: str, *, executable: bool = False) -> None:
        place = self._folder / name
        place.unlink(missing_ok=True)
        try:
            os.link(path.resolve(), place)
        except OSError:  # another file system, or somebody else's file
            shutil.copyfile(path, place)
        if executable:
            place.chmod(0o755)

    def run(
        self,
        command: Sequence[str],
        timeout_s: float = TIMEOUT_S,
        *,
        env: Mapping[str, str] = NO_VARIABLES,
    ) -> str:
        return run_child(self._whole(command), timeout_s, env=env, folder=self._folder)

    def start(self, command: Sequence[str], stderr: IO[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._whole(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=self._folder,
        )

    def get(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise RunError(f"wrote no `{name}`") from None

    def _whole(self, command: Sequence[str]) -> tuple[str | Path, ...]:
        return (*self._emulator, self._folder / command[0], *command[1:])
