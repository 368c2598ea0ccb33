"""Finding qemu-user and saying what is missing."""

import subprocess
from pathlib import Path

import pytest

from levit_deploy.targets.emulator import emulator_command, missing_emulator
from levit_deploy.targets.table import TARGETS

EMULATED = [name for name, target in TARGETS.items() if target.emulator]


def fake_program(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_command_names_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = fake_program(tmp_path, "qemu-aarch64")
    assert emulator_command(TARGETS["rpi5"]) == (str(path), "-cpu", "cortex-a76")


def test_the_static_build_serves_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = fake_program(tmp_path, "qemu-arm-static")
    command = emulator_command(TARGETS["armv7"])
    assert command is not None
    assert command[0] == str(path)


def test_a_missing_emulator_is_named_with_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert emulator_command(TARGETS["rpi4"]) is None
    assert missing_emulator(TARGETS["rpi4"]) == (
        "no emulator for arm64",
        "apt-get install qemu-user",
    )


def test_no_emulator_exists_for_avx512():
    assert emulator_command(TARGETS["x86-64-v4"]) is None
    what, hint = missing_emulator(TARGETS["x86-64-v4"])
    assert "x86-64-v4" in what
    assert "levit-deploy verify" in hint


@pytest.mark.parametrize("name", EMULATED)
def test_qemu_knows_the_cpu(name):
    """`-cpu help` exits before any program is loaded; a bad CPU name fails on any program."""
    command = emulator_command(TARGETS[name])
    if command is None:
        pytest.skip(": ".join(missing_emulator(TARGETS[name])))
    program, option, cpu = command
    listed = subprocess.run(
        [program, option, "help"], capture_output=True, text=True, check=False
    ).stdout
    assert cpu.split(",")[0] in listed.split()
