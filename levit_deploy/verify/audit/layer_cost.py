"""What it costs to leave a layer in float32, as a share of the whole inference.

A model, not a measurement: time goes with multiply-adds, and those in 8 bits are INT8_SPEED times
as fast as those in float32, those of the stem in 16 bits INT16_SPEED times. It ranks layers for
every target alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set

import onnx

from levit_deploy.calibration.layers import inner_convolutions

# Between x86-64-v3, where the linear layers of levit_128s are 1.9 times as fast in 8 bits, and
# AVX-512 VNNI, 3.8 times: `levit-deploy bench DIR --per-kernel` of both precisions, on Zen 4.
INT8_SPEED = 2.5

# Between ARM, where 16 bits are as many instructions as float32, and AVX-512 VNNI, 1.9 times as
# fast by the same command.
INT16_SPEED = 1.5

Costs = Mapping[str, float]


def float_costs(model: onnx.ModelProto, integer_layers: Set[str]) -> Costs:
    """For each of `integer_layers` the time that float32 would add, as a share of the whole of the
    8-bit model.

    `model`: the float32 model, with the shapes of all its tensors.
    """
    work = multiply_adds(model)
    stem = {layer.name for layer in inner_convolutions(model)}
    added = {
        layer: work[layer] * (1 - 1 / (INT16_SPEED if layer in stem else INT8_SPEED))
        for layer in integer_layers
    }
    total = sum(work.values()) - sum(added.values())
    return {layer: time / total for layer, time in added.items()}


def multiply_adds(model: onnx.ModelProto) -> Mapping[str, int]:
    """Of each convolution and matrix product, by its layer's name (else its node's)."""
    graph = model.graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    work = {}
    for node in graph.node:
        out = math.prod(shapes[node.output[0]])
        if node.op_type == "MatMul":
            work[node.name.removesuffix(".matmul")] = out * shapes[node.input[0]][-1]
        elif node.op_type == "Conv":
            work[node.name] = out * math.prod(shapes[node.input[1]][1:])
    return work
