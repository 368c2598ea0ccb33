"""Networks and images made to break a quantizer: each ends right, or in one clear error."""

import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from levit_deploy.calibration.byte_weights import LEAST_SQNR_DB
from levit_deploy.calibration.choose_scales import choose_scales
from levit_deploy.calibration.image_set import MIN_IMAGES, open_images
from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.quantize_model import quantize_model
from levit_deploy.calibration.recipe import DEFAULT_RECIPE, RECIPES
from levit_deploy.calibration.rounding import LARGEST_WEIGHT
from levit_deploy.calibration.statistics import collect_statistics
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import export_model
from levit_deploy.models.preprocessing import DEMO_PREPROCESSING
from levit_deploy.network.network import Linear
from tests.calibration.running import run, signal_to_noise_db

SIZE = 64
STEM = ("patch_embed.2", "patch_embed.4", "patch_embed.6")


@pytest.fixture
def images():
    return np.random.default_rng(7).standard_normal((6, 3, SIZE, SIZE), np.float32)


@pytest.fixture
def changed(net):
    """A copy of the network that a test may spoil."""
    return copy.deepcopy(net)


def exported_of(net):
    return export_model(net, name="levit_tiny", weights_digest="ef" * 32)


def logits(exported, images):
    return run(exported.graph, images, ["logits"])["logits"]


def constant(exported, name):
    return next(
        numpy_helper.to_array(t) for t in exported.graph.graph.initializer if t.name == name
    )


def linear_names(exported):
    return tuple(layer.name for layer in exported.network.layers() if isinstance(layer, Linear))


@pytest.mark.parametrize("place", ["blocks.0.m.proj.1.bn", "blocks.1.m.0.bn", "patch_embed.6.bn"])
@torch.no_grad()
def test_one_channel_a_thousand_times_the_others(changed, pictures, images, place):
    bn = changed.get_submodule(place)
    bn.running_var[3] = 1e-6
    bn.bias[3] *= 1000
    exported = exported_of(changed)
    quantized, _ = quantize_model(exported, pictures, DEFAULT_RECIPE)
    assert signal_to_noise_db(logits(exported, images), logits(quantized, images)) > 30


@pytest.mark.parametrize("place", ["patch_embed.0.bn", "patch_embed.2.bn", "patch_embed.4.bn"])
@torch.no_grad()
def test_one_such_channel_in_the_stem(changed, pictures, images, place):
    """The rest of this network answers to it with noise of its own, so the stem alone is held."""
    bn = changed.get_submodule(place)
    bn.running_var[3] = 1e-6
    bn.bias[3] *= 1000
    exported = exported_of(changed)
    recipe = replace(DEFAULT_RECIPE, name="stem", float_layers=linear_names(exported))
    statistics = collect_statistics(exported, pictures)
    without = {name: replace(seen, windows=None) for name, seen in statistics.items()}
    [expected] = run(exported.graph, images, ["patch_embed.6"]).values()
    for seen, least in ((without, 60), (statistics, LEAST_SQNR_DB - 5)):
        table = choose_scales(exported, seen, pictures, recipe)
        assert len(table.stem) == 3
        assert seen is statistics or not any(scale.byte_weights for scale in table.stem)
        [got] = run(quantize(exported, table).graph, images, ["patch_embed.6"]).values()
        assert signal_to_noise_db(expected, got) > least


@torch.no_grad()
def test_constant_channels(changed, pictures, images):
    """Channels of the stream that are the same everywhere, zero or not; hidden ones likewise."""
    for module in changed.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.weight[:4] = 0
            module.bias[:2] = 0
    exported = exported_of(changed)
    quantized, table = quantize_model(exported, pictures, DEFAULT_RECIPE)
    assert all(np.isfinite(tensor.factors).all() for tensor in table.tensors)
    assert signal_to_noise_db(logits(exported, images), logits(quantized, images)) > 25


@torch.no_grad()
def test_a_layer_that_writes_nothing(changed, pictures, images):
    """All weights of an output channel are zero, then all of the layer."""
    changed.blocks[1].m[0].c.weight[5] = 0
    changed.blocks[1].m[2].c.weight[:] = 0
    exported = exported_of(changed)
    quantized, _ = quantize_model(exported, pictures, DEFAULT_RECIPE)
    scales = constant(quantized, "blocks.1.m.0.weight.scale")
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    assert (constant(quantized, "blocks.1.m.0.weight")[:, 5] == 0).all()
    got = run(quantized.graph, images, ["blocks.1.m.0"])["blocks.1.m.0"]
    expected = constant(exported, "blocks.1.m.0.bias")[5]
    assert np.abs(got[..., 5] - expected).max() < 1e-6
    assert signal_to_noise_db(logits(exported, images), logits(quantized, images)) > 30


@pytest.mark.parametrize("colour", [(0, 0, 0), (124, 116, 104)])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_pictures_of_one_colour(exported, tmp_path, colour, recipe):
    """Right for that colour; on any other the values saturate and stay finite."""
    flat = np.full((MIN_IMAGES, SIZE, SIZE, 3), colour, np.uint8)
    np.savez(tmp_path / "flat.npz", images=flat)
    pictures = open_images(str(tmp_path / "flat.npz"), DEMO_PREPROCESSING, SIZE)
    quantized, _ = quantize_model(exported, pictures, recipe)
    normal = (np.array(colour) / 255 - exported.normalization.mean) / exported.normalization.std
    same = np.broadcast_to(normal[:, None, None], (1, 3, SIZE, SIZE)).astype(np.float32)
    assert signal_to_noise_db(logits(exported, same), logits(quantized, same)) > 20
    noise = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE), np.float32)
    assert np.isfinite(logits(quantized, noise)).all()


