"""How far an audit is: on a terminal all the time, in a log now and then."""

from __future__ import annotations

import time
from typing import Self

from levit_deploy.commands.progress import Phases

_NOTE_S = 60  # a log, which shows nothing alive, gets a line this often


class ImageProgress:
    """How many images are done and how long the rest takes; after an interruption, how to go on."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._began: tuple[float, int] | None = None
        self._noted = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began, self._noted = (now, done), now
        started, first = self._began
        text = f"{done} of {total} images"
        if done > first:
            left_s = (now - started) / (done - first) * (total - done)
            text += f", about {left_s:.0f} s left"
        self._phases.detail(text)
        if now - self._noted > _NOTE_S:
            self._noted = now
            self._phases.note(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None and self._began is not None:
            self._phases.note("what is done is kept: the same command with --resume goes on")
