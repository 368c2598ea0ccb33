"""What layers in float32 gain and cost, and the plan made of it, on the tiny trained net."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from levit_deploy.audit.layer_cost import float_costs, multiply_adds
from levit_deploy.audit.mixed_precision import MixedPrecision, table_without
from levit_deploy.audit.sensitivity import (
    Progress,
    measure_sensitivities,
    plan_float_layers,
    plan_recipe,
)
from levit_deploy.calibration.choose_scales import choose_scales
from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.quantize_model import quantize_model
from levit_deploy.calibration.recipe import DEFAULT_RECIPE, RECIPES, Recipe
from levit_deploy.calibration.statistics import collect_statistics
from levit_deploy.models.images import normalize
from tests.calibration.running import run, signal_to_noise_db

IMAGES = 40
WRONG = "blocks.1.m.2"


@pytest.fixture(scope="module")
def cifar(data_dir, tiny):
    """40 labelled photographs of the tiny net's size, uint8."""
    with np.load(data_dir / "val_2000.npz") as data:
        images, labels = data["images"][:IMAGES], data["labels"][:IMAGES].astype(np.int64)
    times = tiny.spec.image_size // images.shape[1]
    return images.repeat(times, axis=1).repeat(times, axis=2), labels


@pytest.fixture(scope="module")
def table(tiny_export, pictures):
    return quantize_model(tiny_export, pictures, DEFAULT_RECIPE)[1]


@pytest.fixture(scope="module")
def faulty(table):
    """The table with one layer's weight scales a hundredth of what they should be."""
    layers = tuple(
        replace(layer, scales=tuple(scale / 100 for scale in layer.scales))
        if layer.layer == WRONG
        else layer
        for layer in table.layers
    )
    return replace(table, layers=layers)


