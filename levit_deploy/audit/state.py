"""The work of an audit on disk: the folder `.audit` in the report's: settings, chunks, timing.

It grows by one whole file at a time, so an audit that was killed goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from levit_deploy.audit.chunk import Chunk
from levit_deploy.audit.result import Latency
from levit_deploy.audit.settings import Settings
from levit_deploy.errors import DeployError
from levit_deploy.files import is_partial, sweep, write_files
from levit_deploy.records import load_record, to_json

FOLDER = ".audit"
JSON_FILE = "audit.json"
PAGE_FILE = "audit.html"
PLAN_FILE = "recipe.json"
_REPORT_FILES = (JSON_FILE, PAGE_FILE, PLAN_FILE)
_SETTINGS = "settings.json"
_TIMING = "timing.json"
_OTHER = "choose another: -o DIR"


@dataclass(frozen=True)
class Timing:
    """`latency`: None if the library could not be timed where its images were classified."""

    SCHEMA_VERSION: ClassVar[int] = 1

    latency: Latency | None


class State:
    """`report`: the folder of the report."""

    def __init__(self, report: Path) -> None:
        self.report = report
        self._folder = report / FOLDER

    def exists(self) -> bool:
        return (self._folder / _SETTINGS).is_file()

    def settings(self) -> Settings:
        """Raises DeployError if there are none, or if they are damaged."""
        if not self.exists():
            raise DeployError(
                f"`{self.report}` holds no audit",
                hint="name folders that `levit-deploy audit ... --shard` wrote",
            )
        return Settings.load(self._folder / _SETTINGS)

    def begin(self, settings: Settings, *, anew: bool) -> None:
        """Write the settings, if they are not there yet. `anew`: remove all work before.

        An older report stays until there is a new one; at any moment there is something to resume.
        """
        if anew:
            for chunk in self._folder.glob("chunk-*.npz"):
                chunk.unlink()
            (self._folder / _TIMING).unlink(missing_ok=True)
        if anew or not self.exists():
            write_files({self._folder / _SETTINGS: to_json(settings).encode()}, hint=_OTHER)

    def store(self, number: int, chunk: Chunk) -> None:
        chunk.save(self._chunk_file(number))

    def has(self, number: int) -> bool:
        return self._chunk_file(number).is_file()

    def load(self, number: int, settings: Settings) -> Chunk:
        """Raises DeployError if it is damaged, or not a chunk of that audit."""
        path = self._chunk_file(number)
        chunk = Chunk.load(path)
        if not chunk.fits(number, settings):
            raise DeployError(
                f"`{path}` is not a chunk of this audit", hint=f"rm {path}, and go on with --resume"
            )
        return chunk

    def store_timing(self, timing: Timing) -> None:
        write_files({self._folder / _TIMING: to_json(timing).encode()}, hint=_OTHER)

    def timing(self) -> Timing | None:
        """None if nothing was measured yet; raises DeployError if it is damaged."""
        path = self._folder / _TIMING
        if not path.is_file():
            return None
        return load_record(Timing, path, hint=f"rm {path}, and go on with --resume")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises DeployError if another process works on the same folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DeployError(
                    f"another audit is at work in `{self.report}`", hint=_OTHER
                ) from None
            for folder in (self.report, self._folder):
                sweep(folder)
            yield
        finally:
            os.close(handle)

    def _chunk_file(self, number: int) -> Path:
        return self._folder / f"chunk-{number:06}.npz"


def check_report(report: Path, settings: Settings | None, *, resume: bool, force: bool) -> None:
    """Raise DeployError rather than overwrite anything.

    `settings`: of the audit that is to go on there, if they are known yet. An existing report needs
    `force`, unfinished work `resume`; what no audit put there is left alone always.
    """
    state = State(report)
    if not report.exists():
        return
    if not report.is_dir():
        raise DeployError(f"`{report}` is not a folder", hint=_OTHER)
    names = {path.name for path in report.iterdir() if not is_partial(path.name)}
    if foreign := sorted(names - {FOLDER, *_REPORT_FILES}):
        raise DeployError(
            f"`{report}` holds `{foreign[0]}`, which is of no audit's report", hint=_OTHER
        )
    if resume and state.exists():
        difference = settings.difference(state.settings()) if settings else None
        if difference:
            raise DeployError(
                f"`{report}` holds an audit with other settings: {difference}",
                hint="use the same ones, or begin anew: --force",
            )
    elif names and not force:
        if JSON_FILE in names:
            raise DeployError(f"`{report}` holds a report", hint=f"replace it: --force; {_OTHER}")
        if state.exists():
            raise DeployError(
                f"`{report}` holds an audit that was not finished",
                hint="go on: --resume; begin anew: --force",
            )


def whole_audit(states: Iterable[State]) -> tuple[Settings, dict[int, State]]:
    """(the settings that all shards share, where each chunk is).

    Raises DeployError if they are of different audits, or do not make one whole.
    """
    states = tuple(states)
    settings = states[0].settings()
    classes = max(settings.classes, 2)  # those of one logit are its signs
    if len(settings.class_names) not in (0, classes):
        raise DeployError(
            f"`{states[0].report}` names {len(settings.class_names)} of {classes} classes",
            hint="begin anew: levit-deploy audit ... --force",
        )
    for state in states[1:]:
        if difference := state.settings().difference(settings):
            raise DeployError(
                f"`{state.report}` is of another audit than `{states[0].report}`: {difference}",
                hint="merge shards of one audit, made with the same options",
            )
    where: dict[int, State] = {}
    for number in range(settings.chunks):
        owners = [state for state in states if state.has(number)]
        if not owners:
            images = settings.positions(number)
            raise DeployError(
                f"images {images.start} to {images.stop - 1} of {settings.images} are in none of "
                "the shards",
                hint="name all shards; finish one with `levit-deploy audit ... --shard --resume`",
            )
        where[number] = owners[0]
    return settings, where
