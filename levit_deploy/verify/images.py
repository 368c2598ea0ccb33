"""The images that every runner of one verification sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from levit_deploy.calibration.image_set import ImageSet
from levit_deploy.compiler.program import Entry
from levit_deploy.models.images import normalize
from levit_deploy.models.pictures import package_pictures
from levit_deploy.models.preprocessing import DEMO_PREPROCESSING, Preprocessing
from levit_deploy.models.spec import Normalization


@dataclass(frozen=True)
class Images:
    """The same pictures for both entry points of a library.

    `pixels`: (images, size, size, channels) uint8, RGB or grey. `floats`: (images, channels, size,
    size) float32, `pixels` normalised. `source`: what they are, for the report.
    """

    pixels: NDArray[np.uint8]
    floats: NDArray[np.float32]
    source: str

    def __len__(self) -> int:
        return len(self.pixels)

    def of(self, entry: Entry) -> NDArray[np.float32] | NDArray[np.uint8]:
        """What that entry point takes, one image after the other."""
        return self.floats if entry is Entry.FLOAT else self.pixels

    def first(self, count: int) -> Images:
        """The first `count` of them."""
        return self.part(slice(count))

    def part(self, rows: slice) -> Images:
        return Images(self.pixels[rows], self.floats[rows], self.source)


class ModelInput(Protocol):
    """What a model takes: a ModelSpec, an ExportedModel, a Reference."""

    @property
    def image_size(self) -> int: ...
    @property
    def normalization(self) -> Normalization: ...


def real_images(model: ModelInput, count: int, way: Preprocessing = DEMO_PREPROCESSING) -> Images:
    """The first `count` of the test images in the package (CIFAR-10), brought to size by `way`."""
    normalization = model.normalization
    pixels = package_pictures(way, model.image_size, count, normalization.channels)
    return Images(pixels, normalize(pixels, normalization), "CIFAR-10 test images")


def own_images(model: ModelInput, count: int, pictures: ImageSet) -> Images:
    """The first `count` of a user's pictures, which have the model's size already."""
    pixels = pictures.first(count)
    return Images(pixels, normalize(pixels, model.normalization), f"pictures of {pictures.source}")
