"""What stays float32, and why: one line for each tensor that is not computed in integers."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from levit_deploy.calibration.layers import inner_convolutions, linear_layers
from levit_deploy.calibration.recipe import Recipe
from levit_deploy.calibration.table import FloatTensor

_ATTENTION = "attention: its sums; where its projections are in 8 bits, what it multiplies is too"
_REASONS = {
    "Conv": "first convolution: it reads the image, which is float32",
    "MatMul": _ATTENTION,
    "Softmax": _ATTENTION,
    "Add": "residual stream: float32; each layer that reads it gets an 8-bit copy",
    "HardSwish": "hardswish: of the float32 sum, in the kernel that makes the sum",
    "ReduceMean": "mean over tokens: of the float32 stream",
}


def kept_float(model: onnx.ModelProto, recipe: Recipe) -> Iterator[FloatTensor]:
    """In order of execution; tensors whose values are only moved are left out."""
    layers = {f"{layer.name}.matmul": layer.name for layer in linear_layers(model)}
    layers |= {layer.name: layer.name for layer in inner_convolutions(model)}
    for node in model.graph.node:
        layer = layers.get(node.name)
        if layer in recipe.float_layers:
            yield FloatTensor(layer, f"layer: the recipe `{recipe.name}` keeps it")
        if layer is None and node.op_type in _REASONS and not _adds_bias(node):
            reason = _ATTENTION if node.name.endswith(".scores") else _REASONS[node.op_type]
            yield FloatTensor(node.output[0], reason)


def _adds_bias(node: onnx.NodeProto) -> bool:
    return node.op_type == "Add" and node.input[1].endswith(".bias")
