"""A network's outlier-channel model: the same function, with a residual stream that is hard to
quantize.

Each channel of each stage's stream is multiplied by exp(sigma * N(0, 1)) where it is written and
divided by it where it is read. Nets trained for long carry such outlier channels by nature; the
demonstration net does not, so int8 is judged on such models of it too. The change is made in the
trained module, so that its result is a checkpoint like any other.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from levit_deploy.models.reference import (
    Attention,
    BNLinear,
    ConvBN,
    Levit,
    LinearBN,
    ShrinkingAttention,
)


@torch.no_grad()
def with_outlier_channels(net: Levit, sigma: float, seed: int) -> Levit:
    """A copy of `net` whose stream channels are rescaled; the same seed gives the same copy.

    Exact in real numbers: its logits differ from those of `net` by rounding only.
    """
    changed = copy.deepcopy(net)
    rng = torch.Generator().manual_seed(seed)
    factors = [
        torch.exp(sigma * torch.randn(channels, generator=rng, dtype=torch.float64))
        for channels in net.spec.channels
    ]
    stage = 0
    _write(cast(ConvBN, changed.patch_embed[-1]), factors[stage])
    for block in changed.blocks:
        branch = cast(nn.Module, getattr(block, "m", block))
        for reader in _readers(branch):
            reader.c.weight.div_(factors[stage])
        if isinstance(branch, ShrinkingAttention):
            stage += 1
        _write(_writer(branch), factors[stage])
    for head in [changed.head, changed.head_dist] if net.spec.distilled else [changed.head]:
        _read_through_batchnorm(head, factors[stage])
    return changed


def _write(pair: ConvBN | LinearBN, factors: Tensor) -> None:
    bn = cast(nn.BatchNorm1d, pair.bn)
    bn.weight.mul_(factors)
    bn.bias.mul_(factors)


def _read_through_batchnorm(head: BNLinear, factors: Tensor) -> None:
    """The variance stays, since `eps` is added to it: the gain takes the factor instead."""
    bn = cast(nn.BatchNorm1d, head.bn)
    cast(Tensor, bn.running_mean).mul_(factors)
    bn.weight.div_(factors)


def _readers(branch: nn.Module) -> list[LinearBN]:
    match branch:
        case Attention():
            return [branch.qkv]
        case ShrinkingAttention():
            return [branch.kv, cast(LinearBN, branch.q[1])]
        case _:
            return [cast(LinearBN, cast(nn.Sequential, branch)[0])]


def _writer(branch: nn.Module) -> LinearBN:
    layers = branch.proj if isinstance(branch, Attention | ShrinkingAttention) else branch
    return cast(LinearBN, cast(nn.Sequential, layers)[-1])
