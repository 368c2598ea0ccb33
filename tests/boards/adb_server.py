"""A stand-in for adb's server and a device behind it: the services that `adb shell -T` asks for.

The client is the real one. What it sends is run by this machine's sh, with the framing of the
second shell protocol (shell_protocol.h in the sources of adb).
"""

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SERIAL = "levit-5554"
_VERSION = b"0029"  # of the server's protocol: another would be replaced by the client
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)


class AdbServer:
    """`environment`: what the device's shell has. `refusal`: said of the device, if not empty."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.refusal = ""
        self._environment = environment
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while length := _exactly(connection, 4):
                service = _exactly(connection, int(length, 16)).decode()
                name, _, argument = service.partition(":")
                if service == "host:version":
                    connection.sendall(b"OKAY" + _counted(_VERSION))
                    return
                if service.endswith(":features") and not self.refusal:
                    connection.sendall(b"OKAY" + _counted(b"shell_v2,cmd"))
                    return
                if service == f"host:tport:serial:{SERIAL}" and not self.refusal:
                    connection.sendall(b"OKAY" + struct.pack("<q", 1))
                elif service == f"host:transport:{SERIAL}" and not self.refusal:
                    connection.sendall(b"OKAY")
                elif name.startswith("shell,v2") and name.endswith("raw"):
                    connection.sendall(b"OKAY")
                    self._shell(connection, argument)
                    return
                else:
                    refusal = self.refusal or f"device '{service}' not found"
                    connection.sendall(b"FAIL" + _counted(refusal.encode()))
                    return

    def _shell(self, connection: socket.socket, command: str) -> None:
        process = subprocess.Popen(
            ("sh", "-c", command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **self._environment},
            start_new_session=True,
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        sending = threading.Lock()

        def pass_on(stream: int, file: int) -> None:
            while data := os.read(file, 65536):
                with sending:
                    connection.sendall(struct.pack("<BI", stream, len(data)) + data)

        def pass_in(stdin: int) -> None:
            try:
                while header := _exactly(connection, 5):
                    kind, length = struct.unpack("<BI", header)
                    data = _exactly(connection, length)
                    if kind == _STDIN:
                        os.write(stdin, data)
                    elif kind == _CLOSE_STDIN:
                        break
            except OSError:  # one of both is gone
                pass
            finally:
                os.close(stdin)

        stdin = os.dup(process.stdin.fileno())
        process.stdin.close()
        threading.Thread(target=pass_in, args=(stdin,), daemon=True).start()
        readers = [
            threading.Thread(target=pass_on, args=(_STDOUT, process.stdout.fileno()), daemon=True),
            threading.Thread(target=pass_on, args=(_STDERR, process.stderr.fileno()), daemon=True),
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        code = process.wait()
        with sending:
            connection.sendall(struct.pack("<BIB", _EXIT, 1, code & 0xFF))
        connection.shutdown(socket.SHUT_RDWR)  # the client waits for it, and a thread reads yet
        process.stdout.close()
        process.stderr.close()


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            return b""
        data += part
    return data


def _counted(data: bytes) -> bytes:
    return f"{len(data):04x}".encode() + data


@pytest.fixture
def android(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbServer]:
    """A device without a home, whose folder is that of its TMPDIR."""
    (tmp_path / "tmp").mkdir()
    server = AdbServer({"HOME": "/proc", "TMPDIR": str(tmp_path / "tmp")})
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
    yield server
    server.close()
    assert not any((tmp_path / "tmp").iterdir())
