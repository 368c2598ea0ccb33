"""A linear layer, with what follows it: one gemm call, in the arithmetic of the layer."""

from __future__ import annotations

import numpy as np

from levit_deploy.compiler.flat_program import Value
from levit_deploy.compiler.kernels.gemm.family import GEMM, GEMM_INT8
from levit_deploy.compiler.kernels.gemm.float32 import pack_weights
from levit_deploy.compiler.kernels.gemm.int8_panels import pack_weights_int8, within_limits
from levit_deploy.compiler.kernels.gemm.spec import (
    GemmBf16Spec,
    GemmBfmmlaSpec,
    GemmHalfSpec,
    GemmInt8Spec,
    GemmSpec,
    GemmStoredHalfSpec,
    Layout,
)
from levit_deploy.compiler.kernels.gemm.stored_half import pack_bias, pack_halves
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.lower.calls import Calls, Tensor
from levit_deploy.compiler.tiles.registry import family_of
from levit_deploy.errors import DeployError
from levit_deploy.half_format import HalfFormat
from levit_deploy.network.arithmetic import Float32, Half, Int8
from levit_deploy.network.network import Linear
from levit_deploy.targets.target import Arch

_MULTIPLIED: dict[tuple[HalfFormat, Arch], type[GemmHalfSpec | GemmBf16Spec]] = {
    (HalfFormat.FP16, Arch.AARCH64): GemmHalfSpec,
    (HalfFormat.BF16, Arch.AARCH64): GemmBfmmlaSpec,
    (HalfFormat.BF16, Arch.X86_64): GemmBf16Spec,
}


def lower_linear(
    calls: Calls,
    layer: Linear,
    x: Tensor,
    *,
    activation: Activation = Activation.NONE,
    residual: Tensor | None = None,
    layout: Layout = Layout.ROWS,
    gather_side: int = 0,
) -> Tensor:
    """activation(layer(x)) (+ residual), (rows, channels) in `layout`.

    `gather_side`: 0, or the side of the grid of x of which every second row and column is taken.
    """
    spec = GemmSpec(
        rows=((gather_side + 1) // 2) ** 2 if gather_side else x.rows,
        columns=layer.outputs,
        depth=layer.inputs,
        activation=activation,
        residual=residual is not None,
        layout=layout,
        gather_side=gather_side,
    )
    match layer.arithmetic:
        case Float32():
            out = _float32(calls, spec, layer, x, residual)
        case Half(format=format):
            out = _half(calls, spec, layer, format, x, residual)
        case Int8() as int8:
            out = _int8(calls, spec, layer, int8, x, residual)
    return Tensor(out, spec.rows, spec.columns)


def _float32(
    calls: Calls, spec: GemmSpec, layer: Linear, x: Tensor, residual: Tensor | None
) -> Value:
    tile = calls.tiles.tile(spec, calls.target)
    panels = pack_weights(layer.weight.T.astype(np.float32), layer.bias.astype(np.float32), tile)
    return calls.call(
        GEMM.symbol(spec, tile),
        GEMM.maker(spec, tile, calls.target),
        [x.value, panels, *([residual.value] if residual else [])],
        4 * spec.output_size,
    )


def _half(
    calls: Calls,
    spec: GemmSpec,
    layer: Linear,
    format: HalfFormat,
    x: Tensor,
    residual: Tensor | None,
) -> Value:
    """On a CPU that multiplies `format`, or in float32 on weights that are stored in it."""
    native = format in calls.target.halves
    own: GemmHalfSpec | GemmBf16Spec | GemmStoredHalfSpec
    if native:
        own, a = (
            _MULTIPLIED[format, calls.target.arch](**vars(spec)),
            calls.halved(x, format, layer.name),
        )
    else:
        own, a = GemmStoredHalfSpec(**vars(spec), format=format), x.value
    family, tile = family_of(own), calls.tiles.tile(own, calls.target)
    panels = pack_halves(layer.weight.T.astype(np.float32), format, tile, calls.target)
    bias = pack_bias(layer.bias.astype(np.float32), tile)
    return calls.call(
        family.symbol(own, tile),
        family.maker(own, tile, calls.target),
        [a, panels, bias, *([residual.value] if residual else [])],
        4 * spec.output_size,
        stores_copies=native,
    )


def _int8(
    calls: Calls, spec: GemmSpec, layer: Linear, int8: Int8, x: Tensor, residual: Tensor | None
) -> Value:
    weight = layer.weight.T.astype(np.int8)
    if not within_limits(weight):
        raise DeployError(
            f"8-bit weights of `{layer.name}` are so large that sums of products could overflow",
            hint="quantize the model again: `levit-deploy quantize`",
        )
    own = GemmInt8Spec(**vars(spec))
    tile, scale = calls.tiles.tile(own, calls.target, layer.name), np.float64(int8.scale)
    factors = np.ones(spec.depth, np.float32) if int8.factors is None else int8.factors
    copy = calls.quantized(
        x, (factors / scale).astype(np.float32), int8.zero_point, f"{layer.name}.matmul"
    )
    multiplier = (int8.weight_scales * scale).astype(np.float32)
    panels = pack_weights_int8(
        weight, multiplier, layer.bias.astype(np.float32), int8.zero_point, tile, calls.target
    )

    return calls.call(
        GEMM_INT8.symbol(own, tile),
        GEMM_INT8.maker(own, tile, calls.target),
        [copy, panels, *([residual.value] if residual else [])],
        4 * spec.output_size,
        stores_copies=spec.layout is Layout.ROWS,
    )
