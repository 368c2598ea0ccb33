"""Files that appear whole, and all of them, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from levit_deploy.errors import DeployError


def check_writable(path: Path) -> None:
    """Raise DeployError if `write_files` is bound to fail: asked before long work, not for it."""
    folder = path.parent
    if not folder.is_dir():
        raise DeployError(f"cannot write `{path}`: `{folder}` is not a folder", hint="-o FILE")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DeployError(f"cannot write `{path}`: `{folder}` is read-only", hint="-o FILE")


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write each path's content beside it, and when all are complete put them in place.

    Whatever stops this leaves the old files, or none. Raises DeployError if one cannot be written.
    """
    staged = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}") for path in contents}
    try:
        for path, content in contents.items():
            staged[path].write_bytes(content)
        for path in contents:
            staged[path].replace(path)
    except OSError as error:
        raise DeployError(
            f"cannot write `{path}`: {error.strerror}",
            hint="free some space, or choose another file: -o FILE",
        ) from error
    finally:
        for partial in staged.values():
            partial.unlink(missing_ok=True)
