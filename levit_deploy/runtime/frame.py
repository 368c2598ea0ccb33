"""A picture in memory as a library's frame entries take it: numpy arrays, nothing copied."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

_EXIF_ORIENTATION = 0x0112
# Orientation 1 to 8 (CIPA DC-008, EXIF 2.32) -> rotation, mirrored.
_TURNS = ((0, 0), (0, 1), (180, 0), (180, 1), (270, 1), (90, 0), (90, 1), (270, 0))


class Format(IntEnum):
    """What a byte means; the numbers are those of the library's header."""

    RGB = 0
    BGR = 1
    RGBA = 2
    BGRA = 3
    GRAY8 = 4
    NV12 = 5
    NV21 = 6
    I420 = 7
    YUYV = 8
    UYVY = 9


class Matrix(IntEnum):
    BT601 = 0
    BT709 = 1


class Range(IntEnum):
    LIMITED = 0
    FULL = 1


@dataclass(frozen=True, eq=False)
class Frame:
    """`planes`: uint8 arrays whose first axis is rows, each row without gaps; rows may lie apart.

    `width`, `height`: pixels as they lie in memory. `rotation`: degrees clockwise that turn it
    upright; `mirrored`: left and right are swapped before. `matrix`, `range`: of YUV.
    Raises ValueError if a plane is of another dtype or has gaps in its rows; what else is wrong the
    library says.
    """

    planes: tuple[NDArray[np.uint8], ...]
    width: int
    height: int
    format: Format
    rotation: int = 0
    mirrored: bool = False
    matrix: Matrix = Matrix.BT601
    range: Range = Range.LIMITED

    def __post_init__(self) -> None:
        for plane in self.planes:
            row = plane[:1]
            if plane.dtype != np.uint8 or plane.ndim < 2 or not row.flags.c_contiguous:
                raise ValueError(
                    f"a plane is {plane.dtype} {plane.shape}, expected uint8 rows without gaps"
                )

    @staticmethod
    def of(pixels: NDArray[np.uint8]) -> Frame:
        """RGB (height, width, 3), RGBA (height, width, 4) or grey (height, width).

        Raises ValueError for other arrays.
        """
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        formats = {1: Format.GRAY8, 3: Format.RGB, 4: Format.RGBA}
        if pixels.ndim not in (2, 3) or channels not in formats:
            raise ValueError(f"a picture of shape {pixels.shape}, expected (height, width, 3)")
        height, width = pixels.shape[:2]
        return Frame((pixels,), width, height, formats[channels])

    @staticmethod
    def of_picture(picture: Image.Image, *, exif: bool) -> Frame:
        """Pillow's `convert("RGB")` of a picture; `exif`: turned as its tag says."""
        pixels = np.asarray(picture.convert("RGB"))
        tag = picture.getexif().get(_EXIF_ORIENTATION, 1) if exif else 1
        rotation, mirrored = _TURNS[tag - 1] if tag in range(1, 9) else _TURNS[0]
        height, width = pixels.shape[:2]
        return Frame((pixels,), width, height, Format.RGB, rotation, bool(mirrored))
