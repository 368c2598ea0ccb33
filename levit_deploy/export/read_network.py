"""ONNX -> Network: the exact inverse of `write_network`.

What could be the network's layers is taken from the graph; then the network is written again. Only
if that gives the graph, node by node, is it the network: a graph that says anything else, by so
much as an attribute, is refused, naming the first node that does not fit. Names of tensors and
nodes mean nothing; layers get those of their place.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from levit_deploy.errors import DeployError
from levit_deploy.export.graph_writer import ONNX_HALVES
from levit_deploy.export.write_network import write_network
from levit_deploy.half_format import HalfFormat
from levit_deploy.models.spec import Activation
from levit_deploy.network.arithmetic import (
    DYNAMIC_INT8,
    FLOAT32,
    AttentionArithmetic,
    Float32s,
    Half,
    Int8,
    Int16,
)
from levit_deploy.network.network import (
    Attention,
    Block,
    Conv,
    Linear,
    Mlp,
    Network,
    ShrinkingAttention,
)

# That `write_network` uses.
OPERATORS = {
    *("Abs", "Add", "Cast", "Clip", "Conv", "DequantizeLinear", "Div", "Erf", "Exp", "HardSwish"),
    *("MatMul", "Mul", "QuantizeLinear", "ReduceMax", "ReduceMean", "ReduceSum", "Relu"),
    *("Reshape", "Round", "Sigmoid", "Slice", "Softmax", "Split", "Sub", "Transpose"),
}

_ACTIVATIONS = {  # by the operator that only the activation has
    "HardSwish": Activation.HARD_SWISH,
    "Relu": Activation.RELU,
    "Sigmoid": Activation.SILU,
    "Erf": Activation.GELU,
}

_HINT = "compile what `levit-deploy export` or `levit-deploy quantize` wrote, or the checkpoint"


def read_network(model: onnx.ModelProto) -> Network:
    """The network that `write_network` wrote as `model`; also after names were changed.

    Raises DeployError, naming the first node that does not fit, if the graph is anything else.
    """
    network = _Reader(model).network()
    misfit = _first_misfit(write_network(network), model)
    if misfit is not None:
        raise _refusal(misfit)
    return network


def _refusal(what: onnx.NodeProto | str) -> DeployError:
    if isinstance(what, onnx.NodeProto):
        what = f"the {what.op_type} node `{what.name or ', '.join(what.output)}`"
    return DeployError(f"this graph is no LeViT of levit-deploy: {what} does not fit", hint=_HINT)


class _Reader:
    """Takes what only the graph knows, in the order of its nodes: sizes, constants, arithmetic."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        for node in graph.node:
            if node.op_type not in OPERATORS:
                raise _refusal(node)
        self._end = graph.node[-1].name if graph.node else ""
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        shape = [dim.dim_value for port in graph.input for dim in port.type.tensor_type.shape.dim]
        self._image_size = shape[-1] if len(shape) == 4 else 0
        self._parts = deque(self._telling(graph))
        ops = Counter(node.op_type for node in graph.node if node.op_type in _ACTIVATIONS)
        self._activation = _ACTIVATIONS[max(ops, key=ops.__getitem__, default="HardSwish")]

    def network(self) -> Network:
        stem: list[Conv] = []
        while self._comes("Conv"):
            stem.append(self._conv(f"patch_embed.{2 * len(stem)}"))
        blocks: list[Block] = []
        while self._comes("MatMul"):
            blocks.append(self._block(f"blocks.{len(blocks)}"))
        self._take("ReduceMean")
        head = self._linear("head") if self._parts else None
        if self._parts or not stem or not blocks:
            raise _refusal(self._parts[0][0] if self._parts else "a network without stem or blocks")
        return Network(tuple(stem), tuple(blocks), head, self._image_size, self._activation)

    def _telling(self, graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
        """The nodes that say which block it is or have its constants, each with the node behind it:
        a linear layer is a MatMul and the Add of its bias."""
        for node, behind in pairwise([*graph.node, onnx.NodeProto()]):
            match node.op_type:
                case "Conv" | "Split" | "Softmax" | "Exp" | "ReduceMean":
                    yield node, behind
                case "MatMul" if self._adds(behind, rank=1):
                    yield node, behind
                case "Add" if self._adds(node, rank=3):  # the biases of an attention
                    yield node, behind

    def _adds(self, node: onnx.NodeProto, rank: int) -> bool:
        """Whether it adds a constant of so many axes."""
        constant = self._constants.get(node.input[-1]) if node.op_type == "Add" else None
        return constant is not None and len(constant.dims) == rank

    def _comes(self, op: str) -> bool:
        return bool(self._parts) and self._parts[0][0].op_type == op

    def _take(self, *ops: str) -> tuple[onnx.NodeProto, onnx.NodeProto]:
        if not self._parts:
            raise _refusal(f"its end behind `{self._end}`")
        node, behind = self._parts.popleft()
        if node.op_type not in ops:
            raise _refusal(node)
        return node, behind

    def _block(self, name: str) -> Block:
        first = self._linear(f"{name}.m.0")
        if not self._comes("Split"):
            return Mlp(f"{name}.m", first, self._linear(f"{name}.m.2"))
        sizes = self._array(self._take("Split")[0], 1, np.int64, rank=1).tolist()
        if len(sizes) == 3:
            name = f"{name}.m"
            qkv = replace(first, name=f"{name}.qkv")
            bias, arithmetic = self._attention()
            proj = self._linear(f"{name}.proj.1")
            return Attention(name, qkv, bias, proj, sizes[0], arithmetic)
        kv, q = replace(first, name=f"{name}.kv"), self._linear(f"{name}.q.1")
        bias, arithmetic = self._attention()
        proj = self._linear(f"{name}.proj.1")
        return ShrinkingAttention(name, q, kv, bias, proj, sizes[0], arithmetic)

    def _attention(self) -> tuple[Float32s, AttentionArithmetic]:
        """Biases (heads, queries, keys)."""
        add, _ = self._take("Add")
        softmax, behind = self._take("Softmax", "Exp")
        arithmetic: AttentionArithmetic = DYNAMIC_INT8
        if softmax.op_type == "Softmax":
            arithmetic = FLOAT32
        elif behind.op_type == "Cast":
            arithmetic = Half(self._format(behind))
        return self._floats(add, -1, rank=3), arithmetic

    def _conv(self, name: str) -> Conv:
        node, _ = self._take("Conv")
        bias = self._floats(node, 2, rank=1)
        if node.input[1] in self._constants:
            return Conv(name, self._floats(node, 1, rank=4), bias)
        if self._maker(node, 1).op_type == "Cast":
            weight, half = self._rounded(node)
            return Conv(name, weight, bias, half)
        quantize, steps = self._quantize(node), self._made_by("DequantizeLinear", node, 1)
        clip = self._made_by("Clip", quantize, 0)
        scale = self._scale(quantize)
        arithmetic = Int16(
            factors=self._floats(self._made_by("Mul", clip, 0), 1, rank=4).reshape(-1),
            scale=scale,
            largest_step=round(float(self._floats(clip, 2, rank=0)) / scale),
            weight_scales=self._floats(steps, 1, rank=1),
        )
        return Conv(name, self._array(steps, 0, (np.int8, np.int16), rank=4), bias, arithmetic)

    def _linear(self, name: str) -> Linear:
        node, add = self._take("MatMul")
        bias = self._floats(add, -1, rank=1)
        if node.input[1] in self._constants:
            return Linear(name, self._floats(node, 1, rank=2).T, bias)
        if self._maker(node, 1).op_type == "Cast":
            weight, half = self._half(node)
            return Linear(name, weight.T, bias, half)
        quantize, steps = self._quantize(node), self._made_by("DequantizeLinear", node, 1)
        scaled = self._makers.get(quantize.input[0])
        factors = None
        if scaled is not None and scaled.op_type == "Mul" and scaled.input[1] in self._constants:
            factors = self._floats(scaled, 1, rank=None).reshape(-1)
        arithmetic = Int8(
            factors=factors,
            scale=self._scale(quantize),
            zero_point=int(self._array(quantize, 2, np.uint8, rank=0)),
            weight_scales=self._floats(steps, 1, rank=1),
        )
        return Linear(name, self._array(steps, 0, np.int8, rank=2).T, bias, arithmetic)

    def _rounded(self, conv: onnx.NodeProto) -> tuple[Float32s, Half]:
        """The weight and the arithmetic of a convolution in 16-bit floats."""
        rounding = self._made_by("Cast", self._made_by("Cast", conv, 1), 0)
        weight, format = self._floats(rounding, 0, rank=4), self._format(rounding)
        if not np.isfinite(format.rounded(weight)).all():
            raise _refusal(rounding)
        return weight, Half(format)

    def _half(self, layer: onnx.NodeProto) -> tuple[Float32s, Half]:
        """The weight and the arithmetic of a linear layer in 16-bit floats."""
        widen = self._made_by("Cast", layer, 1)
        stored = self._constants.get(widen.input[0])
        for format in HalfFormat:
            if stored is not None and stored.data_type == ONNX_HALVES[format]:
                weight = self._array(widen, 0, format.dtype.type, rank=2).astype(np.float32)
                if np.isfinite(weight).all():
                    return weight, Half(format)
        raise _refusal(widen)

    def _format(self, cast: onnx.NodeProto) -> HalfFormat:
        """What a Cast rounds to."""
        for attribute in cast.attribute:
            for format, number in ONNX_HALVES.items():
                if attribute.name == "to" and attribute.i == number:
                    return format
        raise _refusal(cast)

    def _quantize(self, layer: onnx.NodeProto) -> onnx.NodeProto:
        """What makes integers of the layer's input."""
        return self._made_by("QuantizeLinear", self._made_by("DequantizeLinear", layer, 0), 0)

    def _scale(self, quantize: onnx.NodeProto) -> float:
        scale = float(self._floats(quantize, 1, rank=0))
        if not 0 < scale < np.inf:
            raise _refusal(quantize)
        return scale

    def _made_by(self, op: str, node: onnx.NodeProto, index: int) -> onnx.NodeProto:
        """The node `op` that makes an input of `node`."""
        maker = self._maker(node, index)
        if maker.op_type != op:
            raise _refusal(node)
        return maker

    def _maker(self, node: onnx.NodeProto, index: int) -> onnx.NodeProto:
        maker: onnx.NodeProto | None = self._makers.get(node.input[index])
        if maker is None:
            raise _refusal(node)
        return maker

    def _floats(self, node: onnx.NodeProto, index: int, rank: int | None) -> Float32s:
        values = self._array(node, index, np.float32, rank)
        if not np.isfinite(values).all():
            raise _refusal(node)
        return cast(Float32s, values)

    def _array(
        self,
        node: onnx.NodeProto,
        index: int,
        dtype: type[np.generic] | tuple[type[np.generic], ...],
        rank: int | None,
    ) -> NDArray[Any]:
        """A constant that `node` reads; it has values, of that type or one of those."""
        tensor = self._constants.get(node.input[index]) if len(node.input) > index else None
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise _refusal(node)
        values = _values(tensor)
        types = dtype if isinstance(dtype, tuple) else (dtype,)
        if values is None or values.dtype not in types or not values.size:
            raise _refusal(node)
        if rank not in (None, values.ndim):
            raise _refusal(node)
        return values


def _values(tensor: onnx.TensorProto) -> NDArray[Any] | None:
    """None if it does not hold what it says."""
    try:
        return numpy_helper.to_array(tensor)
    except (TypeError, ValueError):
        return None


def _first_misfit(written: onnx.ModelProto, given: onnx.ModelProto) -> onnx.NodeProto | str | None:
    """The first node of `given` that is not as in `written`, whatever it is called; None if the
    graphs say the same."""
    constants = [{c.name: c for c in model.graph.initializer} for model in (written, given)]
    names = {given.graph.input[0].name: written.graph.input[0].name}  # given -> written

    def same(wanted: str, found: str) -> bool:
        if wanted not in constants[0]:
            return names.get(found) == wanted
        if found not in constants[1]:
            return False
        a, b = numpy_helper.to_array(constants[0][wanted]), _values(constants[1][found])
        return (
            b is not None
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )

    wanted_nodes, found_nodes = list(written.graph.node), list(given.graph.node)
    for wanted, found in zip(wanted_nodes, found_nodes, strict=False):
        fits = (
            _form(wanted) == _form(found)
            and len(wanted.output) == len(found.output)
            and len(wanted.input) == len(found.input)
            and all(map(same, wanted.input, found.input))
        )
        if not fits:
            misfit: onnx.NodeProto = found
            return misfit
        names.update(zip(found.output, wanted.output, strict=True))
    if len(found_nodes) != len(wanted_nodes):
        return next(iter(found_nodes[len(wanted_nodes) :]), "its end")
    ports = [(*model.graph.input, *model.graph.output) for model in (written, given)]
    shapes = [[port.type.SerializeToString() for port in side] for side in ports]
    outputs = [port.name for port in written.graph.output]
    if shapes[0] != shapes[1] or [names.get(p.name) for p in given.graph.output] != outputs:
        return "its input or output"
    if written.opset_import[0].version != given.opset_import[0].version:
        return f"opset {given.opset_import[0].version}"
    return None


def _form(node: onnx.NodeProto) -> tuple[str, str, dict[str, bytes]]:
    attributes = {a.name: a.SerializeToString(deterministic=True) for a in node.attribute}
    return node.op_type, node.domain, attributes
