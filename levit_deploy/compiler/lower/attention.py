"""An attention with the projections that make its queries, keys and values.

    attention             gemm of qkv into PANELS, attention kernel
    shrinking attention   gemm of q on every second row and column, gemm of kv, attention kernel

The attention kernel ends with the hardswish in front of the projection, which is a linear layer
like others.
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from levit_deploy.compiler.kernels.attention import int8
from levit_deploy.compiler.kernels.attention.float32 import attention_kernel
from levit_deploy.compiler.kernels.attention.spec import (
    AttentionSpec,
    AttentionTile,
    is_supported,
    pack_bias,
)
from levit_deploy.compiler.kernels.gemm.spec import Layout
from levit_deploy.compiler.lower.calls import Calls, Tensor
from levit_deploy.compiler.lower.linear import lower_linear
from levit_deploy.errors import DeployError
from levit_deploy.network.arithmetic import DynamicInt8, Float32
from levit_deploy.network.network import Attention, ShrinkingAttention


def lower_attention(calls: Calls, block: Attention | ShrinkingAttention, x: Tensor) -> Tensor:
    """What the block's `proj` reads, (queries, heads * value_dim)."""
    spec = _spec(block)
    match block:
        case Attention():
            inputs = [lower_linear(calls, block.qkv, x, layout=Layout.PANELS)]
        case ShrinkingAttention():
            inputs = [
                lower_linear(calls, block.q, x, layout=Layout.PANELS, gather_side=spec.key_side),
                lower_linear(calls, block.kv, x, layout=Layout.PANELS),
            ]
    table, target = block.bias.astype(np.float32), calls.target
    match block.arithmetic:
        case Float32():
            tile = calls.tiles.attention(spec, target)
            supported, bias, kernel = is_supported(spec), pack_bias(table, spec), attention_kernel
        case DynamicInt8():
            tile = int8.default_tile(spec, target)
            supported, bias = int8.is_supported(spec), int8.pack_bias(table, spec)
            kernel = int8.attention_int8_kernel
    if bias is None or not supported:
        what = "biases that do not follow from offsets" if supported else "heads of this size"
        raise DeployError(
            f"`{block.name}` has {what}, for which there is no kernel",
            hint="a head's keys are a multiple of 4 channels, its values of 16",
        )
    value = calls.call(
        _symbol(block, spec, tile),
        lambda symbol, stored: kernel(symbol, spec, tile, target, stored),
        [*(tensor.value for tensor in inputs), bias],
        4 * spec.queries * spec.heads * spec.value_dim,
        stores_copies=True,
    )
    return Tensor(value, spec.queries, spec.heads * spec.value_dim)


def _spec(block: Attention | ShrinkingAttention) -> AttentionSpec:
    heads, queries, keys = block.bias.shape
    return AttentionSpec(
        heads=heads,
        key_dim=block.key_dim,
        value_dim=block.value_dim,
        query_side=isqrt(queries),
        key_side=isqrt(keys),
        stride=2 if isinstance(block, ShrinkingAttention) else 1,
        fused_qkv=isinstance(block, Attention),
    )


def _symbol(block: Attention | ShrinkingAttention, spec: AttentionSpec, tile: AttentionTile) -> str:
    """Such as attention_h4_q196_k196_d16_v32_b14_4x32_4x32."""
    words = ["attention" if spec.fused_qkv else "shrinking"]
    words += ["int8"] * isinstance(block.arithmetic, DynamicInt8) + [f"h{spec.heads}"]
    words += [f"q{spec.queries}", f"k{spec.keys}", f"d{spec.key_dim}", f"v{spec.value_dim}"]
    words += [f"b{tile.rows}", f"{tile.score_rows}x{tile.score_columns}"]
    return "_".join([*words, f"{tile.value_rows}x{tile.value_columns}"])
