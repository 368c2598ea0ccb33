"""A float network in PyTorch float64: what folded weights mean, with no rounding to speak of."""

import numpy as np
import torch
from torch.nn import functional as F

from levit_deploy.network.network import Attention, Mlp, Network, ShrinkingAttention


def forward(model: Network, images: torch.Tensor) -> np.ndarray:
    """Logits (n, classes) of images (n, 3, size, size), all float64."""
    x = images
    for index, conv in enumerate(model.stem):
        weight, bias = tensors(conv)
        x = F.conv2d(F.hardswish(x) if index else x, weight, bias, stride=2, padding=1)
    x = x.flatten(2).transpose(1, 2)
    for block in model.blocks:
        x = apply_block(block, x)
    return F.linear(x.mean(1), *tensors(model.head)).numpy()


def apply_block(block, x):
    if isinstance(block, Mlp):
        return x + linear(block.contract, F.hardswish(linear(block.expand, x)))
    d, value_dim = block.key_dim, block.value_dim
    if isinstance(block, Attention):
        q, k, v = by_head(linear(block.qkv, x), block).split([d, d, value_dim], dim=3)
        return x + attend(block, q, k, v)
    assert isinstance(block, ShrinkingAttention)
    side = round(x.shape[1] ** 0.5)
    asking = x.unflatten(1, (side, side))[:, ::2, ::2].flatten(1, 2)
    k, v = by_head(linear(block.kv, x), block).split([d, value_dim], dim=3)
    return attend(block, by_head(linear(block.q, asking), block), k, v)


def attend(block, q, k, v):
    weights = (q @ k.transpose(2, 3) + torch.from_numpy(block.bias)).softmax(3)
    return linear(block.proj, F.hardswish((weights @ v).transpose(1, 2).flatten(2)))


def by_head(x, block):
    return x.unflatten(2, (len(block.bias), -1)).transpose(1, 2)


def linear(layer, x):
    return F.linear(x, *tensors(layer))


def tensors(layer):
    return torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
