"""The demonstration that ships in the package: trained LeViT-128S weights and real images.

Provenance, licence and figures are in data/README.md.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import numpy as np

from levit_deploy.models.images import LabelledImages

DEMO_MODEL = "levit_128s"
DEMO_WEIGHTS = Path(__file__).parent / "data" / "levit_128s_cifar10.safetensors"


class DemoSplit(StrEnum):
    """CALIBRATION: 512 training images. TEST: 500 images the net never saw, 50 of each class."""

    CALIBRATION = "calib_512"
    TEST = "test_500"


def demo_images(split: DemoSplit) -> LabelledImages:
    """CIFAR-10 images of one split, 32x32, in a fixed order that mixes the classes."""
    with np.load(DEMO_WEIGHTS.with_name(f"{split}.npz")) as data:
        return LabelledImages(data["images"], data["labels"], tuple(data["classes"].tolist()))
