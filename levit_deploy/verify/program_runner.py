"""The static library in a C program, run by any machine."""

from __future__ import annotations

import copy
import struct
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.program import EIGHT_BIT
from levit_deploy.machines.machine import Machine, RunError
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.levit import Frame
from levit_deploy.targets.toolchain import Toolchain
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.link_around import CSRC, link_around
from levit_deploy.verify.process import level_variable
from levit_deploy.verify.runner import Runner

SOURCE = CSRC / "run_images.c"
_PROGRAM = "run_images"


def link_run_images(
    artifact: Artifact, toolchain: Toolchain, program: Path, level: str | None = None
) -> None:
    """Make `program` of csrc/run_images.c and the artifact's static library.

    Raises DeployError as `link_around` does.
    """
    run_8bit = EIGHT_BIT[artifact.manifest.card.in_chans].function
    flags = (f"-DRUN_8BIT=_{run_8bit}",)
    link_around(artifact, toolchain, (SOURCE,), program, level, flags)


class ProgramRunner(Runner):
    """One function, in a program that `link_run_images` made; it also runs the self test.

    `machine`: where. `level`: which code a library for several CPUs is to use. Several threads may
    use it.
    """

    def __init__(
        self, program: Path, function: Function, machine: Machine, level: str | None = None
    ) -> None:
        self._program, self._function, self._machine = program, function, machine
        self._variables = level_variable(level)
        used = f" as {level}" if level else ""
        self._place = f"in a C program{used} on {machine.name}"
        self.name = f"{function} {self._place}"

    def doing(self, function: Function) -> ProgramRunner:
        """The same for another function, while this one is active."""
        other = copy.copy(self)
        other._function, other.name = function, f"{function} {self._place}"
        return other

    def activate(self) -> None:
        with ExitStack() as stack:
            here = stack.enter_context(tempfile.TemporaryDirectory(prefix="levit-deploy-"))
            self._here = Path(here)
            self._there = stack.enter_context(self._machine.workplace())
            self._there.put(self._program, _PROGRAM, executable=True)
            self._places = stack.pop_all()

    def deactivate(self) -> None:
        self._places.close()

    def infer(self, images: Images) -> Logits:
        logits = np.frombuffer(self._results(self._function, images), np.float32)
        if logits.size == 0 or logits.size % len(images):
            raise RunError(f"wrote {logits.size} logits for {len(images)} images")
        return logits.reshape(len(images), -1)

    def prepare(self, images: Images) -> NDArray[np.uint8]:
        """The images (n, size, size, channels) that the library makes of `images.frames`."""
        prepared = np.frombuffer(self._results(Function.PREPARE, images), np.uint8)
        return prepared.reshape(images.pixels.shape)

    def _results(self, function: Function, images: Images) -> bytes:
        thread = threading.get_ident()  # one set of names for each, so that files do not pile up
        inputs, outputs = f"images-{thread}", f"results-{thread}"
        with (self._here / inputs).open("wb") as file:
            for image in images.of(function):
                if function in (Function.RUN_FRAME, Function.PREPARE):
                    height, width, channels = image.shape
                    layout = Frame.of(image.astype(np.uint8, copy=False)).format
                    file.write(struct.pack("=4i", width, height, channels, layout))
                file.write(image.tobytes())
        self._there.put(self._here / inputs, inputs)
        self._there.run((_PROGRAM, function, inputs, outputs), env=self._variables)
        return self._there.get(outputs)
