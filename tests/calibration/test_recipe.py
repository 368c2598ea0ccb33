"""Recipes by name and by file."""

import json

import pytest

from levit_deploy.calibration.recipe import DEFAULT_RECIPE, RECIPES, Recipe, get_recipe
from levit_deploy.errors import DeployError
from levit_deploy.records import to_plain


def test_names_are_keys():
    assert [recipe.name for recipe in RECIPES.values()] == list(RECIPES)
    assert get_recipe("w8a8") is DEFAULT_RECIPE


def test_a_file_round_trips(tmp_path):
    mixed = Recipe("mixed", DEFAULT_RECIPE.observer, True, False, True, True, ("blocks.4.kv",))
    mixed.save(tmp_path / "mixed.json")
    assert get_recipe(str(tmp_path / "mixed.json")) == mixed


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(DeployError, match="unknown recipe `w8a8-plane`") as error:
        get_recipe("w8a8-plane")
    assert error.value.hint == "did you mean `w8a8-plain`?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observer": "median"}, "`observer` is .*median.*, not one of"),
        ({"bits": 4}, "unknown field `bits`"),
        ({"schema_version": 1}, "schema version `1`"),
        ({"float_layers": "head"}, "`float_layers` is .*, not a list"),
        ({"channel_factors": 1}, "`channel_factors` is `1`, not true or false"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, message):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(to_plain(DEFAULT_RECIPE) | change))
    with pytest.raises(DeployError, match=message):
        get_recipe(str(file))


@pytest.mark.parametrize("content", ["[]", "{}", "{", "null"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content):
    (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(DeployError):
        get_recipe(str(tmp_path / "recipe.json"))
