"""The layers of an exported graph that become integers, and the tensors that they read."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

_REARRANGING = {"Reshape", "Slice"}  # the query of a shrinking attention reads every second token


@dataclass(frozen=True)
class ReadingLayer:
    """`tensor`: what the layer reads, before some of its tokens are picked out."""

    name: str
    tensor: str


def linear_layers(model: onnx.ModelProto) -> list[ReadingLayer]:
    """The layers `MatMul [weight], Add [bias]` in order of execution."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}

    def source(tensor: str) -> str:
        maker = makers.get(tensor)
        if maker is not None and maker.op_type in _REARRANGING:
            return source(maker.input[0])
        return tensor

    return [
        ReadingLayer(node.name.removesuffix(".matmul"), source(node.input[0]))
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in constants
    ]


def inner_convolutions(model: onnx.ModelProto) -> list[ReadingLayer]:
    """The convolutions that do not read the image, in order of execution."""
    image = model.graph.input[0].name
    return [
        ReadingLayer(node.name, node.input[0])
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[0] != image
    ]
