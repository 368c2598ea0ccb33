"""Recipes: how to quantize, as data. A name says how the default differs, if it does.

w8a8               8-bit weights per output channel, 8-bit activations per tensor; the residual
                   streams equalized, a factor for each channel of what a layer reads, ranges
                   extrapolated, biases corrected; the stem behind its first convolution in 16 bits
w8a8-streams       the same without factors: only layers' weights and scales
w8a8-percentile    as w8a8, ranges by another observer; likewise -min-max, -mse, -entropy
w8a8-plain         none of all this: min-max ranges of the network as it is, but the same stem
"""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from levit_deploy.calibration.observers import Observer
from levit_deploy.errors import DeployError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """`float_layers`: linear layers (else 8 bits) and convolutions of the stem (else 16 bits) that
    keep float32 weights and activations, by name. The first convolution always does, and so does
    an attention one of whose layers for queries, keys and values is named."""

    name: str
    observer: Observer
    equalize_streams: bool
    channel_factors: bool
    bias_correction: bool
    float_layers: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write it as JSON, to be edited and passed by `--recipe`."""
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n")

    def to_json(self) -> dict[str, object]:
        """What `parse_recipe` reads."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @staticmethod
    def load(path: Path) -> Recipe:
        """Read a file that `save` wrote or a person did.

        Raises DeployError, naming the field, if one is missing, unknown or of another type.
        """
        try:
            content = json.loads(path.read_bytes())
        except OSError as error:
            raise DeployError(f"cannot read `{path}`: {error.strerror}", hint=_HINT) from error
        except ValueError as error:
            raise DeployError(f"`{path}` is not JSON: {error}", hint=_HINT) from error
        return parse_recipe(content, str(path))


DEFAULT_RECIPE = Recipe(
    "w8a8",
    Observer.EXTRAPOLATED,
    equalize_streams=True,
    channel_factors=True,
    bias_correction=True,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        DEFAULT_RECIPE,
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


def parse_recipe(content: object, source: str) -> Recipe:
    """A recipe from its JSON form; `source` is named in errors. Raises as `Recipe.load` does."""
    if not isinstance(content, dict):
        raise DeployError(f"`{source}` is not a recipe", hint=_HINT)
    values = dict(content)
    version = values.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise DeployError(
            f"`{source}` has schema version `{version}`, expected `{SCHEMA_VERSION}`", hint=_HINT
        )
    names = {field.name for field in fields(Recipe)}
    odd = sorted(names.symmetric_difference(values))
    if odd:
        what = "unknown" if odd[0] in values else "missing"
        raise DeployError(f"{what} field `{odd[0]}` in `{source}`", hint=_HINT)
    for name in ("equalize_streams", "channel_factors", "bias_correction"):
        if not isinstance(values[name], bool):
            raise DeployError(f"`{name}` in `{source}` is not true or false", hint=_HINT)
    float_layers = values["float_layers"]
    if not isinstance(float_layers, list) or not all(isinstance(n, str) for n in float_layers):
        raise DeployError(f"`float_layers` in `{source}` is not a list of names", hint=_HINT)
    if not isinstance(values["name"], str) or values["observer"] not in list(Observer):
        raise DeployError(
            f"`name` or `observer` in `{source}` is wrong", hint=f"observer: {', '.join(Observer)}"
        )
    return Recipe(
        name=values["name"],
        observer=Observer(values["observer"]),
        equalize_streams=values["equalize_streams"],
        channel_factors=values["channel_factors"],
        bias_correction=values["bias_correction"],
        float_layers=tuple(float_layers),
    )
