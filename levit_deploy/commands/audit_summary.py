"""An audit on one screen: the verdict, the runners side by side, limits, what to look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from levit_deploy.audit.result import Accuracy, AuditResult, Fidelity

SHOWN_FLIPS = 3
SHOWN_LAYERS = 2
SHOWN_STEPS = 2


def print_audit(result: AuditResult) -> None:
    """On stdout; coloured on a terminal, and as wide as it is."""
    from rich.console import Console
    from rich.table import Table

    from levit_deploy.audit.advice import next_steps
    from levit_deploy.audit.verdict import conclude
    from levit_deploy.runtime.manifest import Verdict

    colours = {  # as on the page
        Verdict.PASSED: "green",
        Verdict.NOT_ENOUGH: "yellow",
        Verdict.NOT_JUDGED: "default",
        Verdict.FAILED: "red",
    }
    conclusion = conclude(result)
    verdict = _text(conclusion.verdict.upper(), f"bold {colours[conclusion.verdict]}")
    rest = Table.grid(padding=(0, 3, 0, 0))
    for name, value in (*_limits(result), *_findings(result)):
        rest.add_row(_text(name), _text(value))

    console = Console(highlight=False)
    console.print(verdict, _text(conclusion.sentence))
    console.print()
    console.print(_runners(result))
    console.print()
    console.print(rest)
    for step in next_steps(result)[:SHOWN_STEPS]:
        console.print()
        console.print(_text(f"next: {step.why}"))
        if step.command:  # not broken into lines, so that it can be copied
            console.print(_text(f"  {step.command}"), soft_wrap=True)


def _runners(result: AuditResult) -> Table:
    from rich.table import Table

    from levit_deploy.audit.result import Output, RunnerName
    from levit_deploy.audit.verdict import fidelity_of
    from levit_deploy.audit.wording import ANSWERS, RUNNERS

    features = result.audited.output is Output.FEATURES
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    accuracies = {entry.runner: entry for entry in result.accuracies}
    labelled = ("top-1", "95 %", "top-5", "ECE") if accuracies else ()
    table.add_column("")
    cosine = ("cosine", "worst") if features else ()
    for title in (*labelled, ANSWERS[result.audited.output], "SQNR", *cosine):
        table.add_column(title, justify="right")
    for runner in RunnerName:
        accuracy, fidelity = accuracies.get(runner), fidelity_of(result, runner)
        if accuracy or fidelity:
            cells = (*(_accuracy(accuracy) if accuracies else ()), *_fidelity(fidelity, features))
            table.add_row(RUNNERS[runner], *map(_text, cells))
    return table


def _accuracy(accuracy: Accuracy | None) -> tuple[str, str, str, str]:
    from levit_deploy.audit.wording import interval, percent, share

    if accuracy is None:
        return "", "", "", ""
    top5 = share(accuracy.top5) if accuracy.top5 else ""
    shares = share(accuracy.top1), interval(accuracy.top1), top5
    return *shares, percent(accuracy.calibration_error)


def _fidelity(fidelity: Fidelity | None, features: bool) -> Iterator[str]:
    from levit_deploy.audit.wording import decibels, number, share

    if fidelity is None:
        return
    yield share(fidelity.agreement)
    yield decibels(fidelity.sqnr_db)
    if features and fidelity.cosine:
        yield number(fidelity.cosine.mean, 5)
        yield number(fidelity.cosine.worst, 5)


def _limits(result: AuditResult) -> Iterator[tuple[str, str]]:
    from levit_deploy.audit.wording import bound, found

    for limit in result.limits:
        holds = "holds" if limit.passed else "BROKEN"
        yield f"{limit.option} {bound(limit)}", f"{found(limit)}, {holds}"


def _findings(result: AuditResult) -> Iterator[tuple[str, str]]:
    from levit_deploy.audit.verdict import held_difference, lowest_tensors
    from levit_deploy.audit.wording import (
        RUNNERS,
        bytes_text,
        decibels,
        milliseconds,
        significance,
        timed_on,
    )

    audited = result.audited
    size = f"{bytes_text(audited.library_bytes)}, {bytes_text(audited.workspace_bytes)} workspace"
    yield "library", size
    for latency in result.latencies:
        yield "latency", f"{milliseconds(latency.min_us)}, {timed_on(latency)}"
    if not result.latencies:
        yield "latency", "not measured" + ", under an emulator" * audited.emulated
    difference = held_difference(result)
    if difference:
        paired = f"{difference.lost:,} lost, {difference.won:,} won, {significance(difference)}"
        yield f"against {RUNNERS[difference.reference]}", paired
    if result.suspect:
        yield "suspect", ", ".join(result.suspect.layers)
        yield "", result.suspect.why
    elif result.tensors:
        lowest = lowest_tensors(result, SHOWN_LAYERS)
        listed = ", ".join(f"{t.layer} {decibels(t.sqnr_db)}" for t in lowest)
        yield "lowest layers", listed or "all exact"
    yield "changed", f"{result.flipped:,} of {audited.images:,} images"
    for flip in result.flips[:SHOWN_FLIPS]:
        classes = map(result.audited.class_name, (flip.reference_class, flip.artifact_class))
        yield "", f"{flip.name}: {' -> '.join(classes)}"
    yield "preparation", f"equal to the bit for {audited.prepared:,} of {audited.images:,} pictures"
    if result.audited.taps_equal is not None:
        equal = "equals the artifact to the bit" if result.audited.taps_equal else "DIFFERS"
        yield "debug build", equal


def _text(words: str, style: str = "") -> Text:
    """Not read as markup; spaces that a log can be searched for."""
    from rich.text import Text

    from levit_deploy.audit.wording import SPACE
    from levit_deploy.records import printable

    return Text(printable(words).replace(SPACE, " "), style=style)
