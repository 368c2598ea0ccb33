"""A board by OpenSSH's own client: keys, agent, jump hosts and known_hosts are the user's."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import ExitStack

from levit_deploy.errors import DeployError
from levit_deploy.machines.board import Board
from levit_deploy.records import printable

_URL = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?"
    r"(?:(?P<host>[A-Za-z0-9_][\w.-]*)|\[(?P<address>[0-9A-Fa-f:.]+(?:%\w+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)
FORM = "ssh://USER@HOST:PORT"
_OPTIONS = {
    "BatchMode": "yes",  # nothing is asked, and so no unknown host key accepted
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",  # what is gone is noticed after 15 s
    "ServerAliveCountMax": "3",
    "ControlPersist": "no",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "LogLevel": "ERROR",
}
_SHORT = "/tmp"  # the path of a socket has at most 107 bytes


class SshBoard(Board):
    """`url`: ssh://[USER@]HOST[:PORT]; HOST may be a name of ~/.ssh/config.

    Raises DeployError for any other.
    """

    def __init__(self, url: str) -> None:
        found = _URL.fullmatch(url)
        if found is None or int(found["port"] or 22) not in range(1, 65536):
            raise DeployError(f"`{printable(url)}` is no URL of a board", hint=f"--on {FORM}")
        super().__init__(url.rstrip("/"))
        self._host = found["host"] or found["address"]
        self._user, self._port = found["user"], found["port"]

    def first_command(self, script: str, stack: ExitStack) -> list[str]:
        if shutil.which("ssh") is None:
            raise DeployError("there is no `ssh` here", hint="apt-get install openssh-client")
        parent = _SHORT if os.access(_SHORT, os.W_OK) else None
        folder = tempfile.TemporaryDirectory(prefix="ld-", dir=parent, ignore_cleanup_errors=True)
        self._socket = f"{stack.enter_context(folder)}/s"
        return self._ssh(["-M", *_options(_OPTIONS)], script)

    def command(self, script: str) -> list[str]:
        """By the first one's connection, and by no other if that has ended."""
        return self._ssh(_options({**_OPTIONS, "ProxyCommand": "false"}), script)

    def _ssh(self, options: list[str], script: str) -> list[str]:
        user = ["-l", self._user] if self._user else []
        port = ["-p", self._port] if self._port else []
        return ["ssh", "-T", "-S", self._socket, *options, *user, *port, "--", self._host, script]

    def why_not(self, stderr: str) -> DeployError:
        by_hand = f"-p {self._port} " if self._port else ""
        by_hand += f"{self._user}@{self._host}" if self._user else self._host
        for sign, message, hint in _REASONS:
            if sign in stderr:
                return DeployError(
                    f"`{self.name}` {message}", hint=hint.format(ssh=by_hand, host=self._host)
                )
        last = (stderr.strip().splitlines() or ["it said nothing"])[-1]
        return DeployError(
            f"`{self.name}` cannot be used: {printable(last)}", hint=f"try it: ssh {by_hand}"
        )


def _options(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


# What OpenSSH says, what it means, what to do.
_REASONS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "has another host key than it had: it was set up anew, or is not the one that it was",
        "if you know why: ssh-keygen -R {host}, then ssh {ssh}",
    ),
    (
        "Host key verification failed",
        "has a host key that you have not accepted yet",
        "compare its fingerprint, once by hand: ssh {ssh}",
    ),
    (
        "Permission denied (",
        "refuses your key",
        "ssh-copy-id {ssh}; for a key with a passphrase: ssh-add",
    ),
    ("Could not resolve hostname", "is not known by that name", "try it: ssh {ssh}"),
    (
        "Connection refused",
        "is there, but has no ssh",
        "start its ssh service: systemctl start ssh",
    ),
    ("timed out", "does not answer", "see whether it is on and in the network: ping {host}"),
    (
        "No route to host",
        "cannot be reached",
        "see whether it is on and in the network: ping {host}",
    ),
)
