"""Reading is the exact inverse of writing; a graph edited in one place is refused by that place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from levit_deploy.errors import DeployError
from levit_deploy.export.read_network import read_network
from levit_deploy.export.simplify import check
from levit_deploy.export.write_network import write_network
from levit_deploy.network.network import Network, Precision
from tests.network.random_network import networks, random_network

Edit = Callable[[onnx.GraphProto], None]


@settings(max_examples=60, deadline=None)
@given(networks())
def test_reading_is_the_inverse_of_writing(network: Network) -> None:
    graph = write_network(network)
    check(graph)
    again = read_network(graph)
    assert again == network
    assert write_network(again) == graph


@settings(max_examples=15, deadline=None)
@given(networks(), st.integers(0, 10**6))
def test_names_mean_nothing(network: Network, seed: int) -> None:
    graph = write_network(network)
    rename(graph.graph, seed)
    check(graph)
    assert read_network(graph) == network


def test_networks_that_differ_in_one_number_are_not_equal() -> None:
    network = random_network(seed=1)
    bias = network.head.bias.copy()
    bias[0] = np.nextafter(bias[0], np.float32(9), dtype=np.float32)
    assert replace(network, head=replace(network.head, bias=bias)) != network


def rename(graph: onnx.GraphProto, seed: int) -> None:
    """Give every tensor and node but the graph's output a name by chance."""
    order = np.random.default_rng(seed).permutation(10_000)
    kept = {output.name for output in graph.output}
    names: dict[str, str] = {name: name for name in kept}

    def renamed(name: str) -> str:
        return names.setdefault(name, f"t{order[len(names)]}")

    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        node.name = f"n{order[len(names)]}"
    for value in (*graph.initializer, *graph.input):
        value.name = renamed(value.name)
    del graph.value_info[:]


def nodes_of(graph: onnx.GraphProto, op_type: str) -> list[onnx.NodeProto]:
    nodes = [node for node in graph.node if node.op_type == op_type]
    assert nodes, op_type
    return nodes


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(4).standard_normal(shape).astype(np.float32)


def store(graph: onnx.GraphProto, name: str, values: NDArray[np.generic]) -> None:
    """Replace the constant of that name, or add it."""
    found = [tensor for tensor in graph.initializer if tensor.name == name]
    tensor = found[0] if found else graph.initializer.add()
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def scaled_softmax(graph: onnx.GraphProto) -> None:
    softmax = nodes_of(graph, "Softmax")[0]
    position = list(graph.node).index(softmax)
    scaled = helper.make_node("Mul", ["raw", "factor"], [softmax.output[0]], name="planted")
    graph.node[position].output[0] = "raw"
    graph.node.insert(position + 1, scaled)
    store(graph, "factor", np.array([0.75], np.float32))


def softmax_over_queries(graph: onnx.GraphProto) -> None:
    nodes_of(graph, "Softmax")[0].attribute[0].i = 2


def odd_queries(graph: onnx.GraphProto) -> None:
    """The shrinking attention asks from every second token beginning with the second."""
    nodes_of(graph, "Slice")[0].input[1] = "ones"
    store(graph, "ones", np.array([1, 1]))


def relu_in_the_stem(graph: onnx.GraphProto) -> None:
    nodes_of(graph, "HardSwish")[1].op_type = "Relu"


def relu_in_an_mlp(graph: onnx.GraphProto) -> None:
    nodes_of(graph, "HardSwish")[-1].op_type = "Relu"


def bias_for_each_token(graph: onnx.GraphProto) -> None:
    """The first MLP, on 4 x 4 tokens, adds a whole matrix."""
    name = next(tensor.name for tensor in graph.initializer if tensor.name.endswith(".m.0.bias"))
    store(graph, name, random(16, 64))


def maximum_of_tokens(graph: onnx.GraphProto) -> None:
    nodes_of(graph, "ReduceMean")[0].op_type = "ReduceMax"


def residual_on_the_right(graph: onnx.GraphProto) -> None:
    """The same in real numbers, but not what is written."""
    add = next(node for node in nodes_of(graph, "Add") if node.name == "blocks.0")
    add.input[:] = list(reversed(add.input))


def residual_of_another_block(graph: onnx.GraphProto) -> None:
    add = next(node for node in nodes_of(graph, "Add") if node.name == "blocks.1")
    add.input[0] = "patch_embed.tokens"


def stride_of_one(graph: onnx.GraphProto) -> None:
    """The last convolution, with padding that makes the same shape."""
    conv = nodes_of(graph, "Conv")[-1]
    for attribute in conv.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [2, 2, 0, 0]


