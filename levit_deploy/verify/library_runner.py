"""The shared library, loaded by a Python process of its own (library_worker)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.process import run_child, worker_command
from levit_deploy.verify.runner import Runner

_WORKER = "levit_deploy.verify.library_worker"


class LibraryRunner(Runner):
    """`threads`: how many share the work of one image; the logits must not depend on it."""

    def __init__(self, artifact: Artifact, function: Function, *, threads: int = 1) -> None:
        self._library, self._function, self._threads = artifact.shared_library, function, threads
        with_threads = f" with {threads} threads" if threads > 1 else ""
        self.name = f"{function} of {self._library.name}{with_threads} on this CPU"

    def infer(self, images: Images) -> Logits:
        with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
            inputs, outputs = Path(name) / "images.npz", Path(name) / "logits.npy"
            np.savez(inputs, *images.of(self._function))
            arguments = (self._library, self._function, str(self._threads), inputs, outputs)
            run_child(worker_command(_WORKER, *arguments))
            logits: Logits = np.load(outputs)
            return logits
