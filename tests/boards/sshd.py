"""Boards on the loopback: Debian's sshd with its own keys, and homes of their own for each test."""

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or "/usr/sbin/sshd"


BOARDS = ("board", "board2")


class Sshd:
    """`folder` gets keys, configuration and log; `bin` in it a client that knows of them.

    Each command on `board` or `board2` is run by a shell that has read the file `profile`, with
    that name in BOARD.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.profile, self.log = folder, folder / "profile", folder / "log"
        self.known_hosts, self.keys = folder / "known_hosts", folder / "authorized_keys"
        self.port = _free_port()
        for name in ("host_key", *BOARDS):
            self.make_key(name)
        self.profile.touch()
        shell = folder / "shell"
        shell.write_text(f'BOARD=$1\n. {self.profile}\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n')
        keys = {name: (folder / f"{name}.pub").read_text() for name in BOARDS}
        self.keys.write_text(
            "".join(f'command="sh {shell} {name}" {key}' for name, key in keys.items())
        )
        self.know(folder / "host_key.pub")
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n"
            f"AuthorizedKeysFile {self.keys}\nPidFile none\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "SetEnv SHLVL=9\n"  # or bash reads the .bashrc of whoever runs the tests, each time
        )
        (folder / "ssh_config").write_text(
            f"Host board*\n HostName 127.0.0.1\n Port {self.port}\n"
            f"Host *\n IdentityFile {folder}/%n\n IdentitiesOnly yes\n"
            f" UserKnownHostsFile {self.known_hosts}\n GlobalKnownHostsFile none\n"
            f" HostKeyAlias board\n"
        )
        self.bin = folder / "bin"
        self.bin.mkdir()
        client = self.bin / "ssh"
        client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
        client.chmod(client.stat().st_mode | stat.S_IXUSR)

    def make_key(self, name: str) -> None:
        path = self.folder / name
        command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
        subprocess.run(command, check=True)

    def know(self, public_key: Path) -> None:
        """That is the host key that the client expects."""
        self.known_hosts.write_text(f"board {public_key.read_text()}")

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd of root insists on it
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                (SSHD, "-D", "-e", "-f", self.folder / "sshd_config"), stderr=log
            )
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        """No new connections; those that there are go on."""
        self._process.terminate()
        self._process.wait()

    def connections(self) -> list[int]:
        """The processes that serve them, of which killing one is a lost connection."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if not Path(SSHD).exists():
        pytest.skip("needs an sshd: apt-get install openssh-server")
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.stop()


class OnBoard:
    """What a test sees of the boards from within: their folders, and what their shells are told
    first. `cache` and `tmp` are those of `board`."""

    url, other_url = (f"ssh://{name}" for name in BOARDS)

    def __init__(self, sshd: Sshd, folder: Path) -> None:
        self.sshd, self._folder = sshd, folder
        self.tmp = folder / "board" / "tmp"
        self.cache = folder / "board" / "home" / ".cache" / "levit-deploy"
        for name in BOARDS:
            for place in ("home", "tmp"):
                (folder / name / place).mkdir(parents=True)
        self.profile()

    def profile(self, commands: str = "") -> None:
        own = f"{self._folder}/$BOARD"
        home = f"export HOME={own}/home TMPDIR={own}/tmp; unset XDG_CACHE_HOME"
        self.sshd.profile.write_text(f"{home}\n{commands}\n")

    def is_clean(self) -> bool:
        """Soon nothing is left but programs in the caches."""
        for _ in range(100):
            left = [*self._folder.glob("*/tmp/*"), *self._folder.rglob("lock")]
            if not left:
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
def on_board(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnBoard]:
    monkeypatch.setenv("PATH", f"{sshd.bin}:{os.environ['PATH']}")
    board = OnBoard(sshd, tmp_path / "board")
    yield board
    board.profile()
    assert board.is_clean()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
