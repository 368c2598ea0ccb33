"""ONNX -> FoldedLevit: the inverse of `build_graph`, by the names that it gives."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from levit_deploy.errors import DeployError
from levit_deploy.export.folded import (
    Affine,
    Attention,
    Block,
    Float64,
    FoldedLevit,
    Layer,
    Mlp,
    ShrinkingAttention,
)


def read_graph(model: onnx.ModelProto) -> FoldedLevit:
    """The network in an exported fp32 graph; writing it again gives the same bytes.

    Raises DeployError, naming the constant, if something of it is missing (a quantized graph).
    """
    constants = _Constants(model)
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    blocks: list[Block] = []
    while (block := constants.block(len(blocks))) is not None:
        blocks.append(block)
    return FoldedLevit(
        stem=tuple(Layer(name, constants.affine(name)) for name in names),
        blocks=tuple(blocks),
        head=constants.linear("head"),
        image_size=model.graph.input[0].type.tensor_type.shape.dim[3].dim_value,
    )


class _Constants:
    """The constants of a graph by name; layers and blocks are put together from them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._splits = {
            node.name: self._tensors[node.input[1]]
            for node in model.graph.node
            if node.op_type == "Split"
        }

    def array(self, name: str) -> Float64:
        if name not in self._tensors:
            raise DeployError(
                f"no constant `{name}` in the graph",
                hint="start from the fp32 export: `levit-deploy export levit_128s`",
            )
        return numpy_helper.to_array(self._tensors[name]).astype(np.float64)

    def affine(self, layer: str) -> Affine:
        return Affine(self.array(f"{layer}.weight"), self.array(f"{layer}.bias"))

    def linear(self, name: str) -> Layer:
        stored = self.affine(name)
        return Layer(name, Affine(stored.weight.T, stored.bias))

    def key_dim(self, attention: str) -> int:
        return int(numpy_helper.to_array(self._splits[f"{attention}.split"])[0])

    def block(self, index: int) -> Block | None:
        """The block of this index, or None behind the last."""
        outer, inner = f"blocks.{index}", f"blocks.{index}.m"
        if f"{outer}.kv.weight" in self._tensors:
            return ShrinkingAttention(
                name=outer,
                q=self.linear(f"{outer}.q.1"),
                kv=self.linear(f"{outer}.kv"),
                bias=self.array(f"{outer}.attention_bias"),
                proj=self.linear(f"{outer}.proj.1"),
                key_dim=self.key_dim(outer),
            )
        if f"{inner}.qkv.weight" in self._tensors:
            return Attention(
                name=inner,
                qkv=self.linear(f"{inner}.qkv"),
                bias=self.array(f"{inner}.attention_bias"),
                proj=self.linear(f"{inner}.proj.1"),
                key_dim=self.key_dim(inner),
            )
        if f"{inner}.0.weight" in self._tensors:
            return Mlp(inner, self.linear(f"{inner}.0"), self.linear(f"{inner}.2"))
        return None
