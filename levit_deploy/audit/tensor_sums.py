"""What is summed of a tensor over images: figures from which its fidelity follows.

Everything is float64 and of the tensor as it is rounded, that is, times its factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from levit_deploy.audit.result import TensorFidelity
from levit_deploy.audit.statistics import cosine, sqnr_db
from levit_deploy.audit.tapped_tensor import TappedTensor

Float64 = NDArray[np.float64]


class Field(IntEnum):
    """Columns of the sums (tensors, FIELDS). All but the last two add up over images.

    r: the float reference, a: the artifact, m: the 8-bit model in ONNX Runtime.
    """

    IMAGES = 0
    COUNT = 1  # values
    CLIPPED = 2  # values of r that 8 bits cut off
    ERROR = 3  # sum (a - r)^2
    SIGNAL = 4  # sum r^2
    PRODUCT = 5  # sum a r
    ENERGY = 6  # sum a^2
    MODEL_ERROR = 7  # sum (m - r)^2
    DEVIATION = 8  # sum (a - m)^2
    LOW = 9  # least r
    HIGH = 10  # largest r


FIELDS = len(Field)


def no_sums(tensors: int) -> Float64:
    """Of no image: what `add_sums` starts from."""
    sums = np.zeros((tensors, FIELDS))
    sums[:, Field.LOW], sums[:, Field.HIGH] = np.inf, -np.inf
    return sums


def add_sums(first: Float64, second: Float64) -> Float64:
    """The sums over both sets of images."""
    sums = first + second
    sums[:, Field.LOW] = np.minimum(first[:, Field.LOW], second[:, Field.LOW])
    sums[:, Field.HIGH] = np.maximum(first[:, Field.HIGH], second[:, Field.HIGH])
    return sums


def sums_of(reference: Float64, artifact: Float64, model: Float64, tensor: TappedTensor) -> Float64:
    """One image's, (FIELDS,). Clipped is what loses more than half a step, as rounding may."""
    r, a, m = (values.ravel() for values in (reference, artifact, model))
    margin = tensor.scale / 2
    outside = (r < tensor.low - margin) | (r > tensor.high + margin)
    sums = np.empty(FIELDS)
    sums[Field.IMAGES], sums[Field.COUNT], sums[Field.CLIPPED] = 1, r.size, outside.sum()
    sums[Field.ERROR], sums[Field.MODEL_ERROR] = ((a - r) ** 2).sum(), ((m - r) ** 2).sum()
    sums[Field.DEVIATION] = ((a - m) ** 2).sum()
    sums[Field.SIGNAL], sums[Field.ENERGY] = (r * r).sum(), (a * a).sum()
    sums[Field.PRODUCT] = (a * r).sum()
    sums[Field.LOW], sums[Field.HIGH] = r.min(), r.max()
    return sums


def tensor_fidelities(tensors: Sequence[TappedTensor], sums: Float64) -> tuple[TensorFidelity, ...]:
    """Of the 8-bit tensors (not of the logits), in order; sums (tensors, FIELDS) over images."""
    return tuple(
        _fidelity(tensor, row)
        for tensor, row in zip(tensors, sums, strict=True)
        if tensor.is_quantized and row[Field.IMAGES]
    )


def _fidelity(tensor: TappedTensor, row: Float64) -> TensorFidelity:
    values = {field: float(row[field]) for field in Field}
    seen_low, seen_high = values[Field.LOW], values[Field.HIGH]
    span = tensor.high - tensor.low
    inside = min(seen_high, tensor.high) - max(seen_low, tensor.low)
    return TensorFidelity(
        tensor=tensor.name,
        layer=tensor.readers[0],
        images=int(values[Field.IMAGES]),
        sqnr_db=sqnr_db(values[Field.SIGNAL], values[Field.ERROR]),
        cosine=cosine(values[Field.PRODUCT], values[Field.SIGNAL], values[Field.ENERGY]),
        low=tensor.low,
        high=tensor.high,
        seen_low=seen_low,
        seen_high=seen_high,
        range_used=max(0.0, inside / span),
        clipped=values[Field.CLIPPED] / values[Field.COUNT],
    )
