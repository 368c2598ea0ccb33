"""The linear layers of an exported graph, and the tensors that they read."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

_REARRANGING = {"Reshape", "Slice"}  # the query of a shrinking attention reads every second token


@dataclass(frozen=True)
class Linear:
    """`tensor`: what the layer reads, before some of its tokens are picked out."""

    name: str
    tensor: str


def linear_layers(model: onnx.ModelProto) -> list[Linear]:
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
        Linear(node.name.removesuffix(".matmul"), source(node.input[0]))
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in constants
    ]
