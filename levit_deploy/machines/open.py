"""Which machine: this one, or what runs a target's programs on it; a board by its URL."""

from __future__ import annotations

from collections.abc import Callable

from levit_deploy.errors import DeployError
from levit_deploy.machines.adb import AdbBoard
from levit_deploy.machines.board import Board
from levit_deploy.machines.labgrid import LabgridBoard
from levit_deploy.machines.local import LocalMachine
from levit_deploy.machines.machine import Machine
from levit_deploy.machines.ssh import FORM as SSH_FORM
from levit_deploy.machines.ssh import SshBoard
from levit_deploy.records import printable
from levit_deploy.targets.emulator import missing_emulator, run_prefix
from levit_deploy.targets.system import ObjectFormat
from levit_deploy.targets.table import fitting_target
from levit_deploy.targets.target import Target


class NothingRunsError(DeployError):
    """There is no machine here for programs of a target."""


def machine_for(target: Target, board: Machine | None = None) -> Machine:
    """`board`, or this machine, or an emulator on it.

    Raises NothingRunsError, which says what is missing.
    """
    if board is not None:
        _require_fit(board, target)
        return board
    emulator = run_prefix(target)
    if emulator is None:
        missing, hint = missing_emulator(target)
        raise NothingRunsError(missing, hint=hint)
    return LocalMachine(emulator)


def _require_fit(board: Machine, target: Target) -> None:
    cpu = board.cpu()
    if target.system.format is not ObjectFormat.ELF:
        raise NothingRunsError(
            f"`{board.name}` does not run {target.system.os} programs",
            hint="compile for it: --os linux",
        )
    if not cpu.runs(target):
        lacking = sorted(set(target.required_features) - cpu.features)
        why = f"lacks {', '.join(lacking)}" if cpu.arch is target.arch else f"is {cpu.arch}"
        raise NothingRunsError(
            f"`{board.name}` ({cpu.model}) does not run code for `{target.name}`: it {why}",
            hint=f"compile for it: --target {fitting_target(cpu).name}",
        )


def open_machine(url: str) -> Board:
    """The board that `url` names: ssh://[USER@]HOST[:PORT], adb:SERIAL or labgrid:PLACE.

    Raises DeployError for a name of none. Nothing is connected yet.
    """
    kind = _KINDS.get(url.partition(":")[0])
    if kind is None:
        raise DeployError(
            f"`{printable(url)}` is no URL of a board",
            hint=f"--on {SSH_FORM}, --on adb:SERIAL or --on labgrid:PLACE",
        )
    return kind(url)


_KINDS: dict[str, Callable[[str], Board]] = {
    "ssh": SshBoard,
    "adb": AdbBoard,
    "labgrid": LabgridBoard,
}
