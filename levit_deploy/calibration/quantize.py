"""ExportedModel(fp32), CalibrationTable -> ExportedModel(int8): does what the table says.

    x -> MatMul(., W) -> Add(bias)
 => x -> [Mul factors] -> QuantizeLinear -> DequantizeLinear
      -> MatMul(., DequantizeLinear(W int8)) -> Add(bias [+ correction])

Readers of the same tensor share one QuantizeLinear and
DequantizeLinear, which are named after it: `x.scaled`, `x.quantized`, `x.dequantized`, with the
constants `x.factors` (1, .., 1, channels), `x.scale`, `x.zero_point` (uint8). The query of a
shrinking attention reads some tokens of x, which are picked first and then quantized with the same
constants. For each layer, `layer.weight` is now int8 (in, out), with `layer.weight.scale` (out,)
and `layer.weight.zero_point` (out,), all zero; its node is `layer.weight.dequantized`. An attention
all of whose projections are in 8 bits multiplies integers too: see `attention`.

A convolution of the stem, in 16 bits:

    x -> Conv(., W, bias)
 => x -> Mul factors -> Clip -> QuantizeLinear -> DequantizeLinear
      -> Conv(., DequantizeLinear(W int16), bias)

with the same names; `x.limited` between `x.lowest` and `x.highest` is what the steps may be, and
the weights' scales are for the first axis. Standard ONNX; 16 bits need opset 21, without them it
is that of the float model.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from levit_deploy.calibration.attention import RoundedAttention
from levit_deploy.calibration.factors import scale_streams
from levit_deploy.calibration.rounding import weight_steps
from levit_deploy.calibration.rounding_int16 import weight_steps_int16
from levit_deploy.calibration.table import CalibrationTable, ConvScale, LayerScale, TensorScale
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import with_weights
from levit_deploy.export.exported import ExportedModel, Precision
from levit_deploy.export.read_graph import read_graph

INT16_OPSET = 21  # QuantizeLinear to int16
INT16_IR_VERSION = 10  # came with it, in ONNX 1.16


def quantize(exported: ExportedModel, table: CalibrationTable) -> ExportedModel:
    """The 8-bit twin of a float32 model. `exported` is left as it is.

    Raises DeployError if the model is not float32 or the table was made for other weights.
    """
    if exported.precision is not Precision.FP32:
        raise DeployError(
            f"`{exported.name}` is already {exported.precision}",
            hint="start from the fp32 export: `levit-deploy export levit_128s`",
        )
    if exported.weights_digest != table.weights_digest:
        raise DeployError(
            f"the calibration table is for weights `{table.weights_digest[:12]}`, "
            f"the model has `{exported.weights_digest[:12]}`",
            hint="calibrate again: `levit-deploy quantize`",
        )
    graph = _Rewriter(with_streams(exported, table).graph).rewrite(table)
    return replace(exported, graph=graph, precision=Precision.INT8)


def with_streams(exported: ExportedModel, table: CalibrationTable) -> ExportedModel:
    """The float32 model with its residual streams multiplied: what is rounded next.

    Its logits are those of `exported`; its tensors are those of the 8-bit model before rounding.
    """
    if not table.streams:
        return exported
    return with_weights(exported, scale_streams(read_graph(exported.graph), table.streams))


class _Rewriter:
    """Copies a model node by node, and puts 8-bit arithmetic where the table wants it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in graph.value_info}
        self._nodes: list[onnx.NodeProto] = []
        self._dequantized: dict[str, str] = {}

    def rewrite(self, table: CalibrationTable) -> onnx.ModelProto:
        layers = {layer.layer: layer for layer in table.layers}
        tensors = {reader: tensor for tensor in table.tensors for reader in tensor.readers}
        convolutions = {scale.layer: scale for scale in table.stem}
        graph = self._model.graph
        rounded: dict[str, RoundedAttention] = {}
        for attention in RoundedAttention.all_in(graph, layers):
            rounded.update(dict.fromkeys(attention.nodes, attention))
            for name, values in attention.constants().items():
                self._store(name, values)
        for node in graph.node:
            layer = layers.get(node.name.removesuffix(".matmul"))
            if node.op_type == "MatMul" and layer is not None:
                self._quantize_layer(node, layer, tensors[layer.layer])
            if node.name in convolutions:
                self._quantize_convolution(node, convolutions[node.name])
            if node.name in rounded:
                self._nodes.extend(rounded[node.name].rewrite(node))
            else:
                self._nodes.append(node)
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        if table.stem:
            self._raise_opset()
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._constants.values())
        model = onnx.shape_inference.infer_shapes(self._model, strict_mode=True)
        onnx.checker.check_model(model)
        return model

    def _quantize_layer(self, matmul: onnx.NodeProto, layer: LayerScale, x: TensorScale) -> None:
        weight, bias = f"{layer.layer}.weight", f"{layer.layer}.bias"
        scales = np.array(layer.scales, np.float32)
        factors = np.array(x.factors or 1.0, np.float64).reshape(-1, 1)
        self._store(weight, weight_steps(self._array(weight) / factors, scales))
        self._store(f"{weight}.scale", scales)
        self._store(f"{weight}.zero_point", np.zeros(len(scales), np.int8))
        if layer.bias_correction:
            corrected = self._array(bias).astype(np.float64) + layer.bias_correction
            self._store(bias, corrected.astype(np.float32))

        inputs = [weight, f"{weight}.scale", f"{weight}.zero_point"]
        matmul.input[0] = self._quantized_input(matmul.input[0], x)
        matmul.input[1] = self._node("DequantizeLinear", inputs, f"{weight}.dequantized", axis=1)

    def _quantize_convolution(self, conv: onnx.NodeProto, scale: ConvScale) -> None:
        weight, x = f"{scale.layer}.weight", scale.tensor
        scales = np.array(scale.scales, np.float32)
        factors = np.array(scale.factors, np.float32).reshape(1, -1, 1, 1)
        steps = weight_steps_int16(self._array(weight) / factors.astype(np.float64), scales)
        self._store(weight, steps)
        self._store(f"{weight}.scale", scales)
        self._store(f"{weight}.zero_point", np.zeros(len(scales), np.int16))
        limit = scale.largest_step * scale.scale
        self._store(f"{x}.factors", factors)
        self._store(f"{x}.lowest", np.array(-limit, np.float32))
        self._store(f"{x}.highest", np.array(limit, np.float32))
        self._store(f"{x}.scale", np.array(scale.scale, np.float32))
        self._store(f"{x}.zero_point", np.array(0, np.int16))

        constants = [f"{x}.scale", f"{x}.zero_point"]
        scaled = self._node("Mul", [x, f"{x}.factors"], f"{x}.scaled")
        limited = self._node("Clip", [scaled, f"{x}.lowest", f"{x}.highest"], f"{x}.limited")
        q = self._node("QuantizeLinear", [limited, *constants], f"{x}.quantized")
        conv.input[0] = self._node("DequantizeLinear", [q, *constants], f"{x}.dequantized")
        inputs = [weight, f"{weight}.scale", f"{weight}.zero_point"]
        conv.input[1] = self._node("DequantizeLinear", inputs, f"{weight}.dequantized", axis=0)

    def _raise_opset(self) -> None:
        """Of all that the network uses, only reductions change: their axes become an input."""
        self._model.opset_import[0].version = INT16_OPSET
        self._model.ir_version = INT16_IR_VERSION
        for node in self._nodes:
            if node.op_type in ("ReduceMean", "ReduceMax"):
                axes = next(a for a in node.attribute if a.name == "axes")
                name = f"int64.{'x'.join(map(str, axes.ints))}"
                self._store(name, np.array(axes.ints, np.int64))
                node.input.append(name)
                node.attribute.remove(axes)

    def _quantized_input(self, name: str, x: TensorScale) -> str:
        """The tensor called `name`, which is x or some tokens of it, after its 8-bit form."""
        if name not in self._dequantized:
            constants = [f"{x.tensor}.scale", f"{x.tensor}.zero_point"]
            self._store(constants[0], np.array(x.scale, np.float32))
            self._store(constants[1], np.array(x.zero_point, np.uint8))
            source = name
            if x.factors:
                shape = (*[1] * (self._ranks[name] - 1), len(x.factors))
                self._store(f"{x.tensor}.factors", np.array(x.factors, np.float32).reshape(shape))
                source = self._node("Mul", [name, f"{x.tensor}.factors"], f"{name}.scaled")
            q = self._node("QuantizeLinear", [source, *constants], f"{name}.quantized")
            self._dequantized[name] = self._node(
                "DequantizeLinear", [q, *constants], f"{name}.dequantized"
            )
        return self._dequantized[name]

    def _node(self, op: str, inputs: list[str], name: str, axis: int | None = None) -> str:
        node = helper.make_node(op, inputs, [name], name=name)
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self._nodes.append(node)
        return name

    def _array(self, name: str) -> NDArray[np.float32]:
        return numpy_helper.to_array(self._constants[name])

    def _store(self, name: str, values: NDArray[np.generic]) -> None:
        self._constants[name] = numpy_helper.from_array(values, name)
