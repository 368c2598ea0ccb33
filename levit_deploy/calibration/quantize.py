"""ExportedModel(fp32), CalibrationTable -> ExportedModel(int8): does what the table says.

    x -> MatMul(., W) -> Add(bias)
 => x -> [Mul factors] -> QuantizeLinear -> DequantizeLinear
      -> MatMul(., DequantizeLinear(W int8)) -> Add(bias [+ correction])

Standard ONNX of the same opset. Names follow the tensor x: `x.factors`, `x.scaled`, `x.scale`,
`x.zero_point`, `x.quantized`, `x.dequantized`; and the layer: `layer.weight` is now int8 (in, out),
`layer.weight.scale` (out,), `layer.weight.zero_point`, `layer.weight.dequantized`. Nodes are named
after their outputs. Readers of the same tensor share its QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from levit_deploy.calibration.table import WEIGHT_LIMIT, CalibrationTable, LayerScale, TensorScale
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import ExportedModel, Precision


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
    graph = _Rewriter(exported.graph).rewrite(table)
    return replace(exported, graph=graph, precision=Precision.INT8)


class _Rewriter:
    """Copies a model node by node, and puts 8-bit arithmetic where the table wants it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._dequantized: dict[str, str] = {}

    def rewrite(self, table: CalibrationTable) -> onnx.ModelProto:
        layers = {layer.layer: layer for layer in table.layers}
        inputs = {reader: tensor for tensor in table.tensors for reader in tensor.readers}
        graph = self._model.graph
        for node in graph.node:
            layer = layers.get(node.name.removesuffix(".matmul"))
            if node.op_type == "MatMul" and layer is not None:
                self._quantize_layer(node, layer, inputs[layer.layer])
            self._nodes.append(node)
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._constants.values())
        model = onnx.shape_inference.infer_shapes(self._model, strict_mode=True)
        onnx.checker.check_model(model)
        return model

    def _quantize_layer(self, matmul: onnx.NodeProto, layer: LayerScale, x: TensorScale) -> None:
        weight, bias = f"{layer.layer}.weight", f"{layer.layer}.bias"
        values = self._array(weight).astype(np.float64)
        if x.factors:
            values /= np.array(x.factors, np.float32).astype(np.float64)[:, None]
        self._store(weight, quantize_weight(values, np.array(layer.scales, np.float32)))
        self._store(f"{weight}.scale", np.array(layer.scales, np.float32))
        self._store(f"{weight}.zero_point", np.zeros(len(layer.scales), np.int8))
        if layer.bias_correction:
            correction = np.array(layer.bias_correction, np.float64)
            self._store(bias, (self._array(bias) + correction).astype(np.float32))

        inputs = [weight, f"{weight}.scale", f"{weight}.zero_point"]
        matmul.input[0] = self._quantized_input(matmul.input[0], x)
        matmul.input[1] = self._node("DequantizeLinear", inputs, f"{weight}.dequantized", axis=1)

    def _quantized_input(self, name: str, x: TensorScale) -> str:
        """The name of the tensor after QuantizeLinear and DequantizeLinear."""
        if name not in self._dequantized:
            source = name
            if x.factors:
                self._store(f"{name}.factors", np.array(x.factors, np.float32))
                source = self._node("Mul", [name, f"{name}.factors"], f"{name}.scaled")
            scale, zero_point = f"{name}.scale", f"{name}.zero_point"
            self._store(scale, np.array(x.scale, np.float32))
            self._store(zero_point, np.array(x.zero_point, np.uint8))
            q = self._node("QuantizeLinear", [source, scale, zero_point], f"{name}.quantized")
            self._dequantized[name] = self._node(
                "DequantizeLinear", [q, scale, zero_point], f"{name}.dequantized"
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

    def _store(
        self, name: str, values: NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8]
    ) -> None:
        self._constants[name] = numpy_helper.from_array(values, name)


def quantize_weight(weight: NDArray[np.float64], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Nearest multiples of each output channel's scale: weight (in, out), scales (out,)."""
    steps = np.rint(weight / scales.astype(np.float64))
    return np.clip(steps, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
