"""An Android device: Debian's adb talks to a stand-in for its server."""

import os
import shutil
from pathlib import Path

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import RunError
from levit_deploy.machines.open import open_machine
from levit_deploy.targets.host import read_cpu
from tests.boards.adb_server import SERIAL, AdbServer, android

__all__ = ["android"]

pytestmark = pytest.mark.skipif(
    shutil.which("adb") is None, reason="needs adb: apt-get install adb"
)


def test_a_program_with_its_files(android: AdbServer, tmp_path: Path):
    content = os.urandom(300_000)
    (tmp_path / "in").write_bytes(content)
    (tmp_path / "program").write_text('#!/bin/sh\ncat in >out; printf "%s" "$1"; exit $2\n')
    machine = open_machine(f"adb:{SERIAL}")
    assert machine.cpu() == read_cpu()
    with machine.workplace() as place:
        place.put(tmp_path / "program", "program", executable=True)
        place.put(tmp_path / "in", "in")
        assert place.run(["program", "a 'b' $c", "0"]) == "a 'b' $c"
        assert place.get("out") == content
        with pytest.raises(RunError, match="exit code 7"):
            place.run(["program", "", "7"])
    machine.close()


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        ("device 'x' not found", "is not connected", "adb devices"),
        ("device unauthorized.", "does not trust this computer", "on the screen"),
        ("device offline", "cannot be used: .*device offline", "adb -s levit-5554 shell"),
    ],
)
def test_a_device_that_cannot_be_used(android: AdbServer, said: str, message: str, hint: str):
    android.refusal = said
    with pytest.raises(DeployError, match=f"`adb:{SERIAL}` {message}") as caught:
        open_machine(f"adb:{SERIAL}").cpu()
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("url", ["adb:", "adb:-e", "adb:a b", "adb:a;id", "adb:a\n", "adb:$(id)"])
def test_a_serial_is_never_an_option_or_a_command(url: str):
    with pytest.raises(DeployError, match="names no Android device"):
        open_machine(url)
