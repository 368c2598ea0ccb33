"""Weights with which a wrong fold shows.

A fresh LeViT has zero biases, zero branch weights and BatchNorm statistics of 0 and 1: any
mistake passes on it. After `randomize` every tensor matters, and activations stay near 1.
"""

from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def randomize(module: Module, seed: int) -> Module:
    """Fill every parameter and BatchNorm statistic from `seed`; returns the module, evaluating.

    Works on the reference and on the models of timm and transformers alike: layers are told by
    their type, attention bias tables by their name.
    """
    rng = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.weight.uniform_(0.5, 1.5, generator=rng)
            part.bias.normal_(0.0, 0.3, generator=rng)
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0.0, 0.5, generator=rng)
            part.running_var.uniform_(0.5, 2.0, generator=rng)
        elif isinstance(part, nn.Linear | nn.Conv2d):
            part.weight.normal_(0.0, part.weight[0].numel() ** -0.5, generator=rng)
            if part.bias is not None:
                part.bias.normal_(0.0, 0.5, generator=rng)
    for name, parameter in module.named_parameters():
        if name.endswith("attention_biases"):
            parameter.normal_(0.0, 1.0, generator=rng)
    return module.eval()
