"""`--data` -> ImageSet: model-sized pictures in fixed order, decoded when they are asked for.

FOLDER | FILE.npz | demo -> every picture checked -> resized and cropped as the weights' origin does
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from levit_deploy.calibration.pictures import (
    ArrayPictures,
    BrokenPictureError,
    FolderPictures,
    Picture,
    Pictures,
    digest,
)
from levit_deploy.errors import DeployError
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.pictures import RGB, model_sized
from levit_deploy.models.preprocessing import Preprocessing

DEMO = "demo"
MIN_IMAGES = 16  # fewer leave ranges that the next image exceeds

Progress = Callable[[int, int], None]  # pictures done, pictures in all


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Iterating gives uint8 pictures (image_size, image_size, channels), RGB or grey, in the same
    order each time.

    `preprocessing`: in words, how they became so. `digest`: hexadecimal SHA-256 of the content.
    `labels`: class indices (len,), or None. `skipped`: broken files that were left out.
    """

    source: str
    preprocessing: str
    digest: str
    labels: NDArray[np.int64] | None
    skipped: int
    image_size: int
    _pictures: Pictures
    _indices: tuple[int, ...]
    _way: Preprocessing

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, in sentences."""
        return self._pictures.notes

    def __iter__(self) -> Iterator[Picture]:
        for index in self._indices:
            yield self.sized(self._pictures.picture(index))

    def sized(self, picture: Picture) -> Picture:
        """A picture as the model sees it, (image_size, image_size, channels)."""
        return model_sized(picture, self._way, self.image_size)

    @property
    def source_digest(self) -> str:
        """Hexadecimal SHA-256 of all that the source holds, broken files too."""
        return whole_digest(self._pictures)

    def first(self, count: int) -> NDArray[np.uint8]:
        """The first of them, (at most count, image_size, image_size, channels)."""
        return np.stack(list(islice(self, count)))

    def first_as_they_are(self, count: int) -> tuple[Picture, ...]:
        """The pictures that `first` is made of, (height, width, 3) each."""
        return tuple(self._pictures.picture(index) for index in self._indices[:count])


def open_images(
    source: str,
    preprocessing: Preprocessing,
    image_size: int,
    *,
    channels: int = RGB,
    skip_broken: bool = False,
    minimum: int = MIN_IMAGES,
    maximum: int | None = None,
    progress: Progress = lambda done, total: None,
) -> ImageSet:
    """The pictures that `source` names: a folder, a .npz file, or `demo` for those in the package.

    `channels`: 3, or 1 for a model of grey pictures. Of more than `maximum`, as many evenly spaced
    ones are taken. Each is decoded once to see that it is sound. Raises DeployError if one is
    broken (unless they are skipped), or if fewer than `minimum` are left.
    """
    pictures = find_pictures(source, DemoSplit.CALIBRATION, preprocessing, channels)
    wanted = evenly_spaced(len(pictures), maximum)
    count, sound = len(wanted), []
    for done, index in enumerate(wanted, start=1):
        try:
            model_sized(pictures.picture(index), preprocessing, image_size)
            sound.append(index)
        except BrokenPictureError:
            if not skip_broken:
                raise
        progress(done, count)
    skipped = count - len(sound)
    if len(sound) < minimum:
        broken = f" beside {skipped} broken ones" if skipped else ""
        raise DeployError(
            f"only {len(sound)} images in `{source}`{broken}, at least {minimum} are needed",
            hint=f"add images, or use those in the package: --data {DEMO}",
        )
    labels = None if pictures.labels is None else pictures.labels[sound]
    return ImageSet(
        source=source,
        preprocessing=preprocessing.describe(image_size),
        digest=digest(pictures, sound),
        labels=labels,
        skipped=skipped,
        image_size=image_size,
        _pictures=pictures,
        _indices=tuple(sound),
        _way=preprocessing,
    )


def whole_digest(pictures: Pictures) -> str:
    """Hexadecimal SHA-256 of the content of all pictures, in order, none of them decoded."""
    return digest(pictures, list(range(len(pictures))))


def evenly_spaced(length: int, maximum: int | None) -> list[int]:
    """Indices of at most `maximum` of so many, in order."""
    count = length if maximum is None else min(length, maximum)
    return [index * length // count for index in range(count)]


def find_pictures(
    source: str, demo_split: DemoSplit, way: Preprocessing, channels: int
) -> Pictures:
    """The pictures that `source` names, none of them looked at; `demo`: those of `demo_split`.

    `way` says whether files are turned by their EXIF tags. Raises DeployError if there are none.
    """
    if source == DEMO:
        demo = demo_images(demo_split)
        return ArrayPictures(demo.images, demo.labels, demo.classes, channels)
    path = Path(source)
    if path.is_dir():
        return FolderPictures(path, channels=channels, exif=way.exif)
    if path.suffix == ".npz" and path.is_file():
        return ArrayPictures.load(path, channels)
    raise DeployError(
        f"no images at `{source}`", hint=f"pass a folder of images, a .npz file, or `{DEMO}`"
    )
