"""Levit -> Network: every fold of `fold.py`, applied where it belongs."""

from __future__ import annotations

from typing import cast

from torch import nn

from levit_deploy.errors import DeployError
from levit_deploy.models import reference
from levit_deploy.network.fold import (
    Affine,
    fold_bn_linear,
    fold_conv_bn,
    fold_linear_bn,
    gather_attention_bias,
    merge_heads,
    scale_query_rows,
)
from levit_deploy.network.network import (
    Attention,
    Block,
    Conv,
    Float64,
    Linear,
    Mlp,
    Network,
    ShrinkingAttention,
)


def fold_model(net: reference.Levit) -> Network:
    """Fold a trained LeViT, in float64. `net` is left as it is.

    Raises DeployError if it holds a BatchNorm that no fold has taken in.
    """
    folding = _Folding()
    stem = tuple(
        folding.conv_bn(f"patch_embed.{index}", pair)
        for index, pair in net.patch_embed.named_children()
        if isinstance(pair, reference.ConvBN)
    )
    blocks = tuple(
        folding.block(f"blocks.{index}", block) for index, block in net.blocks.named_children()
    )
    names = ["head", "head_dist"] if net.spec.distilled else ["head"]
    heads = [folding.bn_linear(getattr(net, name)) for name in names if net.spec.classes]
    head = Linear("head", *merge_heads(heads)) if heads else None
    folding.check_nothing_left(net)
    return Network(stem, blocks, head, net.spec.image_size, net.spec.activation)


class _Folding:
    """Folds modules and remembers whose BatchNorm is done."""

    def __init__(self) -> None:
        self._folded: set[nn.Module] = set()

    def conv_bn(self, name: str, pair: reference.ConvBN) -> Conv:
        conv, bn = cast(nn.Conv2d, pair.c), cast(nn.BatchNorm2d, pair.bn)
        self._folded.add(bn)
        return Conv(name, *fold_conv_bn(conv, bn))

    def linear_bn(self, name: str, pair: nn.Module) -> Linear:
        if not isinstance(pair, reference.LinearBN):
            raise _unknown(name, pair)
        self._folded.add(pair.bn)
        return Linear(name, *fold_linear_bn(pair.c, pair.bn))

    def bn_linear(self, pair: reference.BNLinear) -> Affine:
        bn, linear = cast(nn.BatchNorm1d, pair.bn), cast(nn.Linear, pair.l)
        self._folded.add(bn)
        return fold_bn_linear(bn, linear)

    def block(self, name: str, block: nn.Module) -> Block:
        if isinstance(block, reference.ShrinkingAttention):
            return self._shrinking_attention(name, block)
        branch = block.m if isinstance(block, reference.Residual) else None
        if isinstance(branch, reference.Attention):
            return self._attention(f"{name}.m", branch)
        if isinstance(branch, nn.Sequential):
            expand = self.linear_bn(f"{name}.m.0", branch[0])
            contract = self.linear_bn(f"{name}.m.2", branch[2])
            return Mlp(f"{name}.m", expand, contract)
        raise _unknown(name, block)

    def _attention(self, name: str, module: reference.Attention) -> Attention:
        return Attention(
            name=name,
            qkv=_scaled_queries(self.linear_bn(f"{name}.qkv", module.qkv), module),
            bias=gather_attention_bias(module.attention_biases, module.attention_bias_idxs),
            proj=self.linear_bn(f"{name}.proj.1", module.proj[1]),
            key_dim=module.key_dim,
        )

    def _shrinking_attention(
        self, name: str, module: reference.ShrinkingAttention
    ) -> ShrinkingAttention:
        return ShrinkingAttention(
            name=name,
            q=_scaled_queries(self.linear_bn(f"{name}.q.1", module.q[1]), module),
            kv=self.linear_bn(f"{name}.kv", module.kv),
            bias=gather_attention_bias(module.attention_biases, module.attention_bias_idxs),
            proj=self.linear_bn(f"{name}.proj.1", module.proj[1]),
            key_dim=module.key_dim,
        )

    def check_nothing_left(self, net: nn.Module) -> None:
        for name, module in net.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module not in self._folded:
                raise DeployError(
                    f"BatchNorm `{name}` is left after folding",
                    hint="export a network built by levit_deploy.models.reference, unmodified",
                )


def _scaled_queries(
    layer: Linear, module: reference.Attention | reference.ShrinkingAttention
) -> Linear:
    affine = Affine(cast(Float64, layer.weight), cast(Float64, layer.bias))
    return Linear(layer.name, *scale_query_rows(affine, module.heads, module.key_dim))


def _unknown(name: str, module: nn.Module) -> DeployError:
    return DeployError(
        f"`{name}` is a `{type(module).__name__}`, which is no part of a LeViT",
        hint="export a network built by levit_deploy.models.reference, unmodified",
    )
