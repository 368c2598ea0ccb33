"""AuditResult, pictures -> one HTML page that needs nothing else: no network, no script.

The verdict first, then the figures behind it, then what to do. `templates/` holds the words and
the looks; here is what has to be computed for them.
"""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from levit_deploy.audit import wording
from levit_deploy.audit.advice import next_steps
from levit_deploy.audit.confusion_chart import (
    NUMBERED,
    class_costs,
    matrices,
    worst_pairs,
)
from levit_deploy.audit.layer_chart import LayerChart, layer_chart
from levit_deploy.audit.reliability_chart import reliability
from levit_deploy.audit.result import Accuracy, AuditResult, Flip, Output, RunnerName
from levit_deploy.audit.verdict import (
    conclude,
    fidelity_of,
    held_difference,
    held_fidelity,
    lowest_tensors,
)
from levit_deploy.models.pictures import as_image
from levit_deploy.records import printable

PICTURE_SIDE = 160  # pixels; shown at 80 to 160
FIRST_FLIPS = 12  # shown at once; the others unfold
FIRST_ROWS = 10
MOST_PAIRS = 100

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Whisker:
    """An interval and its middle, in percent of a scale that all runners share."""

    left: float
    width: float
    middle: float


@dataclass(frozen=True)
class PicturedFlip:
    """`source`: a data URI, None without a picture. `effect`: which answer was right."""

    flip: Flip
    source: str | None
    effect: str


def render_page(result: AuditResult, pictures: Mapping[int, NDArray[np.uint8]]) -> str:
    """The page. `pictures`: (height, width, channels) by `Flip.index`, for those that there are."""
    flips = tuple(_pictured(flip, pictures) for flip in result.flips)
    return (
        _environment()
        .get_template("audit.html.j2")
        .render(
            r=result,
            conclusion=conclude(result),
            steps=next_steps(result),
            runner=RunnerName,
            output=Output,
            difference=held_difference(result),
            fidelity=held_fidelity(result),
            whiskers=_whiskers(result.accuracies),
            chart=_chart(result),
            lowest=lowest_tensors(result, 1),
            flips=flips,
            matrices=matrices(result) if result.confusion else (),
            numbered=NUMBERED,
            costs=class_costs(result),
            pairs=worst_pairs(result)[:MOST_PAIRS],
            curves=reliability(result.accuracies),
            most_gain=max((s.sqnr_gain_db for s in result.sensitivities), default=0.0),
            first_flips=FIRST_FLIPS,
            first_rows=FIRST_ROWS,
        )
    )


def _chart(result: AuditResult) -> LayerChart | None:
    if not result.tensors:
        return None
    lowest = frozenset(tensor.tensor for tensor in lowest_tensors(result, 3))
    marked = frozenset({result.suspect.tensor}) if result.suspect else lowest
    logits = fidelity_of(result, RunnerName.ARTIFACT)
    return layer_chart(result.tensors, marked, logits.sqnr_db if logits else None)


def _whiskers(accuracies: tuple[Accuracy, ...]) -> Mapping[RunnerName, Whisker]:
    """Top-1 with its interval, on a scale from the lowest bound to the highest."""
    if not accuracies:
        return {}
    low = min(entry.top1.low for entry in accuracies)
    span = max(entry.top1.high for entry in accuracies) - low

    def percent(value: float) -> float:
        return round(100 * (value - low) / span, 2)

    return {
        entry.runner: Whisker(
            left=percent(entry.top1.low),
            width=round(percent(entry.top1.high) - percent(entry.top1.low), 2),
            middle=percent(entry.top1.value),
        )
        for entry in accuracies
    }


def _pictured(flip: Flip, pictures: Mapping[int, NDArray[np.uint8]]) -> PicturedFlip:
    picture = pictures.get(flip.index)
    source = None if picture is None else _data_uri(picture)
    return PicturedFlip(flip, source, _effect(flip))


def _effect(flip: Flip) -> str:
    if flip.label is None:
        return "changed"
    if flip.label == flip.reference_class:
        return "lost"
    return "won" if flip.label == flip.artifact_class else "both wrong"


def _data_uri(picture: NDArray[np.uint8]) -> str:
    image = as_image(np.ascontiguousarray(picture))
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "answers": wording.ANSWERS.__getitem__,
        "bound": wording.bound,
        "breakable": _breakable,
        "bytes": wording.bytes_text,
        "code": _code,
        "command": _command,
        "decibels": wording.decibels,
        "found": wording.found,
        "interval": wording.interval,
        "milliseconds": wording.milliseconds,
        "number": wording.number,
        "percent": wording.percent,
        "points": wording.points,
        "printable": printable,
        "runner": wording.RUNNERS.__getitem__,
        "share": wording.share,
        "signed": wording.signed,
        "significance": wording.significance,
        "small": wording.small,
    }
    return environment


def _breakable(name: str) -> Markup:
    """A name that a narrow column may break after dots, slashes and underscores."""
    return Markup(re.sub(r"([./_])", r"\1<wbr>", str(escape(printable(name)))))


def _code(text: str) -> Markup:
    """`name` in backticks -> <code>name</code>."""
    parts = str(escape(printable(text))).split("`")
    return Markup("".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts)))


def _command(text: str) -> Markup:
    """What can be typed; a line breaks between its words, not after a hyphen."""
    words = escape(printable(text)).split(" ")
    return Markup(" ").join(Markup("<span>{}</span>").format(word) for word in words)
