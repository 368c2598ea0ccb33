"""A package's files -> one archive, the same bytes whenever and wherever it is made."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

# Path in the archive, with forward slashes -> content, or the file that has it.
Tree = Mapping[str, bytes | Path]
Writer = Callable[[Tree, Path], None]

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644


def content(entry: bytes | Path) -> bytes:
    """What an entry of a tree holds."""
    return entry if isinstance(entry, bytes) else entry.read_bytes()


def write_zip(tree: Tree, path: Path) -> None:
    """Entries in the order of `tree`, deflated, of the year 1980, readable by all."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, entry in tree.items():
            info = zipfile.ZipInfo(name, _ZIP_EPOCH)
            info.create_system = 3  # Unix: `external_attr` is a mode
            info.external_attr = (0o100000 | _MODE) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content(entry))


def write_tar(tree: Tree, path: Path) -> None:
    """Entries in the order of `tree`, gzipped, of no time and no owner."""
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, entry in tree.items():
            data = content(entry)
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), _MODE
            archive.addfile(info, io.BytesIO(data))
