"""`--data` -> AuditImages: pictures with names and labels, none of them decoded yet.

What can be wrong without decoding is found when they are opened; a broken picture when it is read,
so that a large set is decoded once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from levit_deploy.calibration.classes import number_classes
from levit_deploy.calibration.image_set import DEMO, evenly_spaced, find_pictures
from levit_deploy.calibration.pictures import BrokenPictureError, Picture, Pictures, content_digest
from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.demo import DemoSplit
from levit_deploy.models.images import normalize
from levit_deploy.models.pictures import model_sized
from levit_deploy.models.preprocessing import Preprocessing
from levit_deploy.models.spec import Normalization
from levit_deploy.verify.images import Images


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """n pictures at model size.

    `positions` (n,): among those that are audited; `indices` (n,): in the whole set. `labels` (n,),
    or None. `digests`: SHA-256 of the content of each. `skipped`: broken ones that were left out.
    """

    images: Images
    positions: tuple[int, ...]
    indices: NDArray[np.int64]
    names: tuple[str, ...]
    labels: NDArray[np.int64] | None
    digests: tuple[bytes, ...]
    skipped: int


@dataclass(frozen=True, eq=False)
class AuditImages:
    """What is audited on: `len` pictures, read in pieces by `read`.

    `class_names`: by index; empty if they are not known.
    """

    source: str
    class_names: tuple[str, ...]
    skip_broken: bool
    _pictures: Pictures
    _indices: tuple[int, ...]
    _way: Preprocessing
    _image_size: int
    _normalization: Normalization

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, in sentences."""
        return self._pictures.notes

    @property
    def labelled(self) -> bool:
        return self._pictures.labels is not None

    def listing_digest(self) -> str:
        """SHA-256 of all names and labels: whether two lists of pictures are the same."""
        listing = hashlib.sha256()
        labels = self._pictures.labels
        for index in self._indices:
            label = "" if labels is None else labels[index]
            listing.update(f"{self._pictures.name(index)}\0{label}\n".encode(errors="replace"))
        return listing.hexdigest()

    def read(self, positions: Sequence[int]) -> LoadedImages:
        """Decode some of the `len` pictures; safe to call from several threads.

        Raises BrokenPictureError at the first that is broken, unless such are left out.
        """
        sound: list[int] = []  # positions
        pixels: list[Picture] = []
        digests: list[bytes] = []
        for position in positions:
            index = self._indices[position]
            try:
                picture = self._pictures.picture(index)
            except BrokenPictureError:
                if not self.skip_broken:
                    raise
                continue
            pixels.append(model_sized(picture, self._way, self._image_size))
            digests.append(content_digest(self._pictures, index))
            sound.append(position)
        shape = (0, self._image_size, self._image_size, self._normalization.channels)
        stacked = np.stack(pixels) if pixels else np.empty(shape, np.uint8)
        indices = [self._indices[position] for position in sound]
        labels = self._pictures.labels
        return LoadedImages(
            images=Images(stacked, normalize(stacked, self._normalization), self.source),
            positions=tuple(sound),
            indices=np.array(indices, np.int64),
            names=tuple(map(self._pictures.name, indices)),
            labels=None if labels is None else labels[indices],
            digests=tuple(digests),
            skipped=len(positions) - len(sound),
        )


def open_audit_images(
    source: str, checkpoint: Checkpoint, *, skip_broken: bool, maximum: int | None
) -> AuditImages:
    """The pictures that `source` names: a folder, a .npz file, or `demo` for the demo's test set.

    Of more than `maximum`, as many evenly spaced ones are taken. Labels are those of the answers:
    0 and 1 for the sign of one logit, none for features. The demo's are left out for a model of
    other classes.
    Raises DeployError if there are none, or if the labels are not of the checkpoint's classes.
    """
    spec = checkpoint.spec
    pictures = find_pictures(source, DemoSplit.TEST, checkpoint.preprocessing, spec.in_chans)
    if len(pictures) == 0:
        raise DeployError(f"no images in `{source}`", hint="name other images: --data")
    answers = 2 if spec.classes == 1 else spec.classes
    if answers == 0 or (source == DEMO and len(pictures.class_names) != answers):
        pictures.labels, pictures.class_names = None, ()
    card = checkpoint.card if spec.classes > 1 else replace(checkpoint.card, labels=())
    number_classes(source, pictures, card, answers)
    _check_labels(source, pictures, answers)
    return AuditImages(
        source=source,
        class_names=pictures.class_names,
        skip_broken=skip_broken,
        _pictures=pictures,
        _indices=tuple(evenly_spaced(len(pictures), maximum)),
        _way=checkpoint.preprocessing,
        _image_size=spec.image_size,
        _normalization=spec.normalization,
    )


def _check_labels(source: str, pictures: Pictures, classes: int) -> None:
    if pictures.labels is None:
        return
    wrong = np.flatnonzero((pictures.labels < 0) | (pictures.labels >= classes))
    if len(wrong):
        first = int(wrong[0])
        raise DeployError(
            f"the label of `{pictures.name(first)}` in `{source}` is "
            f"`{pictures.labels[first]}`, the model has {classes} classes",
            hint=f"labels are 0 to {classes - 1}; without labels: leave the array out",
        )
