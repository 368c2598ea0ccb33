"""The kernels that a LeViT needs, from its description, with how often each one runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

from levit_deploy.compiler.kernels.attention.spec import (
    AttentionBf16Spec,
    AttentionInt8Spec,
    AttentionSpec,
)
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.kernels.gemm.spec import GemmBf16Spec, GemmSpec, Layout
from levit_deploy.compiler.kernels.head import HeadSpec
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.models.spec import MLP_RATIO, ModelSpec


def gemms(model: ModelSpec) -> Counter[GemmSpec]:
    """Without the last one, which the classifier takes along (see `heads`)."""
    *body, _ = _gemms(model)
    return Counter(body)


def _gemms(model: ModelSpec) -> Iterator[GemmSpec]:
    for stage, (channels, side, heads) in enumerate(
        zip(model.channels, model.grids, model.heads, strict=True)
    ):
        tokens = side**2
        value = heads * model.value_dim
        for _ in range(model.depths[stage]):
            yield _panels(tokens, 2 * heads * model.key_dim + value, channels)
            yield _rows(tokens, channels, value, residual=True)
            yield from _mlp(tokens, channels)
        if stage == 2:
            return
        wider, smaller = model.channels[stage + 1], model.grids[stage + 1] ** 2
        heads = model.shrink_heads[stage]
        value = heads * model.shrink_value_dim
        yield _panels(tokens, heads * model.key_dim + value, channels)
        yield _panels(smaller, heads * model.key_dim, channels, gather_side=side)
        yield _rows(smaller, wider, value, residual=False)
        yield from _mlp(smaller, wider)


def _mlp(tokens: int, channels: int) -> Iterator[GemmSpec]:
    hidden = MLP_RATIO * channels
    yield GemmSpec(tokens, hidden, channels, Activation.HARDSWISH, False, Layout.ROWS)
    yield _rows(tokens, channels, hidden, residual=True)


def _rows(rows: int, columns: int, depth: int, residual: bool) -> GemmSpec:
    return GemmSpec(rows, columns, depth, Activation.NONE, residual, Layout.ROWS)


def _panels(rows: int, columns: int, depth: int, gather_side: int = 0) -> GemmSpec:
    return GemmSpec(rows, columns, depth, Activation.NONE, False, Layout.PANELS, gather_side)


def heads(model: ModelSpec) -> Counter[HeadSpec]:
    channels = model.channels[2]
    hidden = MLP_RATIO * channels
    return Counter(
        [
            HeadSpec(model.grids[2] ** 2, hidden, channels, residual=True),
            HeadSpec(1, channels, model.classes),
        ]
    )


def convs(model: ModelSpec) -> Counter[ConvSpec]:
    channels = (3, *model.stem_channels)
    return Counter(
        ConvSpec(
            in_size=model.image_size >> layer,
            in_channels=channels[layer],
            out_channels=channels[layer + 1],
            activation=Activation.HARDSWISH if layer < 3 else Activation.NONE,
            source=Source.PADDED if layer else Source.IMAGE_F32,
            destination=Destination.PADDED if layer < 3 else Destination.TOKENS,
        )
        for layer in range(4)
    )


def attentions(model: ModelSpec) -> Counter[AttentionSpec]:
    key = model.key_dim
    found: Counter[AttentionSpec] = Counter()
    for side, depth, heads in zip(model.grids, model.depths, model.heads, strict=True):
        found[AttentionSpec(heads, key, model.value_dim, side, side, 1, True)] += depth
    for stage, heads in enumerate(model.shrink_heads):
        side, smaller = model.grids[stage : stage + 2]
        found[AttentionSpec(heads, key, model.shrink_value_dim, smaller, side, 2, False)] += 1
    return found


def gemms_bf16(model: ModelSpec) -> Counter[GemmBf16Spec]:
    return Counter({GemmBf16Spec(*astuple(spec)): n for spec, n in gemms(model).items()})


def attentions_bf16(model: ModelSpec) -> Counter[AttentionBf16Spec]:
    found = attentions(model)
    return Counter({AttentionBf16Spec(*astuple(spec)): n for spec, n in found.items()})


def attentions_int8(model: ModelSpec) -> Counter[AttentionInt8Spec]:
    found = attentions(model)
    return Counter({AttentionInt8Spec(*astuple(spec)): n for spec, n in found.items()})


SPECS: dict[str, Callable[[ModelSpec], Counter[Any]]] = {
    "gemm": gemms,
    "gemm_bf16": gemms_bf16,
    "head": heads,
    "conv": convs,
    "attention": attentions,
    "attention_bf16": attentions_bf16,
    "attention_int8": attentions_int8,
}
