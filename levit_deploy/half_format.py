"""Floats of 16 bits: what weights are stored as, and what some CPUs multiply."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FP16_CHAIN = 64  # float16 products at most, whose sum is rounded to float16


class HalfFormat(StrEnum):
    """FP16 is binary16 of IEEE 754: 11 bits of precision, up to 65504. BF16 is the upper half of a
    float32: 8 bits, and its range."""

    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def dtype(self) -> np.dtype[Any]:
        import ml_dtypes  # here: who only asks what a target is needs neither
        import numpy as np

        dtype: np.dtype[Any] = np.dtype(
            np.float16 if self is HalfFormat.FP16 else ml_dtypes.bfloat16
        )
        return dtype

    @property
    def largest(self) -> float:
        return 65504.0 if self is HalfFormat.FP16 else (2 - self.unit) * 2.0**127

    @property
    def unit(self) -> float:
        """From 1 to the next number."""
        return 2.0**-10 if self is HalfFormat.FP16 else 2.0**-7

    def rounded(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The nearest numbers of the format, ties to even; infinite beyond its largest."""
        import numpy as np

        with np.errstate(over="ignore"):
            return values.astype(self.dtype).astype(np.float32)
