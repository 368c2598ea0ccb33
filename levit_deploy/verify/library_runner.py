"""The shared library, loaded by a Python process of its own.

The child is this file run as a module; it imports nothing but the loader and numpy.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.loader import Library
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.entry import Entry
from levit_deploy.verify.images import Images
from levit_deploy.verify.process import run_child
from levit_deploy.verify.runner import Runner


class LibraryRunner(Runner):
    """`threads`: how many share the work of one image; the logits must not depend on it."""

    def __init__(self, artifact: Artifact, entry: Entry, *, threads: int = 1) -> None:
        self._library, self._entry, self._threads = artifact.shared_library, entry, threads
        with_threads = f" with {threads} threads" if threads > 1 else ""
        self.name = f"{entry.function} of {self._library.name}{with_threads} on this CPU"

    def infer(self, images: Images) -> Logits:
        with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
            inputs, outputs = Path(name) / "images.npy", Path(name) / "logits.npy"
            np.save(inputs, self._entry.pixels(images))
            command = (sys.executable, "-m", __name__, self._library, self._entry.value)
            run_child((*command, str(self._threads), inputs, outputs))
            logits: Logits = np.load(outputs)
            return logits


def _child(library: str, entry: str, threads: str, inputs: str, outputs: str) -> None:
    loaded = Library(Path(library), threads=int(threads))
    loaded.self_test()
    images = np.load(inputs)
    if entry == Entry.F32:
        logits = [loaded.run(image) for image in images]
    else:
        logits = [loaded.run_rgb8(image) for image in images]
    np.save(outputs, np.stack(logits))
    loaded.close()


if __name__ == "__main__":
    try:
        _child(*sys.argv[1:])
    except DeployError as error:
        sys.exit(error.message)
