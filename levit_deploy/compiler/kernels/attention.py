"""One attention layer of LeViT: scores, position bias, softmax, value product, hardswish."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionSpec:
    """Attention of `heads` heads over a square grid of key tokens.

    Queries are a `query_side` square grid that lies on the `key_side` square grid with step
    `stride` (1: plain, 2: shrinking). Inputs come in PANELS layout (see gemm.Layout).
    `fused_qkv`: queries, keys and values are columns of one matrix, a head at a time
    [q key_dim | k key_dim | v value_dim]; otherwise two matrices: queries [heads * key_dim], and
    [k key_dim | v value_dim] a head at a time. The q scale is already in the weights.
    Output: (query_side ** 2, heads * value_dim) row-major, after hardswish.
    """

    heads: int
    key_dim: int
    value_dim: int
    query_side: int
    key_side: int
    stride: int
    fused_qkv: bool
