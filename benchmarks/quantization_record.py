"""The figures of `benchmarks.quantization` as they are kept: a JSON file, one result a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.quantizers import METHODS

RECORD = Path(__file__).with_name("quantization.json")
FLOAT = "fp32 PyTorch"  # as a reference


@dataclass(frozen=True)
class Result:
    """How close `method` is to `reference`, on the network `sigma`.

    `top1`: right answers of the method, `reference_top1`: of the reference, `agreement`: the same
    answer; percent of the images. `sqnr_db`: of all logits together. `largest_error`: of a logit,
    as a fraction of the reference's range. `version`: of the package behind the method.
    """

    method: str
    reference: str
    sigma: float
    images: int
    top1: float
    reference_top1: float
    agreement: float
    sqnr_db: float
    largest_error: float
    version: str


def load(record: Path) -> list[Result]:
    return [Result(**row) for row in json.loads(record.read_text())] if record.exists() else []


def save(results: Sequence[Result], record: Path) -> None:
    order = list(METHODS)
    rows = sorted(results, key=lambda r: (r.sigma, order.index(r.method), r.reference))
    record.write_text("[\n " + ",\n ".join(json.dumps(asdict(r)) for r in rows) + "\n]\n")
