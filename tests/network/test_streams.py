"""Rescaling that changes no logit, and does change the tensors it is meant for."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from levit_deploy.export.export_model import export_model
from levit_deploy.export.write_network import write_network
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from levit_deploy.network.fold_model import fold_model
from levit_deploy.network.network import Network, rounded
from levit_deploy.network.streams import residual_streams, scale_stream
from tests.network.forward import forward
from tests.outlier_channels import with_outlier_channels
from tests.randomize import randomize

SPEC = replace(TINY, depths=(2, 1, 2), image_size=112)  # several tokens in every stage


@pytest.fixture
def net():
    return randomize(Levit(SPEC), seed=2)


@pytest.fixture
def model(net):
    return fold_model(net)


@pytest.fixture
def images():
    return torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)).double()


def tensors_of(model: Network, images, names):
    """Tensors of the exported graph on the first image, by ONNX Runtime, nothing fused."""
    graph = write_network(rounded(model))
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    return session.run(["logits", *names], {"image": images[:1].float().numpy()})


def log_normal(*shape):
    return np.exp(2 * np.random.default_rng(0).standard_normal(shape))


def powers_of_two(*shape):
    return 2.0 ** np.random.default_rng(0).integers(-6, 7, shape)


def test_streams(random_tiny):
    first, second, third = residual_streams(fold_model(random_tiny))
    assert first.writers == ("patch_embed.6", "blocks.0.m.proj.1", "blocks.1.m.2")
    assert first.readers == ("blocks.0.m.qkv", "blocks.1.m.0", "blocks.2.kv", "blocks.2.q.1")
    assert first.tensors == ("patch_embed.tokens", "blocks.0", "blocks.1")
    assert second.writers == (
        "blocks.2.proj.1",
        "blocks.3.m.2",
        "blocks.4.m.proj.1",
        "blocks.5.m.2",
    )
    assert second.readers == (
        "blocks.3.m.0",
        "blocks.4.m.qkv",
        "blocks.5.m.0",
        "blocks.6.kv",
        "blocks.6.q.1",
    )
    assert second.tensors == ("blocks.2.proj.1", "blocks.3", "blocks.4", "blocks.5")
    assert third.writers == (
        "blocks.6.proj.1",
        "blocks.7.m.2",
        "blocks.8.m.proj.1",
        "blocks.9.m.2",
    )
    assert third.readers == ("blocks.7.m.0", "blocks.8.m.qkv", "blocks.9.m.0", "head")
    assert third.tensors == ("blocks.6.proj.1", "blocks.7", "blocks.8", "blocks.9")


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_scaling_a_stream_is_exact_in_float64(model, images, stage):
    scaled = scale_stream(model, residual_streams(model)[stage], log_normal(SPEC.channels[stage]))
    np.testing.assert_allclose(forward(scaled, images), forward(model, images), rtol=1e-10)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_scaling_a_stream_by_powers_of_two_is_exact_in_float32(model, images, stage):
    stream = residual_streams(model)[stage]
    factors = powers_of_two(SPEC.channels[stage])
    scaled = scale_stream(model, stream, factors)
    logits, *before = tensors_of(model, images, stream.tensors)
    scaled_logits, *after = tensors_of(scaled, images, stream.tensors)
    np.testing.assert_array_equal(scaled_logits, logits)
    for tensor, scaled_tensor in zip(before, after, strict=True):
        np.testing.assert_array_equal(scaled_tensor, tensor * factors.astype(np.float32))


def test_everything_scaled_at_once(model, images):
    scaled = model
    for stream, channels in zip(residual_streams(model), SPEC.channels, strict=True):
        scaled = scale_stream(scaled, stream, log_normal(channels))
    np.testing.assert_allclose(forward(scaled, images), forward(model, images), rtol=1e-10)


@pytest.mark.parametrize("distilled", [True, False])
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_an_outlier_channel_model_is_the_same_function(images, sigma, distilled):
    net = randomize(Levit(replace(SPEC, distilled=distilled)), seed=3).double()
    outliers = with_outlier_channels(net, sigma, seed=1)
    with torch.inference_mode():
        np.testing.assert_allclose(outliers(images).numpy(), net(images).numpy(), rtol=1e-9)


def test_an_outlier_channel_model_has_spread_streams(net, model, images):
    outliers = fold_model(with_outlier_channels(net, sigma=1.5, seed=1))
    names = [name for stream in residual_streams(model) for name in stream.tensors]
    _, *tensors = tensors_of(model, images, names)
    _, *spread = tensors_of(outliers, images, names)
    ratios = {name: s / t for name, t, s in zip(names, tensors, spread, strict=True)}
    for stream in residual_streams(model):
        factors = np.median(ratios[stream.tensors[0]], axis=(0, 1))
        assert 1.1 < np.log(factors).std() < 1.9
        for name in stream.tensors:
            assert np.allclose(np.median(ratios[name], axis=(0, 1)), factors, rtol=1e-3)


def test_scaling_undoes_outlier_channels(net, model, images):
    streams = residual_streams(model)
    outliers = fold_model(with_outlier_channels(net, sigma=2.0, seed=1))
    for stream in streams:
        _, plain = tensors_of(model, images, stream.tensors[:1])
        _, spread = tensors_of(outliers, images, stream.tensors[:1])
        factors = np.abs(plain).max((0, 1)) / np.abs(spread).max((0, 1))
        outliers = scale_stream(outliers, stream, factors.astype(np.float64))
    for stream in streams:
        before = tensors_of(model, images, stream.tensors)
        after = tensors_of(outliers, images, stream.tensors)
        for tensor, restored in zip(before, after, strict=True):
            np.testing.assert_allclose(restored, tensor, rtol=1e-2, atol=1e-3)


def test_outlier_channels_follow_their_seed_and_leave_the_net_alone(net):
    before = net.patch_embed[6].bn.weight.clone()
    weights = [
        with_outlier_channels(net, sigma=1.0, seed=seed).patch_embed[6].bn.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(net.patch_embed[6].bn.weight, before)


def test_an_outlier_channel_model_can_be_exported(net):
    outliers = with_outlier_channels(net, sigma=2.0, seed=1)
    export_model(outliers, name="outliers", weights_digest="0" * 64)
