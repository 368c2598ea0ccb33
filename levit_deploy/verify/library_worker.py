"""The child of a LibraryRunner: load a shared library, classify, leave.

Run as a module: `library_worker LIBRARY DESCRIPTION FUNCTION THREADS IMAGES.npz RESULTS.npy`, with
a function of `Library`, of images in the order in which they were saved; or `library_worker LIBRARY
DESCRIPTION`. DESCRIPTION is a file with what the library must say of itself, before anything else
of it is run. It imports nothing but the loader and numpy: it is started for every few images, and
is to start at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from levit_deploy.errors import DeployError
from levit_deploy.machines.process import ANOTHER_LIBRARY, CANNOT_EXECUTE
from levit_deploy.runtime.levit import Frame
from levit_deploy.runtime.loader import Library

# What a library says of itself; csrc/run_images.c has the same, in the same order.
FIELDS = (
    *("abi_version", "image_size", "channels", "classes", "exif", "workspace_bytes"),
    *("name", "model", "precision", "target", "weights_digest", "build_id"),
    *("tool_version", "preprocessing", "mean", "std"),
)


def description_text(values: Mapping[str, object]) -> str:
    """A line for each of FIELDS: its name and its value."""
    return "".join(f"{name} {_text(values[name])}\n" for name in FIELDS)


def _text(value: object) -> str:
    if isinstance(value, tuple):  # of floats
        return " ".join(f"{part:.9g}" for part in value)
    return str(int(value) if isinstance(value, bool) else value)


def load_described(library: str, description: str, threads: int = 1) -> Library:
    """The library, if it is the one of the file `description`; ends this process if it is not."""
    loaded = Library(Path(library), threads=threads)
    said = description_text(vars(loaded.describe())).split("\n")
    expected = Path(description).read_text().split("\n")
    if said != expected:
        others = [line for line, right in zip(said, expected, strict=False) if line != right]
        print(f"it says `{others[0]}`", file=sys.stderr)
        sys.exit(ANOTHER_LIBRARY)
    return loaded


def main(library: str, description: str, *job: str) -> None:
    loaded = load_described(library, description, int(job[1]) if job else 1)
    if not job:
        return
    function, _, inputs, outputs = job
    loaded.self_test()
    images = np.load(inputs)
    run = getattr(loaded, function)
    frames = function in ("run_frame", "prepare")
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
