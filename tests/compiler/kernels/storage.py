"""8-bit activations as a target's kernels store them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.isa.activation_storage import ActivationStorage


def pack(storage: ActivationStorage, q: NDArray[np.uint8]) -> NDArray[np.generic]:
    """`q` (rows, channels) as it is stored, flat; the padding is arbitrary."""
    rows, channels = q.shape
    flat = np.full(storage.size(rows, channels), 99, storage.dtype)
    flat[_places(storage, rows, channels)] = q.astype(np.int16) + storage.offset
    return flat


def unpack(
    storage: ActivationStorage, flat: NDArray[np.generic], rows: int, channels: int
) -> NDArray[np.uint8]:
    """The inverse of `pack`: q (rows, channels)."""
    stored = flat[_places(storage, rows, channels)].astype(np.int16)
    return (stored - storage.offset).astype(np.uint8)


def _places(storage: ActivationStorage, rows: int, channels: int) -> NDArray[np.int64]:
    row, channel = np.mgrid[:rows, :channels]
    return np.asarray(storage.place(row, channel, channels))
