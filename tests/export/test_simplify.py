"""onnxsim and the ONNX checker on what is written."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper

from levit_deploy.errors import DeployError
from levit_deploy.export.simplify import check, simplify
from levit_deploy.export.write_network import write_network
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import FAMILY, TINY
from levit_deploy.network.fold_model import fold_model
from levit_deploy.network.network import rounded


@pytest.fixture
def model(random_tiny):
    return write_network(rounded(fold_model(random_tiny)))


def test_weights_stored_twice(model):
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(DeployError, match="not valid ONNX"):
        check(model)


def test_shapes_that_do_not_fit(model):
    weight = next(c for c in model.graph.initializer if c.name == "blocks.1.m.0.weight")
    weight.CopyFrom(numpy_helper.from_array(np.ones((31, 64), np.float32), weight.name))
    with pytest.raises(DeployError, match="not valid ONNX"):
        check(model)


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
    model = write_network(rounded(fold_model(Levit(spec))))
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
