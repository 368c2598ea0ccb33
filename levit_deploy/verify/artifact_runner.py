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
from levit_deploy.runtime.manifest import Manifest
from levit_deploy.targets.emulator import missing_emulator, run_prefix
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.system import Family, System
from levit_deploy.targets.table import get_target
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
    Of a library for several CPUs it is the code that this machine gets to use.
    Raises DeployError if nothing on this machine can execute it.
    """

    def __init__(self, artifact: Artifact) -> None:
        self._level = level_here(artifact.manifest)
        target = artifact.manifest.on_device(self._level or artifact.manifest.base_target)
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
                self._artifact, Function.RUN, level=self._level
            )
        else:
            program = Path(self._work.name) / "run_images"
            link_run_images(self._artifact, find_toolchain(self._target), program, self._level)
            self._runner = ProgramRunner(program, Function.RUN, self.command, self._level)
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


def level_here(manifest: Manifest) -> str | None:
    """Which code of a library for several CPUs this CPU uses, or an emulator of the least
    demanding one; None if the library has no choice."""
    if not manifest.levels:
        return None
    cpu = read_cpu()
    fitting = (level for level in manifest.levels if cpu.runs(get_target(level)))
    return next(fitting, manifest.levels[-1])


def loads_here(system: System) -> bool:
    """Whether this Python's C library is of the family that a shared library was linked for."""
    return system.family == (platform.libc_ver()[0] or Family.MUSL)
