"""AuditResult -> the verdict, in one word and in one sentence to act on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from levit_deploy.audit.result import (
    MAX_DROP,
    MIN_AGREEMENT,
    AuditResult,
    Difference,
    Fidelity,
    Limit,
    Output,
    RunnerName,
    TensorFidelity,
)
from levit_deploy.audit.wording import (
    ALL_STAY,
    SOME_STAY,
    SPACE,
    bound,
    found,
    listing,
    number,
    percent,
    points,
    rounded,
    share,
    short,
    significance,
)
from levit_deploy.runtime.manifest import Verdict

WORSE_DB = 3.0  # twice the error energy: more than rounding differently explains


@dataclass(frozen=True)
class Conclusion:
    """`sentence`: what an engineer needs to decide, names in backticks."""

    verdict: Verdict
    sentence: str


def conclude(result: AuditResult) -> Conclusion:
    """The verdict, and the reason for it."""
    return Conclusion(result.verdict, _REASONS[result.verdict](result))


def _failed(result: AuditResult) -> str:
    if result.audited.taps_equal is False:
        return (
            "Do not ship: the debug build computes other logits than the artifact, so one of the "
            "two is not the program that was compiled."
        )
    if result.guesses:
        return _guessing(result)
    if broken := [limit for limit in result.limits if not limit.passed]:
        output = result.audited.output
        how = "; ".join(_broken(limit, output) for limit in broken)
        return f"Do not ship: {how}. {_blame(result)}".rstrip()
    assert result.suspect is not None
    return f"Do not ship: something is wrong with {listing(result.suspect.layers)}."


def _guessing(result: AuditResult) -> str:
    (top1,) = (e.top1 for e in result.accuracies if e.runner is RunnerName.REFERENCE)
    return (
        f"Do not ship: PyTorch itself is right on {share(top1)} of these images, no better than "
        f"guessing among {result.audited.answers:,} classes. The labels or the preprocessing do "
        "not fit the model: look at `--class-order`, `--labels` and `--preprocess`."
    )


def _not_enough(result: AuditResult) -> str:
    needed = result.images_needed
    assert needed is not None
    return f"{cannot_tell(result)}; about {rounded(needed)} could. So far {_cost(result)}."


def cannot_tell(result: AuditResult) -> str:
    """`500 images cannot tell a drop of 0.5 points from chance`."""
    what = {
        MAX_DROP: "a drop of {} points from chance",
        MIN_AGREEMENT: f"whether {{}}{SPACE}% {SOME_STAY[result.audited.output]}",
    }
    told = (what[each.option].format(short(each.bound)) for each in result.shortfalls)
    images = result.audited.images
    return f"{images:,} image{'s' * (images > 1)} cannot tell {', or '.join(told)}"


_REASONS: Mapping[Verdict, Callable[[AuditResult], str]] = {
    Verdict.FAILED: _failed,
    Verdict.NOT_ENOUGH: _not_enough,
    Verdict.NOT_JUDGED: lambda result: f"No limit was set: {_cost(result)}.",
    Verdict.PASSED: lambda result: f"Ship it: {_cost(result)}.",
}


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


def _broken(limit: Limit, output: Output) -> str:
    """`top-1 falls by 1.4 points, the limit is 0.5`; other limits in their own words."""
    if limit.option == MAX_DROP:
        return f"top-1 falls by {points(limit.value)}, the limit is {bound(limit)}"
    if limit.option == MIN_AGREEMENT:
        same = f"{found(limit)}{SPACE}% {SOME_STAY[output]}"
        return f"{same}, the limit is {bound(limit)}{SPACE}%"
    return f"{limit.what}: {found(limit)}, the limit is {bound(limit)}"


def _cost(result: AuditResult) -> str:
    difference, fidelity = held_difference(result), held_fidelity(result)
    output = result.audited.output
    unmoved = fidelity.agreement.count == fidelity.agreement.total
    same = ALL_STAY[output] if unmoved else f"{share(fidelity.agreement)} {SOME_STAY[output]}"
    images = f"{result.audited.images:,} image{'s' * (result.audited.images > 1)}"
    if fidelity.reference is RunnerName.QDQ:
        images = f"{images} against the 8-bit model"
    if output is Output.FEATURES and fidelity.cosine:
        mean, worst = (number(x, 4) for x in (fidelity.cosine.mean, fidelity.cosine.worst))
        return f"{same} on {images}; the cosine is {mean} on average, {worst} at worst"
    if fidelity.spread_error is not None:
        same = f"{same}, the logit is off by {percent(fidelity.spread_error)} of its spread"
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
