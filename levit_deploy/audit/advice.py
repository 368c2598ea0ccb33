"""AuditResult -> what to do next: one rule a function, each from figures of the result."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from levit_deploy.audit.result import (
    USUAL_DROP_POINTS,
    AuditResult,
    FloatPlan,
    Output,
    RunnerName,
)
from levit_deploy.audit.verdict import WORSE_DB, cannot_tell, library_gap
from levit_deploy.audit.wording import decibels, listing, percent, points, rounded

CLIPPED = 0.001  # a share of values that costs more than their rounding, at 8 bits
RANGE_USED = 0.25  # two of eight bits are never set
CONFIDENCE_SHIFT = 0.02  # thresholds on confidences are set in hundredths


@dataclass(frozen=True)
class Step:
    """`why` ends in what to do; `command` can be typed, but for what is in capitals."""

    why: str
    command: str | None = None


def next_steps(result: AuditResult) -> tuple[Step, ...]:
    """What to do, the most urgent first; never empty."""
    faults = (
        *_mend_the_build(result),
        *_mend_the_labels(result),
        *_mend_a_layer(result),
        *_mend_the_library(result),
    )
    if faults:
        return faults  # the other figures are their consequences
    steps = (
        *_keep_layers_float(result),
        *_choose_another_observer(result),
        *_take_more_images(result),
        *_set_limits(result),
        *_mind_the_confidences(result),
        *_look_at_skipped(result),
    )
    return steps or (Step("Nothing to mend: ship the artifact and keep this report with it."),)


def _failed(result: AuditResult) -> bool:
    return any(not limit.passed for limit in result.limits)


def _is_int8(result: AuditResult) -> bool:
    return result.audited.precision == "int8"


def _mend_the_build(result: AuditResult) -> Iterator[Step]:
    if result.audited.taps_equal is False:
        yield Step(
            "The debug build and the artifact differ, so the figures of the layers say nothing. "
            "Compile both anew, with one version of levit-deploy.",
            f"{_compile(result)} --debug-taps",
        )


def _mend_the_labels(result: AuditResult) -> Iterator[Step]:
    if result.guesses:
        yield Step(
            "Say in which order the model has its classes, or what they are called, and how it "
            "was shown its pictures; then audit again.",
            _audit(result, "--class-order natural --force"),
        )


def _mend_a_layer(result: AuditResult) -> Iterator[Step]:
    if result.suspect:
        yield Step(
            f"`{result.suspect.tensor}` is the first wrong tensor, and "
            f"{listing(result.suspect.layers)} can be at fault. Compare the scales in "
            "`calibration.json` and the weights with the checkpoint's, then compile anew.",
            _compile(result),
        )


def _mend_the_library(result: AuditResult) -> Iterator[Step]:
    gap = library_gap(result)
    if gap is not None and gap > WORSE_DB and not result.suspect:
        yield Step(
            "The library is further from the reference than the 8-bit model that it was compiled "
            "from. That is a fault of the compiler or of the files: verify the artifact.",
            "levit-deploy verify DIR --weights WEIGHTS",
        )


def _keep_layers_float(result: AuditResult) -> Iterator[Step]:
    if result.plan:
        yield _follow(result, result.plan)
    elif _is_int8(result) and _failed(result):
        gain = ""
        if result.sensitivities and result.sensitivities[0].sqnr_gain_db > 0:
            best = result.sensitivities[0]
            gain = (
                f"`{best.layer}` in float32 gains {decibels(best.sqnr_gain_db)} and takes "
                f"{percent(best.cost)} more time. "
            )
        yield Step(
            f"{gain}Find the fastest mix of 8 bits and float32 that keeps the drop within a "
            "budget.",
            _audit(result, f"--auto {USUAL_DROP_POINTS}"),
        )


def _follow(result: AuditResult, plan: FloatPlan) -> Step:
    budget, drop = points(plan.max_drop_points), points(plan.drop_points)
    measured = f"on {plan.images:,} images the 8-bit model loses {drop}"
    if not plan.layers:
        return Step(f"No layer needs float32 to stay within {budget}: {measured}.")
    count = f"{len(plan.layers)} layers" if len(plan.layers) > 1 else "1 layer"
    return Step(
        f"Keep {count} in float32 to stay within {budget}: with {listing(plan.layers)} so, "
        f"{measured}, in {percent(plan.cost)} more time (modelled). Compile it, audit it again.",
        f"{_compile(result)} --recipe recipe.json",
    )


def _choose_another_observer(result: AuditResult) -> Iterator[Step]:
    clipped = [tensor for tensor in result.tensors if tensor.clipped > CLIPPED]
    idle = [tensor for tensor in result.tensors if tensor.range_used < RANGE_USED]
    if clipped:
        worst = max(clipped, key=lambda tensor: tensor.clipped)
        yield Step(
            f"{_tensors(len(clipped))} lose values outside of their range, `{worst.tensor}` "
            f"{percent(worst.clipped, 2)}. Calibrate on images that are more like these, or with "
            "ranges that leave nothing out.",
            f"{_compile(result)} --recipe w8a8-min-max",
        )
    if idle:
        worst = min(idle, key=lambda tensor: tensor.range_used)
        yield Step(
            f"{_tensors(len(idle))} use less than a quarter of their range, `{worst.tensor}` "
            f"{percent(worst.range_used)}. Try ranges that leave out what is rare.",
            f"{_compile(result)} --recipe w8a8-mse",
        )


def _take_more_images(result: AuditResult) -> Iterator[Step]:
    if result.images_needed:
        labels = "LABELLED" if result.audited.labelled else "MORE"
        yield Step(
            f"{cannot_tell(result)}. About {rounded(result.images_needed)} could.",
            _audit(result, data=labels),
        )
    elif not result.audited.labelled and result.audited.output is not Output.FEATURES:
        yield Step(
            "These images bear no labels. Accuracy needs them: one folder for each class, or "
            "`labels` in the .npz.",
            _audit(result, data="LABELLED"),
        )


def _set_limits(result: AuditResult) -> Iterator[Step]:
    if not result.limits:
        drop = f"--max-drop {USUAL_DROP_POINTS} " if result.audited.labelled else ""
        yield Step(
            "Set what you accept, and the exit code says whether it holds.",
            _audit(result, f"{drop}--min-agreement 98"),
        )


def _mind_the_confidences(result: AuditResult) -> Iterator[Step]:
    errors = {entry.runner: entry.calibration_error for entry in result.accuracies}
    if RunnerName.ARTIFACT in errors and RunnerName.REFERENCE in errors:
        shift = errors[RunnerName.ARTIFACT] - errors[RunnerName.REFERENCE]
        if abs(shift) > CONFIDENCE_SHIFT:
            way = "less" if shift > 0 else "more"
            yield Step(
                f"Confidences are {way} true than before (calibration error "
                f"{percent(errors[RunnerName.REFERENCE])} to "
                f"{percent(errors[RunnerName.ARTIFACT])}). Choose thresholds on them anew."
            )


def _look_at_skipped(result: AuditResult) -> Iterator[Step]:
    if result.audited.skipped:
        yield Step(f"{result.audited.skipped:,} broken images were left out. Look at the set.")


def _compile(result: AuditResult) -> str:
    a = result.audited
    data = " --data CALIBRATION" if _is_int8(result) else ""
    return (
        f"levit-deploy compile {shlex.quote(a.model)} --weights WEIGHTS "
        f"--target {shlex.quote(a.target)} --precision {shlex.quote(a.precision)}{data}"
    )


def _audit(result: AuditResult, options: str = "", data: str | None = None) -> str:
    data = shlex.quote(result.audited.source) if data is None else data
    return f"levit-deploy audit DIR --weights WEIGHTS --data {data} {options}".rstrip()


def _tensors(count: int) -> str:
    return f"{count} tensors" if count > 1 else "1 tensor"
