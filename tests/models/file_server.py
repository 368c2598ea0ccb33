"""A local HTTP server with the habits, good and bad, of real ones."""

import http.server
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class FileServer:
    """Serves `content` under every path; the flags may change between requests.

    `cuts`: for each coming request, after how many bytes the connection breaks off.
    """

    url: str
    content: bytes
    ranges: bool = True
    status: int | None = None
    pause_s: float = 0.0
    declares_length: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    knows_head: bool = True
    cuts: list[int] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)  # the Range header of each


@contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if server.status is not None or not server.knows_head:
                self.send_error(server.status or 405)
                return
            self.send_response(200)
            self.send_versions()
            self.end_headers()

        def send_versions(self) -> None:
            for name, value in server.headers.items():
                self.send_header(name, value)

        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            server.requests.append(wanted)
            if server.status is not None:
                self.send_error(server.status)
                return
            start = 0
            if wanted and server.ranges:
                match = re.fullmatch(r"bytes=(\d+)-", wanted)
                assert match is not None
                start = int(match[1])
                if start >= len(server.content):
                    self.send_error(416)
                    return
                self.send_response(206)
                end = len(server.content)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
            else:
                self.send_response(200)
            self.send_versions()
            body = server.content[start:]
            if server.declares_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if server.pause_s:
                self.wfile.write(body[:10])
                time.sleep(server.pause_s)
                body = body[10:]
            if server.cuts:
                body = body[: server.cuts.pop(0)]
            with suppress(ConnectionError):  # the client has heard enough
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server = FileServer(f"http://127.0.0.1:{listener.server_port}", content)
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
