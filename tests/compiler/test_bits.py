"""The demonstration net's logits are the same bits as ever, on every target.

tests/data/logits_digests.json holds SHA-256 digests of little-endian float32 logits of its first
test image, made when the compiler still found the network by patterns in Relax;
levit_128s_calibration.json is the table of its 8-bit form, calibrated on 64 images. A change of
these figures is a change of the numbers that users get, and is reviewed as such.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import pytest

from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.export.export_model import export_model
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.images import normalize, rgb8_input
from levit_deploy.models.spec import get_spec
from levit_deploy.models.weights import load_weights
from levit_deploy.targets.table import get_target
from tests.compiler.execute import run

DATA = Path(__file__).parent.parent / "data"
DIGESTS: dict[str, str] = json.loads((DATA / "logits_digests.json").read_text())
QUICK = {"fp32 x86-64-v3", "int8 x86-64-v3", "int8 arm64-dotprod"}


@functools.cache
def demo_model(precision: str) -> ExportedModel:
    checkpoint = load_weights(get_spec("levit_128s"), "demo")
    exported = export_model(
        checkpoint.build(),
        name="levit_128s",
        weights_digest=checkpoint.digest,
        card=checkpoint.card,
    )
    if precision == "fp32":
        return exported
    return quantize(exported, CalibrationTable.load(DATA / "levit_128s_calibration.json"))


@pytest.mark.parametrize(
    "case",
    [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in DIGESTS],
)
def test_the_logits_have_the_bits_of_record(case: str) -> None:
    precision, name = case.split()
    model, target = demo_model(precision), get_target(name)
    picture = rgb8_input(demo_images(DemoSplit.TEST).images[:1], model.image_size)
    image = normalize(picture, model.normalization)
    logits = run(compile_model(model, target), target, image)
    assert hashlib.sha256(logits.astype("<f4").tobytes()).hexdigest() == DIGESTS[case]


def test_the_record_has_every_kind_of_cpu() -> None:
    targets = {case.split()[1] for case in DIGESTS}
    assert {"x86-64", "x86-64-v3", "x86-64-v4-vnni", "arm64", "arm64-dotprod"} <= targets
    assert {"arm64-i8mm", "armv7"} <= targets
    assert len(DIGESTS) == 2 * len(targets)
