"""How far results may differ, by class: a comparison names its class, never a loose number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """`fraction`: the largest error allowed, as a fraction of the reference's range."""

    name: str
    fraction: float


EXACT = Tolerance("exact", 0.0)  # the same bits: two machines, one artifact
CLOSE = Tolerance("close", 1e-4)  # float32 against float32, sums in another order
STEPS = Tolerance("steps", 3e-2)  # the same 8-bit model: an activation may round the other way
QUANTIZED = Tolerance("quantized", 2e-1)  # 8 bits against float32: tells broken from rounded
