"""What is going on, on stderr: one line for each phase, alive while it runs."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from levit_deploy.commands.limits import check_threads
from levit_deploy.commands.output import bytes_text, printable_lines
from levit_deploy.records import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Phases:
    """Phases of a long job, as a context manager around it.

    On a terminal a spinner or bar with the time so far; otherwise one line when a phase is done.
    It raises DeployError where the job cannot have its threads.
    """

    def __enter__(self) -> Self:
        check_threads()
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<8}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._title, self._started = "", 0.0
        self._progress.start()
        return self

    def note(self, text: str) -> None:
        """Lines that stay, above whatever is alive."""
        self._console.print(printable_lines(text), markup=False, soft_wrap=True)

    def show(self, title: str, detail: str) -> None:
        """Now the phase `title` does `detail`; begins it if it is another than before."""
        if title != self._title:
            self.begin(title)
        self.detail(detail)

    def begin(self, title: str) -> None:
        """End the phase before, and start this one."""
        self._finish()
        self._title, self._started = title, time.monotonic()
        self._task = self._progress.add_task(title, total=None, detail="")

    def detail(self, text: str) -> None:
        """Say what the phase is doing right now."""
        if self._task is not None:
            self._progress.update(self._task, detail=printable(text))

    def amount(self, done_bytes: int, total_bytes: int | None) -> None:
        """Say how much of a download is done."""
        of_total = f" of {bytes_text(total_bytes)}" if total_bytes else ""
        self.detail(f"{bytes_text(done_bytes)}{of_total}")

    def _finish(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._console.print(f"{self._title:<8} {time.monotonic() - self._started:6.1f} s")
            self._task = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        self._progress.stop()
