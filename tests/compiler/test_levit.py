"""LeViT through the whole compiler, compared with ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Entry
from levit_deploy.models.spec import FAMILY, TINY, Activation
from levit_deploy.targets.table import get_target
from tests.compiler.execute import run
from tests.compiler.graphs import Array, random_image, random_rgb8, reference
from tests.compiler.levit import compiled_tiny, exported_tiny, exported_variant

HOST = get_target("x86-64-v3")


def assert_close(logits: Array, expected: Array) -> None:
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize(("image_size", "classes"), [(64, 10), (64, 1000), (96, 3), (224, 17)])
def test_sizes_and_class_counts(image_size: int, classes: int) -> None:
    model = exported_tiny(image_size, classes)
    program = compile_model(model, HOST)
    image = random_image(model)
    assert_close(run(program, HOST, image), reference(model, image))


@pytest.mark.parametrize("image_size", [16, 32])
def test_grids_of_one_token(image_size: int) -> None:
    """The smallest images: stages whose grid is a single token."""
    model = exported_tiny(image_size)
    program = compile_model(model, HOST)
    image = random_image(model)
    assert_close(run(program, HOST, image), reference(model, image))


@pytest.mark.parametrize("activation", [a for a in Activation if a is not Activation.HARD_SWISH])
@pytest.mark.parametrize("target_name", ["x86-64", "x86-64-v3", "arm64", "armv7"])
def test_activations(activation: Activation, target_name: str) -> None:
    """With FMA the logits have x86-64-v3's bits."""
    model, target = exported_tiny(activation=activation), get_target(target_name)
    image = 3 * random_image(model)
    logits = run(compile_model(model, target), target, image)
    assert_close(logits, reference(model, image))
    if target.fma and target != HOST:
        here = run(compile_model(model, HOST), HOST, image)
        assert logits.tobytes() == here.tobytes()


def test_without_a_head_the_features_come_out() -> None:
    model = exported_tiny(classes=0)
    assert model.classes == TINY.channels[-1]
    image = random_image(model)
    assert_close(run(compile_model(model, HOST), HOST, image), reference(model, image))


def test_a_stem_of_three_convolutions() -> None:
    model = exported_tiny(image_size=32, stem_stride=8)
    assert len(model.network.stem) == 3
    image = random_image(model)
    assert_close(run(compile_model(model, HOST), HOST, image), reference(model, image))


def test_the_8_bit_entry() -> None:
    model, program = exported_tiny(), compiled_tiny()
    image, normalised = random_rgb8(model)
    logits = run(program, HOST, image, entry=Entry.RGB8, shift=1)
    assert_close(logits, reference(model, normalised))


@pytest.mark.parametrize("target_name", ["x86-64", "x86-64-v4", "arm64", "armv7"])
def test_every_target_is_right(target_name: str) -> None:
    """On buffers that are aligned to floats only. With FMA the logits have x86-64-v3's bits."""
    model, target = exported_tiny(), get_target(target_name)
    image = random_image(model)
    logits = run(compiled_tiny(target_name), target, image, shift=4)
    assert_close(logits, reference(model, image))
    if target.fma:
        here = run(compiled_tiny(), HOST, image)
        assert logits.tobytes() == here.tobytes()


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_the_split_over_workers_does_not_change_a_bit(parts: int) -> None:
    model, program = exported_tiny(), compiled_tiny()
    image = random_image(model)
    whole = run(program, HOST, image)
    assert run(program, HOST, image, parts=parts).tobytes() == whole.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_the_whole_family(name: str) -> None:
    model = exported_variant(name)
    program = compile_model(model, HOST)
    image = random_image(model)
    expected = reference(model, image)
    assert_close(run(program, HOST, image), expected)
    pixels, normalised = random_rgb8(model)
    logits = run(program, HOST, pixels, entry=Entry.RGB8)
    assert_close(logits, reference(model, normalised))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["levit_128s", "levit_192"])
def test_real_sizes_have_the_same_bits_on_arm64(name: str) -> None:
    model, target = exported_variant(name), get_target("arm64")
    image = random_image(model)
    there = run(compile_model(model, target), target, image)
    here = run(compile_model(model, HOST), HOST, image)
    assert there.tobytes() == here.tobytes()
