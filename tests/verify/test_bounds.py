"""Bounds are neither blind nor deaf: right libraries pass whatever the net, planted faults do not.

A few of the networks of benchmarks/steps.py, which has more of them and the table of record.
"""

import numpy as np
import pytest
import torch

from benchmarks.steps import Case, measure
from levit_deploy.export.agreement import check_against_reference, rounding_cost
from levit_deploy.export.export_model import export_model
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from tests.randomize import randomize


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    ("kind", "seed"), [("trained", 0), ("twin", 3), ("head", 2), ("random", 4)]
)
def test_right_libraries_pass_and_faults_above_the_bound_are_found(
    kind: str, seed: int, int8: bool
):
    result = measure(Case(kind, seed, int8))
    assert not result.refused
    assert result.error <= 1
    assert [fault.what for fault in result.faults] == ["scale", "panel", "bias"]
    assert all(fault.found for fault in result.faults if fault.cost > 2)
    assert any(fault.found for fault in result.faults)


def test_a_net_that_float32_cannot_hold_is_given_what_that_costs():
    """Two branches of a millionfold size that take each other away: a fixed bound refuses it."""
    net = ill_conditioned()
    exported = export_model(net, name="net", weights_digest="0" * 64)
    images = np.random.default_rng(1).standard_normal((4, 3, 64, 64), np.float32)
    assert rounding_cost(net, images) > 1e-4
    check_against_reference(exported, net, images)


def ill_conditioned() -> Levit:
    net = randomize(Levit(TINY), seed=0)
    with torch.no_grad():
        net.head.bn.running_mean += 1e5
        net.head.l.bias += net.head.l.weight @ (
            1e5 * net.head.bn.weight / (net.head.bn.running_var + net.head.bn.eps).sqrt()
        )
    return net
