"""Graphs that are almost LeViT: what does not fit its group falls back, the rest does not.

Each case edits one place of the tiny LeViT's graph so that every shape stays as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Entry
from levit_deploy.export.exported import ExportedModel
from levit_deploy.targets.table import get_target
from tests.compiler.execute import run
from tests.compiler.graphs import random_image, random_rgb8, reference
from tests.compiler.levit import compiled_tiny, exported_tiny

HOST = get_target("x86-64-v3")
Edit = Callable[[onnx.GraphProto], None]


def scaled_softmax(graph: onnx.GraphProto) -> None:
    """An extra operator in the middle of the first attention."""
    softmax = nodes_of(graph, "Softmax")[0]
    scaled = helper.make_node("Mul", ["raw_softmax", "factor"], [softmax.output[0]])
    position = list(graph.node).index(softmax)
    graph.node[position].output[0] = "raw_softmax"
    graph.node.insert(position + 1, scaled)
    graph.initializer.append(numpy_helper.from_array(np.array([0.75], np.float32), "factor"))


def softmax_over_queries(graph: onnx.GraphProto) -> None:
    nodes_of(graph, "Softmax")[0].attribute[0].i = 2


def table_without_symmetry(graph: onnx.GraphProto) -> None:
    table = next(tensor for tensor in graph.initializer if tensor.name.endswith("attention_bias"))
    table.CopyFrom(numpy_helper.from_array(random(*table.dims), table.name))


def odd_queries(graph: onnx.GraphProto) -> None:
    """The shrinking attention asks from every second token beginning with the second."""
    nodes_of(graph, "Slice")[0].input[1] = "ones"
    graph.initializer.append(numpy_helper.from_array(np.array([1, 1]), "ones"))


def relu_in_the_stem(graph: onnx.GraphProto) -> None:
    nodes_of(graph, "HardSwish")[1].op_type = "Relu"


def relu_in_an_mlp(graph: onnx.GraphProto) -> None:
    nodes_of(graph, "HardSwish")[-1].op_type = "Relu"


def bias_for_each_token(graph: onnx.GraphProto) -> None:
    """The first MLP, on 4 x 4 tokens, adds a whole matrix."""
    bias = next(tensor for tensor in graph.initializer if tensor.name.endswith(".m.0.bias"))
    matrix = random(16, bias.dims[0])
    bias.CopyFrom(numpy_helper.from_array(matrix, bias.name))


def maximum_of_tokens(graph: onnx.GraphProto) -> None:
    nodes_of(graph, "ReduceMean")[0].op_type = "ReduceMax"


def residual_on_the_right(graph: onnx.GraphProto) -> None:
    """Every sum of two tensors, the other way round: nothing falls back."""
    constants = {tensor.name for tensor in graph.initializer}
    for add in nodes_of(graph, "Add"):
        if not constants.intersection(add.input):
            add.input[:] = list(reversed(add.input))


def tap_inside_an_mlp(graph: onnx.GraphProto) -> None:
    """The logits also read the hidden layer of the last MLP before its hardswish."""
    hidden = nodes_of(graph, "HardSwish")[-1].input[0]
    graph.node[-1].output[0] = "plain_logits"
    graph.node.append(helper.make_node("ReduceMean", [hidden], ["tap"], axes=[1, 2], keepdims=0))
    graph.node.append(helper.make_node("Add", ["plain_logits", "tap"], ["logits"]))


def tap_on_the_last_sum(graph: onnx.GraphProto) -> None:
    """The logits also read what the mean is taken of: it has to be made for every token."""
    last = nodes_of(graph, "ReduceMean")[0].input[0]
    graph.node[-1].output[0] = "plain_logits"
    graph.node.append(helper.make_node("ReduceMean", [last], ["tap"], axes=[1, 2], keepdims=0))
    graph.node.append(helper.make_node("Add", ["plain_logits", "tap"], ["logits"]))


# What each edit takes away from the calls of the float entry; a negative count is added.
CASES: dict[Edit, dict[str, int]] = {
    scaled_softmax: {"attention": 1},
    softmax_over_queries: {"attention": 1},
    table_without_symmetry: {"attention": 1},
    odd_queries: {"attention": 1},
    relu_in_the_stem: {"conv": 4},
    relu_in_an_mlp: {},
    bias_for_each_token: {"gemm": 1},
    maximum_of_tokens: {"head": 2, "gemm": -2},
    residual_on_the_right: {},
    tap_inside_an_mlp: {},
    tap_on_the_last_sum: {"head": 1, "gemm": -1},
}


@pytest.mark.parametrize("edit", CASES, ids=lambda edit: edit.__name__)
def test_what_does_not_fit_falls_back(edit: Edit, tmp_path: Path) -> None:
    model = edited(exported_tiny(), edit)
    program = compile_model(model, HOST)
    usual, kinds = (
        Counter(call.kind for call in p.calls if call.entry is not Entry.RGB8)
        for p in (compiled_tiny(), program)
    )
    fallen = {"fallback"} if edit is not residual_on_the_right else set()
    assert set(kinds) - set(usual) == fallen
    assert {kind: usual[kind] - kinds[kind] for kind in usual if usual[kind] != kinds[kind]} == (
        CASES[edit]
    )
    image = random_image(model)
    expected = reference(model, image)
    logits = run(program, HOST, image, tmp_path)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.ptp(expected))


def test_a_stem_that_fell_back_has_an_8_bit_entry(tmp_path: Path) -> None:
    model = edited(exported_tiny(), relu_in_the_stem)
    image, normalised = random_rgb8(model)
    expected = reference(model, normalised)
    logits = run(compile_model(model, HOST), HOST, image, tmp_path, entry=Entry.RGB8)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.ptp(expected))


def edited(model: ExportedModel, edit: Edit) -> ExportedModel:
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    edit(graph.graph)
    del graph.graph.value_info[:]
    onnx.checker.check_model(graph, full_check=True)
    return replace(model, graph=graph)


def nodes_of(graph: onnx.GraphProto, op_type: str) -> list[onnx.NodeProto]:
    nodes = [node for node in graph.node if node.op_type == op_type]
    assert nodes, op_type
    return nodes


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(4).standard_normal(shape).astype(np.float32)
