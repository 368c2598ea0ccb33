"""A place of a labgrid farm. The session is a stand-in for labgrid's, which answers as that of
labgrid 26.0 does for a place with an exported NetworkService."""

import asyncio
import getpass
import sys
from types import ModuleType, SimpleNamespace

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.machines.open import open_machine
from tests.boards.sshd import OnBoard, Sshd


class Error(Exception):
    pass


class Session:
    def __init__(self, port: int) -> None:
        self.loop = asyncio.new_event_loop()
        self._port = port

    def get_place(self, name: str) -> str:
        if name not in ("pi", "bare"):
            raise Error(f"place pattern {name} matches nothing")
        return name

    def get_target_resources(self, place: str) -> dict[tuple[str, str], SimpleNamespace]:
        service = {"address": "board", "username": getpass.getuser(), "port": self._port}
        resource = SimpleNamespace(cls="NetworkService", args=service)
        return {("NetworkService", "NetworkService"): resource} if place == "pi" else {}

    async def stop(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def farm(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    client, grpc = ModuleType("labgrid.remote.client"), ModuleType("grpc")
    monkeypatch.setattr(client, "Error", Error, raising=False)
    monkeypatch.setattr(client, "start_session", lambda _: Session(sshd.port), raising=False)
    monkeypatch.setattr(grpc, "RpcError", Error, raising=False)
    for module in (ModuleType("labgrid"), ModuleType("labgrid.remote"), client, grpc):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_place_is_a_board_over_ssh(farm: None, on_board: OnBoard):
    machine = open_machine("labgrid:pi")
    assert machine.shell("echo it runs") == "it runs\n"
    machine.close()


@pytest.mark.parametrize(
    ("place", "message", "hint"),
    [
        ("nothing", "place pattern nothing matches nothing", "labgrid-client -p nothing acquire"),
        ("bare", "the place `bare` has no NetworkService", "add-match"),
    ],
)
def test_a_place_that_cannot_be_used(farm: None, place: str, message: str, hint: str):
    with pytest.raises(DeployError, match=message) as caught:
        open_machine(f"labgrid:{place}").cpu()
    assert hint in (caught.value.hint or "")


def test_labgrid_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "labgrid", None)
    with pytest.raises(DeployError, match="labgrid is not installed") as caught:
        open_machine("labgrid:pi").cpu()
    assert caught.value.hint == 'pip install "levit-deploy[labgrid]"'
