"""The artifact on several boards: whoever asks gets a free one, and another where that is lost."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from levit_deploy.machines.machine import Machine, MachineLostError
from levit_deploy.machines.open import machine_for
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.level import level_for
from levit_deploy.verify.program_runner import ProgramRunner, link_run_images
from levit_deploy.verify.runner import Runner

_Result = TypeVar("_Result")


class BoardsRunner(Runner):
    """One function; usable by as many threads as there are boards, others wait.

    Raises DeployError if a board is of another CPU, MachineLostError if none is left.
    """

    def __init__(self, artifact: Artifact, function: Function, boards: Sequence[Machine]) -> None:
        for board in boards:
            machine_for(artifact.manifest.device, board)
        self._artifact, self._function, self._boards = artifact, function, boards
        self.name = f"{function} in a C program on {', '.join(board.name for board in boards)}"
        self._changed = threading.Condition()
        self._free: list[ProgramRunner] = []
        self._running = len(boards)
        self._lost: list[str] = []
        self._told = 0  # of those

    def activate(self) -> None:
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="levit-deploy-")))
            for board in self._boards:
                level = level_for(self._artifact.manifest, board.cpu())
                program = work / f"run_images_{level}"
                if not program.exists():
                    manifest = self._artifact.manifest
                    toolchain = find_toolchain(manifest.on_device(level or manifest.base_target))
                    link_run_images(self._artifact, toolchain, program, level)
                runner = ProgramRunner(program, self._function, board, level)
                self._free.append(stack.enter_context(runner))
            self._stack = stack.pop_all()

    def deactivate(self) -> None:
        self._stack.close()

    def infer(self, images: Images) -> Logits:
        return self._on_some_board(lambda runner: runner.infer(images))

    def prepare(self, images: Images) -> NDArray[np.uint8]:
        """The images (n, size, size, channels) that the library makes of `images.frames`."""
        return self._on_some_board(lambda runner: runner.prepare(images))

    def lost_lately(self) -> tuple[str, ...]:
        """A line for each board that was lost since this was asked last."""
        with self._changed:
            lost = tuple(self._lost[self._told :])
            self._told = len(self._lost)
        return lost

    def _on_some_board(self, work: Callable[[ProgramRunner], _Result]) -> _Result:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._free or not self._running)
                if not self._running:
                    raise MachineLostError(
                        f"no board is left: {'; '.join(self._lost)}",
                        hint="see to them, and go on: the same command with --resume",
                    )
                runner = self._free.pop()
            lost: MachineLostError | None = None
            try:
                return work(runner)
            except MachineLostError as error:
                lost = error
            finally:
                with self._changed:
                    if lost is None:
                        self._free.append(runner)
                    else:
                        self._running -= 1
                        self._lost.append(lost.message)
                    self._changed.notify_all()
