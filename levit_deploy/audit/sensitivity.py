"""What each layer's 8 bits cost, and the fastest plan of float layers within a budget."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, as_completed
from dataclasses import replace

from levit_deploy.audit.layer_cost import float_costs
from levit_deploy.audit.mixed_precision import MixedPrecision, Nearness
from levit_deploy.audit.result import FloatPlan, Sensitivity
from levit_deploy.calibration.recipe import Recipe

IMAGES = 256  # at most: each layer takes as many inferences in ONNX Runtime

Progress = Callable[[int, int, str], None]  # layers done, layers in all, which one


def measure_sensitivities(
    model: MixedPrecision,
    executor: Executor,
    nearness: Callable[[frozenset[str]], Nearness],
    progress: Progress = lambda done, total, detail: None,
) -> tuple[Sensitivity, ...]:
    """What each layer would gain alone, the largest gain first.

    `executor` calls `nearness`, which is that of `model`, here or elsewhere; what is known already
    is not measured. `progress` is told which layer was measured last.
    """
    none, *alone = wanted = [frozenset[str](), *(frozenset({layer}) for layer in model.layers)]
    missing = [layers for layers in wanted if model.known(layers) is None]
    running = {executor.submit(nearness, layers): layers for layers in missing}
    known = len(wanted) - len(missing)
    progress(known, len(wanted), "")
    for done, future in enumerate(as_completed(running), start=known + 1):
        model.keep(running[future], future.result())
        progress(done, len(wanted), next(iter(running[future]), "all layers in 8 bits"))

    costs = float_costs(model.exported.network, frozenset(model.layers))
    before = model.measure(none)
    found = []
    for layer, layers in zip(model.layers, alone, strict=True):
        after = model.measure(layers)
        found.append(
            Sensitivity(
                layer=layer,
                sqnr_gain_db=_gain_db(before, after),
                agreement_gain=after.agreement - before.agreement,
                cost=costs[layer],
            )
        )
    return tuple(sorted(found, key=lambda entry: -entry.sqnr_gain_db))


def plan_float_layers(
    model: MixedPrecision,
    sensitivities: tuple[Sensitivity, ...],
    max_drop_points: float,
    progress: Progress = lambda done, total, detail: None,
) -> FloatPlan:
    """The layers that stay float so that top-1 drops by `max_drop_points` at most.

    Greedy, each step measured: of the layers ranked by what they gain for their time, as many of
    the first as the budget needs, found by halving; of these, the dearest first, those are taken
    out again that it holds without. With all layers float the model is the float one, so there is
    always a plan. Without labels, answers that change count as lost.
    """
    costs = {entry.layer: entry.cost for entry in sensitivities}
    ranked = sorted(sensitivities, key=lambda entry: -entry.sqnr_gain_db / entry.cost)
    chosen = _first_enough(model, [entry.layer for entry in ranked], max_drop_points, progress)
    measured = model.measure(frozenset(chosen))
    dearest = sorted(chosen, key=lambda name: -costs[name])
    for done, layer in enumerate(dearest):
        progress(done, len(dearest), f"without {layer}")
        fewer = [name for name in chosen if name != layer]
        without = model.measure(frozenset(fewer))
        if without.drop_points <= max_drop_points:
            chosen, measured = fewer, without

    layers = tuple(layer for layer in model.layers if layer in chosen)
    return FloatPlan(
        max_drop_points=max_drop_points,
        layers=layers,
        cost=sum(costs[layer] for layer in layers),
        drop_points=measured.drop_points,
        images=measured.images,
    )


def _first_enough(
    model: MixedPrecision, ranked: list[str], max_drop_points: float, progress: Progress
) -> list[str]:
    """As many of the first of `ranked` as keep to the budget; none if none are needed."""
    if model.measure(frozenset()).drop_points <= max_drop_points:
        return []
    too_few, enough = 0, len(ranked)
    while enough - too_few > 1:
        progress(len(ranked) - enough + too_few, len(ranked), f"{too_few} to {enough} layers")
        middle = (too_few + enough) // 2
        if model.measure(frozenset(ranked[:middle])).drop_points <= max_drop_points:
            enough = middle
        else:
            too_few = middle
    return ranked[:enough]


def plan_recipe(recipe: Recipe, plan: FloatPlan) -> Recipe:
    """For `compile --recipe`: `recipe`, by which the measured model was made, with the plan."""
    if not plan.layers:
        return recipe
    name = f"{recipe.name.removesuffix('-mixed')}-mixed"
    return replace(recipe, name=name, float_layers=(*recipe.float_layers, *plan.layers))


def _gain_db(before: Nearness, after: Nearness) -> float:
    """0 if nothing was wrong before; finite also if nothing is wrong any more."""
    if before.sqnr_db is None:
        return 0.0
    smallest = before.error_energy * 1e-12  # 120 dB: float32 rounding
    kept = replace(after, error_energy=max(after.error_energy, smallest))
    assert kept.sqnr_db is not None
    return kept.sqnr_db - before.sqnr_db
