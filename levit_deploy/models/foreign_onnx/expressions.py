"""Nodes of an ONNX graph -> what they compute, as expressions that know no layout.

Exporters differ in what they write between two layers: reshapes, transposes, BatchNorm folded or
not, an activation as one node or as five. Here a tensor and its transpose are the same expression,
what multiplies and adds channels becomes part of its layer, and a function of single values is the
list of its nodes. Whether values were moved as a LeViT moves them is not seen: who reads the
expressions has to compare what was read with what the graph computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from levit_deploy.errors import DeployError

Float64 = NDArray[np.float64]
T = TypeVar("T")

_LAYOUT = {
    *("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze"),
    *("Transpose", "Unsqueeze"),
}
_POINTWISE = {
    *("Add", "Clip", "Div", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Max", "Min", "Mul", "Neg"),
    *("Pow", "Relu", "Sigmoid", "Sub", "Swish", "Tanh"),
}
_STEM_CONVOLUTION = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
_LINEAR_CONVOLUTION = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0]}
_BATCH_NORM_EPS = 1e-5  # where a node does not say


@dataclass(frozen=True, eq=False)
class Expression:
    """What `tensor` holds, in any layout; two are the same only if they are the same object."""

    tensor: str


@dataclass(frozen=True, eq=False)
class Image(Expression):
    """The input."""


@dataclass(frozen=True, eq=False)
class Layer(Expression):
    """`weight @ x + bias`; weight (out, in) for a linear layer, (out, in, 3, 3) for a convolution
    of stride 2 and padding 1."""

    x: Expression
    weight: Float64
    bias: Float64


@dataclass(frozen=True, eq=False)
class Affine(Expression):
    """`gain * x + offset`, one of each for a channel, or for all."""

    x: Expression
    gain: Float64
    offset: Float64


@dataclass(frozen=True, eq=False)
class Pointwise(Expression):
    """A function of each value of `x` alone: `nodes` in order, which read it as `X`."""

    x: Expression
    nodes: tuple[onnx.NodeProto, ...]


@dataclass(frozen=True, eq=False)
class Product(Expression):
    a: Expression
    b: Expression


@dataclass(frozen=True, eq=False)
class Sum(Expression):
    a: Expression
    b: Expression


@dataclass(frozen=True, eq=False)
class Biased(Expression):
    """A product and the constant that is added to it."""

    x: Expression
    table: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Softmax(Expression):
    x: Expression


@dataclass(frozen=True, eq=False)
class Mean(Expression):
    x: Expression


X = "x"


class Graph:
    """The expressions of a graph whose constants are computed, and its nodes for error messages."""

    def __init__(self, model: onnx.ModelProto, image: str, output: str) -> None:
        """Raises DeployError, naming the first node on the way from `image` to `output` that can
        be no part of a LeViT."""
        self._opsets = model.opset_import
        self._constants = dict(_constants(model.graph))
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._expressions: dict[str, Expression] = {image: Image(image)}
        needed = self._ancestors(output)
        for node in model.graph.node:
            if needed.intersection(node.output) and node.op_type != "Constant":
                expression = self._expression(node)
                self._expressions |= dict.fromkeys(node.output, expression)
        if output not in self._expressions:
            raise DeployError("its output does not depend on its input")
        self.output = self._expressions[output]

    def misfit(self, at: Expression | onnx.NodeProto, why: str) -> DeployError:
        """An error that names the node."""
        node = self._makers.get(at.tensor) if isinstance(at, Expression) else at
        what = f"the {node.op_type} node `{node.name or node.output[0]}`" if node else "its input"
        return DeployError(
            f"this graph is not read as a LeViT: {what} {why}",
            hint="pass the weights that it was exported from: --weights CHECKPOINT",
        )

    def values(self, function: Pointwise, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the function gives at `points` (n,)."""
        *_, last = function.nodes
        names = {name for node in function.nodes for name in node.input}
        ports = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [len(points)])
            for name in (X, last.output[0])
        ]
        constants = [
            numpy_helper.from_array(self._constants[name].reshape(()), name)
            for name in sorted(names & self._constants.keys())
        ]
        graph = helper.make_graph(function.nodes, "function", ports[:1], ports[1:], constants)
        model = helper.make_model(graph, opset_imports=self._opsets, ir_version=8)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        result: NDArray[np.float32] = session.run(None, {X: points})[0]
        return result

    def _ancestors(self, output: str) -> set[str]:
        needed, left = set(), [output]
        while left:
            name = left.pop()
            if name not in needed:
                needed.add(name)
                left += self._makers[name].input if name in self._makers else ()
        return needed

    def _expression(self, node: onnx.NodeProto) -> Expression:
        operands = [self._expressions[name] for name in node.input if name in self._expressions]
        unknown = set(node.input) - self._expressions.keys() - self._constants.keys() - {""}
        if not operands or unknown:
            raise self.misfit(node, "does not compute with the picture")
        x, op, alone = operands[0], node.op_type, len(operands) == 1
        if op in _LAYOUT and alone:
            return x
        match op:
            case "AveragePool" if set(_attribute(node, "kernel_shape", [0])) == {1}:
                return x
            case "ReduceMean" | "GlobalAveragePool":
                return Mean(node.output[0], x)
            case "Softmax":
                return Softmax(node.output[0], x)
            case "MatMul" if not alone:
                return Product(node.output[0], *operands)
            case "Conv" | "Gemm" | "MatMul" if alone:
                return self._layer(node, x)
            case "BatchNormalization" if alone:
                return self._batch_norm(node, x)
        if op not in _POINTWISE:
            raise self.misfit(node, "is no part of one")
        return self._pointwise(node, operands)

    def _layer(self, node: onnx.NodeProto, x: Expression) -> Layer:
        if node.input[0] in self._constants:  # weight @ columns of channels
            constants = [self._constant(node, 0)]
        else:
            constants = [self._constant(node, n) for n in range(1, len(node.input))]
        weight, bias = constants[0], np.zeros(1)
        if len(constants) > 1:
            bias = constants[1].ravel()
        match node.op_type:
            case "Conv":
                weight = self._convolution(node, weight)
            case "Gemm":
                if _attribute(node, "transA", 0):
                    raise self.misfit(node, "multiplies a transposed input")
                weight = weight if _attribute(node, "transB", 0) else weight.T
                weight = weight * _attribute(node, "alpha", 1.0)
                bias = bias * _attribute(node, "beta", 1.0)
            case "MatMul" if node.input[0] not in self._constants:
                weight = weight.T
        if weight.ndim not in (2, 4):
            raise self.misfit(node, f"multiplies by {weight.ndim} axes of weights")
        if isinstance(x, Affine) and weight.ndim == 2:
            bias = bias + (weight * x.offset).sum(axis=1)
            weight, x = weight * x.gain, x.x
        outputs = len(weight)
        if bias.size not in (1, outputs):
            raise self.misfit(node, f"adds {bias.size} biases to {outputs} channels")
        return Layer(node.output[0], x, weight, np.broadcast_to(bias, (outputs,)))

    def _convolution(self, node: onnx.NodeProto, weight: Float64) -> Float64:
        """(out, in, 3, 3) of the stem's kind, or (out, in) of 1 x 1."""
        kind = _STEM_CONVOLUTION if weight.shape[2:] == (3, 3) else _LINEAR_CONVOLUTION
        said = {
            "kernel_shape": list(weight.shape[2:]),
            "strides": _attribute(node, "strides", [1, 1]),
            "pads": _attribute(node, "pads", [0, 0, 0, 0]),
        }
        plain = _attribute(node, "group", 1) == 1
        plain = plain and set(_attribute(node, "dilations", [1, 1])) == {1}
        if said != kind or not plain or _attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
            raise self.misfit(node, "is neither 3 x 3 of stride 2 and padding 1, nor 1 x 1")
        return weight if kind is _STEM_CONVOLUTION else weight[:, :, 0, 0]

    def _batch_norm(self, node: onnx.NodeProto, x: Expression) -> Expression:
        if _attribute(node, "training_mode", 0):
            raise self.misfit(node, "is in training mode")
        weight, bias, mean, variance = (self._constant(node, n) for n in range(1, 5))
        gain = weight / np.sqrt(variance + _attribute(node, "epsilon", _BATCH_NORM_EPS))
        return self._affine(node, x, gain, bias - gain * mean)

    def _affine(
        self, node: onnx.NodeProto, x: Expression, gain: Float64, offset: Float64
    ) -> Expression:
        """`gain` and `offset`: one value, or one for each channel."""
        tensor = node.output[0]
        if not isinstance(x, Layer):
            return Affine(tensor, x, gain, offset)
        if {gain.size, offset.size} - {1, len(x.weight)}:
            raise self.misfit(node, f"has no constant for each of {len(x.weight)} channels")
        weight = x.weight * gain.reshape(-1, *[1] * (x.weight.ndim - 1))
        return Layer(tensor, x.x, weight, gain * x.bias + offset)

    def _pointwise(self, node: onnx.NodeProto, operands: list[Expression]) -> Expression:
        roots = {id(root): root for root in map(_root, operands)}
        if len(roots) > 1:
            if node.op_type != "Add" or len(operands) != 2:
                raise self.misfit(node, "joins tensors otherwise than by their sum")
            return Sum(node.output[0], *operands)
        (root,) = roots.values()
        shaped = [name for name in node.input if name in self._constants and self._size(name) > 1]
        if shaped:
            return self._with_constant(node, operands, root, shaped[0])
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        names = (self._expressions.get(name) for name in node.input)
        for n, operand in enumerate(names):
            if operand is not None:
                copy.input[n] = operand.tensor if isinstance(operand, Pointwise) else X
        before = {n.output[0]: n for o in operands if isinstance(o, Pointwise) for n in o.nodes}
        return Pointwise(node.output[0], root, (*before.values(), copy))

    def _with_constant(
        self, node: onnx.NodeProto, operands: list[Expression], root: Expression, name: str
    ) -> Expression:
        """A sum or a product with a constant of several values."""
        constant = self._constants[name].astype(np.float64)
        if node.op_type == "Add" and isinstance(root, Product) and constant.ndim > 2:
            return Biased(node.output[0], operands[0], self._constants[name])
        one, zero, flat = np.ones(1), np.zeros(1), constant.ravel()
        last = node.input[1] == name
        if len(node.input) == 2 and len(operands) == 1 and max(constant.shape) == constant.size:
            match node.op_type:
                case "Add":
                    return self._affine(node, operands[0], one, flat)
                case "Mul":
                    return self._affine(node, operands[0], flat, zero)
                case "Sub" if last:
                    return self._affine(node, operands[0], one, -flat)
                case "Div" if last:
                    return self._affine(node, operands[0], 1 / flat, zero)
        raise self.misfit(node, f"computes with a constant of shape {constant.shape}")

    def _size(self, name: str) -> int:
        return int(self._constants[name].size)

    def _constant(self, node: onnx.NodeProto, index: int) -> Float64:
        values = self._constants.get(node.input[index])
        if values is None or values.dtype.kind != "f" or not values.size:
            raise self.misfit(node, "does not multiply by constants")
        return values.astype(np.float64)


def _root(expression: Expression) -> Expression:
    return expression.x if isinstance(expression, Pointwise) else expression


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for tensor in graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            yield node.output[0], numpy_helper.to_array(node.attribute[0].t)


def _attribute(node: onnx.NodeProto, name: str, default: T) -> T:
    """Its value, or `default`, which is of its type."""
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    value: T = found[0] if found else default
    return value
