"""A chunk: what all runners made of a few images, in one file that is there whole or not at all."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levit_deploy.audit.result import RunnerName
from levit_deploy.audit.settings import Settings
from levit_deploy.audit.tensor_sums import FIELDS
from levit_deploy.errors import DeployError
from levit_deploy.files import open_regular, write_files
from levit_deploy.records import printable
from levit_deploy.verify.comparison import Logits

UNLABELLED = -1
# What numpy raises for a file that is not what it wrote.
_DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, TypeError, NotImplementedError, RuntimeError),
    *(MemoryError, OverflowError, zipfile.BadZipFile, zlib.error),
)

_COLOURS = ((3,), (1,))  # channels of a picture: RGB, or grey


@dataclass(frozen=True, eq=False)
class Chunk:
    """n images, those of `Settings.positions(number)` that are not broken.

    `indices` (n,): positions in the set. `labels` (n,): UNLABELLED if not known. `digests` uint8
    (n, 32): SHA-256 of the content. `machine`: the CPU model that ran them.
    `pictures`: by index, those on which runners disagree, uint8 (side, side, channels), made small.
    `tensor_sums` (probed, tensors, FIELDS): of the images that the artifact was looked into for,
    and `taps_equal` (probed,): whether the logits were the same bits with the lid off.
    `lost`: a line for each board that was lost over it.
    """

    number: int
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
    lost: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write the file in one step; once this returns, it survives a crash of the machine."""
        arrays: dict[str, NDArray[np.generic]] = {
            "number": np.array(self.number),
            "machine": np.array(self.machine),
            "skipped": np.array(self.skipped),
            "indices": self.indices,
            "names": np.array(self.names, np.str_),
            "labels": self.labels,
            "digests": self.digests,
            "tensor_sums": self.tensor_sums,
            "taps_equal": self.taps_equal,
            "lost": np.array(self.lost, np.str_),
            **{f"logits.{name}": logits for name, logits in self.logits.items()},
            **{f"picture.{index}": picture for index, picture in self.pictures.items()},
        }
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        write_files({path: file.getvalue()}, hint="choose another folder: -o DIR")

    @staticmethod
    def load(path: Path) -> Chunk:
        """Read what `save` wrote; raises DeployError if it is damaged."""
        try:
            with open_regular(path) as content, np.load(content) as file:
                arrays = {name: file[name] for name in file.files}
            return Chunk(
                number=int(arrays["number"]),
                machine=str(arrays["machine"]),
                skipped=int(arrays["skipped"]),
                indices=arrays["indices"],
                names=tuple(map(str, arrays["names"])),
                labels=arrays["labels"],
                digests=arrays["digests"],
                tensor_sums=arrays["tensor_sums"],
                taps_equal=arrays["taps_equal"],
                lost=tuple(map(str, arrays["lost"])),
                logits={RunnerName(name): a for name, a in _named("logits", arrays)},
                pictures={int(name): a for name, a in _named("picture", arrays)},
            )
        except _DAMAGE as error:
            raise DeployError(
                f"`{path}` is damaged: {printable(str(error))}",
                hint=f"rm {path}, and go on with --resume",
            ) from error

    def fits(self, number: int, settings: Settings) -> bool:
        """Whether it is what an audit with these settings makes as its chunk `number`."""
        n, probed = len(self.names), self.taps_equal.size
        shapes: list[tuple[NDArray[Any], type[np.generic], tuple[int, ...]]] = [
            (self.indices, np.int64, (n,)),
            (self.labels, np.int64, (n,)),
            (self.digests, np.uint8, (n, 32)),
            (self.tensor_sums, np.float64, (probed, len(settings.tensors), FIELDS)),
            (self.taps_equal, np.bool_, (probed,)),
            *((logits, np.float32, (n, settings.classes)) for logits in self.logits.values()),
        ]
        lowest, highest = (0, settings.answers - 1) if settings.labelled else (UNLABELLED,) * 2
        return (
            self.number == number
            and n + self.skipped == len(settings.positions(number))
            and set(self.logits) == set(settings.runners)
            and all(a.dtype == kind and a.shape == shape for a, kind, shape in shapes)
            and all(p.dtype == np.uint8 and p.shape[2:] in _COLOURS for p in self.pictures.values())
            and all(lowest <= label <= highest for label in self.labels)
            and all(np.isfinite(logits).all() for logits in self.logits.values())
        )


def _named(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> list[tuple[str, NDArray[Any]]]:
    """(what comes after `prefix.`, array) of those called so."""
    start = f"{prefix}."
    return [(n.removeprefix(start), a) for n, a in arrays.items() if n.startswith(start)]
