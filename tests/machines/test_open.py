"""Which machine runs a target's programs."""

import pytest

from levit_deploy.machines.open import NothingRunsError, machine_for, open_machine
from levit_deploy.machines.ssh import SshBoard
from levit_deploy.targets.host import Cpu, read_cpu
from levit_deploy.targets.system import Arch, System
from levit_deploy.targets.table import TARGETS, get_target

A76 = Cpu(Arch.AARCH64, "Cortex-A76", frozenset({"fp", "asimd", "asimdhp", "asimddp"}), None, None)


@pytest.mark.parametrize(
    ("target", "system", "message", "hint"),
    [
        ("graviton3", "musl", "it lacks bf16, i8mm", "--target arm64-dotprod"),
        ("x86-64", "musl", "it is aarch64", "--target arm64-dotprod"),
        ("arm64", "windows", "does not run windows programs", "--os linux"),
    ],
)
def test_a_board_that_does_not_fit(
    target: str, system: str, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(SshBoard, "cpu", lambda self: A76)
    board = open_machine("ssh://board")
    with pytest.raises(NothingRunsError, match=message) as caught:
        machine_for(TARGETS[target].on(System.parse(system)), board)
    assert (caught.value.hint or "").endswith(hint)
    assert machine_for(TARGETS["rpi5"], board) is board


def test_this_cpu_runs_its_own_programs():
    machine = machine_for(get_target("host"))
    assert machine.name == "this CPU"
    assert not machine.emulated
    assert machine.cpu() == read_cpu()
    assert machine.shell("echo it runs") == "it runs\n"