def tap_on_the_last_sum(graph: onnx.GraphProto) -> None:
    last = nodes_of(graph, "ReduceMean")[0].input[0]
    graph.node[-1].output[0] = "plain_logits"
    graph.node.append(helper.make_node("ReduceMean", [last], ["tap"], axes=[1, 2], keepdims=0))
    graph.node.append(helper.make_node("Add", ["plain_logits", "tap"], ["logits"]))


def dead_node(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("HardSwish", ["blocks.9"], ["planted"], "planted"))


def batchnorm(graph: onnx.GraphProto) -> None:
    norm = helper.make_node("BatchNormalization", ["patch_embed.0", *["ones"] * 4], ["normed"])
    norm.name = "planted"
    graph.node[1].input[0] = "normed"
    graph.node.insert(1, norm)
    store(graph, "ones", np.ones(4, np.float32))


FLOAT_EDITS: dict[Edit, str] = {
    scaled_softmax: "planted",
    softmax_over_queries: "blocks.0.m.softmax",
    odd_queries: "blocks.2.q.0.slice",
    relu_in_the_stem: "patch_embed.3",
    relu_in_an_mlp: "blocks.9.m.1",
    bias_for_each_token: "",
    maximum_of_tokens: "logits",
    residual_on_the_right: "blocks.0",
    residual_of_another_block: "blocks.1",
    stride_of_one: "patch_embed.6",
    tap_on_the_last_sum: "",
    dead_node: "planted",
    batchnorm: "planted",
}


@pytest.mark.parametrize("edit", FLOAT_EDITS, ids=lambda edit: edit.__name__)
def test_an_edited_graph_is_refused_by_name(edit: Edit) -> None:
    graph = write_network(random_network(seed=0))
    edit(graph.graph)
    check(graph)
    with pytest.raises(DeployError, match=r"no LeViT of levit-deploy: .* does not fit") as error:
        read_network(graph)
    assert f"`{FLOAT_EDITS[edit]}" in error.value.message


INT8_CONSTANTS = {
    "differences.36": ("blocks.0.m.weights", lambda v: np.eye(len(v), k=1, dtype=v.dtype) + v),
    "float32.254": ("blocks.0.m.weights.exact", lambda v: v / 2),
    "float32.127": ("blocks.0.m.key.step", lambda v: v / 2),
    "head.weight.zero_point": ("head.weight.dequantized", lambda v: v + v.dtype.type(3)),
    "patch_embed.3.lowest": ("patch_embed.3.limited", lambda v: 2 * v),
}


@pytest.mark.parametrize("constant", INT8_CONSTANTS)
def test_integers_of_another_scheme_are_refused_by_name(constant: str) -> None:
    network = random_network(seed=0, image_size=96, key_dim=16, precision=Precision.INT8)
    graph = write_network(network)
    node, change = INT8_CONSTANTS[constant]
    (tensor,) = (tensor for tensor in graph.graph.initializer if tensor.name == constant)
    store(graph.graph, constant, np.asarray(change(numpy_helper.to_array(tensor))))
    check(graph)
    with pytest.raises(DeployError, match=f"node `{node}` does not fit"):
        read_network(graph)


def test_constants_elsewhere_are_refused() -> None:
    """Weights in a file beside the graph."""
    graph = write_network(random_network(seed=0))
    graph.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(DeployError, match="does not fit"):
        read_network(graph)


def test_constants_of_another_size_than_they_say_are_refused() -> None:
    """A weight that the reader takes, and one that it compares with what it would write."""
    for name in ("patch_embed.2.weight", "float32.254"):
        network = random_network(seed=0, image_size=96, key_dim=16, precision=Precision.INT8)
        graph = write_network(network)
        (tensor,) = (tensor for tensor in graph.graph.initializer if tensor.name == name)
        tensor.dims.append(3)
        with pytest.raises(DeployError, match="does not fit"):
            read_network(graph)


def test_a_node_without_any_name_is_refused() -> None:
    graph = write_network(random_network(seed=0))
    graph.graph.node.append(helper.make_node("Flatten", ["image"], []))
    with pytest.raises(DeployError, match="Flatten node `` does not fit"):
        read_network(graph)


def test_graphs_of_other_networks_are_refused() -> None:
    node = helper.make_node("Flatten", ["image"], ["logits"], name="flat")
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 3, 8, 8]), ("logits", [1, 192]))
    ]
    graph = helper.make_model(helper.make_graph([node], "foreign", ports[:1], ports[1:]))
    with pytest.raises(DeployError, match="does not fit") as error:
        read_network(graph)
    assert error.value.hint
