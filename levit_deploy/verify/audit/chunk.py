"""A chunk: what all runners made of a few images, in one file that is there whole or not at all."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.verify.audit.result import RunnerName
from levit_deploy.verify.comparison import Logits

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class Chunk:
    """n images. `indices` (n,): positions in the set. `labels` (n,): UNLABELLED if not known.

    `digests` uint8 (n, 32): SHA-256 of the content. `machine`: the CPU model that ran them.
    `pictures`: by index, those on which runners disagree, uint8 (side, side, 3), made small.
    `tensor_sums` (probed, tensors, FIELDS): of the images that the artifact was looked into for,
    and `taps_equal` (probed,): whether the logits were the same bits with the lid off.
    """

    machine: str
    skipped: int
    indices: NDArray[np.int64]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    digests: NDArray[np.uint8]
    logits: Mapping[RunnerName, Logits]
    pictures: Mapping[int, NDArray[np.uint8]]
    tensor_sums: NDArray[np.float64]
    taps_equal: NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write the file in one step; once this returns, it survives a crash of the machine."""
        arrays: dict[str, NDArray[np.generic]] = {
            "machine": np.array(self.machine),
            "skipped": np.array(self.skipped),
            "indices": self.indices,
            "names": np.array(self.names, np.str_),
            "labels": self.labels,
            "digests": self.digests,
            "tensor_sums": self.tensor_sums,
            "taps_equal": self.taps_equal,
            **{f"logits.{name}": logits for name, logits in self.logits.items()},
            **{f"picture.{index}": picture for index, picture in self.pictures.items()},
        }
        temporary = path.with_name(f".{path.name}.partial")
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @staticmethod
    def load(path: Path) -> Chunk:
        """Read what `save` wrote; raises DeployError if it is damaged."""
        try:
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files}
            return Chunk(
                machine=str(arrays["machine"]),
                skipped=int(arrays["skipped"]),
                indices=arrays["indices"],
                names=tuple(map(str, arrays["names"])),
                labels=arrays["labels"],
                digests=arrays["digests"],
                tensor_sums=arrays["tensor_sums"],
                taps_equal=arrays["taps_equal"],
                logits={RunnerName(name): a for name, a in _named("logits", arrays)},
                pictures={int(name): a for name, a in _named("picture", arrays)},
            )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DeployError(
                f"`{path}` is damaged: {error}", hint=f"rm {path}, and go on with --resume"
            ) from error


def _named(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> list[tuple[str, NDArray[Any]]]:
    """(what comes after `prefix.`, array) of those called so."""
    start = f"{prefix}."
    return [(n.removeprefix(start), a) for n, a in arrays.items() if n.startswith(start)]
