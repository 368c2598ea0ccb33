"""From 8-bit pictures to what a model reads.

Two ways lead to the logits, and a user's program may take either: floats resized and normalised
here (`model_input`, for `run`), or 8-bit pixels of model size (`rgb8_input`, for `run_rgb8`),
which the library normalises itself as `normalize` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from levit_deploy.models.spec import ModelSpec, Normalization


@dataclass(frozen=True)
class LabelledImages:
    """Pictures of one size: `images` uint8 RGB (N, height, width, 3), `labels` int64 (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]


def normalize(
    images: npt.NDArray[np.uint8], normalization: Normalization
) -> npt.NDArray[np.float32]:
    """`(value / 255 - mean) / std`: uint8 (N, height, width, C) -> float32 (N, C, height, ..)."""
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
    import torch  # who only runs a library does without

    resized: npt.NDArray[np.float32] = torch.nn.functional.interpolate(
        torch.from_numpy(images), (size, size), mode="bilinear", align_corners=False
    ).numpy()
    return resized
