"""The built-in image of a library's self test, and what its logits must be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 16
_HASH = 2654435761  # 2**32 / golden ratio, Knuth, The Art of Computer Programming 6.4
_LCG = (1664525, 1013904223)  # Numerical Recipes 7.1


@dataclass(frozen=True)
class SelfTest:
    """The reference's logits of `self_test_image`, and how far the library's may lie from them."""

    logits: tuple[float, ...]
    tolerance: float


def self_test_image(image_size: int, channels: int) -> NDArray[np.uint8]:
    """The image (image_size, image_size, channels) that `<name>_self_test` classifies.

    Blocks of 16 x 16 pixels, so that no two regions look alike, under pixel noise, so that no pixel
    can be taken for its neighbour: byte = block * 7 / 8 + noise, where block is the high byte of a
    multiplicative hash of the block's row, column and channel, and noise is the five high bits of a
    linear congruential generator that starts at 1 and steps for each byte. csrc/library.c draws the
    same.
    """
    y, x, c = np.indices((image_size, image_size, channels), dtype=np.uint32)
    block = ((y // BLOCK * 73 + x // BLOCK * 31 + c) * np.uint32(_HASH)) >> 24
    state, noise = 1, np.empty(channels * image_size**2, dtype=np.uint32)
    for i in range(noise.size):
        state = (state * _LCG[0] + _LCG[1]) % 2**32
        noise[i] = state >> 27
    image: NDArray[np.uint8] = (block * 7 // 8 + noise.reshape(block.shape)).astype(np.uint8)
    return image
