"""Graphs that are not LeViT compile by default lowering and are right."""

from pathlib import Path

import numpy as np
import pytest

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Entry
from levit_deploy.targets.table import get_target
from tests.compiler.execute import run
from tests.compiler.graphs import FOREIGN, random_image, random_rgb8, reference

HOST_TARGET = "x86-64-v3"


@pytest.mark.parametrize("graph", FOREIGN)
def test_foreign_graphs_agree_with_onnx_runtime(graph: str, tmp_path: Path) -> None:
    model = FOREIGN[graph]()
    target = get_target(HOST_TARGET)
    program = compile_model(model, target)
    image = random_image(model)
    expected = reference(model, image)
    np.testing.assert_allclose(
        run(program, target, image, tmp_path), expected, rtol=1e-5, atol=1e-5 * np.ptp(expected)
    )


@pytest.mark.parametrize("graph", FOREIGN)
def test_the_8_bit_entry_normalises_first(graph: str, tmp_path: Path) -> None:
    model = FOREIGN[graph]()
    target = get_target(HOST_TARGET)
    program = compile_model(model, target)
    image, normalised = random_rgb8(model)
    expected = reference(model, normalised)
    logits = run(program, target, image, tmp_path, entry=Entry.RGB8, parts=3, shift=4)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize("target_name", ["x86-64", "arm64", "armv7"])
def test_every_architecture_calls_the_c_library_right(target_name: str, tmp_path: Path) -> None:
    """Softmax and tanh leave calls of expf and tanhf: their arguments are floats."""
    model = FOREIGN["two_readers"]()
    target = get_target(target_name)
    program = compile_model(model, target)
    image = random_image(model)
    expected = reference(model, image)
    np.testing.assert_allclose(
        run(program, target, image, tmp_path), expected, rtol=1e-5, atol=1e-5 * np.ptp(expected)
    )
