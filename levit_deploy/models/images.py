"""From 8-bit pictures to what a model reads.

Two ways lead to the logits, and a user's program may take either: floats resized and normalised
here (`model_input`, for `run`), or 8-bit pixels of model size (`rgb8_input`, for `run_rgb8`),
which the library normalises itself as `normalize` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True)
class Preprocessing:
    """How photos of any size become model-sized pictures: resize the shorter side, cut the centre.

    `crop`: the share of the resized shorter side that is kept. `resample`: Pillow's filter.
    """

    name: str
    crop: float
    resample: Literal["bilinear", "bicubic"]

    def resized_side(self, image_size: int) -> int:
        """Pixels of the shorter side before the centre of `image_size` pixels is cut out."""
        return math.floor(image_size / self.crop)

    def describe(self, image_size: int) -> str:
        """In words, how pictures come to be of `image_size`."""
        return (
            f"{self.name}: shorter side {self.resample} to {self.resized_side(image_size)}, "
            f"centre {image_size}; pictures of {image_size} as they are"
        )


# 224 of 256: datasets.py of the original repository; transformers' LevitImageProcessor likewise.
ORIGINAL_PREPROCESSING = Preprocessing("original", 224 / 256, "bicubic")
TIMM_PREPROCESSING = Preprocessing("timm", 0.9, "bicubic")  # crop_pct of its levit configurations
DEMO_PREPROCESSING = Preprocessing("demo", 1.0, "bilinear")


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
