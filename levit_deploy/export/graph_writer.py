"""GraphWriter: an ONNX graph put down node by node, each node named after its output."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from levit_deploy.errors import DeployError
from levit_deploy.export.folded import Float64, Layer

OPSET = 17
IR_VERSION = 8  # came with opset 17, in ONNX 1.12

Port = tuple[str, tuple[int, ...]]  # name and shape of an input or output


class GraphWriter:
    """Nodes in the order of their execution, constants once each.

    A tensor is known by its name; every method takes such names and returns that of its output.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def model(self, image: Port, logits: Port) -> onnx.ModelProto:
        """What was written, as a float32 model from `image` to `logits`."""
        ports = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (image, logits)
        ]
        constants = list(self._constants.values())
        return helper.make_model(
            helper.make_graph(self._nodes, "levit", ports[:1], ports[1:], constants),
            producer_name="levit-deploy",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )

    def node(self, op: str, inputs: list[str], name: str, **attributes: int | list[int]) -> str:
        node = helper.make_node(op, inputs, [name], name=name)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self._nodes.append(node)
        return name

    def conv(self, x: str, layer: Layer) -> str:
        """3x3, stride 2, zero padding 1; weight (out, in, 3, 3)."""
        weight = self.constant(f"{layer.name}.weight", layer.affine.weight)
        bias = self.constant(f"{layer.name}.bias", layer.affine.bias)
        inputs = [x, weight, bias]
        return self.node("Conv", inputs, layer.name, strides=[2, 2], pads=[1, 1, 1, 1])

    def linear(self, x: str, layer: Layer, name: str | None = None) -> str:
        """MatMul with weight (in, out), Add of the bias; the sum is called after the layer."""
        weight = self.constant(f"{layer.name}.weight", layer.affine.weight.T)
        bias = self.constant(f"{layer.name}.bias", layer.affine.bias)
        product = self.node("MatMul", [x, weight], f"{layer.name}.matmul")
        return self.node("Add", [product, bias], name or layer.name)

    def reshape(self, x: str, shape: tuple[int, ...], name: str) -> str:
        return self.node("Reshape", [x, self._integers(shape)], name)

    def transpose(self, x: str, perm: tuple[int, ...], name: str) -> str:
        return self.node("Transpose", [x], name, perm=list(perm))

    def by_head(self, x: str, shape: tuple[int, int, int], name: str) -> str:
        """(1, tokens, heads * dim) -> (1, heads, tokens, dim); `shape` is (tokens, heads, dim)."""
        return self.transpose(self.reshape(x, (1, *shape), f"{x}.heads"), (0, 2, 1, 3), name)

    def split(self, x: str, sizes: tuple[int, ...], names: list[str], name: str) -> list[str]:
        """Cut the last of four axes into parts of the given sizes."""
        inputs = [x, self._integers(sizes)]
        self._nodes.append(helper.make_node("Split", inputs, names, name=name, axis=3))
        return names

    def every_second(self, x: str, grid: int, name: str) -> str:
        """(1, grid, grid, channels) -> its even rows and columns."""
        slices = [(0, 0), (grid, grid), (1, 2), (2, 2)]  # starts, ends, axes, steps
        return self.node("Slice", [x, *map(self._integers, slices)], name)

    def constant(self, name: str, values: Float64) -> str:
        """Rounded to float32, here and nowhere else. Raises DeployError if that is not finite."""
        with np.errstate(over="ignore"):
            rounded = np.ascontiguousarray(values, dtype=np.float32)
        if not np.isfinite(rounded).all():
            raise DeployError(
                f"`{name}` is not finite in float32 once BatchNorm is folded",
                hint="check the checkpoint: a weight or a running variance is out of range",
            )
        return self._store(name, rounded)

    def _integers(self, values: tuple[int, ...]) -> str:
        """int64 constants are named by their value, so that each is stored once."""
        name = f"int64.{'x'.join(map(str, values))}"
        return self._store(name, np.array(values, dtype=np.int64))

    def _store(self, name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> str:
        self._constants[name] = numpy_helper.from_array(values, name)
        return name
