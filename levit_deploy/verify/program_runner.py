"""The static library in a C program, run by this CPU or by an emulator."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.toolchain import Toolchain
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.entry import Entry
from levit_deploy.verify.images import Images
from levit_deploy.verify.process import run_child
from levit_deploy.verify.runner import Runner

SOURCE = Path(__file__).parent / "csrc" / "run_images.c"


class ProgramRunner(Runner):
    """csrc/run_images.c, linked with the artifact's static library; it also runs the self test.

    `emulator`: the command before the program's own, empty where this CPU runs it. The program is
    linked statically, so an emulator needs no files of the target's system.
    """

    def __init__(
        self, artifact: Artifact, entry: Entry, toolchain: Toolchain, emulator: tuple[str, ...] = ()
    ) -> None:
        self._artifact, self._entry = artifact, entry
        self._toolchain, self._emulator = toolchain, emulator
        place = " ".join((Path(emulator[0]).name, *emulator[1:])) if emulator else "this CPU"
        self.name = f"{entry.function} in a C program on {place}"

    def activate(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="levit-deploy-")
        self._program = Path(self._folder.name) / "run_images"
        manifest = self._artifact.manifest
        flags = (
            f"-DMODEL={manifest.name}",
            f'-DHEADER="{self._artifact.header.name}"',
            f"-I{self._artifact.folder.resolve()}",
        )
        inputs = (SOURCE.resolve(), self._artifact.static_library.resolve())
        self._toolchain.link_program(inputs, self._program, flags)

    def infer(self, images: Images) -> Logits:
        folder = Path(self._folder.name)
        inputs, outputs = folder / "images", folder / "logits"
        self._entry.pixels(images).tofile(inputs)
        run_child((*self._emulator, self._program, self._entry.value, inputs, outputs), self.name)
        logits: Logits = np.fromfile(outputs, np.float32)
        return logits.reshape(len(images), self._artifact.manifest.classes)

    def deactivate(self) -> None:
        self._folder.cleanup()
