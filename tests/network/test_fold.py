"""Every fold against the unfolded layers in PyTorch float64."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from levit_deploy.errors import DeployError
from levit_deploy.models.reference import attend, attention_bias_indices
from levit_deploy.network.fold import (
    Affine,
    batchnorm_affine,
    fold_bn_linear,
    fold_conv_bn,
    fold_linear_bn,
    gather_attention_bias,
    merge_heads,
    scale_query_rows,
)
from tests.randomize import randomize


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)


def make_hostile(bn):
    """One channel 1000 times the others, one nearly constant, one dead, one far from zero."""
    with torch.no_grad():
        bn.weight[0] *= 1000
        bn.running_var[1] = 1e-12
        bn.running_var[2] = 0
        bn.running_mean[3] = 1e4


def assert_equal_in_float64(actual, expected):
    np.testing.assert_allclose(actual.numpy(), expected.detach().numpy(), rtol=1e-11, atol=1e-9)


def apply(folded: Affine, x):
    weight, bias = torch.from_numpy(folded.weight), torch.from_numpy(folded.bias)
    if weight.ndim == 4:
        return F.conv2d(x, weight, bias, stride=2, padding=1)
    return F.linear(x, weight, bias)


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_conv_bn(hostile, bias):
    conv, bn = nn.Conv2d(3, 8, 3, 2, 1, bias=bias), nn.BatchNorm2d(8)
    randomize(nn.Sequential(conv, bn), seed=0)
    if hostile:
        make_hostile(bn)
    folded = fold_conv_bn(conv, bn)
    x = torch.randn(2, 3, 10, 10, dtype=torch.float64)
    assert_equal_in_float64(apply(folded, x), bn.double()(conv.double()(x)))


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_bn(hostile, bias):
    linear, bn = nn.Linear(12, 7, bias=bias), nn.BatchNorm1d(7)
    randomize(nn.Sequential(linear, bn), seed=0)
    if hostile:
        make_hostile(bn)
    folded = fold_linear_bn(linear, bn)
    x = torch.randn(5, 12, dtype=torch.float64)
    assert_equal_in_float64(apply(folded, x), bn.double()(linear.double()(x)))


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_bn_linear(hostile, bias):
    bn, linear = nn.BatchNorm1d(12), nn.Linear(12, 7, bias=bias)
    randomize(nn.Sequential(bn, linear), seed=0)
    if hostile:
        make_hostile(bn)
    folded = fold_bn_linear(bn, linear)
    x = torch.randn(5, 12, dtype=torch.float64)
    assert_equal_in_float64(apply(folded, x), linear.double()(bn.double()(x)))


def test_batchnorm_without_affine_parameters():
    bn = nn.BatchNorm1d(6, affine=False).eval()
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.5, 2)
    gain, offset = batchnorm_affine(bn)
    x = torch.randn(5, 6, dtype=torch.float64)
    assert_equal_in_float64(x * torch.from_numpy(gain) + torch.from_numpy(offset), bn.double()(x))


def test_batchnorm_without_statistics_is_refused():
    with pytest.raises(DeployError, match="no running statistics"):
        batchnorm_affine(nn.BatchNorm1d(6, track_running_stats=False))


@pytest.mark.parametrize(("grid", "stride"), [(4, 1), (5, 1), (4, 2), (5, 2), (1, 1)])
def test_attention_bias_table(grid, stride):
    biases = torch.randn(3, grid * grid)
    table = gather_attention_bias(biases, attention_bias_indices(grid, stride))
    queries = [(y, x) for y in range(0, grid, stride) for x in range(0, grid, stride)]
    keys = [(y, x) for y in range(grid) for x in range(grid)]
    assert table.shape == (3, len(queries), len(keys))
    for i, (qy, qx) in enumerate(queries):
        for j, (ky, kx) in enumerate(keys):
            offset = abs(qy - ky) * grid + abs(qx - kx)
            np.testing.assert_array_equal(table[:, i, j], biases[:, offset].numpy())


@pytest.mark.parametrize("key_dim", [8, 16, 32])
def test_query_scale(key_dim):
    heads, channels, tokens = 3, 10, 6
    qkv = random_affine(heads * 4 * key_dim, channels)
    x = torch.randn(1, tokens, channels, dtype=torch.float64)
    bias = torch.randn(heads, tokens, tokens, dtype=torch.float64)
    split = [key_dim, key_dim, 2 * key_dim]
    q, k, v = apply(qkv, x).unflatten(2, (heads, -1)).split(split, dim=3)
    expected = attend(q, k, v, bias)

    scaled = apply(scale_query_rows(qkv, heads, key_dim), x)
    q, k, v = (t.transpose(1, 2) for t in scaled.unflatten(2, (heads, -1)).split(split, dim=3))
    weights = (q @ k.transpose(2, 3) + bias).softmax(dim=3)
    assert_equal_in_float64((weights @ v).transpose(1, 2).flatten(2), expected)


def test_query_scale_of_a_projection_of_queries_only():
    q = random_affine(24, 10)
    scaled = scale_query_rows(q, heads=3, key_dim=8)
    np.testing.assert_allclose(scaled.weight, q.weight / np.sqrt(8), rtol=1e-15)
    np.testing.assert_allclose(scaled.bias, q.bias / np.sqrt(8), rtol=1e-15)


def test_merged_heads():
    first, second = random_affine(7, 12), random_affine(7, 12)
    x = torch.randn(5, 12, dtype=torch.float64)
    merged = merge_heads([first, second])
    assert_equal_in_float64(apply(merged, x), (apply(first, x) + apply(second, x)) / 2)


def random_affine(out_channels, in_channels):
    weight = torch.randn(out_channels, in_channels, dtype=torch.float64)
    return Affine(weight.numpy(), torch.randn(out_channels, dtype=torch.float64).numpy())
