"""The folds: exact algebra that takes BatchNorm and scalar factors out of a trained LeViT.

    conv -> BatchNorm                  =>  conv with bias
    linear -> BatchNorm                =>  linear with bias
    BatchNorm -> linear                =>  linear with bias          (the heads)
    attention_biases[:, idxs]          =>  one table (heads, queries, keys)
    (q k^T) * key_dim**-0.5            =>  the factor inside the q rows
    (head(x) + head_dist(x)) / 2       =>  one linear

Everything here is float64, in PyTorch's layouts; `network.rounded` makes float32 of it.
At inference BatchNorm is `y = gain * x + offset` with `gain = weight / sqrt(running_var + eps)` and
`offset = bias - gain * running_mean` (Ioffe and Szegedy 2015, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from levit_deploy.errors import DeployError
from levit_deploy.network.network import Float64


class Affine(NamedTuple):
    """`weight @ x + bias`; weight (out, in) or (out, in, kh, kw), bias (out,)."""

    weight: Float64
    bias: Float64


def float64(tensor: torch.Tensor) -> Float64:
    """The values of a tensor as a float64 array of the same shape."""
    return tensor.detach().to("cpu", torch.float64).numpy().copy()


def batchnorm_affine(bn: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Float64, Float64]:
    """`gain` and `offset`, each (channels,), of a BatchNorm with fixed statistics.

    Raises DeployError if it keeps no running statistics: then it is not an affine map.
    """
    if bn.running_mean is None or bn.running_var is None:
        raise DeployError(
            f"BatchNorm over `{bn.num_features}` channels has no running statistics",
            hint="train it with track_running_stats=True",
        )
    with np.errstate(invalid="ignore"):  # a negative variance: NaN, refused where it is rounded
        deviation = np.sqrt(float64(bn.running_var) + bn.eps)
    weight = float64(bn.weight) if bn.affine else np.ones(bn.num_features)
    bias = float64(bn.bias) if bn.affine else np.zeros(bn.num_features)
    gain = weight / deviation
    return gain, bias - gain * float64(bn.running_mean)


def fold_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> Affine:
    """conv -> BatchNorm as one conv: weight (out, in, kh, kw), bias (out,).

    Zero padding stays right, since the BatchNorm comes after the conv.
    """
    gain, offset = batchnorm_affine(bn)
    return Affine(float64(conv.weight) * gain[:, None, None, None], gain * _bias(conv) + offset)


def fold_linear_bn(linear: nn.Linear, bn: nn.BatchNorm1d) -> Affine:
    """linear -> BatchNorm as one linear: weight (out, in), bias (out,)."""
    gain, offset = batchnorm_affine(bn)
    return Affine(float64(linear.weight) * gain[:, None], gain * _bias(linear) + offset)


def fold_bn_linear(bn: nn.BatchNorm1d, linear: nn.Linear) -> Affine:
    """BatchNorm -> linear as one linear: weight (out, in), bias (out,)."""
    gain, offset = batchnorm_affine(bn)
    weight = float64(linear.weight)
    return Affine(weight * gain, weight @ offset + _bias(linear))


def gather_attention_bias(biases: torch.Tensor, idxs: torch.Tensor) -> Float64:
    """biases (heads, distinct offsets), idxs (queries, keys) -> table (heads, queries, keys)."""
    return float64(biases)[:, idxs.cpu().numpy()]


def scale_query_rows(projection: Affine, heads: int, key_dim: int) -> Affine:
    """Multiply the q rows of a projection by `key_dim**-0.5`, so that scores need no scaling.

    The rows of each head begin with its `key_dim` rows of q: in a qkv projection k and v follow,
    in the q projection of the shrinking attention nothing does.
    """
    per_head = projection.bias.size // heads
    factor = np.ones((heads, per_head))
    factor[:, :key_dim] = key_dim**-0.5
    rows = factor.reshape(-1)
    return Affine(projection.weight * rows[:, None], projection.bias * rows)


def merge_heads(heads: Sequence[Affine]) -> Affine:
    """The mean of linear layers over the same input, as one linear layer."""
    return Affine(
        np.mean([head.weight for head in heads], axis=0),
        np.mean([head.bias for head in heads], axis=0),
    )


def _bias(layer: nn.Conv2d | nn.Linear) -> Float64:
    if layer.bias is None:
        return np.zeros(layer.weight.shape[0])
    return float64(layer.bias)
