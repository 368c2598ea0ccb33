"""An attention with the projections that make its queries, keys and values.

    attention             gemm of qkv into PANELS, attention kernel
    shrinking attention   gemm of q on every second row and column, gemm of kv, attention kernel

The attention kernel ends with the activation in front of the projection, which is a linear layer
like others.
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from levit_deploy.compiler.kernels.attention import bf16, half, int8
from levit_deploy.compiler.kernels.attention.spec import (
    AttentionBf16Spec,
    AttentionBfmmlaSpec,
    AttentionHalfSpec,
    AttentionInt8Spec,
    AttentionSpec,
    is_supported,
    pack_bias,
)
from levit_deploy.compiler.kernels.gemm.spec import Layout
from levit_deploy.compiler.lower.calls import Calls, Tensor
from levit_deploy.compiler.lower.linear import lower_linear
from levit_deploy.compiler.tiles.registry import family_of
from levit_deploy.errors import DeployError
from levit_deploy.half_format import HalfFormat
from levit_deploy.network.arithmetic import AttentionArithmetic, DynamicInt8, Half
from levit_deploy.network.network import Attention, ShrinkingAttention
from levit_deploy.targets.target import Arch, Target

_MULTIPLIED: dict[tuple[HalfFormat, Arch], type[AttentionSpec]] = {
    (HalfFormat.FP16, Arch.AARCH64): AttentionHalfSpec,
    (HalfFormat.BF16, Arch.AARCH64): AttentionBfmmlaSpec,
    (HalfFormat.BF16, Arch.X86_64): AttentionBf16Spec,
}


def lower_attention(calls: Calls, block: Attention | ShrinkingAttention, x: Tensor) -> Tensor:
    """What the block's `proj` reads, (queries, heads * value_dim)."""
    spec = _spec(block, calls)
    match block:
        case Attention():
            inputs = [lower_linear(calls, block.qkv, x, layout=Layout.PANELS)]
        case ShrinkingAttention():
            inputs = [
                lower_linear(calls, block.q, x, layout=Layout.PANELS, gather_side=spec.key_side),
                lower_linear(calls, block.kv, x, layout=Layout.PANELS),
            ]
    table = block.bias.astype(np.float32)
    operands = [tensor.value for tensor in inputs]
    match spec:
        case AttentionInt8Spec():
            supported, bias = int8.is_supported(spec), int8.pack_bias(table, spec)
        case AttentionHalfSpec():
            supported, bias = half.is_supported(spec), pack_bias(table, spec)
            operands = [calls.halved(x, HalfFormat.FP16, block.name, Layout.PANELS) for x in inputs]
        case AttentionBf16Spec():
            supported, bias = bf16.is_supported(spec), pack_bias(table, spec)
            operands = [calls.halved(x, HalfFormat.BF16, block.name, Layout.PANELS) for x in inputs]
        case _:
            supported, bias = is_supported(spec), pack_bias(table, spec)
    if bias is None or not supported:
        what = "biases that do not follow from offsets" if supported else "heads of this size"
        raise DeployError(
            f"`{block.name}` has {what}, for which there is no kernel",
            hint="a head's keys are a multiple of 4 channels, its values of 16",
        )
    family, tile = family_of(spec), calls.tiles.tile(spec, calls.target)
    value = calls.call(
        family.symbol(spec, tile),
        family.maker(spec, tile, calls.target),
        [*operands, bias],
        4 * spec.queries * spec.heads * spec.value_dim,
        stores_copies=True,
    )
    return Tensor(value, spec.queries, spec.heads * spec.value_dim)


def _spec(block: Attention | ShrinkingAttention, calls: Calls) -> AttentionSpec:
    heads, queries, keys = block.bias.shape
    return _kind(block.arithmetic, calls.target)(
        heads=heads,
        key_dim=block.key_dim,
        value_dim=block.value_dim,
        query_side=isqrt(queries),
        key_side=isqrt(keys),
        stride=2 if isinstance(block, ShrinkingAttention) else 1,
        fused_qkv=isinstance(block, Attention),
        activation=calls.activation,
    )


def _kind(arithmetic: AttentionArithmetic, target: Target) -> type[AttentionSpec]:
    """Half is float32 on a CPU that does not multiply it."""
    match arithmetic:
        case DynamicInt8():
            return AttentionInt8Spec
        case Half(format=format) if format in target.halves:
            return _MULTIPLIED[format, target.arch]
    return AttentionSpec
