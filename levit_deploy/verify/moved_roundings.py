"""How far a model in ONNX Runtime comes from itself when every rounding may go the other way.

before: x -> QuantizeLinear | Round         after: x + noise of half a step -> the same
        x -> Cast to 16 bits                       x * (1 + noise of a unit in the last place) -> ..
        x -> MatMul | Conv                         the same

A Cast rounds inputs, or the weights of a convolution: a library may round sums of either instead.
Why that bounds what a right library may differ by is derived in tolerance.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from levit_deploy.export.exported import ExportedModel
from levit_deploy.export.graph_writer import ONNX_HALVES
from levit_deploy.half_format import HalfFormat
from levit_deploy.models.rounding_cost import EVALUATIONS, share_of_range
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Images
from levit_deploy.verify.onnx_runner import OnnxRunner

_UNIT = float(np.finfo(np.float32).eps)


def moved_cost(model: ExportedModel, images: Images, logits: Logits) -> float:
    """The largest distance of a logit from `logits`, the model's own, as a share of their range.

    In `EVALUATIONS` or more evaluations: of few images each more than once.
    """
    with OnnxRunner(replace(model, graph=_moved(model.graph)), as_written=True) as runner:
        draws = range(-(-EVALUATIONS // len(images)))  # each run goes on with other noise
        return float(np.max([share_of_range(logits, runner.infer(images)) for _ in draws]))


def _moved(graph: onnx.ModelProto) -> onnx.ModelProto:
    moved = onnx.ModelProto()
    moved.CopyFrom(graph)
    constants = {tensor.name: tensor for tensor in moved.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        match node.op_type:
            case "QuantizeLinear":
                half = float(numpy_helper.to_array(constants[node.input[1]])) / 2
                nodes += _noise(node, "Add", -half, half, seed=len(nodes))
            case "Round":
                nodes += _noise(node, "Add", -0.5, 0.5, seed=len(nodes))
            case "Cast" if (format := _rounds_to(node)) is not None:
                unit = format.unit
                nodes += _noise(node, "Mul", 1 - unit, 1 + unit, seed=len(nodes))
            case "MatMul" | "Conv":
                nodes += _noise(node, "Mul", 1 - _UNIT, 1 + _UNIT, seed=len(nodes))
            case _:
                nodes.append(node)
    del moved.graph.node[:]
    moved.graph.node.extend(nodes)
    return moved


def _rounds_to(cast: onnx.NodeProto) -> HalfFormat | None:
    """What it rounds to, if that is a 16-bit format."""
    to = helper.get_node_attr_value(cast, "to")
    return next((half for half, number in ONNX_HALVES.items() if number == to), None)


def _noise(
    node: onnx.NodeProto, op: str, low: float, high: float, seed: int
) -> tuple[onnx.NodeProto, ...]:
    """`node` behind `op` with uniform noise."""
    x, name = node.input[0], f"{node.output[0]}.noise"
    draw = helper.make_node("RandomUniformLike", [x], [name], low=low, high=high, seed=float(seed))
    behind = onnx.NodeProto()
    behind.CopyFrom(node)
    behind.input[0] = f"{name}.added"
    return draw, helper.make_node(op, [x, name], [behind.input[0]]), behind
