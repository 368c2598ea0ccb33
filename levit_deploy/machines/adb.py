"""An Android device by the `adb` program: its server, and the keys that it has, are the user's."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack

from levit_deploy.errors import DeployError
from levit_deploy.machines.board import Board
from levit_deploy.records import printable

_URL = re.compile(r"adb:(?P<serial>[A-Za-z0-9][\w.:-]*)", re.ASCII)


class AdbBoard(Board):
    """`url`: adb:SERIAL, as `adb devices` lists it; Android 7 or newer, whose shell has exit codes.

    Raises DeployError for any other.
    """

    def __init__(self, url: str) -> None:
        found = _URL.fullmatch(url)
        if found is None:
            raise DeployError(
                f"`{printable(url)}` names no Android device", hint="list them: adb devices"
            )
        super().__init__(url)
        self._serial = found["serial"]

    def first_command(self, script: str, stack: ExitStack) -> list[str]:
        if shutil.which("adb") is None:
            raise DeployError("there is no `adb` here", hint="apt-get install adb")
        return self.command(script)

    def command(self, script: str) -> list[str]:
        return ["adb", "-s", self._serial, "shell", "-T", script]

    def why_not(self, stderr: str) -> DeployError:
        if "not found" in stderr:
            return DeployError(f"`{self.name}` is not connected", hint="list devices: adb devices")
        if "unauthorized" in stderr:
            return DeployError(
                f"`{self.name}` does not trust this computer", hint="accept its key on the screen"
            )
        last = (stderr.strip().splitlines() or ["it said nothing"])[-1]
        return DeployError(
            f"`{self.name}` cannot be used: {printable(last)}",
            hint=f"try it: adb -s {self._serial} shell",
        )
