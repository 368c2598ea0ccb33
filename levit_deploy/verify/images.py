"""The images that every runner of one verification sees."""

from __future__ import annotations

from collections.abc import Mapping
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

# The entry points of a library that take an image: C functions, after `<name>_`.
FUNCTIONS: Mapping[Entry, str] = {Entry.FLOAT: "run", Entry.RGB8: "run_rgb8"}


@dataclass(frozen=True)
class Images:
    """The same pictures for both entry points of a library.

    `rgb8`: (images, size, size, 3) uint8 RGB. `floats`: (images, 3, size, size) float32, `rgb8`
    normalised. `source`: what they are, for the report.
    """

    rgb8: NDArray[np.uint8]
    floats: NDArray[np.float32]
    source: str

    def __len__(self) -> int:
        return len(self.rgb8)

    def of(self, entry: Entry) -> NDArray[np.float32] | NDArray[np.uint8]:
        """What that entry point takes, one image after the other."""
        return self.rgb8 if entry is Entry.RGB8 else self.floats

    def first(self, count: int) -> Images:
        """The first `count` of them."""
        return self.part(slice(count))

    def part(self, rows: slice) -> Images:
        return Images(self.rgb8[rows], self.floats[rows], self.source)


class ModelInput(Protocol):
    """What a model takes: a ModelSpec, an ExportedModel, a Reference."""

    @property
    def image_size(self) -> int: ...
    @property
    def normalization(self) -> Normalization: ...


def real_images(model: ModelInput, count: int, way: Preprocessing = DEMO_PREPROCESSING) -> Images:
    """The first `count` of the test images in the package (CIFAR-10), brought to size by `way`."""
    rgb8 = package_pictures(way, model.image_size, count)
    return Images(rgb8, normalize(rgb8, model.normalization), "CIFAR-10 test images")


def own_images(model: ModelInput, count: int, pictures: ImageSet) -> Images:
    """The first `count` of a user's pictures, which have the model's size already."""
    rgb8 = pictures.first(count)
    return Images(rgb8, normalize(rgb8, model.normalization), f"pictures of {pictures.source}")
