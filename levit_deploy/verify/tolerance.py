"""How far results may differ: by class, in numbers that rounding makes of one net on its images.

A comparison names its class, never a loose number. The bound of a class is a factor times the
distance of the reference from itself, rounded otherwise, on the very images that are compared.

CLOSE, float32 against float32. The distance is E, of the reference in float32 from the reference in
float64. A library sums the same products in another order. The rounding errors of a sum of k terms
are k random numbers, of the size of a unit in the last place of what has been summed so far: their
sum depends on the order through the length of the longest chain alone, by its root. The reference's
chains are of a vector's 8 or 16 lanes or of blocks of some hundred terms, the library's of k / 8 up
to k terms: sqrt(8) at most. FMA rounds once where the reference may round twice: less. Polynomials
for exp and the activations err by two units in the last place where the reference errs by one. So a
library is within 3 E of what is exact, within 4 E of the reference; E is the largest of a few dozen
errors, and the library's largest may be twice as far in the tail: 8 E. Where the weights are not at
hand, E is how far the exported model comes from itself when the inputs of each sum are moved by a
unit in their last place: by Wilkinson's backward analysis the rounding of a sum does no more than
that to each of its terms, times the length of the chain, of whose random signs the root is left.

STEPS, an 8-bit library against its own 8-bit model in ONNX Runtime. The integer sums are exact, and
the layers in float32 differ by a few units in the last place, 3e-4 of a step: some activations lie
so near to the middle between two steps that they round to the other one. Each then is wrong by a
whole step, and makes more of those behind it do the same. In the worst case nothing of the two
roundings is left in common: their difference then is that of two independent errors of uniform
distribution, of variance 2/12 of a squared step. The distance is that of the model from itself with
uniform noise of half a step added before every rounding, the scales of which attention makes for
each image included: every activation may go to either neighbour, a quarter of them do go, of
variance 3/12. So the distance is sqrt(1.5) times that of the worst right library, whatever the
net; with its largest of few errors against the library's largest, twice it is never reached.

FP16 and BF16, a library of 16-bit floats against its own model in ONNX Runtime, where inputs are
rounded to them, the exponentials of attention and the weights of convolutions among them, and sums
are float32. The library may leave them unrounded, which is half of the distance that follows, that
of the model from itself with a unit's noise in each; or round sums of up to four of them instead:
if their signs are random, that makes a variance of 50/12 of nine products, in squared units of one,
where the noise makes 9 * 2 * 4/12 = 72/12. With its largest of few errors against the library's
largest, twice it is never reached. In float16 it may sum up to FP16_CHAIN products in 16 bits. The
rounding errors of such a chain are, as above, random numbers of half a unit of what has been summed
so far: the root of half the chain's length is left, sqrt(64 / 2) / 2, 2.8 times a unit's noise in
each term; adding chains in 16 bits is one rounding more, of four two, and an activation in them
three. So there it is 8 times the distance.

EXACT: the same bits, as of two machines with one artifact.

`python -m benchmarks.steps` measures both rates, of right libraries refused and of planted faults
not found; docs/verification.md has its table. A fault that costs less than the bound is not told
from rounding here: those are for the kernels' own tests, which compare sums and steps exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from levit_deploy.models.rounding_cost import LEAST, ORDERS


@dataclass(frozen=True)
class Tolerance:
    """`fraction`: the largest error allowed, as a fraction of the reference's range.

    `made_of`: in words, how that was found.
    """

    name: str
    fraction: float
    made_of: str


@dataclass(frozen=True)
class ToleranceClass:
    """`factor`: from the `distance` of a reference from itself to a bound. `floor`: the least."""

    name: str
    factor: float
    floor: float
    distance: str

    def of(self, cost: float) -> Tolerance:
        """For a net whose reference lies `cost` from itself, as a fraction of its range.

        A cost that is no number leaves the floor: logits that are not finite must be the same.
        """
        bound = self.factor * cost if math.isfinite(cost) else 0.0
        made_of = f"{self.factor:g} x {cost:.1e}, {self.distance}; at least {self.floor:.1e}"
        return Tolerance(self.name, max(self.floor, bound), made_of)


EXACT = Tolerance("exact", 0.0, "the same bits")
CLOSE = ToleranceClass("close", ORDERS, LEAST, "from float32 to float64 of the reference")
MOVED = ToleranceClass(
    "close", ORDERS, LEAST, "of the model from itself, sums moved by a unit in the last place"
)
_UNITS = "of the model from itself, inputs moved by a unit in the last of 16 bits"
FP16 = ToleranceClass("halves", 8, LEAST, _UNITS)
BF16 = ToleranceClass("halves", 2, LEAST, _UNITS)
STEPS = ToleranceClass(
    "steps", 2, LEAST, "of the model from itself, roundings moved by half a step"
)
