"""The structural check: what the exporter writes passes, what is planted is found by name."""

from dataclasses import replace

import numpy as np
import pytest
from levit_deploy.export.fold_model import fold_model
from levit_deploy.export.graph import build_graph
from levit_deploy.export.structure import check_structure, simplify
from onnx import helper, numpy_helper

from levit_deploy.errors import DeployError
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import FAMILY, TINY


@pytest.fixture
def model(random_tiny):
    return build_graph(fold_model(random_tiny))


def insert_after(model, tensor, op, constants=(), **attributes):
    """Plant a node between `tensor` and those that read it."""
    position, _ = next(
        (i, node) for i, node in enumerate(model.graph.node) if tensor in node.output
    )
    for node in model.graph.node:
        node.input[:] = ["planted" if name == tensor else name for name in node.input]
    names = [f"planted.{i}" for i in range(len(constants))]
    for name, values in zip(names, constants, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    node = helper.make_node(op, [tensor, *names], ["planted"], name="planted", **attributes)
    model.graph.node.insert(position + 1, node)


def test_what_the_exporter_writes(model):
    check_structure(simplify(model))


def test_batchnorm(model):
    ones = np.ones(4, np.float32)
    insert_after(model, "patch_embed.0", "BatchNormalization", [ones, ones, ones, ones])
    with pytest.raises(DeployError, match="`BatchNormalization` node `planted`"):
        check_structure(model)


def test_gather(model):
    insert_after(model, "blocks.0", "Gather", [np.arange(16)], axis=1)
    with pytest.raises(DeployError, match="`Gather` node `planted`"):
        check_structure(model)


def test_scalar_multiplication(model):
    insert_after(model, "blocks.0.m.products", "Mul", [np.array(0.25, np.float32)])
    with pytest.raises(DeployError, match="`Mul` node `planted`"):
        check_structure(model)


@pytest.mark.parametrize("op", ["Identity", "Dropout"])
def test_idle_operators(model, op):
    insert_after(model, "blocks.1", op)
    with pytest.raises(DeployError, match=f"`{op}` node `planted`"):
        check_structure(model)


def test_dead_constant(model):
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "planted"))
    with pytest.raises(DeployError, match="dead constant `planted`"):
        check_structure(model)


def test_dead_node(model):
    model.graph.node.append(helper.make_node("HardSwish", ["blocks.9"], ["planted"], "planted"))
    with pytest.raises(DeployError, match="dead node `planted`"):
        check_structure(model)


def test_weights_stored_twice(model):
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(DeployError, match="not valid ONNX"):
        check_structure(model)


def test_shapes_that_do_not_fit(model):
    weight = next(c for c in model.graph.initializer if c.name == "blocks.1.m.0.weight")
    weight.CopyFrom(numpy_helper.from_array(np.ones((31, 64), np.float32), weight.name))
    with pytest.raises(DeployError, match="not valid ONNX"):
        check_structure(model)


@pytest.mark.parametrize(
    "spec",
    [
        TINY,
        *(replace(TINY, image_size=size, classes=1) for size in (16, 32, 80, 112)),
        replace(TINY, heads=(1, 1, 1), key_dim=1),
        FAMILY["levit_128s"],
    ],
)
def test_onnxsim_finds_nothing_to_simplify(spec):
    """Not even in a fresh network, all zeros and ones: names and constants stay as written."""
    model = build_graph(fold_model(Levit(spec)))
    simplified = simplify(model)
    assert list(simplified.graph.node) == list(model.graph.node)
    assert list(simplified.graph.initializer) == list(model.graph.initializer)


def test_simplify_infers_every_shape(model):
    graph = simplify(model).graph
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in graph.value_info
    }
    assert {name for node in graph.node for name in node.output} == shapes.keys() | {"logits"}
    assert all(min(shape) > 0 for shape in shapes.values())
    assert shapes["blocks.0.m.scores"] == (1, 2, 16, 16)
