"""How far results may differ, by class: a comparison names its class, never a loose number.

STEPS, an 8-bit library against its own 8-bit model in ONNX Runtime. The integer sums are exact, and
the layers in float32 differ by a few units in the last place, 1e-6 of a tensor's range or 3e-4 of a
step. That much of all activations lies so near to the middle between two steps that they round to
the other one; each then is wrong by a whole step, and makes more of those behind it do the same.
What comes of it cannot exceed what rounding itself costs (two roundings that have nothing in common
differ by the square root of two of one's error), and its size is measured, largest error of all
logits over images never calibrated on:

    LeViT-128S, trained, 2,000 images          2.0e-3 (58 dB; itself 44 dB from float32)
    the same, one image at a time              2.2e-3
    its hostile twins                          2.2e-3, without equalization 9.5e-3
    tiny LeViT, trained, one image at a time   1.1e-2 (one step of one of 64 channels weighs more)
    tiny LeViTs of chance, likewise            0.7e-2 to 1.7e-2, the largest with 3 classes
    LeViT-128 and 384 of chance, likewise      1.2e-2, 1.4e-2 (there the errors reach that bound)

The tolerance is just above. It tells a wrong kernel from rounding, but not a small mistake in one
layer: a zero point off by one passes in most layers (39 of 45 of LeViT-128S). Those are for the
kernels' own tests, which compare sums and steps exactly.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """`fraction`: the largest error allowed, as a fraction of the reference's range."""

    name: str
    fraction: float


EXACT = Tolerance("exact", 0.0)  # the same bits: two machines, one artifact
CLOSE = Tolerance("close", 1e-4)  # float32 against float32, sums in another order
STEPS = Tolerance("steps", 2e-2)  # the same 8-bit model: an activation may round the other way
