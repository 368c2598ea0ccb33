"""Files that a reader sees as they were, or as they are to be."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_in_one_step(path: Path, text: str) -> None:
    """Write the file, or replace it; once this returns, it survives a crash of the machine."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
