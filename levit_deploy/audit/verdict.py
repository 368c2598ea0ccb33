"""AuditResult -> the verdict, in one word and in one sentence to act on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from levit_deploy.audit.result import (
    AuditResult,
    Difference,
    Fidelity,
    Limit,
    RunnerName,
    TensorFidelity,
)
from levit_deploy.audit.wording import SPACE, listing, points, share, short, significance

WORSE_DB = 3.0  # twice the error energy: more than rounding differently explains


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Conclusion:
    """`sentence`: what an engineer needs to decide, names in backticks."""

    verdict: Verdict
    sentence: str


def conclude(result: AuditResult) -> Conclusion:
    """The verdict, and the reason for it."""
    if result.audited.taps_equal is False:
        return Conclusion(
            Verdict.FAILED,
            "Do not ship: the debug build computes other logits than the artifact, so one of the "
            "two is not the program that was compiled.",
        )
    if misfit := _reference_at_chance(result):
        return Conclusion(Verdict.FAILED, misfit)
    broken = [limit for limit in result.limits if not limit.passed]
    if broken:
        return Conclusion(
            Verdict.FAILED, f"Do not ship: {'; '.join(map(_broken, broken))}. {_blame(result)}"
        )
    if result.suspect:
        layers = listing(result.suspect.layers)
        return Conclusion(Verdict.FAILED, f"Do not ship: something is wrong with {layers}.")
    if not result.limits:
        return Conclusion(Verdict.NOT_JUDGED, f"No limit was set: {_cost(result)}.")
    return Conclusion(Verdict.PASSED, f"Ship it: {_cost(result)}.")


def _reference_at_chance(result: AuditResult) -> str | None:
    """What to say if the float reference itself is no better than guessing, whatever was lost."""
    classes = result.audited.classes
    reference = [entry for entry in result.accuracies if entry.runner is RunnerName.REFERENCE]
    if classes < 2 or not reference or reference[0].top1.low > 1 / classes:
        return None
    return (
        f"Do not ship: PyTorch itself is right on {share(reference[0].top1)} of these images, no "
        f"better than guessing among {classes:,} classes. The labels or the preprocessing do not "
        "fit the model: look at `--class-order`, `--labels` and `--preprocess`."
    )


def held_difference(result: AuditResult) -> Difference | None:
    """The artifact against the runner that the limits compare it with, if there are labels."""
    return result.differences[0] if result.differences else None


def held_fidelity(result: AuditResult) -> Fidelity:
    """The artifact against the runner that the limits compare it with."""
    return result.fidelities[0]


def fidelity_of(result: AuditResult, runner: RunnerName) -> Fidelity | None:
    """`runner` against the float reference."""
    pairs = (RunnerName.REFERENCE, runner)
    return next((f for f in result.fidelities if (f.reference, f.runner) == pairs), None)


def lowest_tensors(result: AuditResult, count: int) -> tuple[TensorFidelity, ...]:
    """Those with the lowest SQNR, the lowest first."""
    inexact = [tensor for tensor in result.tensors if tensor.sqnr_db is not None]
    return tuple(sorted(inexact, key=lambda tensor: tensor.sqnr_db or 0.0)[:count])


def library_gap(result: AuditResult) -> float | None:
    """By how many dB the artifact is worse than the model it was compiled from."""
    artifact = fidelity_of(result, RunnerName.ARTIFACT)
    model = fidelity_of(result, RunnerName.QDQ)
    if artifact is None or model is None or artifact.sqnr_db is None:
        return None
    return math.inf if model.sqnr_db is None else model.sqnr_db - artifact.sqnr_db


def _broken(limit: Limit) -> str:
    """`top-1 falls by 1.4 points, the limit is 0.5`; other limits in their own words."""
    value, bound = short(limit.value), short(limit.limit)
    if limit.option == "--max-drop":
        return f"top-1 falls by {points(limit.value)}, the limit is {bound}"
    if limit.option == "--min-agreement":
        return f"{value}{SPACE}% of the answers stay the same, the limit is {bound}{SPACE}%"
    return f"{limit.what} is {value}, the limit of `{limit.option}` is {bound}"


def _cost(result: AuditResult) -> str:
    difference, fidelity = held_difference(result), held_fidelity(result)
    unmoved = fidelity.agreement.count == fidelity.agreement.total
    same = "all answers" if unmoved else f"{share(fidelity.agreement)} of the answers"
    same = f"{same} stay the same"
    images = f"{result.audited.images:,} images"
    if fidelity.reference is RunnerName.QDQ:
        images = f"{images} against the 8-bit model"
    if difference is None:
        return f"{same} on {images}, which bear no labels"
    if difference.drop_points == 0:
        moved = f"top-1 is unchanged on {images}"
    else:
        way = "falls" if difference.drop_points > 0 else "rises"
        size = points(abs(difference.drop_points))
        moved = f"top-1 {way} by {size} on {images}, {significance(difference)}"
    return f"{moved}; {same}"


def _blame(result: AuditResult) -> str:
    """Where a loss comes from: a layer, the library or the 8-bit numbers as such."""
    if result.suspect:
        return f"Look at {listing(result.suspect.layers)} first."
    gap = library_gap(result)
    if gap is None:
        return ""
    if gap > WORSE_DB:
        return "The 8-bit model in ONNX Runtime is better: the library computes something else."
    return "The 8-bit model in ONNX Runtime loses as much: it is the quantization, not the library."
