"""The entry points of a library that take an image."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from levit_deploy.verify.images import Images


class Entry(StrEnum):
    """F32: `<name>_run`, normalised planar floats. RGB8: `<name>_run_rgb8`, 8-bit RGB pixels."""

    F32 = "f32"
    RGB8 = "rgb8"

    @property
    def function(self) -> str:
        """The C function's name after `<name>_`."""
        return {Entry.F32: "run", Entry.RGB8: "run_rgb8"}[self]

    def pixels(self, images: Images) -> NDArray[np.float32] | NDArray[np.uint8]:
        """What this entry takes, one image after the other."""
        return images.floats if self is Entry.F32 else images.rgb8
