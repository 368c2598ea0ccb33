"""Recipes: how to quantize, as data. A name says how the default differs, if it does.

w8a8               8-bit weights per output channel, 8-bit activations per tensor; the residual
                   streams equalized, a factor for each channel of what a layer reads, ranges
                   extrapolated, weights rounded so that their errors cancel, biases corrected; the
                   stem behind its first convolution in 16 bits
w8a8-nearest       the same with weights rounded to the nearest step
w8a8-streams       as w8a8 without factors: only layers' weights and scales
w8a8-percentile    as w8a8, ranges by another observer; likewise -min-max, -mse, -entropy
w8a8-plain         none of all this: min-max ranges of the network as it is, but the same stem
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from levit_deploy.calibration.observers import Observer
from levit_deploy.errors import DeployError
from levit_deploy.files import write_files
from levit_deploy.records import load_record, to_json


@dataclass(frozen=True)
class Recipe:
    """`float_layers`: linear layers (else 8 bits) and convolutions of the stem (else 16 bits) that
    keep float32 weights and activations, by name. The first convolution always does, and so does
    an attention one of whose layers for queries, keys and values is named. `compensate_rounding`:
    of linear layers' weights, where there are pictures."""

    SCHEMA_VERSION: ClassVar[int] = 2

    name: str
    observer: Observer
    equalize_streams: bool
    channel_factors: bool
    compensate_rounding: bool
    bias_correction: bool
    float_layers: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write it as JSON, to be edited and passed by `--recipe`."""
        write_files({path: to_json(self).encode()})

    @staticmethod
    def load(path: Path) -> Recipe:
        """Read a file that `save` wrote or a person did.

        Raises DeployError, naming the field, if one is missing, unknown or of another type.
        """
        return load_record(Recipe, path, hint=_HINT)


DEFAULT_RECIPE = Recipe(
    "w8a8",
    Observer.EXTRAPOLATED,
    equalize_streams=True,
    channel_factors=True,
    compensate_rounding=True,
    bias_correction=True,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        DEFAULT_RECIPE,
        replace(DEFAULT_RECIPE, name="w8a8-nearest", compensate_rounding=False),
        replace(DEFAULT_RECIPE, name="w8a8-streams", channel_factors=False),
        *(
            replace(DEFAULT_RECIPE, name=f"w8a8-{observer}", observer=observer)
            for observer in Observer
            if observer is not DEFAULT_RECIPE.observer
        ),
        Recipe(
            "w8a8-plain",
            Observer.MIN_MAX,
            equalize_streams=False,
            channel_factors=False,
            compensate_rounding=False,
            bias_correction=False,
        ),
    )
}

_HINT = f"use one of {', '.join(RECIPES)}, or a JSON file"


def get_recipe(name: str) -> Recipe:
    """The recipe of that name, or in that .json file. Raises DeployError if there is none."""
    if name in RECIPES:
        return RECIPES[name]
    if name.endswith(".json"):
        return Recipe.load(Path(name))
    near = difflib.get_close_matches(name, RECIPES, n=1)
    raise DeployError(
        f"unknown recipe `{name}`", hint=f"did you mean `{near[0]}`?" if near else _HINT
    )
