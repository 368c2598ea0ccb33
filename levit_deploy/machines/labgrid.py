"""A board of a labgrid farm: a place that the user has acquired, reached over ssh."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack

from levit_deploy.errors import DeployError
from levit_deploy.machines.board import Board
from levit_deploy.machines.ssh import SshBoard
from levit_deploy.records import printable

_URL = re.compile(r"labgrid:(?P<place>[A-Za-z0-9_][\w.-]*)", re.ASCII)
_COORDINATOR = "127.0.0.1:20408"  # labgrid's own default


class LabgridBoard(Board):
    """`url`: labgrid:PLACE. The coordinator is that of the variable LG_COORDINATOR, as for
    labgrid-client; the place needs a NetworkService.

    Raises DeployError for any other URL.
    """

    def __init__(self, url: str) -> None:
        found = _URL.fullmatch(url)
        if found is None:
            raise DeployError(f"`{printable(url)}` names no place", hint="labgrid-client places")
        super().__init__(url)
        self._place = found["place"]

    def first_command(self, script: str, stack: ExitStack) -> list[str]:
        self._ssh = SshBoard(_address(self._place))
        return self._ssh.first_command(script, stack)

    def command(self, script: str) -> list[str]:
        return self._ssh.command(script)

    def why_not(self, stderr: str) -> DeployError:
        return self._ssh.why_not(stderr)


def _address(place: str) -> str:
    """The ssh URL of a place; raises DeployError if there is none, or it is not the user's."""
    try:
        import grpc
        from labgrid.remote.client import Error, start_session
    except ImportError as error:
        raise DeployError(
            "labgrid is not installed", hint='pip install "levit-deploy[labgrid]"'
        ) from error
    coordinator = os.environ.get("LG_COORDINATOR", _COORDINATOR)
    try:
        session = start_session(coordinator)
    except (Error, grpc.RpcError, OSError) as error:
        raise DeployError(
            f"no labgrid coordinator answers at `{coordinator}`", hint="LG_COORDINATOR=HOST:PORT"
        ) from error
    try:
        resources = session.get_target_resources(session.get_place(place))
    except Error as error:
        said = printable(" ".join(map(str, error.args)))
        raise DeployError(
            f"`labgrid:{place}`: {said}", hint=f"labgrid-client -p {place} acquire"
        ) from error
    finally:
        session.loop.run_until_complete(session.stop())
        session.loop.run_until_complete(session.close())
    for resource in resources.values():
        if resource.cls == "NetworkService":
            service = resource.args
            return f"ssh://{service['username']}@{service['address']}:{service.get('port', 22)}"
    raise DeployError(
        f"the place `{place}` has no NetworkService",
        hint=f"labgrid-client -p {place} add-match EXPORTER/GROUP/NetworkService",
    )
