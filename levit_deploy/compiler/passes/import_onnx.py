"""ONNX graph -> Relax module with one function `main(image) -> logits` and constants inside.

Before: an ExportedModel's graph, opset 17, static shapes.
After: `R.function main(image: (1, 3, size, size) float32) -> (1, classes) float32`.
HardSwish arrives as add(3), clip(0, 6), divide(6), multiply.
"""

from __future__ import annotations

import tvm
from tvm.relax.frontend.onnx import from_onnx

from levit_deploy.errors import DeployError
from levit_deploy.export.exported import ExportedModel


def import_onnx(exported: ExportedModel) -> tvm.IRModule:
    """Raises DeployError if the graph has an operator that TVM cannot import."""
    try:
        return from_onnx(exported.graph, keep_params_in_input=False)
    except tvm.error.OpNotImplemented as error:
        operators = str(error).rsplit(": ", 1)[-1]
        raise DeployError(
            f"`{exported.name}` uses ONNX operators that cannot be compiled: `{operators}`",
            hint="rewrite the model without them and export it again",
        ) from error
