"""What layers will see, from the checkpoint alone: statistics for quantizing without a picture.

Every linear layer and convolution of a LeViT has a BatchNorm behind it, which knows the mean and
the deviation of each channel that it writes (the idea: Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2). The rest follows:

    behind an activation    a normal distribution of these moments, sent through it
    in a residual stream    the means of all that was added, and their variances as if independent
    behind an attention     the moments of its values, of which it takes averages
    in the mean over tokens the moments of the tokens
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from statistics import NormalDist

import numpy as np
import torch

from levit_deploy.calibration.observers import EXPECTED_IMAGES
from levit_deploy.calibration.statistics import SAMPLE_TOKENS, TensorStatistics
from levit_deploy.models.reference import ACTIVATIONS
from levit_deploy.models.spec import Activation
from levit_deploy.network.moments import Moments
from levit_deploy.network.network import (
    MEAN,
    TOKENS,
    Attention,
    Float64,
    Mlp,
    Network,
    ShrinkingAttention,
    activated,
    writing_layer,
)

# From the mean to the ends of a range. SQNR of the demonstration net's logits, its 8-bit model in
# ONNX Runtime on 96 images: 5 42.4, 6 41.2, 8 39.1 dB; calibrated on 64 images 42.2 dB. Its streams
# reach up to 8 deviations in 64 images, most tensors less than 6. Of the library on 2,000 images:
# `python -m benchmarks.quantization --methods "levit-deploy w8a8 without"`.
DEVIATIONS = 6.0
# Edges and flat places are far from normal: 16 deviations in 64 images; and 16 bits have room.
STEM_DEVIATIONS = 16.0

Function = Callable[[Float64], Float64]


def expected_statistics(
    network: Network, moments: Mapping[str, Moments]
) -> Mapping[str, TensorStatistics]:
    """Statistics of every tensor but the image that a layer reads, by the tensor's name.

    `moments`: of `trained_moments`, of the network as it was folded.
    """
    return dict(_expected(network, moments))


def _expected(
    network: Network, moments: Mapping[str, Moments]
) -> Iterator[tuple[str, TensorStatistics]]:
    activate = _activation(network.activation)
    for conv in network.stem[:-1]:
        yield activated(conv), _statistics(moments[conv.name], STEM_DEVIATIONS, activate)
    stream = moments[network.stem[-1].name]
    yield TOKENS, _statistics(stream)
    for block in network.blocks:
        inside = moments[block.expand.name] if isinstance(block, Mlp) else _values(block, moments)
        yield block.hidden, _statistics(inside, function=activate)
        written = moments[writing_layer(block).name]
        stream = written if isinstance(block, ShrinkingAttention) else _sum(stream, written)
        yield block.output, _statistics(stream)
    if network.head is not None:
        yield MEAN, _statistics(stream)


def _values(block: Attention | ShrinkingAttention, moments: Mapping[str, Moments]) -> Moments:
    """Of the values that an attention averages, in the order of its heads."""
    layer = block.qkv if isinstance(block, Attention) else block.kv
    seen, heads = moments[layer.name], len(block.bias)
    mean, deviation = (
        of_layer.reshape(heads, -1)[:, -block.value_dim :].reshape(-1)
        for of_layer in (seen.mean, seen.deviation)
    )
    return Moments(mean, deviation)


def _sum(stream: Moments, added: Moments) -> Moments:
    return Moments(stream.mean + added.mean, np.hypot(stream.deviation, added.deviation))


def _statistics(
    moments: Moments, deviations: float = DEVIATIONS, function: Function = lambda x: x
) -> TensorStatistics:
    """Of `function` of a normal distribution, cut at so many deviations from its mean."""
    normal = NormalDist()
    shares = (np.arange(SAMPLE_TOKENS) + 0.5) / SAMPLE_TOKENS
    quantiles = np.array([normal.inv_cdf(share) for share in shares])

    def at(steps: Float64) -> Float64:
        return function(moments.mean + steps[:, None] * moments.deviation)

    span = at(np.linspace(-deviations, deviations, 257))  # an activation's least is inside
    return TensorStatistics(
        images=EXPECTED_IMAGES,  # a range that is to be extrapolated no further
        lows=np.stack([span.min(axis=0)] * 2),
        highs=np.stack([span.max(axis=0)] * 2),
        sample=at(quantiles).astype(np.float32),
    )


def _activation(activation: Activation) -> Function:
    module = ACTIVATIONS[activation]()

    def function(x: Float64) -> Float64:
        result: Float64 = module(torch.from_numpy(x)).numpy()
        return result

    return function
