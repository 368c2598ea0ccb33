"""AuditResult: what an audit found, as plain data. The page, the JSON and the table show it.

Three runners see the same images: `reference` (PyTorch, float32), `artifact` (the library that
ships) and `qdq` (ONNX Runtime on the 8-bit model that the artifact was compiled from, if it is
one). Shares are fractions in [0, 1], `*_points` are percentage points, SQNR is in dB.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from levit_deploy.records import Text
from levit_deploy.runtime.manifest import Build


class RunnerName(StrEnum):
    REFERENCE = "reference"
    ARTIFACT = "artifact"
    QDQ = "qdq"


@dataclass(frozen=True)
class Share:
    """`count` of `total`, and the 95 % Wilson interval of the share."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.count / self.total


@dataclass(frozen=True)
class Accuracy:
    """One runner against the labels. `top5` is None with fewer than six classes.

    `calibration_error`: expected calibration error of the softmax, 15 equal bins.
    """

    runner: RunnerName
    top1: Share
    top5: Share | None
    calibration_error: float


@dataclass(frozen=True)
class Difference:
    """`runner` against `reference`, paired over the labelled images.

    `lost`: images that only `reference` gets right; `won`: that only `runner` does.
    `drop_points`: top-1 of `reference` minus top-1 of `runner`. `p_value`: exact two-sided McNemar
    test of lost against won; `significant` if below 0.05.
    """

    runner: RunnerName
    reference: RunnerName
    lost: int
    won: int
    drop_points: float
    p_value: float

    @property
    def significant(self) -> bool:
        return self.p_value < 0.05


@dataclass(frozen=True)
class Fidelity:
    """Logits of `runner` against those of `reference`; needs no labels.

    `agreement`: same top-1. `sqnr_db`: 10 log10(sum r^2 / sum (a - r)^2) over all logits, None if
    they are equal. `cosine`: mean over images. `divergence`: mean KL(reference || runner) of the
    softmax, in nats. `equal_bits`: images whose logits are the same bytes.
    """

    runner: RunnerName
    reference: RunnerName
    agreement: Share
    sqnr_db: float | None
    cosine: float
    divergence: float
    largest_error: float
    equal_bits: int


@dataclass(frozen=True)
class Flip:
    """An image whose top-1 differs between reference and artifact.

    Margins are first minus second logit, of each. `index`: position in the set; `name`: the file,
    or `#index`. `label`: the true class, if known.
    """

    index: int
    name: Text
    label: int | None
    reference_class: int
    artifact_class: int
    reference_margin: float
    artifact_margin: float


@dataclass(frozen=True)
class ConfusionChange:
    """Images of class `label` that are called `predicted`, another class; the counts differ."""

    label: int
    predicted: int
    reference_count: int
    artifact_count: int


@dataclass(frozen=True)
class TensorFidelity:
    """A quantized tensor inside the artifact against the float reference, on `images` images.

    `layer`: whose input it is, the first if several. `low`, `high`: what 8 bits can represent;
    `seen_low`, `seen_high`: the reference's values. `range_used`: share of [low, high] that they
    span, at most 1. `clipped`: share of the reference's values outside of it.
    """

    tensor: str
    layer: str
    images: int
    sqnr_db: float | None
    cosine: float
    low: float
    high: float
    seen_low: float
    seen_high: float
    range_used: float
    clipped: float


@dataclass(frozen=True)
class Suspect:
    """Layers one of which must be at fault: all before them is right, what they make is not.

    `tensor`: the first that is wrong; `why`: the figures that say so, in a sentence.
    """

    layers: tuple[str, ...]
    tensor: str
    why: str


@dataclass(frozen=True)
class Sensitivity:
    """What returning `layer` to float32 would gain, measured with the 8-bit model.

    `sqnr_gain_db`: of the logits; `agreement_gain`: of the share of images with the same top-1.
    `cost`: time that the layer would take more, as a share of the whole inference (modelled by
    multiply-adds).
    """

    layer: str
    sqnr_gain_db: float
    agreement_gain: float
    cost: float


@dataclass(frozen=True)
class FloatPlan:
    """The fastest mix that was found whose top-1 drops by `max_drop_points` at most.

    `layers`: what stays float32, in order of execution; none if 8 bits alone keep to it. `cost`: of
    them together, as in `Sensitivity`. `drop_points`: measured on `images` images, with the 8-bit
    model; without labels answers that change count as lost.
    """

    max_drop_points: float
    layers: tuple[str, ...]
    cost: float
    drop_points: float
    images: int


@dataclass(frozen=True)
class Limit:
    """One condition of the gate. `option`: how it was set, such as `--max-drop`."""

    option: str
    what: str
    limit: float
    value: float
    passed: bool


@dataclass(frozen=True)
class Audited(Build):
    """What was audited, on what.

    `class_names`: by index, empty if they are not known. `taps_equal`: whether the debug build's
    logits were the artifact's to the bit on every image that it ran; None if there was no debug
    build.
    """

    machine: Text
    emulated: bool
    images: int
    classes: int
    class_names: tuple[Text, ...]
    labelled: bool
    source: Text
    preprocessing: Text
    images_digest: str
    skipped: int
    taps_equal: bool | None

    def class_name(self, index: int) -> str:
        """What people call a class: its name, else its index."""
        return self.class_names[index] if self.class_names else str(index)


@dataclass(frozen=True)
class AuditResult:
    """Everything, in the order in which it is shown.

    `accuracies` and `differences` are empty without labels. `flips`: the worst first (largest
    reference margin), at most 48; `flipped` counts all. Of `differences` and `fidelities` the first
    is that of the artifact with whom it is held against. `confusion`: the largest changes first, at
    most 100. `tensors`: in the order of execution. `sensitivities`: the largest gain first; empty
    if not measured. `plan`: None if none was wanted.
    """

    SCHEMA_VERSION: ClassVar[int] = 2
    DERIVED: ClassVar[tuple[str, ...]] = ("passed",)

    audited: Audited
    limits: tuple[Limit, ...]
    accuracies: tuple[Accuracy, ...]
    differences: tuple[Difference, ...]
    fidelities: tuple[Fidelity, ...]
    flipped: int
    flips: tuple[Flip, ...]
    confusion: tuple[ConfusionChange, ...]
    tensors: tuple[TensorFidelity, ...]
    suspect: Suspect | None
    sensitivities: tuple[Sensitivity, ...]
    plan: FloatPlan | None = None

    def __bool__(self) -> bool:
        """Whether no limit is broken, no layer is suspect, and the debug build told the truth."""
        limits_hold = all(limit.passed for limit in self.limits)
        return limits_hold and self.suspect is None and self.audited.taps_equal is not False

    @property
    def passed(self) -> bool:
        return bool(self)
