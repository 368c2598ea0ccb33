"""The shared library, loaded by a Python process of its own (library_worker)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levit_deploy.machines.process import run_child
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.description import expected_description
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.process import level_variable, worker_command
from levit_deploy.verify.runner import Runner

_WORKER = "levit_deploy.verify.library_worker"


class LibraryRunner(Runner):
    """`threads`: how many share the work of one image; the logits must not depend on it. `level`:
    which code a library for several CPUs is to use."""

    def __init__(
        self,
        artifact: Artifact,
        function: Function,
        *,
        threads: int = 1,
        level: str | None = None,
    ) -> None:
        self._library, self._function, self._threads = artifact.shared_library, function, threads
        self._level, self._description = level, expected_description(artifact.manifest, level)
        with_threads = f" with {threads} threads" if threads > 1 else ""
        used = f" as {level}" if level else ""
        self.name = f"{function} of {self._library.name}{used}{with_threads} on this CPU"

    def infer(self, images: Images) -> Logits:
        return self._results(self._function, images).astype(np.float32, copy=False)

    def prepare(self, images: Images) -> NDArray[np.uint8]:
        """The images (n, size, size, channels) that the library makes of `images.frames`."""
        return self._results(Function.PREPARE, images).astype(np.uint8, copy=False)

    def _results(self, function: Function, images: Images) -> NDArray[Any]:
        with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
            inputs, outputs = Path(name) / "images.npz", Path(name) / "results.npy"
            np.savez(inputs, *images.of(function))
            self._run(Path(name), function, str(self._threads), inputs, outputs)
            results: NDArray[Any] = np.load(outputs)
            return results

    def check(self) -> None:
        """Raise DeployError if the library is not the one of its manifest; run no more of it."""
        with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
            self._run(Path(name))

    def _run(self, work: Path, *job: str | Path) -> None:
        description = work / "description"
        description.write_text(self._description)
        command = worker_command(_WORKER, self._library, description, *job)
        run_child(command, env=level_variable(self._level))
