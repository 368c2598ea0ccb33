"""ExportedModel(fp32), CalibrationTable -> ExportedModel(int8): does what the table says.

Linear layers become `Int8`, convolutions of the stem `Int16`, and an attention all of whose
projections are in 8 bits multiplies integers too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from levit_deploy.calibration.factors import scale_streams
from levit_deploy.calibration.packed_steps import unpack_steps
from levit_deploy.calibration.rounding import limited_steps, weight_steps, weight_steps_int16
from levit_deploy.calibration.table import CalibrationTable, ConvScale, LayerScale, TensorScale
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import require_float32, with_network
from levit_deploy.export.exported import ExportedModel
from levit_deploy.network.arithmetic import (
    DYNAMIC_INT8,
    Int8,
    Int16,
)
from levit_deploy.network.network import (
    Block,
    Conv,
    Linear,
    Mlp,
    Network,
    map_layers,
    reading_layers,
    rounded,
)

HEAD_COLUMNS = 16  # kernels of DynamicInt8 take parts of a head in whole registers


def quantize(exported: ExportedModel, table: CalibrationTable) -> ExportedModel:
    """The 8-bit form of a float32 model. `exported` is left as it is.

    Raises DeployError if the model is not float32 or the table was made for other weights.
    """
    require_float32(exported)
    if exported.weights_digest != table.weights_digest:
        raise DeployError(
            f"the calibration table is for weights `{table.weights_digest[:12]}`, "
            f"the model has `{exported.weights_digest[:12]}`",
            hint="calibrate again: `levit-deploy quantize`",
        )
    network = rounded(scale_streams(exported.network, table.streams))
    return with_network(exported, quantize_network(network, table))


def with_streams(exported: ExportedModel, table: CalibrationTable) -> ExportedModel:
    """The float32 model with its residual streams multiplied: what is rounded next.

    Its logits are those of `exported`; its tensors are those of the 8-bit model before rounding.
    """
    return with_network(exported, rounded(scale_streams(exported.network, table.streams)))


def quantize_network(network: Network, table: CalibrationTable) -> Network:
    """A rounded float32 network, its streams multiplied -> the one with integer arithmetic."""
    layers = {layer.layer: layer for layer in table.layers}
    tensors = {reader: tensor for tensor in table.tensors for reader in tensor.readers}
    convolutions = {scale.layer: scale for scale in table.stem}

    def conv(layer: Conv) -> Conv:
        scale = convolutions.get(layer.name)
        return _quantize_conv(layer, scale) if scale else layer

    def linear(layer: Linear) -> Linear:
        scale = layers.get(layer.name)
        return _quantize_linear(layer, scale, tensors[layer.name]) if scale else layer

    network = map_layers(network, conv, linear)
    return replace(network, blocks=tuple(map(_quantize_attention, network.blocks)))


def _quantize_linear(layer: Linear, scale: LayerScale, x: TensorScale) -> Linear:
    scales = np.array(scale.scales, np.float32)
    factors = np.array(x.factors or 1.0, np.float64).reshape(-1, 1)
    steps = weight_steps(layer.weight.T / factors, scales)
    if scale.roundings:
        added = unpack_steps(scale.roundings, layer.weight.shape, layer.name).T
        steps = limited_steps(steps.astype(np.float64) + added)
    bias = layer.bias
    if scale.bias_correction:
        bias = (bias.astype(np.float64) + scale.bias_correction).astype(np.float32)
    return Linear(
        layer.name,
        steps.T,
        bias,
        Int8(
            factors=np.array(x.factors, np.float32) if x.factors else None,
            scale=float(np.float32(x.scale)),
            zero_point=x.zero_point,
            weight_scales=scales,
        ),
    )


def _quantize_conv(layer: Conv, scale: ConvScale) -> Conv:
    scales, factors = np.array(scale.scales, np.float32), np.array(scale.factors, np.float32)
    by_input = factors.astype(np.float64).reshape(1, -1, 1, 1)
    steps: NDArray[np.int8] | NDArray[np.int16]
    if scale.byte_weights:
        steps = unpack_steps(scale.byte_weights, layer.weight.shape, layer.name)
    else:
        steps = weight_steps_int16(layer.weight / by_input, scales)
    return Conv(
        layer.name,
        steps,
        layer.bias,
        Int16(
            factors=factors,
            scale=float(np.float32(scale.scale)),
            largest_step=scale.largest_step,
            weight_scales=scales,
        ),
    )


def _quantize_attention(block: Block) -> Block:
    if isinstance(block, Mlp):
        return block
    fits = block.key_dim % HEAD_COLUMNS == block.value_dim % HEAD_COLUMNS == 0 and all(
        isinstance(layer.arithmetic, Int8) for layer in reading_layers(block)
    )
    return replace(block, arithmetic=DYNAMIC_INT8) if fits else block
