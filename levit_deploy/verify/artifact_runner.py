"""The artifact on a machine: its shared library, or a program around the static one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import Machine
from levit_deploy.machines.open import NothingRunsError, machine_for
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.boards_runner import BoardsRunner
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.level import level_for
from levit_deploy.verify.library_runner import LibraryRunner
from levit_deploy.verify.program_runner import ProgramRunner, link_run_images
from levit_deploy.verify.runner import Runner

_EMULATED_IMAGES = 8  # a process: seconds each, and less than the patience for a child


class ArtifactRunner(Runner):
    """Floats through `run`, in processes of their own that may crash; usable by several threads.

    `boards`: where; without, on `machine`, which is this one or the emulator on it that its code
    needs. Of a library for several CPUs it is the code that the machine gets to use.
    Raises DeployError if nothing here, or not each of the boards, can execute it.
    """

    def __init__(self, artifact: Artifact, boards: Sequence[Machine] = ()) -> None:
        manifest = artifact.manifest
        self.boards = BoardsRunner(artifact, Function.RUN, boards) if boards else None
        self._artifact, self._level = artifact, level_for(manifest, read_cpu())
        self._target = manifest.on_device(self._level or manifest.base_target)
        try:
            self.machine = boards[0] if boards else machine_for(self._target)
        except NothingRunsError as error:
            raise DeployError(
                f"cannot run `{artifact.folder}`: {error.message}", hint=error.hint
            ) from error

    def activate(self) -> None:
        with ExitStack() as stack:
            self._runner: BoardsRunner | LibraryRunner | ProgramRunner
            if self.boards:
                self._runner = self.boards
            elif self.machine.loads(self._target):
                self._runner = LibraryRunner(self._artifact, Function.RUN, level=self._level)
            else:
                work = stack.enter_context(tempfile.TemporaryDirectory(prefix="levit-deploy-"))
                program = Path(work) / "run_images"
                link_run_images(self._artifact, find_toolchain(self._target), program, self._level)
                self._runner = ProgramRunner(program, Function.RUN, self.machine, self._level)
            stack.enter_context(self._runner)
            self._stack = stack.pop_all()
        self.name = self._runner.name

    def deactivate(self) -> None:
        self._stack.close()

    def infer(self, images: Images) -> Logits:
        return np.concatenate([self._runner.infer(piece) for piece in self._pieces(images)])

    def prepare(self, images: Images) -> NDArray[np.uint8]:
        """The images (n, size, size, channels) that the library makes of `images.frames`."""
        return np.concatenate([self._runner.prepare(piece) for piece in self._pieces(images)])

    def _pieces(self, images: Images) -> Iterator[Images]:
        step = _EMULATED_IMAGES if self.machine.emulated else len(images)
        for start in range(0, len(images), step):
            yield images.part(slice(start, start + step))
