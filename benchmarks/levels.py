"""What one library for every CPU costs beside a library for each: time and bytes.

    python -m benchmarks.levels ANY_DIR DIR [DIR ...]

ANY_DIR is an artifact for `x86-64-any` or `arm64-any`, each DIR one for a target that it has code
for and that this CPU runs. One thread; process CPU time, the minimum of ROUNDS interleaved runs.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.loader import Library

ROUNDS = 400


def main() -> None:
    together, *single = (Artifact.load(Path(folder)) for folder in sys.argv[1:])
    size = together.manifest.image_size
    image = np.random.default_rng(0).standard_normal((3, size, size), dtype=np.float32)
    runs: list[Callable[[], object]] = []
    with tempfile.TemporaryDirectory() as work:
        for artifact in single:
            # A copy: code is chosen once for each library that is loaded.
            folder = Path(work) / artifact.folder.name
            shutil.copytree(together.folder, folder)
            os.environ["LEVIT_DEPLOY_LEVEL"] = artifact.manifest.target
            as_level, alone = Library(folder), Library(artifact.folder)
            assert as_level.describe().target == artifact.manifest.target
            np.testing.assert_array_equal(as_level.run(image), alone.run(image))
            runs += [lambda lib=as_level: lib.run(image), lambda lib=alone: lib.run(image)]  # type: ignore[misc]
        best = [float("inf")] * len(runs)
        for _ in range(ROUNDS):
            for index, run in enumerate(runs):
                start = time.process_time_ns()
                run()
                best[index] = min(best[index], (time.process_time_ns() - start) / 1e6)
    total = together.shared_library.stat().st_size
    for artifact, in_any, alone_ms in zip(single, best[::2], best[1::2], strict=True):
        size = artifact.shared_library.stat().st_size
        print(
            f"{artifact.manifest.target}: {in_any:.2f} ms, alone {alone_ms:.2f} "
            f"({in_any / alone_ms:.3f}); {total / 1e6:.2f} MB, alone {size / 1e6:.2f} "
            f"({total / size:.3f})"
        )


if __name__ == "__main__":
    main()
