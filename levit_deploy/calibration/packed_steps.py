"""Whole numbers of 8 bits as a calibration table keeps them: compressed bytes, of any shape."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError


def pack_steps(steps: NDArray[np.int8]) -> bytes:
    """A zlib stream (RFC 1950) of the numbers, the last axis running fastest."""
    return zlib.compress(np.ascontiguousarray(steps).tobytes())


def unpack_steps(packed: bytes, shape: tuple[int, ...], layer: str) -> NDArray[np.int8]:
    """Raises DeployError, naming the layer, if `packed` is not of so many numbers."""
    count, stream = int(np.prod(shape)), zlib.decompressobj()
    try:
        content = stream.decompress(packed, count + 1)
    except zlib.error:
        content = b""
    if len(content) != count or not stream.eof:
        raise DeployError(
            f"the calibration table is damaged: weights of `{layer}`",
            hint="calibrate again: `levit-deploy quantize`",
        )
    return np.frombuffer(content, np.int8).reshape(shape)