def test_activations_beyond_the_calibrated_range_saturate(exported, pictures, images):
    quantized, table = quantize_model(exported, pictures, DEFAULT_RECIPE)
    names = [f"{tensor.tensor}.quantized" for tensor in table.tensors]
    got = run(quantized.graph, 1000 * images, ["logits", "patch_embed.tokens", *names])
    assert np.isfinite(got["logits"]).all()
    first = table.tensors[0]
    assert first.tensor == "patch_embed.tokens"
    real = got[first.tensor].astype(np.float64) * first.factors
    stored = got["patch_embed.tokens.quantized"]
    assert (stored[real > first.high + first.scale] == 255).all()
    assert (stored[real < first.low - first.scale] == 0).all()
    assert (stored == 255).any()
    assert (stored == 0).any()


def test_the_stem_saturates_at_its_largest_step(exported, pictures, images):
    quantized, table = quantize_model(exported, pictures, DEFAULT_RECIPE)
    for scale in table.stem:
        name = f"{scale.tensor}.quantized"
        stored = run(quantized.graph, 1000 * images, [name])[name]
        assert stored.max() == scale.largest_step
        assert stored.min() >= -scale.largest_step


def test_no_sum_of_the_stem_can_leave_32_bits(changed, pictures):
    """Also where one weight is all that a channel has, where all are alike, and where none is."""
    with torch.no_grad():
        weight = changed.patch_embed[4].c.weight
        weight[0], weight[1], weight[2] = 0, 1, 0
        weight[2, 3, 1, 1] = 1
    quantized, table = quantize_model(exported_of(changed), pictures, DEFAULT_RECIPE)
    for scale in table.stem:
        weight = constant(quantized, f"{scale.layer}.weight")
        assert weight.dtype == (np.int8 if scale.byte_weights else np.int16)
        magnitudes = np.abs(weight.astype(np.int64)).reshape(len(weight), -1)
        largest_sum = scale.largest_step * magnitudes.sum(axis=1).max()
        assert largest_sum < 2**31
        largest = 127 if scale.byte_weights else LARGEST_WEIGHT
        assert largest_sum > 0.99 * 2**31 or magnitudes.max() == largest


def test_the_stem_may_stay_float_in_part(exported, pictures, images):
    for kept in (STEM, STEM[1:2]):
        recipe = replace(DEFAULT_RECIPE, name="float-stem", float_layers=kept)
        quantized, table = quantize_model(exported, pictures, recipe)
        assert [scale.layer for scale in table.stem] == [n for n in STEM if n not in kept]
        for layer in kept:
            assert constant(quantized, f"{layer}.weight").dtype == np.float32
        assert quantized.graph.opset_import[0].version == (21 if table.stem else 17)
        assert signal_to_noise_db(logits(exported, images), logits(quantized, images)) > 25


def test_an_overflow_is_named(exported, pictures):
    graph = onnx.ModelProto()
    graph.CopyFrom(exported.graph)
    for tensor in graph.graph.initializer:
        if tensor.name in ("blocks.0.m.proj.1.bias", "blocks.1.m.2.bias"):
            huge = np.full(tuple(tensor.dims), 3e38, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(huge, tensor.name))
    with pytest.raises(
        DeployError, match=r"image 1 of `.*noise\.npz` makes `blocks\.\S+` overflow"
    ):
        quantize_model(replace(exported, graph=graph), pictures, DEFAULT_RECIPE)


def test_layers_kept_float_stay_as_they_are(exported, pictures):
    recipe = replace(DEFAULT_RECIPE, name="mixed", float_layers=("blocks.2.q.1", "head"))
    quantized, table = quantize_model(exported, pictures, recipe)
    for layer in recipe.float_layers:
        assert constant(quantized, f"{layer}.weight").dtype == np.float32
    reasons = {entry.tensor: entry.reason for entry in table.kept_float}
    assert reasons["head"] == "layer: the recipe `mixed` keeps it"
    assert {"head", "blocks.2.q.1"}.isdisjoint(layer.layer for layer in table.layers)


def test_all_layers_kept_float_is_the_float_model(exported, pictures, images):
    everything = (*STEM, *linear_names(exported))
    recipe = replace(DEFAULT_RECIPE, name="none", float_layers=everything)
    quantized, _ = quantize_model(exported, pictures, recipe)
    assert np.array_equal(logits(quantized, images), logits(exported, images))


def test_a_layer_that_is_not_there_is_refused(exported, pictures):
    recipe = replace(DEFAULT_RECIPE, float_layers=("blocks.0.m.qvk",))
    with pytest.raises(DeployError, match=r"no layer `blocks\.0\.m\.qvk`") as error:
        quantize_model(exported, pictures, recipe)
    assert error.value.hint == "did you mean `blocks.0.m.qkv`?"