@pytest.fixture
def sessions(monkeypatch):
    """Every session of ONNX Runtime that is made from now on."""
    made, make = [], onnxruntime.InferenceSession

    def session(*arguments, **options):
        made.append(arguments)
        return make(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return made


def measured(model: MixedPrecision, *progress: Progress):
    """By one worker, a layer after the other."""
    pool = ThreadPoolExecutor(1)
    try:
        return measure_sensitivities(model, pool, model.nearness, *progress)
    finally:
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("layer", ["blocks.0.m.qkv", "blocks.2.q.1", "blocks.2.kv", "head"])
def test_a_table_without_a_layer_is_the_one_that_would_have_been_made(tiny_export, pictures, layer):
    """Where each layer is decided for itself, and not what its stream's factors are."""
    recipe, statistics = RECIPES["w8a8-plain"], collect_statistics(tiny_export, pictures)
    whole = choose_scales(tiny_export, statistics, pictures, recipe)
    assert layer in [entry.layer for entry in whole.layers]
    expected = choose_scales(
        tiny_export, statistics, pictures, replace(recipe, float_layers=(layer,))
    )
    assert table_without(tiny_export, whole, {layer}) == expected


def test_nearness_is_that_of_the_model_as_it_is_written(tiny_export, table, cifar, tmp_path):
    pixels, labels = cifar
    float_layers = {"blocks.0.m.qkv", "blocks.3.m.0"}
    ours = MixedPrecision(tiny_export, table, pixels, labels, tmp_path).measure(float_layers)

    images = normalize(pixels, tiny_export.normalization)
    mixed = quantize(tiny_export, table_without(tiny_export, table, float_layers))
    (expected,) = run(tiny_export.graph, images, ["logits"]).values()
    (got,) = run(mixed.graph, images, ["logits"]).values()
    assert ours.images == IMAGES
    assert ours.sqnr_db == pytest.approx(signal_to_noise_db(expected, got), abs=0.5)
    assert ours.agreeing == (expected.argmax(1) == got.argmax(1)).sum()
    accuracies = [(logits.argmax(1) == labels).mean() for logits in (expected, got)]
    assert ours.drop_points == pytest.approx(100 * (accuracies[0] - accuracies[1]))


def test_with_every_layer_float_nothing_is_lost(tiny_export, table, cifar, tmp_path):
    model = MixedPrecision(tiny_export, table, *cifar, tmp_path)
    nearness = model.measure(set(model.layers))
    assert nearness.sqnr_db is None or nearness.sqnr_db > 100
    assert (nearness.agreement, nearness.drop_points) == (1.0, 0.0)


def test_a_planted_fault_gains_the_most_and_is_all_that_the_plan_needs(
    tiny_export, faulty, table, cifar, tmp_path
):
    model = MixedPrecision(tiny_export, faulty, *cifar, tmp_path)
    assert model.measure(frozenset()).drop_points > 5
    found = measured(model)
    assert {entry.layer for entry in found} == set(model.layers)
    gains = [entry.sqnr_gain_db for entry in found]
    assert gains == sorted(gains, reverse=True)
    assert found[0].layer == WRONG
    assert gains[0] > gains[1] + 5

    # the others are within what 8 bits cost; the drop of the honest table is the budget, and as the
    # rounding of each of them moves an answer of these few images now and then, two answers more
    honest = MixedPrecision(tiny_export, table, *cifar, tmp_path).measure({WRONG})
    plan = plan_float_layers(model, found, max(0.0, honest.drop_points) + 2 * 100 / IMAGES)
    assert plan.layers == (WRONG,)
    assert plan.cost == found[0].cost
    assert plan.drop_points == model.measure({WRONG}).drop_points
    assert plan.images == IMAGES


def test_the_plan_is_a_recipe_that_quantizing_takes(tiny_export, faulty, cifar, pictures, tmp_path):
    model = MixedPrecision(tiny_export, faulty, *cifar, tmp_path)
    plan = plan_float_layers(model, measured(model), 0.0)
    assert plan.drop_points <= 0.0
    plan_recipe(faulty.recipe, plan).save(tmp_path / "recipe.json")
    recipe = Recipe.load(tmp_path / "recipe.json")
    assert recipe.name == "w8a8-mixed"
    _, table = quantize_model(tiny_export, pictures, recipe)
    quantized = {entry.layer for entry in (*table.stem, *table.layers)}
    assert set(model.layers) - quantized == set(plan.layers)


def test_within_the_budget_no_layer_is_needed(tiny_export, table, cifar, tmp_path):
    model = MixedPrecision(tiny_export, table, *cifar, tmp_path)
    plan = plan_float_layers(model, measured(model), 100.0)
    assert (plan.layers, plan.cost) == ((), 0.0)
    assert plan_recipe(table.recipe, plan) == table.recipe


def test_without_labels_an_answer_that_changes_is_lost(tiny_export, faulty, cifar, tmp_path):
    nearness = MixedPrecision(tiny_export, faulty, cifar[0], None, tmp_path).measure(frozenset())
    assert 0 < nearness.agreeing < IMAGES
    assert (nearness.lost, nearness.won) == (IMAGES - nearness.agreeing, 0)


def test_what_was_measured_is_not_measured_again(
    tiny_export, table, faulty, cifar, tmp_path, sessions
):
    model = MixedPrecision(tiny_export, table, *cifar, tmp_path)

    def stop(done, total, layer):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(model, stop)
    assert len(list(tmp_path.iterdir())) == 3  # all in 8 bits, two layers
    sessions.clear()
    resumed = measured(MixedPrecision(tiny_export, table, *cifar, tmp_path))
    assert len(sessions) == 1 + len(model.layers) - 2  # the float model once more
    sessions.clear()
    assert measured(MixedPrecision(tiny_export, table, *cifar, tmp_path)) == resumed
    assert sessions == []

    pixels, labels = cifar
    for other in (
        MixedPrecision(tiny_export, faulty, pixels, labels, tmp_path),
        MixedPrecision(tiny_export, table, pixels[:-1], labels[:-1], tmp_path),
        MixedPrecision(tiny_export, table, pixels, None, tmp_path),
    ):
        sessions.clear()
        other.measure(frozenset())
        assert len(sessions) == 2

    for path in tmp_path.iterdir():
        path.write_text(path.read_text()[:-20])
    assert measured(MixedPrecision(tiny_export, table, *cifar, tmp_path)) == resumed


def test_multiply_adds_agree_with_torch(tiny, tiny_export):
    net, spec = tiny.build(), tiny.spec
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 3, spec.image_size, spec.image_size))
    second_head = spec.channels[-1] * spec.classes if spec.distilled else 0
    ours = multiply_adds(tiny_export.network)
    assert sum(ours.values()) == counter.get_total_flops() // 2 - second_head


def test_the_cost_of_all_layers_is_that_of_the_float_model(tiny_export, table):
    layers = {layer.layer for layer in table.layers}
    work = multiply_adds(tiny_export.network)
    share = sum(work[layer] for layer in layers) / sum(work.values())
    slower = 1 / (1 - share + share / 2.5)
    assert 1 + sum(float_costs(tiny_export.network, layers).values()) == pytest.approx(slower)
    one = float_costs(tiny_export.network, {"head"})["head"]
    assert 0 < one < 0.01
