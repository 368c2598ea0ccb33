"""How pictures of any size become model-sized ones: plain values, each project's own as a name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
