"""Bounds are neither blind nor deaf: right libraries pass whatever the net, planted faults do not.

A few of the networks of benchmarks/steps.py, which has more of them and the table of record.
"""

import numpy as np
import pytest
import torch

from benchmarks.steps import Case, measure
from levit_deploy.deploy import Deployment
from levit_deploy.export.agreement import check_against_reference
from levit_deploy.export.export_model import export_model
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.reference import Levit
from levit_deploy.models.rounding_cost import rounding_cost, share_of_range
from levit_deploy.models.spec import TINY
from levit_deploy.network.network import Precision
from levit_deploy.verify.expectation import Reference, expect
from levit_deploy.verify.images import Images
from levit_deploy.verify.model_of import quantized_model_of
from levit_deploy.verify.moved_roundings import moved_cost
from levit_deploy.verify.onnx_runner import OnnxRunner
from levit_deploy.verify.torch_runner import TorchRunner
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


def test_without_weights_the_bound_is_the_exported_models_own(
    tiny: Checkpoint, tiny_export: ExportedModel, tiny_images: Images
):
    """Two ways to the same: float32 against float64, and sums moved by a unit in the last place."""
    with_weights = expect(Reference.of_weights(tiny), Precision.FP32, tiny_images)
    without = expect(Reference.of_model(tiny_export), Precision.FP32, tiny_images)
    assert with_weights.tolerance.fraction / 16 < without.tolerance.fraction
    assert without.tolerance.fraction < 16 * with_weights.tolerance.fraction
    assert "sums moved by a unit" in without.tolerance.made_of
    again = expect(Reference.of_model(tiny_export), Precision.FP32, tiny_images)
    assert again.tolerance == without.tolerance


def test_half_steps_move_a_model_as_far_as_8_bits_do(
    int8_deployment: Deployment, tiny: Checkpoint, tiny_images: Images
):
    """As two roundings with nothing in common: of the size of what 8 bits cost."""
    model = quantized_model_of(int8_deployment.artifact, tiny)
    assert model is not None
    with OnnxRunner(model, as_written=True) as runner:
        logits = runner.infer(tiny_images)
    floats = TorchRunner(tiny.build()).infer(tiny_images)
    eight_bits = share_of_range(floats, logits)
    assert eight_bits / 2 < moved_cost(model, tiny_images, logits) < 4 * eight_bits


def ill_conditioned() -> Levit:
    net = randomize(Levit(TINY), seed=0)
    with torch.no_grad():
        net.head.bn.running_mean += 1e5
        net.head.l.bias += net.head.l.weight @ (
            1e5 * net.head.bn.weight / (net.head.bn.running_var + net.head.bn.eps).sqrt()
        )
    return net
