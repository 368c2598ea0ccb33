"""How far results may differ, by class: a comparison names its class, never a loose number.

STEPS, an 8-bit library against its own 8-bit model in ONNX Runtime. The integer sums are exact, and
the layers in float32 differ by a few units in the last place, 1e-6 of a tensor's range or 3e-4 of a
step. That much of all activations lies so near to the middle between two steps that they round to
the other one; each then is wrong by a whole step, and makes more of those behind it do the same.
What comes of it cannot exceed what rounding itself costs (two roundings that have nothing in common
differ by the square root of two of one's error). `python -m benchmarks.steps` measures it, as the
largest error of all logits of all test images, and of one image's:

    LeViT-128S, trained            3.4e-3   8.4e-3
    with outlier channels          3.6e-3   7.1e-3
    tiny LeViT, trained            3.9e-3   1.0e-2
    eight tiny, random weights     3.2e-2   4.2e-2 (all but one: 1.7e-2, 2.1e-2)
    LeViT-384, random weights      1.8e-2   1.9e-2
    LeViT-128, random weights      beyond the tolerance, its self test fails

Networks with random weights come to that bound: a right library of such a one may be called wrong.
The tolerance is twice what trained ones need. It tells a wrong kernel from rounding, but not a
small mistake in one layer: a zero point off by one passes in most layers. Those are for the
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
