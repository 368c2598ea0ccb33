"""GraphWriter: an ONNX graph put down node by node, each node named after its output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from levit_deploy.half_format import HalfFormat
from levit_deploy.models.spec import Activation
from levit_deploy.network.arithmetic import Float32, Half, Int8, Int16
from levit_deploy.network.network import Conv, Layer, Linear

OPSET, IR_VERSION = 17, 8  # ONNX 1.12
INT16_OPSET, INT16_IR_VERSION = 21, 10  # ONNX 1.16: QuantizeLinear to int16

ONNX_HALVES = {HalfFormat.FP16: TensorProto.FLOAT16, HalfFormat.BF16: TensorProto.BFLOAT16}

Port = tuple[str, tuple[int, ...]]  # name and shape of an input or output
Attribute = int | Sequence[int]


class GraphWriter:
    """Nodes in the order of their execution, constants once each.

    A tensor is known by its name; every method takes such names and returns that of its output.
    `int16`: whether the graph holds 16-bit integers, which need a newer opset.
    """

    def __init__(self, int16: bool = False) -> None:
        self._int16 = int16
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def model(self, image: Port, logits: Port) -> onnx.ModelProto:
        """What was written, as a model of float32 from `image` to `logits`."""
        ports = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (image, logits)
        ]
        constants = list(self._constants.values())
        return helper.make_model(
            helper.make_graph(self._nodes, "levit", ports[:1], ports[1:], constants),
            producer_name="levit-deploy",
            ir_version=INT16_IR_VERSION if self._int16 else IR_VERSION,
            opset_imports=[helper.make_opsetid("", INT16_OPSET if self._int16 else OPSET)],
        )

    def node(self, op: str, inputs: Sequence[str], name: str, **attributes: Attribute) -> str:
        self._node(op, inputs, [name], name, **attributes)
        return name

    def conv(self, x: str, layer: Conv) -> str:
        """3x3, stride 2, zero padding 1; weight (out, in, 3, 3)."""
        match layer.arithmetic:
            case Float32():
                weight = self.constant(f"{layer.name}.weight", layer.weight)
            case Half(format=half):
                x = self.halved(x, half)
                weight = self.constant(f"{layer.name}.weight", layer.weight)
                weight = self.halved(weight, half)
            case Int16() as int16:
                scaled = self._scaled(x, int16.factors.reshape(1, -1, 1, 1))
                bounds = [
                    self.constant(f"{x}.lowest", -int16.limit),
                    self.constant(f"{x}.highest", int16.limit),
                ]
                limited = self.node("Clip", [scaled, *bounds], f"{x}.limited")
                x = self._quantized(limited, x, int16.scale, np.int16(0))
                weight = self._dequantized_weight(layer, int16.weight_scales, axis=0)
        bias = self.constant(f"{layer.name}.bias", layer.bias)
        return self.node("Conv", [x, weight, bias], layer.name, strides=[2, 2], pads=[1, 1, 1, 1])

    def linear(self, x: str, layer: Linear, rank: int = 3, name: str | None = None) -> str:
        """MatMul with weight (in, out), Add of the bias; the sum is called after the layer.

        `rank`: number of axes of x.
        """
        match layer.arithmetic:
            case Float32():
                weight = self.constant(f"{layer.name}.weight", layer.weight.T)
            case Half(format=half):
                x = self.halved(x, half)
                weight = self._widened_weight(layer.name, layer.weight.T, half)
            case Int8() as int8:
                factors, scaled = int8.factors, x
                if factors is not None:
                    scaled = self._scaled(x, factors.reshape(*[1] * (rank - 1), -1))
                x = self._quantized(scaled, x, int8.scale, np.uint8(int8.zero_point))
                weight = self._dequantized_weight(layer, int8.weight_scales, axis=1)
        bias = self.constant(f"{layer.name}.bias", layer.bias)
        product = self.node("MatMul", [x, weight], f"{layer.name}.matmul")
        return self.node("Add", [product, bias], name or layer.name)

    def activate(self, x: str, activation: Activation, name: str) -> str:
        """The activation of x; what is not one operator is called after the result."""
        match activation:
            case Activation.HARD_SWISH:
                return self.node("HardSwish", [x], name)
            case Activation.RELU:
                return self.node("Relu", [x], name)
            case Activation.SILU:
                return self.node("Mul", [x, self.node("Sigmoid", [x], f"{name}.gate")], name)
            case Activation.GELU:
                root, half = self.number(2**0.5), self.number(0.5)
                argument = self.node("Div", [x, root], f"{name}.argument")
                erf = self.node("Erf", [argument], f"{name}.erf")
                halved = self.node("Mul", [erf, half], f"{name}.halved")
                gate = self.node("Add", [halved, half], f"{name}.gate")
                return self.node("Mul", [x, gate], name)

    def halved(self, x: str, format: HalfFormat) -> str:
        """x rounded to a 16-bit format, as float32 again."""
        half = self.node("Cast", [x], f"{x}.halved", to=ONNX_HALVES[format])
        return self.node("Cast", [half], f"{x}.widened", to=TensorProto.FLOAT)

    def reduce(self, op: str, x: str, name: str, axis: int, keepdims: int) -> str:
        """ReduceMean, ReduceMax or ReduceSum along one axis."""
        if self._int16 or op == "ReduceSum":  # the newer form: axes are an input
            return self.node(op, [x, self.integers((axis,))], name, keepdims=keepdims)
        return self.node(op, [x], name, axes=[axis], keepdims=keepdims)

    def reshape(self, x: str, shape: tuple[int, ...], name: str) -> str:
        return self.node("Reshape", [x, self.integers(shape)], name)

    def transpose(self, x: str, perm: tuple[int, ...], name: str) -> str:
        return self.node("Transpose", [x], name, perm=perm)

    def by_head(self, x: str, shape: tuple[int, int, int], name: str) -> str:
        """(1, tokens, heads * dim) -> (1, heads, tokens, dim); `shape` is (tokens, heads, dim)."""
        return self.transpose(self.reshape(x, (1, *shape), f"{x}.heads"), (0, 2, 1, 3), name)

    def split(self, x: str, sizes: tuple[int, ...], names: list[str], name: str) -> list[str]:
        """Cut the last of four axes into parts of the given sizes."""
        self._node("Split", [x, self.integers(sizes)], names, name, axis=3)
        return names

    def every_second(self, x: str, grid: int, name: str) -> str:
        """(1, grid, grid, channels) -> its even rows and columns."""
        slices = [(0, 0), (grid, grid), (1, 2), (2, 2)]  # starts, ends, axes, steps
        return self.node("Slice", [x, *map(self.integers, slices)], name)

    def constant(self, name: str, values: NDArray[np.generic] | np.generic) -> str:
        self._constants[name] = numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def number(self, value: float) -> str:
        """A float32 constant, named by its value."""
        return self.constant(f"float32.{value:g}", np.float32(value))

    def integers(self, values: tuple[int, ...]) -> str:
        """int64 constants are named by their value, so that each is stored once."""
        name = f"int64.{'x'.join(map(str, values))}"
        return self.constant(name, np.array(values, dtype=np.int64))

    def _scaled(self, x: str, factors: NDArray[np.float32]) -> str:
        return self.node("Mul", [x, self.constant(f"{x}.factors", factors)], f"{x}.scaled")

    def _quantized(self, scaled: str, x: str, scale: float, zero_point: np.generic) -> str:
        """What is left of `scaled`, which was made of x, after its integer form."""
        constants = [
            self.constant(f"{x}.scale", np.float32(scale)),
            self.constant(f"{x}.zero_point", zero_point),
        ]
        q = self.node("QuantizeLinear", [scaled, *constants], f"{x}.quantized")
        return self.node("DequantizeLinear", [q, *constants], f"{x}.dequantized")

    def _widened_weight(self, name: str, weight: NDArray[np.generic], format: HalfFormat) -> str:
        half = self.constant(f"{name}.weight", weight.astype(format.dtype))
        return self.node("Cast", [half], f"{name}.weight.widened", to=TensorProto.FLOAT)

    def _dequantized_weight(self, layer: Layer, scales: NDArray[np.float32], axis: int) -> str:
        """`axis`: that of the output channels in ONNX's layout."""
        name = f"{layer.name}.weight"
        inputs = [
            self.constant(name, layer.weight if axis == 0 else layer.weight.T),
            self.constant(f"{name}.scale", scales),
            self.constant(f"{name}.zero_point", np.zeros(len(scales), layer.weight.dtype)),
        ]
        return self.node("DequantizeLinear", inputs, f"{name}.dequantized", axis=axis)

    def _node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        name: str,
        **attributes: Attribute,
    ) -> None:
        node = helper.make_node(op, inputs, outputs, name=name)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self._nodes.append(node)
