"""Costs against torch's own counters, and against the paper."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from levit_deploy.models.catalogue import catalogue, multiply_adds, parameters
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import FAMILY, TINY, ModelSpec

SPECS = [
    *FAMILY.values(),
    TINY,
    replace(TINY, image_size=112, classes=3, distilled=False),
    replace(TINY, classes=0, distilled=False, in_chans=1, stem_stride=8),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.image_size}")
def test_costs_are_those_that_torch_counts(spec: ModelSpec) -> None:
    with torch.device("meta"):
        module = Levit(spec)
        image = torch.zeros(1, spec.in_chans, spec.image_size, spec.image_size)
    with FlopCounterMode(display=False) as counter:
        module(image)
    second_head = spec.channels[2] * spec.classes if spec.distilled else 0
    assert counter.get_total_flops() == 2 * (multiply_adds(spec) + second_head)
    assert parameters(spec) == sum(p.numel() for p in module.parameters())


def test_catalogue_is_the_paper_to_its_rounding() -> None:
    """Millions of multiply-adds, table 3."""
    paper = {
        "levit_128s": 305, "levit_128": 406, "levit_192": 658, "levit_256": 1120, "levit_384": 2353
    }  # fmt: skip
    entries = [entry for entry in catalogue() if entry.paper_top1]
    assert [e.spec.name for e in entries] == list(paper)
    for entry in entries:
        assert entry.multiply_adds / 1e6 == pytest.approx(paper[entry.spec.name], rel=0.01)
    top1 = [entry.paper_top1 for entry in entries if entry.paper_top1]
    assert top1 == sorted(top1)
