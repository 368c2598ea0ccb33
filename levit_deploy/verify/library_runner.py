"""The shared library, loaded by a Python process of its own (library_worker)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.description import expected_description
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.process import run_child, worker_command
from levit_deploy.verify.runner import Runner

_WORKER = "levit_deploy.verify.library_worker"


class LibraryRunner(Runner):
    """`threads`: how many share the work of one image; the logits must not depend on it."""

    def __init__(self, artifact: Artifact, function: Function, *, threads: int = 1) -> None:
        self._library, self._function, self._threads = artifact.shared_library, function, threads
        self._description = expected_description(artifact.manifest)
        with_threads = f" with {threads} threads" if threads > 1 else ""
        self.name = f"{function} of {self._library.name}{with_threads} on this CPU"

    def infer(self, images: Images) -> Logits:
        with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
            inputs, outputs = Path(name) / "images.npz", Path(name) / "logits.npy"
            np.savez(inputs, *images.of(self._function))
            self._run(Path(name), self._function, str(self._threads), inputs, outputs)
            logits: Logits = np.load(outputs)
            return logits

    def check(self) -> None:
        """Raise DeployError if the library is not the one of its manifest; run no more of it."""
        with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
            self._run(Path(name))

    def _run(self, work: Path, *job: str | Path) -> None:
        description = work / "description"
        description.write_text(self._description)
        run_child(worker_command(_WORKER, self._library, description, *job))
