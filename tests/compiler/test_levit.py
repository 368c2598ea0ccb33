"""LeViT through the whole compiler, compared with ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Entry
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.spec import FAMILY
from levit_deploy.targets.table import get_target
from tests.compiler.execute import run
from tests.compiler.graphs import Array, random_image, random_rgb8, reference
from tests.compiler.levit import exported_tiny, exported_variant

HOST = get_target("x86-64-v3")


def assert_close(logits: Array, expected: Array) -> None:
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize(("image_size", "classes"), [(64, 10), (64, 1000), (96, 3), (224, 17)])
def test_sizes_and_class_counts(image_size: int, classes: int, tmp_path: Path) -> None:
    model = exported_tiny(image_size, classes)
    program = compile_model(model, HOST)
    image = random_image(model)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


@pytest.mark.parametrize("image_size", [16, 32])
def test_grids_of_one_token(image_size: int, tmp_path: Path) -> None:
    """The smallest images: stages whose grid is a single token, which onnxsim simplifies."""
    model = exported_tiny(image_size)
    program = compile_model(model, HOST)
    image = random_image(model)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


def test_the_8_bit_entry(tmp_path: Path) -> None:
    model = exported_tiny()
    program = compile_model(model, HOST)
    image, normalised = random_rgb8(model)
    logits = run(program, HOST, image, tmp_path, entry=Entry.RGB8, shift=1)
    assert_close(logits, reference(model, normalised))


@pytest.mark.parametrize("target_name", ["x86-64", "x86-64-v4", "arm64", "armv7"])
def test_every_target_is_right(target_name: str, tmp_path: Path) -> None:
    model, target = exported_tiny(), get_target(target_name)
    image = random_image(model)
    logits = run(compile_model(model, target), target, image, tmp_path / "target")
    assert_close(logits, reference(model, image))


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_the_split_over_workers_does_not_change_a_bit(parts: int, tmp_path: Path) -> None:
    model = exported_tiny()
    program = compile_model(model, HOST)
    image = random_image(model)
    whole = run(program, HOST, image, tmp_path)
    assert run(program, HOST, image, tmp_path, parts=parts).tobytes() == whole.tobytes()


def test_a_value_used_outside_its_group_is_not_swallowed(tmp_path: Path) -> None:
    """The logits also read the hidden layer of the last MLP before its hardswish."""
    model = _with_tap(exported_tiny())
    program = compile_model(model, HOST)
    image = random_image(model)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_the_whole_family(name: str, tmp_path: Path) -> None:
    model = exported_variant(name)
    program = compile_model(model, HOST)
    image = random_image(model)
    expected = reference(model, image)
    assert_close(run(program, HOST, image, tmp_path), expected)
    pixels, normalised = random_rgb8(model)
    logits = run(program, HOST, pixels, tmp_path, entry=Entry.RGB8)
    assert_close(logits, reference(model, normalised))


def _with_tap(model: ExportedModel) -> ExportedModel:
    graph = _copy(model)
    nodes = graph.graph.node
    hidden = [node.input[0] for node in nodes if node.op_type == "HardSwish"][-1]
    nodes[-1].output[0] = "plain_logits"
    nodes.append(helper.make_node("ReduceMean", [hidden], ["tap"], axes=[1, 2], keepdims=0))
    nodes.append(helper.make_node("Add", ["plain_logits", "tap"], ["logits"]))
    return replace(model, graph=graph)


def _copy(model: ExportedModel) -> onnx.ModelProto:
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    return graph
