"""Headless Chromium, driven over a pipe by the DevTools protocol: what a person would see."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Browser:
    """One tab. `complaints`: errors and warnings of the page; `requests`: every URL it asked for.

    https://chromedevtools.github.io/devtools-protocol; --remote-debugging-pipe speaks it as JSON
    on the file descriptors 3 (in) and 4 (out), each message followed by a zero byte.
    """

    def __init__(self, profile: Path) -> None:
        self.complaints, self.requests = [], []
        self._last, self._loaded, self._rest = 0, False, b""
        inbox, self._commands = os.pipe()
        self._events, outbox = os.pipe()

        def connect() -> None:  # via high numbers, so that 3 and 4 are free to be taken
            high = [os.dup2(end, 100 + i) for i, end in enumerate((inbox, outbox))]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        quiet = ("--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage")
        self._process = subprocess.Popen(
            (EXECUTABLE, *options, *quiet, f"--user-data-dir={profile}", "--remote-debugging-pipe"),
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(inbox)
        os.close(outbox)
        self._session = None
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        attached = self._send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def open(self, page: Path, *, width: int, scheme: str) -> None:
        """Load a file at a width in CSS pixels, in the `light` or the `dark` colour scheme."""
        self.complaints.clear()
        self.requests.clear()
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._send("Emulation.setEmulatedMedia", features=features)
        self._loaded = False
        self._send("Page.navigate", url=page.as_uri())
        while not self._loaded:
            self._receive()

    def evaluate(self, expression: str):
        """The value of a JavaScript expression in the page."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        answer = self._send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        self._session = None
        self._send("Browser.close")
        self._process.wait(timeout=30)
        os.close(self._commands)
        os.close(self._events)

    def _send(self, method: str, **params):
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _receive(self):
        while b"\0" not in self._rest:
            chunk = os.read(self._events, 1 << 20)
            assert chunk, "the browser has gone"
            self._rest += chunk
        line, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(line)
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(message["params"])
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return message
