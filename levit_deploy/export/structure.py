"""What an exported fp32 graph may hold: ten operators, every node and constant used, no more.

`build_graph` writes nothing else, and onnxsim is asked to find what could still be simplified; this
check is what the compiler and the quantizer rely on. It refuses, by name: a BatchNormalization, a
Gather of biases, a Mul that belongs in weights, an Identity, a dead constant.
"""

from __future__ import annotations

import onnx
import onnxsim

from levit_deploy.errors import DeployError

OPERATORS = frozenset(
    {
        "Add",
        "Conv",
        "HardSwish",
        "MatMul",
        "ReduceMean",
        "Reshape",
        "Slice",
        "Softmax",
        "Split",
        "Transpose",
    }
)

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

_HINT = "use the tested versions: `pip install onnx==1.23.2 onnxsim==0.8.1`"


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Run onnxsim and infer every tensor's shape. Layers keep their form and their names."""
    simplified: onnx.ModelProto
    simplified, _ = onnxsim.simplify(model, skipped_optimizers=_KEPT_FORMS, certify=False)
    del simplified.metadata_props[:]  # onnxsim's log of what it did
    return simplified


def check_structure(model: onnx.ModelProto) -> None:
    """Raise DeployError if the graph is invalid ONNX or holds anything it should not."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DeployError(f"the exported graph is not valid ONNX: `{error}`", hint=_HINT) from error
    graph = model.graph
    for node in graph.node:
        if node.op_type not in OPERATORS:
            raise DeployError(
                f"`{node.op_type}` node `{node.name}` in the exported graph", hint=_HINT
            )
    used = {name for node in graph.node for name in node.input}
    used |= {output.name for output in graph.output}
    for constant in graph.initializer:
        if constant.name not in used:
            raise DeployError(f"dead constant `{constant.name}` in the exported graph", hint=_HINT)
    for node in graph.node:
        if not used.intersection(node.output):
            raise DeployError(f"dead node `{node.name}` in the exported graph", hint=_HINT)
