"""Attention in 8 bits as ONNX: which attentions, and its arithmetic against our own in float64."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from levit_deploy.calibration.choose_scales import choose_scales
from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.calibration.statistics import collect_statistics
from levit_deploy.export.export_model import export_model
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from tests.calibration.running import run, signal_to_noise_db
from tests.randomize import randomize

NAME = "blocks.0.m"  # 4 x 4 tokens
SHRINKING = "blocks.2"


@pytest.fixture(scope="module")
def wide():
    """With keys of 16 channels."""
    net = randomize(Levit(replace(TINY, key_dim=16)), seed=4)
    return export_model(net, name="wide", weights_digest="cd" * 32)


@pytest.fixture(scope="module")
def statistics_of_wide(wide, pictures):
    return collect_statistics(wide, pictures)


@pytest.fixture(scope="module")
def quantized(wide, statistics_of_wide, pictures):
    return quantize(wide, choose_scales(wide, statistics_of_wide, pictures, DEFAULT_RECIPE))


def operators(model):
    return [node.op_type for node in model.graph.graph.node]


def tensors_of(model, names):
    """The tensors `names` for one image of noise, as written."""
    image = np.random.default_rng(2).standard_normal((1, 3, 64, 64), np.float32)
    tensors = run(model.graph, image, names)
    return [tensors[name].astype(np.float64) for name in names]


def test_no_softmax_is_left(quantized):
    assert "Softmax" not in operators(quantized)
    onnx.checker.check_model(quantized.graph, full_check=True)


def test_its_cost_is_that_of_8_bits(wide, quantized):
    (expected,), (got,) = (tensors_of(model, ["logits"]) for model in (wide, quantized))
    assert signal_to_noise_db(expected, got) > 25


def test_attention_alone_costs_little(quantized):
    """Its context against that of its own operands in float64."""
    parts = ["query", "key", "value", "context.by_head"]
    q, k, v, context = tensors_of(quantized, [f"{NAME}.{part}" for part in parts])
    (table,) = (
        onnx.numpy_helper.to_array(tensor)
        for tensor in quantized.graph.graph.initializer
        if tensor.name == f"{NAME}.attention_bias"
    )
    scores = q @ k.swapaxes(2, 3) + table
    weights = np.exp(scores - scores.max(3, keepdims=True))
    expected = weights @ v / weights.sum(3, keepdims=True)
    assert signal_to_noise_db(expected, context) > 35


@pytest.mark.parametrize(("part", "axis"), [("query", 3), ("key", 2), ("value", 2)])
def test_operands_are_whole_and_use_all_steps(quantized, part, axis):
    (rounded,) = tensors_of(quantized, [f"{NAME}.{part}.rounded"])
    assert np.array_equal(rounded, np.rint(rounded))
    assert np.array_equal(np.abs(rounded).max(axis), np.full_like(rounded.max(axis), 127))


@pytest.mark.parametrize("name", [NAME, SHRINKING])
def test_what_rounding_takes_from_a_weight_goes_to_one_16_further(quantized, name):
    exact, weights = tensors_of(quantized, [f"{name}.weights.exact", f"{name}.weights"])
    residual = np.zeros((*exact.shape[:3], 16))
    for first in range(0, exact.shape[3], 16):
        some = exact[..., first : first + 16]
        wanted = some + residual[..., : some.shape[3]]
        got = weights[..., first : first + 16]
        # Ties of float32 sums are no ties in float64.
        assert (np.abs(wanted - got) <= 0.5 + 1e-4).all()
        residual[..., : some.shape[3]] = wanted - got
    assert weights.min() >= 0
    assert weights.max() <= 254


@pytest.mark.parametrize("layer", [f"{NAME}.qkv", f"{SHRINKING}.kv", f"{SHRINKING}.q.1"])
def test_attention_of_a_float_projection_stays_float(wide, statistics_of_wide, pictures, layer):
    recipe = replace(DEFAULT_RECIPE, float_layers=(layer,))
    model = quantize(wide, choose_scales(wide, statistics_of_wide, pictures, recipe))
    (softmax,) = (node for node in model.graph.graph.node if node.op_type == "Softmax")
    assert layer.startswith(softmax.name.removesuffix(".softmax"))


def test_narrow_keys_stay_float(exported, statistics, pictures):
    """Of 8 channels: kernels take 16 together."""
    model = quantize(exported, choose_scales(exported, statistics, pictures, DEFAULT_RECIPE))
    assert operators(model).count("Softmax") == 5
