"""The artifact on this machine: its shared library, or a program around the static one."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.emulator import missing_emulator, run_prefix
from levit_deploy.targets.system import Family, System
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.library_runner import LibraryRunner
from levit_deploy.verify.program_runner import ProgramRunner, link_run_images
from levit_deploy.verify.runner import Runner

_EMULATED_IMAGES = 8  # a process: seconds each, and less than the patience for a child


class ArtifactRunner(Runner):
    """Floats through `run`, in processes of their own that may crash; usable by several threads.

    `emulated`: whether this CPU needs an emulator for it; `command`: the emulator's, else empty.
    Raises DeployError if nothing on this machine can execute it.
    """

    def __init__(self, artifact: Artifact) -> None:
        target = artifact.manifest.device
        command = run_prefix(target)
        if command is None:
            missing, hint = missing_emulator(target)
            raise DeployError(f"cannot run `{artifact.folder}`: {missing}", hint=hint)
        self.emulated = command != ()
        self._artifact, self._target, self.command = artifact, target, command

    def __enter__(self) -> Self:
        self._work = tempfile.TemporaryDirectory(prefix="levit-deploy-")
        if not self.emulated and loads_here(self._target.system):
            self._runner: LibraryRunner | ProgramRunner = LibraryRunner(
                self._artifact, Function.RUN
            )
        else:
            program = Path(self._work.name) / "run_images"
            link_run_images(self._artifact, find_toolchain(self._target), program)
            self._runner = ProgramRunner(program, Function.RUN, self.command)
        self.name = self._runner.name
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._work.cleanup()

    def infer(self, images: Images) -> Logits:
        return np.concatenate([self._runner.infer(piece) for piece in self._pieces(images)])

    def prepare(self, images: Images) -> NDArray[np.uint8]:
        """The images (n, size, size, channels) that the library makes of `images.frames`."""
        return np.concatenate([self._runner.prepare(piece) for piece in self._pieces(images)])

    def _pieces(self, images: Images) -> Iterator[Images]:
        step = _EMULATED_IMAGES if self.emulated else len(images)
        for start in range(0, len(images), step):
            yield images.part(slice(start, start + step))


def loads_here(system: System) -> bool:
    """Whether this Python's C library is of the family that a shared library was linked for."""
    return system.family == (platform.libc_ver()[0] or Family.MUSL)
