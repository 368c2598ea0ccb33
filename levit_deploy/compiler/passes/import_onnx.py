"""ONNX graph -> Relax module with one function `main(image) -> logits` and constants inside.

Before: an ExportedModel's graph, opset 17 or 21, static shapes.
After: `R.function main(image: (1, 3, size, size) float32) -> (1, classes) float32`.
HardSwish arrives as add(3), clip(0, 6), divide(6), multiply; Clip as maximum, minimum. Every call's
span names the ONNX node that it came from.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from levit_deploy.errors import DeployError
from levit_deploy.export.exported import ExportedModel


def import_onnx(exported: ExportedModel) -> tvm.IRModule:
    """Raises DeployError if the graph has an operator that TVM cannot import."""
    importer = _NamingImporter(shape_dict={}, dtype_dict="float32")
    model = exported.graph
    try:
        return importer.from_onnx(model.graph, model.opset_import[0].version)
    except tvm.error.OpNotImplemented as error:
        operators = str(error).rsplit(": ", 1)[-1]
        raise DeployError(
            f"`{exported.name}` uses ONNX operators that cannot be compiled: `{operators}`",
            hint="rewrite the model without them and export it again",
        ) from error


class _NamingImporter(ONNXGraphImporter):  # type: ignore[misc]
    def _convert_operator(
        self, op_name: str, inputs: list[relax.Expr], attrs: dict[str, Any], opset: int
    ) -> relax.Expr:
        bounds = [x for x in inputs[1:] if isinstance(x, tvm.ir.GenericConst)]
        if op_name == "Clip" and len(bounds) == 2:
            value = self._clip(inputs[0], *bounds)
        else:
            value = super()._convert_operator(op_name, inputs, attrs, opset)
        node = attrs["tvm_custom"]["name"]
        if not isinstance(value, relax.Call) or not node:
            return value
        span = tvm.ir.Span(tvm.ir.SourceName(node), 0, 0, 0, 0)
        return self.bb.normalize(relax.Call(value.op, value.args, value.attrs, value.ty_args, span))

    def _clip(self, x: relax.Expr, low: relax.Expr, high: relax.Expr) -> relax.Expr:
        """By operators; TVM's converter writes loops."""
        return relax.op.minimum(self.bb.emit(relax.op.maximum(x, low)), high)
