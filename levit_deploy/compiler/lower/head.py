"""The classifier, and the last linear layer of the body, of which only the mean is wanted.

The mean of a linear layer is the layer of the mean,

    mean(r + h @ w + b) = mean(r) + mean(h) @ w + b

so what is called depends on the arithmetic of both:

    float body, float head   a head call with residual, which makes one row instead of one for each
                             token, and a head call of that row
    float head               a gemm of the body, a head call that takes the mean
    16-bit body              mean calls of both terms, a gemm of one row, and what the head is
    8-bit head               a gemm of the body, a mean call, a gemm of one row
    no head                  the same without what comes last
"""

from __future__ import annotations

import numpy as np

from levit_deploy.compiler.kernels.gemm.float32 import pack_weights
from levit_deploy.compiler.kernels.head import HEAD, HeadSpec
from levit_deploy.compiler.kernels.mean import mean_kernel
from levit_deploy.compiler.lower.calls import Calls, Tensor
from levit_deploy.compiler.lower.linear import lower_linear
from levit_deploy.network.arithmetic import Float32, Half, Int8
from levit_deploy.network.network import Linear


def lower_head(
    calls: Calls, head: Linear | None, last: Linear, hidden: Tensor, residual: Tensor | None
) -> Tensor:
    """head(mean over tokens of last(hidden) (+ residual)), one row of logits, or of features."""
    takes_float = head is None or isinstance(head.arithmetic, Float32)
    if takes_float and residual is not None and isinstance(last.arithmetic, Float32):
        features = _mean_layer(calls, last, hidden, residual)
        return features if head is None else _mean_layer(calls, head, features)
    if residual is not None and isinstance(last.arithmetic, Half):
        x = lower_linear(calls, last, _mean(calls, hidden), residual=_mean(calls, residual))
        return x if head is None else lower_linear(calls, head, x)
    x = lower_linear(calls, last, hidden, residual=residual)
    if head is None:
        return _mean(calls, x)
    match head.arithmetic:
        case Float32():
            return _mean_layer(calls, head, x)
        case Half() | Int8():
            return lower_linear(calls, head, _mean(calls, x))


def _mean_layer(calls: Calls, layer: Linear, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """The layer of the mean over tokens, plus that of the residual."""
    spec = HeadSpec(x.rows, layer.inputs, layer.outputs, residual is not None)
    tile = calls.tiles.tile(spec, calls.target)
    panels = pack_weights(layer.weight.T.astype(np.float32), layer.bias.astype(np.float32), tile)
    value = calls.call(
        HEAD.symbol(spec, tile),
        HEAD.maker(spec, tile, calls.target),
        [x.value, panels, *([residual.value] if residual else [])],
        4 * spec.classes,
    )
    return Tensor(value, 1, spec.classes)


def _mean(calls: Calls, x: Tensor) -> Tensor:
    value = calls.call(
        f"mean_t{x.rows}_k{x.channels}",
        lambda symbol, stored: mean_kernel(symbol, x.rows, x.channels, calls.target, stored),
        [x.value],
        4 * x.channels,
        stores_copies=True,
    )
    return Tensor(value, 1, x.channels)
