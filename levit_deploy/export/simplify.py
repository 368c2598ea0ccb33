"""Make a written graph what other tools expect of it: simplified, checked, every shape known."""

from __future__ import annotations

import onnx

from levit_deploy.errors import DeployError

# Rewrites that would take a named layer apart: MatMul and Add into Reshape, Gemm, Reshape; equal
# constants of two layers into one; a bias of zeros, the mean or softmax of one token into nothing.
_KEPT_FORMS = [
    "fuse_matmul_add_bias_into_gemm",
    "fuse_matmul_add_bias_into_gemm_batched",
    "eliminate_duplicate_initializer",
    "eliminate_nop_with_unit",
    "eliminate_nop_reduce",
    "eliminate_nop_softmax",
]


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Run onnxsim on a float32 graph, which infers every tensor's shape. Layers keep their form."""
    import onnxsim  # slow to import, and only to export is it needed

    simplified: onnx.ModelProto
    simplified, _ = onnxsim.simplify(model, skipped_optimizers=_KEPT_FORMS, certify=False)
    del simplified.metadata_props[:]  # onnxsim's log of what it did
    return simplified


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every tensor's shape: for integers, whose weights onnxsim would make float."""
    inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return inferred


def check(model: onnx.ModelProto) -> None:
    """Raise DeployError if the graph is not valid ONNX."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DeployError(
            f"the graph is not valid ONNX: `{error}`",
            hint="use the tested versions: `pip install onnx==1.23.2 onnxsim==0.8.1`",
        ) from error
