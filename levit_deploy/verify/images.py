"""The images that every runner of one verification sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from levit_deploy.calibration.image_set import ImageSet
from levit_deploy.compiler.program import EIGHT_BIT
from levit_deploy.models.images import normalize
from levit_deploy.models.pictures import package_photos, package_pictures
from levit_deploy.models.preprocessing import Preprocessing, Resize
from levit_deploy.models.spec import Normalization

Picture = NDArray[np.uint8]  # (height, width, 3) RGB, or (height, width, 1) grey


class Function(StrEnum):
    """What a library does with an image; the C functions are called so, after `<name>_`."""

    RUN = "run"
    RUN_RGB8 = "run_rgb8"
    RUN_GRAY8 = "run_gray8"
    RUN_FRAME = "run_frame"
    PREPARE = "prepare"  # gives the image that `run_frame` makes, no logits


@dataclass(frozen=True)
class Images:
    """The same pictures for every function of a library.

    `pixels`: (images, size, size, channels) uint8, RGB or grey. `floats`: (images, channels, size,
    size) float32, `pixels` normalised. `source`: what they are, for the report. `frames`: what
    Pillow made `pixels` of, each of its own size; empty if that is not known.
    """

    pixels: NDArray[np.uint8]
    floats: NDArray[np.float32]
    source: str
    frames: tuple[Picture, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def functions(self) -> tuple[Function, ...]:
        """Those that the images can be given to."""
        eight_bit = Function(EIGHT_BIT[self.pixels.shape[-1]].function)
        return (Function.RUN, eight_bit, *([Function.RUN_FRAME] if self.frames else []))

    def of(self, function: Function) -> Iterable[NDArray[np.float32] | NDArray[np.uint8]]:
        """What that function takes, one image after the other."""
        match function:
            case Function.RUN:
                return iter(self.floats)
            case Function.RUN_RGB8 | Function.RUN_GRAY8:
                return iter(self.pixels)
            case Function.RUN_FRAME | Function.PREPARE:
                return self.frames

    def first(self, count: int) -> Images:
        """The first `count` of them."""
        return self.part(slice(count))

    def part(self, rows: slice) -> Images:
        return Images(self.pixels[rows], self.floats[rows], self.source, self.frames[rows])


class ModelInput(Protocol):
    """What a model takes: a ModelSpec, an ExportedModel, a Reference."""

    @property
    def image_size(self) -> int: ...
    @property
    def normalization(self) -> Normalization: ...


def real_images(model: ModelInput, count: int, way: Preprocessing) -> Images:
    """The first `count` of the package's test images, in sizes of photos, made fit by `way`."""
    pixels = package_pictures(way, model.image_size, count, model.normalization.channels)
    frames = tuple(pixels) if way.resize is Resize.NONE else package_photos(count)
    return _images(model, pixels, "CIFAR-10 test images", frames)


def own_images(model: ModelInput, count: int, pictures: ImageSet) -> Images:
    """The first `count` of a user's pictures."""
    frames = pictures.first_as_they_are(count)
    pixels = np.stack([pictures.sized(frame) for frame in frames])
    return _images(model, pixels, f"pictures of {pictures.source}", frames)


def _images(
    model: ModelInput, pixels: NDArray[np.uint8], source: str, frames: tuple[Picture, ...]
) -> Images:
    return Images(pixels, normalize(pixels, model.normalization), source, frames)
