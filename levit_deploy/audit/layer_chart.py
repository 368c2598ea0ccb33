"""Tensors in order of execution -> bars of a chart that is as wide as its page.

Shapes are an SVG that stretches, in units of one bar by one decibel; whatever is text lies beside
it at percentages, so that it stays readable on a phone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from levit_deploy.audit.result import TensorFidelity
from levit_deploy.audit.wording import decibels

GRID_DB = 10
MOST_TICKS = 8  # block numbers that fit under the chart on a phone
GAP = 0.28  # of a bar's place


@dataclass(frozen=True)
class Bar:
    """A rectangle, down from the top of the chart; `marked`: the eye should go there."""

    x: float
    y: float
    width: float
    height: float
    title: str
    marked: bool


@dataclass(frozen=True)
class Tick:
    """`at`: percent from the left or the bottom."""

    text: str
    at: float


@dataclass(frozen=True)
class LayerChart:
    """`top_db`: where the scale ends. `line`: percent from the bottom of one level to compare."""

    columns: int
    top_db: int
    bars: tuple[Bar, ...]
    levels: tuple[Tick, ...]
    blocks: tuple[Tick, ...]
    line: Tick | None


def layer_chart(
    tensors: tuple[TensorFidelity, ...], marked: frozenset[str], logits_db: float | None
) -> LayerChart:
    """SQNR of each tensor; an exact one reaches the top. `marked`: tensors, by name."""
    finite = [tensor.sqnr_db for tensor in tensors if tensor.sqnr_db is not None]
    if logits_db is not None:
        finite.append(logits_db)
    top_db = max(GRID_DB, GRID_DB * math.ceil(max(finite, default=0.0) / GRID_DB))
    line = None
    if logits_db is not None:
        line = Tick(f"logits {decibels(logits_db)}", 100 * max(0.0, logits_db) / top_db)
    return LayerChart(
        columns=len(tensors),
        top_db=top_db,
        bars=tuple(
            _bar(place, tensor, top_db, tensor.tensor in marked)
            for place, tensor in enumerate(tensors)
        ),
        levels=tuple(Tick(str(db), 100 * db / top_db) for db in range(0, top_db + 1, GRID_DB)),
        blocks=tuple(_block_ticks(tensors)),
        line=line,
    )


def _bar(place: int, tensor: TensorFidelity, top_db: int, marked: bool) -> Bar:
    least = top_db / 60  # a tensor without any signal left is seen too
    db = top_db if tensor.sqnr_db is None else tensor.sqnr_db
    height = min(float(top_db), max(least, db))
    return Bar(
        x=round(place + GAP / 2, 3),
        y=round(top_db - height, 3),
        width=round(1 - GAP, 3),
        height=round(height, 3),
        title=f"{tensor.layer}: {decibels(tensor.sqnr_db)}",
        marked=marked,
    )


def _block_ticks(tensors: tuple[TensorFidelity, ...]) -> Iterator[Tick]:
    """The number of every k-th block under the first tensor that it reads."""
    first: dict[int, int] = {}
    for place, tensor in enumerate(tensors):
        block = re.match(r"blocks\.(\d+)\.", tensor.layer)
        if block:
            first.setdefault(int(block[1]), place)
    every = math.ceil(len(first) / MOST_TICKS)
    for number, place in list(first.items())[::every] if first else ():
        yield Tick(str(number), 100 * (place + 0.5) / len(tensors))
