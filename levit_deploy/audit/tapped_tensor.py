"""The tensors that an audit looks at, found in the graph: where they are and what makes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import onnx

from levit_deploy.calibration.table import CalibrationTable, TensorScale
from levit_deploy.compiler.program import QuantizedTensor
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import OUTPUT_NAME, ExportedModel
from levit_deploy.records import Extended

_NODE_SUFFIX = ".matmul"
_MAKING = {"Conv", "MatMul"}


@dataclass(frozen=True)
class TappedTensor:
    """An 8-bit tensor inside the artifact, or the logits, which `is_quantized` is False for.

    `name`: of the tensor in the graph. `readers`: the layers that read it. `makers`: the layers
    between the tapped tensors before it and it, in order of execution. `scale`: one step, as the
    library has it, and `table_scale` as the calibration table has it; `low`, `high`: what 8 bits
    can represent, of the tensor times its factors.
    """

    name: str
    readers: tuple[str, ...]
    makers: tuple[str, ...]
    is_quantized: bool
    scale: float
    table_scale: float
    low: Extended
    high: Extended


def tapped_tensors(
    compiled: Sequence[QuantizedTensor], exported: ExportedModel, table: CalibrationTable
) -> tuple[TappedTensor, ...]:
    """One for each of `compiled`, in their order, and the logits.

    `exported`: the float32 model. Raises DeployError if the table says of a layer's input that it
    is 8 bits and the library does not have it, or the other way round.
    """
    by_reader = {reader: tensor for tensor in table.tensors for reader in tensor.readers}
    model = exported.graph
    inputs = {node.name: node.input[0] for node in model.graph.node if node.op_type == "MatMul"}
    rows = _row_counts(model)
    found = {layer_name(reader) for tensor in compiled for reader in tensor.readers}
    if found != set(by_reader):
        odd = sorted(found.symmetric_difference(by_reader))[0]
        raise DeployError(
            f"library and calibration table differ in whether `{odd}` is in 8 bits",
            hint="compile the model again with --debug-taps",
        )
    tensors = []
    for entry in compiled:
        scale = by_reader[layer_name(entry.readers[0])]
        # A library may keep only those tokens of the tensor that its reader picks.
        whole = rows[scale.tensor] == entry.rows
        name = scale.tensor if whole else inputs[entry.readers[0]]
        tensors.append(_tapped(name, entry, scale))
    logits = TappedTensor(OUTPUT_NAME, (), (), False, 0.0, 0.0, -math.inf, math.inf)
    return _with_makers((*tensors, logits), exported)


def layer_name(node: str) -> str:
    """The linear layer whose matrix product is the node of that name."""
    return node.removesuffix(_NODE_SUFFIX)


def _tapped(name: str, entry: QuantizedTensor, table: TensorScale) -> TappedTensor:
    factors = table.factors or (1.0,) * entry.channels
    scale = median(f / s for f, s in zip(factors, entry.inverse_scales, strict=True))
    least = -128 if entry.signed else 0
    return TappedTensor(
        name=name,
        readers=tuple(map(layer_name, entry.readers)),
        makers=(),
        is_quantized=True,
        scale=scale,
        table_scale=table.scale,
        low=(least - entry.zero) * scale,
        high=(least + 255 - entry.zero) * scale,
    )


def _with_makers(
    tensors: tuple[TappedTensor, ...], exported: ExportedModel
) -> tuple[TappedTensor, ...]:
    names = {tensor.name for tensor in tensors}
    nodes = {output: node for node in exported.graph.graph.node for output in node.output}
    layers = {layer.name for layer in exported.network.layers()}
    order = {name: position for position, name in enumerate(nodes)}

    def makers(name: str) -> set[str]:
        """The outputs of the nodes behind `name`, back to tapped tensors."""
        behind, waiting = set(), [name]
        while waiting:
            node = nodes.get(waiting.pop())
            if node is None or node.output[0] in behind:
                continue
            behind.add(node.output[0])
            waiting += [tensor for tensor in node.input if tensor not in names]
        return behind

    def named(tensor: TappedTensor) -> tuple[str, ...]:
        made = sorted(makers(tensor.name), key=order.__getitem__)
        making = [nodes[name] for name in made if nodes[name].op_type in _MAKING]
        return tuple(layer_name(node.name) for node in making if layer_name(node.name) in layers)

    return tuple(replace(tensor, makers=named(tensor)) for tensor in tensors)


def _row_counts(model: onnx.ModelProto) -> Mapping[str, int]:
    """Tokens of every tensor (1, tokens, channels) or (1, channels)."""
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }
    return {name: math.prod(shape[:-1]) for name, shape in shapes.items()}
