"""The child of a LibraryRunner: load a shared library, classify, leave.

Run as a module: `library_worker LIBRARY FUNCTION THREADS IMAGES.npz LOGITS.npy`, with a function
of `Library`, of images in the order in which they were saved. It imports nothing but the loader and
numpy: it is started for every few images, and is to start at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from levit_deploy.errors import DeployError
from levit_deploy.runtime.frame import Frame
from levit_deploy.runtime.loader import Library

CANNOT_EXECUTE = 126  # exit code, as of shells: found, but may not be executed


def main(library: str, function: str, threads: str, inputs: str, outputs: str) -> None:
    loaded = Library(Path(library), threads=int(threads))
    loaded.self_test()
    images = np.load(inputs)
    run = getattr(loaded, function)
    frames = function == "run_frame"
    np.save(
        outputs,
        np.stack([run(Frame.of(image) if frames else image) for image in images.values()]),
    )
    loaded.close()


def may_not_execute(error: DeployError) -> bool:
    """Whether the loader was not let map code, as from a folder mounted noexec."""
    return isinstance(error.__cause__, OSError) and any(
        words in str(error.__cause__)
        for words in ("failed to map segment", "Operation not permitted", "Permission denied")
    )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except DeployError as error:
        print(error.message, file=sys.stderr)
        sys.exit(CANNOT_EXECUTE if may_not_execute(error) else 1)
