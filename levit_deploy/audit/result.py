"""AuditResult: what an audit found, as plain data. The page, the JSON and the table show it.

Three runners see the same images: `reference` (PyTorch, float32), `artifact` (the library that
ships) and `qdq` (ONNX Runtime on the 8-bit model that the artifact was compiled from, if it is
one). Shares are fractions in [0, 1], `*_points` are percentage points, SQNR is in dB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from levit_deploy.audit.sample_size import images_for_drop, images_for_share
from levit_deploy.models.card import ModelCard
from levit_deploy.records import Text
from levit_deploy.runtime.manifest import Build, Verdict

USUAL_DROP_POINTS = 0.5  # of top-1, that 8 bits may cost where nobody says
MAX_DROP, MIN_AGREEMENT = "--max-drop", "--min-agreement"
DISTURBED = 1.2  # times the CPU's own time: more than calls and clocks take
MIN_COSINE, MAX_ERROR = "--min-cosine", "--max-error"


class RunnerName(StrEnum):
    REFERENCE = "reference"
    ARTIFACT = "artifact"
    QDQ = "qdq"


class Output(StrEnum):
    """What one image gives: a logit for each class, one logit, or features without any head."""

    CLASSES = "classes"
    LOGIT = "logit"
    FEATURES = "features"

    @staticmethod
    def of(card: ModelCard, values: int) -> Output:
        """Of a model that gives so many values for one image."""
        if card.heads == 0:
            return Output.FEATURES
        return Output.LOGIT if values == 1 else Output.CLASSES


@dataclass(frozen=True)
class Subject(Build):
    """What is audited, on what. Sizes in bytes, `library_bytes` that of the shared library.

    `classes`: how many values one image gives. `class_names`: of the answers, by index, empty if
    they are not known. `labelled`: whether the right answers are known.
    """

    emulated: bool
    library_bytes: int
    workspace_bytes: int
    card: ModelCard
    classes: int
    class_names: tuple[Text, ...]
    labelled: bool
    source: Text

    @property
    def output(self) -> Output:
        return Output.of(self.card, self.classes)

    @property
    def answers(self) -> int:
        """How many there are to choose from: the sign of one logit is two, features are none."""
        return {Output.FEATURES: 0, Output.LOGIT: 2}.get(self.output, self.classes)

    def class_name(self, index: int) -> str:
        """What people call an answer: its name, else its index or the sign of the logit."""
        if self.class_names:
            return self.class_names[index]
        return ("negative", "positive")[index] if self.output is Output.LOGIT else str(index)


@dataclass(frozen=True)
class Share:
    """`count` of `total`, and the 95 % Wilson interval of the share."""

    count: int
    total: int
    low: float
    high: float

    def __post_init__(self) -> None:
        """Raises ValueError for what is no share."""
        if not 0 <= self.count <= self.total or self.total == 0:
            raise ValueError(f"{self.count} of {self.total} is no share")

    @property
    def value(self) -> float:
        return self.count / self.total


@dataclass(frozen=True)
class ConfidenceBin:
    """Images whose confidence is between two fifteenths: means of it, and of what is right."""

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Accuracy:
    """One runner against the labels. `top5` is None with fewer than six classes.

    `calibration_error`: expected calibration error of the softmax (of one logit, the sigmoid), 15
    equal bins; `bins`: those that hold an image, in order.
    """

    runner: RunnerName
    top1: Share
    top5: Share | None
    calibration_error: float
    bins: tuple[ConfidenceBin, ...]


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
class Cosine:
    """Between the outputs of two runners: over images the mean, the worst, and percentiles."""

    mean: float
    worst: float
    percentile_1: float
    percentile_5: float
    median: float


@dataclass(frozen=True)
class Fidelity:
    """Outputs of `runner` against those of `reference`; needs no labels.

    `agreement`: same answer, which is the top-1, the sign of one logit, or the image among the
    audited whose features are the nearest. `sqnr_db`: 10 log10(sum r^2 / sum (a - r)^2) over all
    values, None if they are equal. `cosine`: None of one logit. `spread_error`: of one logit, the
    root mean square error over the standard deviation of `reference`, None if that is zero.
    `divergence`: mean KL(reference || runner) of the softmax, in nats; None of features.
    `equal_bits`: images whose outputs are the same bytes.
    """

    runner: RunnerName
    reference: RunnerName
    agreement: Share
    sqnr_db: float | None
    cosine: Cosine | None
    spread_error: float | None
    divergence: float | None
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
class ConfusionCell:
    """Images of class `label` that are called `predicted`."""

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
class Latency:
    """Of one image in one thread of the CPU `machine`, over `images` inferences.

    `min_cpu_us`: the least time that the CPU worked on one; where others used it too, `min_us` of
    the clock is longer.
    """

    machine: Text
    images: int
    min_us: float
    median_us: float
    min_cpu_us: float

    @property
    def disturbed(self) -> bool:
        return self.min_us > DISTURBED * self.min_cpu_us


@dataclass(frozen=True)
class Audited(Subject):
    """`machine`: the CPU models that ran it, of boards with their names. `lost`: a line for each
    board that was lost on the way. `images`: how many gave outputs; `skipped`: broken
    ones that were left out. `taps_equal`: whether the debug build's outputs were the artifact's to
    the bit on every image that it ran; None if there was no debug build. `prepared`: of how many
    the library made, from the picture as it is, the reference's image to the bit.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("prepared",)

    machine: Text
    images: int
    images_digest: str
    skipped: int
    taps_equal: bool | None
    lost: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError if it is of no images."""
        if self.images < 1:
            raise ValueError(f"`images` is `{self.images}`, at least 1 is audited")

    @property
    def prepared(self) -> int:
        """All: an audit ends at the first picture of which another image is made."""
        return self.images


@dataclass(frozen=True)
class Shortfall:
    """A condition that holds on these images, and that so few cannot tell from chance.

    `option`: how it is set; `bound`: percentage points or percent; `images`: how many could.
    """

    option: str
    bound: float
    images: int


@dataclass(frozen=True)
class AuditResult:
    """Everything, in the order in which it is shown.

    `latencies`: one for each CPU model that timed it; none under an emulator. `accuracies`,
    `differences` and `confusion` are empty without labels. `flips`: the worst first (largest
    reference margin), at most 48, none of features; `flipped` counts all. Of `differences` and
    `fidelities` the first is that of the artifact with whom it is held against. `confusion`: every
    pair that occurs, in order. `tensors`: in the order of execution. `sensitivities`: the largest
    gain first; empty if not measured. `plan`: None if none was wanted.
    """

    SCHEMA_VERSION: ClassVar[int] = 4
    DERIVED: ClassVar[tuple[str, ...]] = ("verdict", "passed", "images_needed")

    audited: Audited
    latencies: tuple[Latency, ...]
    limits: tuple[Limit, ...]
    accuracies: tuple[Accuracy, ...]
    differences: tuple[Difference, ...]
    fidelities: tuple[Fidelity, ...]
    flipped: int
    flips: tuple[Flip, ...]
    confusion: tuple[ConfusionCell, ...]
    tensors: tuple[TensorFidelity, ...]
    suspect: Suspect | None
    sensitivities: tuple[Sensitivity, ...]
    plan: FloatPlan | None = None

    def __bool__(self) -> bool:
        """Whether nothing forbids to ship it."""
        return self.verdict is not Verdict.FAILED

    @property
    def passed(self) -> bool:
        return bool(self)

    @property
    def verdict(self) -> Verdict:
        """FAILED: a limit is broken, a layer is suspect, the debug build is another program, or the
        reference guesses. NOT_ENOUGH: all limits hold, and so few images cannot tell.
        """
        limits_hold = all(limit.passed for limit in self.limits)
        if not limits_hold or self.suspect or self.audited.taps_equal is False or self.guesses:
            return Verdict.FAILED
        if not self.limits:
            return Verdict.NOT_JUDGED
        return Verdict.NOT_ENOUGH if self.shortfalls else Verdict.PASSED

    @property
    def guesses(self) -> bool:
        """Whether the float reference itself is no better than chance, whatever was lost."""
        answers = self.audited.answers
        tops = [entry.top1 for entry in self.accuracies if entry.runner is RunnerName.REFERENCE]
        return answers > 1 and bool(tops) and tops[0].low <= 1 / answers

    @property
    def images_needed(self) -> int | None:
        """How many images could tell what these cannot; None if these can."""
        return max((shortfall.images for shortfall in self.shortfalls), default=None)

    @property
    def shortfalls(self) -> tuple[Shortfall, ...]:
        """What these images cannot tell from chance."""
        found = (*self._of_drop(), *self._of_agreement())
        return tuple(each for each in found if each.images > self.audited.images)

    def _of_drop(self) -> Iterator[Shortfall]:
        for pair in self.differences[:1]:
            if not pair.significant:
                limit = next((x.limit for x in self.limits if x.option == MAX_DROP), 0.0)
                bound = limit if limit > 0 else USUAL_DROP_POINTS
                moved = pair.lost + pair.won
                needed = images_for_drop(self.audited.images, moved, bound / 100)
                yield Shortfall(MAX_DROP, bound, needed)

    def _of_agreement(self) -> Iterator[Shortfall]:
        for limit in self.limits:
            if limit.option == MIN_AGREEMENT and limit.passed:
                share = self.fidelities[0].agreement
                needed = images_for_share(share.total, share.count, limit.limit / 100)
                yield Shortfall(MIN_AGREEMENT, limit.limit, needed)
