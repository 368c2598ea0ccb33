"""Which layers can be at fault, from what is right and wrong inside the artifact."""

from __future__ import annotations

from collections.abc import Sequence

from levit_deploy.audit.result import Suspect
from levit_deploy.audit.statistics import sqnr_db
from levit_deploy.audit.tapped_tensor import TappedTensor
from levit_deploy.audit.tensor_sums import Field, Float64, tensor_fidelities

# A right artifact and its 8-bit model make the same roundings, but for those that fall the other
# way after float arithmetic in another order. These grow into noise of their own from layer to
# layer, but it takes the place of other noise: the energies of both errors stay alike, and over
# some images the artifact deviates from the model by a fraction of them. A fault adds to the error
# what it deviates by. Where that is as much as 8 bits lose anyway, the error is doubled; less than
# that nobody can tell from rounding. tests/audit/test_probe.py tries both.
WRONG_ERROR = 2.0
WRONG_DEVIATION = 1.0
# Float arithmetic in another order is worth this much where 8 bits lose nothing (-60 dB).
NEGLIGIBLE = 1e-6
# A table's own faults are in the 8-bit model too. A tensor whose scale is 8 times too large loses
# 20 log10(8) = 18 dB and is seen in an eighth of its range; one whose scale is 8 times too small
# has much of its values cut off. Sound tensors of LeViT are far above this: `levit-deploy audit`
# lists them in audit.json. Behind a wrong one all are below: the first alone says where it began.
LOST_DB = 22.0
UNUSED_RANGE = 0.15
CUT_OFF = 0.05
RUINED_DB = 10.0  # weights that are cut off leave a few decibels
# Scales are float32 in the table; the library's follow from a quotient rounded once.
SCALE_TOLERANCE = 1e-5


def find_suspect(tensors: Sequence[TappedTensor], sums: Float64) -> Suspect | None:
    """The layers around the first tensor, in order of execution, that is wrong; None if none is.

    `sums`: (tensors, FIELDS) over images. A tensor is wrong if it is off the float reference more
    than the 8-bit model is on the same images, which is what 8 bits can do there, and off the
    8-bit model too; then one of those layers is at fault that made it of right tensors. It is the
    readers' own quantization if the library's scale is not the table's.

    Where library and model agree, the calibration table may be at fault. Then the first tensor in
    which 8 bits lose much is one whose range does not fit its values, or hardly anything is left.
    """
    lost = False
    for tensor, row in zip(tensors, sums, strict=True):
        if abs(tensor.scale - tensor.table_scale) > SCALE_TOLERANCE * tensor.table_scale:
            why = (
                f"the library rounds `{tensor.name}` to multiples of {tensor.scale:.4g}, "
                f"the calibration table says {tensor.table_scale:.4g}"
            )
            return Suspect(tensor.readers, tensor.name, why)
        if _is_wrong(row):
            signal, error = float(row[Field.SIGNAL]), float(row[Field.ERROR])
            expected = float(row[Field.MODEL_ERROR])
            why = (
                f"`{tensor.name}` has {_decibels(signal, error)} against the float reference "
                f"where 8 bits allow {_decibels(signal, expected)}; all before it is right"
            )
            return Suspect(tensor.makers, tensor.name, why)
        if not lost and row[Field.MODEL_ERROR] > row[Field.SIGNAL] * 10 ** (-LOST_DB / 10):
            lost = True
            suspect = _badly_calibrated(tensor, row)
            if suspect is not None:
                return suspect
    return None


def _badly_calibrated(tensor: TappedTensor, row: Float64) -> Suspect | None:
    """What the table does wrong to the first tensor that loses much, if that can be told."""
    signal, error = float(row[Field.SIGNAL]), float(row[Field.MODEL_ERROR])
    left = f"8 bits leave {_decibels(signal, error)} of `{tensor.name}`"
    for fidelity in tensor_fidelities([tensor], row[None]):
        if fidelity.clipped > CUT_OFF:
            why = f"{left}: its scale in the calibration table cuts off {fidelity.clipped:.0%}"
            return Suspect(tensor.readers, tensor.name, why)
        if fidelity.range_used < UNUSED_RANGE:
            why = f"{left}: its scale in the calibration table is for a range of which it uses "
            return Suspect(tensor.readers, tensor.name, f"{why}{fidelity.range_used:.0%}")
    if error <= signal * 10 ** (-RUINED_DB / 10):
        return None
    why = f"{left}, and more than {LOST_DB:.0f} dB of all before it"
    return Suspect(tensor.makers, tensor.name, why)


def _is_wrong(row: Float64) -> bool:
    expected, negligible = row[Field.MODEL_ERROR], NEGLIGIBLE * row[Field.SIGNAL]
    right = (
        row[Field.ERROR] <= WRONG_ERROR * expected + negligible
        or row[Field.DEVIATION] <= WRONG_DEVIATION * expected + negligible
    )
    return not right  # a NaN is wrong too


def _decibels(signal: float, error: float) -> str:
    sqnr = sqnr_db(signal, error)
    return "no error" if sqnr is None else f"{sqnr:.1f} dB"
