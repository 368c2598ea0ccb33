"""Whom an artifact is held against, and how far it may fall behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from levit_deploy.audit.result import (
    MAX_DROP,
    MAX_ERROR,
    MIN_AGREEMENT,
    MIN_COSINE,
    USUAL_DROP_POINTS,
    Difference,
    Fidelity,
    Limit,
    Output,
    RunnerName,
)
from levit_deploy.audit.settings import Settings
from levit_deploy.errors import DeployError

MIN_AGREEMENT_PERCENT = 98.0  # by default, without labels
MIN_NEIGHBOURS_PERCENT = 90.0  # of features: the second nearest is often as near
LEAST_COSINE = 0.99  # of features: an error of a seventh of their length, SQNR 17 dB
MAX_ERROR_PERCENT = 10.0  # of one logit's spread: SQNR 20 dB without its mean

_SAME = {
    Output.CLASSES: "images with the same top-1, in percent",
    Output.LOGIT: "images with the same sign of the logit, in percent",
    Output.FEATURES: "images with the same nearest neighbour, in percent",
}
_GIVES = {
    Output.CLASSES: "logits of classes",
    Output.LOGIT: "a single logit",
    Output.FEATURES: "features",
}


@dataclass(frozen=True)
class Bounds:
    """What the options of these names say; None where they say nothing.

    `max_drop`: percentage points of top-1; `min_agreement`: percent of images; `min_cosine`: of
    features, mean over images; `max_error`: of one logit, percent of its spread.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    min_cosine: float | None = None
    max_error: float | None = None


@dataclass(frozen=True)
class Gate:
    """`bounds`: None for no limit."""

    reference: RunnerName
    output: Output
    bounds: Bounds

    @staticmethod
    def of(settings: Settings, reference: RunnerName, bounds: Bounds) -> Gate:
        """With the default for what is None.

        Raises DeployError if an audit with `settings` cannot tell what is asked.
        """
        if reference not in settings.runners:
            raise DeployError(
                f"`{settings.name}` was not compiled from an 8-bit model that is known",
                hint="hold it against PyTorch: --reference fp32",
            )
        _check(settings, bounds)
        features = settings.output is Output.FEATURES
        agreement = MIN_NEIGHBOURS_PERCENT if features else MIN_AGREEMENT_PERCENT
        usual = Bounds(
            max_drop=USUAL_DROP_POINTS if settings.labelled else None,
            min_agreement=None if settings.labelled else agreement,
            min_cosine=LEAST_COSINE if features else None,
            max_error=MAX_ERROR_PERCENT if settings.output is Output.LOGIT else None,
        )
        given = {name: value for name, value in vars(bounds).items() if value is not None}
        return Gate(reference, settings.output, replace(usual, **given))

    def limits(self, differences: Sequence[Difference], fidelity: Fidelity) -> Iterator[Limit]:
        """The limits held against `fidelity` and the first difference, those of `pair`."""
        bounds = self.bounds
        if bounds.max_drop is not None:
            drop, most = differences[0].drop_points, bounds.max_drop
            what = "top-1 accuracy lost, in percentage points"
            yield Limit(MAX_DROP, what, most, drop, drop <= most)
        if bounds.min_agreement is not None:
            same, least = 100 * fidelity.agreement.value, bounds.min_agreement
            yield Limit(MIN_AGREEMENT, _SAME[self.output], least, same, same >= least)
        if bounds.min_cosine is not None and fidelity.cosine is not None:
            mean, least = fidelity.cosine.mean, bounds.min_cosine
            what = "cosine of the features, mean over images"
            yield Limit(MIN_COSINE, what, least, mean, mean >= least)
        if bounds.max_error is not None and fidelity.spread_error is not None:
            error, most = 100 * fidelity.spread_error, bounds.max_error
            what = "error of the logit, in percent of its spread"
            yield Limit(MAX_ERROR, what, most, error, error <= most)

    @property
    def pair(self) -> tuple[RunnerName, RunnerName]:
        """(runner, reference) of what is limited."""
        return RunnerName.ARTIFACT, self.reference


def _check(settings: Settings, bounds: Bounds) -> None:
    """Raise DeployError for what images without labels, or this kind of output, cannot tell."""
    output = settings.output
    if bounds.max_drop is not None and not settings.labelled:
        whose = "features have" if output is Output.FEATURES else f"`{settings.source}` has"
        raise DeployError(
            f"{MAX_DROP} needs labels, and {whose} none",
            hint=f"limit what needs none: {MIN_AGREEMENT} 98",
        )
    for option, value, kind, what in (
        (MIN_COSINE, bounds.min_cosine, Output.FEATURES, "features"),
        (MAX_ERROR, bounds.max_error, Output.LOGIT, "a single logit"),
    ):
        if value is not None and output is not kind:
            raise DeployError(
                f"{option} is for {what}, and `{settings.name}` gives {_GIVES[output]}",
                hint=f"limit what fits it: {MIN_AGREEMENT} 98",
            )
