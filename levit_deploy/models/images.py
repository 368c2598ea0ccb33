"""From 8-bit pictures to what a model reads.

Two ways lead to the logits, and a user's program may take either: floats resized and normalised
here (`model_input`, for `run`), or 8-bit pixels of model size (`rgb8_input`, for `run_rgb8`),
which the library normalises itself as `normalize` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from levit_deploy.models.spec import ModelSpec, Normalization


@dataclass(frozen=True)
class LabelledImages:
    """Pictures of one size: `images` uint8 RGB (N, height, width, 3), `labels` int64 (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]


class Resample(StrEnum):
    """Pillow's filters, by its names; the order is that of its numbers."""

    NEAREST = "nearest"
    LANCZOS = "lanczos"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"


class Resize(StrEnum):
    """What gets the resized side.

    The shorter side, the other in proportion and rounded down; or both sides; or none: pictures
    must have the model's size already.
    """

    SHORTER = "shorter"
    SQUASH = "squash"
    NONE = "none"


class CropRounding(StrEnum):
    """Where the centre begins if half a pixel is left: at the nearest, half to even, or below."""

    NEAREST = "nearest"
    DOWN = "down"


@dataclass(frozen=True)
class Preprocessing:
    """How photos of any size become model-sized pictures, before mean and std.

    `name`: whose way it is. `side` : `crop`: the ratio of the resized side to the centre that is
    cut out of it. `exif`: whether a picture is turned as its EXIF tag says.
    """

    name: str
    side: int
    crop: int
    resample: Resample = Resample.BICUBIC
    resize: Resize = Resize.SHORTER
    crop_rounding: CropRounding = CropRounding.NEAREST
    exif: bool = False

    def resized_side(self, image_size: int) -> int:
        """Pixels of the resized side before the centre of `image_size` pixels is cut out."""
        return image_size * self.side // self.crop

    def crop_start(self, length: int, image_size: int) -> int:
        """Where the centre of `image_size` pixels begins in a side of `length`."""
        margin = length - image_size
        return margin // 2 if self.crop_rounding is CropRounding.DOWN else round(margin / 2)

    def describe(self, image_size: int) -> str:
        """In words, how pictures come to be of `image_size`."""
        exif = "turned by EXIF, " if self.exif else ""
        if self.resize is Resize.NONE:
            return f"{self.name}: {exif}pictures of {image_size} as they are"
        what = "shorter side" if self.resize is Resize.SHORTER else "both sides"
        side = self.resized_side(image_size)
        cut = (
            "" if self.resize is Resize.SQUASH and side == image_size else f", centre {image_size}"
        )
        return f"{self.name}: {exif}{what} {self.resample} to {side}{cut}"


# int(256 / 224 * size): datasets.py of the original repository, whose transforms are torchvision's.
ORIGINAL_PREPROCESSING = Preprocessing("original", 256, 224)
TIMM_PREPROCESSING = Preprocessing("timm", 10, 9)  # crop_pct 0.9 of its levit configurations
# LevitImageProcessor: the same sides as the original; its cut rounds down. `datasets`, with which
# transformers reads pictures, turns them.
TRANSFORMERS_PREPROCESSING = Preprocessing(
    "transformers", 256, 224, crop_rounding=CropRounding.DOWN, exif=True
)
DEMO_PREPROCESSING = Preprocessing("demo", 1, 1, resample=Resample.BILINEAR)


def normalize(
    images: npt.NDArray[np.uint8], normalization: Normalization
) -> npt.NDArray[np.float32]:
    """`(rgb / 255 - mean) / std`: uint8 (N, height, width, 3) -> float32 (N, 3, height, width)."""
    unit = images.astype(np.float32) / np.float32(255)
    mean = np.array(normalization.mean, np.float32)
    std = np.array(normalization.std, np.float32)
    return np.ascontiguousarray(((unit - mean) / std).transpose(0, 3, 1, 2))


def model_input(images: npt.NDArray[np.uint8], spec: ModelSpec) -> npt.NDArray[np.float32]:
    """Normalise, then resize in float: uint8 (N, height, width, 3) -> float32 (N, 3, size, size).

    Bilinear, without antialiasing and without a crop: how the demo weights were trained.
    """
    return _bilinear(normalize(images, spec.normalization), spec.image_size)


def rgb8_input(images: npt.NDArray[np.uint8], image_size: int) -> npt.NDArray[np.uint8]:
    """Resize in 8 bits: uint8 (N, height, width, 3) -> uint8 (N, size, size, 3).

    The same bilinear filter, rounded to the nearest value; normalised afterwards by the library.
    """
    floats = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    resized = np.rint(_bilinear(floats, image_size)).astype(np.uint8)
    return np.ascontiguousarray(resized.transpose(0, 2, 3, 1))


def _bilinear(images: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    resized: npt.NDArray[np.float32] = F.interpolate(
        torch.from_numpy(images), (size, size), mode="bilinear", align_corners=False
    ).numpy()
    return resized
