"""The static library in a C program, run by this CPU or by an emulator."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.program import EIGHT_BIT
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.levit import Frame
from levit_deploy.targets.emulator import spelled
from levit_deploy.targets.toolchain import Toolchain
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.link_around import CSRC, link_around
from levit_deploy.verify.process import run_child
from levit_deploy.verify.runner import RunError, Runner

SOURCE = CSRC / "run_images.c"


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

    `emulator`: the command before the program's own, empty where this CPU runs it. `level`: which
    code a library for several CPUs is to use.
    """

    def __init__(
        self,
        program: Path,
        function: Function,
        emulator: tuple[str, ...] = (),
        level: str | None = None,
    ) -> None:
        self._program, self._function = program, function
        self._emulator, self._level = emulator, level
        place = spelled(emulator) if emulator else "this CPU"
        used = f" as {level}" if level else ""
        self.name = f"{function} in a C program{used} on {place}"

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
        with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
            inputs, outputs = Path(name) / "images", Path(name) / "results"
            with inputs.open("wb") as file:
                for image in images.of(function):
                    if function in (Function.RUN_FRAME, Function.PREPARE):
                        height, width, channels = image.shape
                        layout = Frame.of(image.astype(np.uint8, copy=False)).format
                        file.write(struct.pack("=4i", width, height, channels, layout))
                    file.write(image.tobytes())
            run_child(
                (*self._emulator, self._program, function, inputs, outputs), level=self._level
            )
            return outputs.read_bytes()
