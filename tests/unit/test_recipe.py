"""Recipes: the published values, and values that cannot be meant."""

import json

import pytest

from prototokens.errors import UsageError
from prototokens.recipe import NAMED, Recipe


def test_the_papers_recipe_is_the_published_one():
    recipe = Recipe.named("paper")
    assert (recipe.start, recipe.lr, recipe.lr_unit) == ("normal", 0.01, "absolute")
    assert (recipe.betas, recipe.weight_decay) == ((0.9, 0.9), 0.01)
    assert (recipe.schedule, recipe.temperature) == ("constant", 1.0)
    assert (recipe.steps, recipe.margin, recipe.restarts) == (5000, 0.0, 0)


@pytest.mark.parametrize("name", NAMED)
def test_a_recipe_survives_json(name):
    recipe = Recipe.named(name)
    stored = json.loads(json.dumps({**recipe.as_dict(), "a_later_field": 1}))
    assert Recipe.from_dict(stored) == recipe


def test_values_of_before_load_under_their_former_names():
    stored = {"name": "paper", "whiten": False, "whiten_rate": 0.2, "whiten_power": 0.4}
    recipe = Recipe.from_dict(stored)
    assert not recipe.precondition
    assert (recipe.precondition_rate, recipe.precondition_power) == (0.2, 0.4)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 0.0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"temperature": 0.0},
        {"margin": -0.1},
        {"margin": float("nan")},
        {"steps": -1},
        {"restarts": -1},
        {"betas": (0.9, 1.0)},
        {"weight_decay": -0.01},
        {"start": "zeros"},
        {"schedule": "linear"},
        {"lr_unit": "relative"},
    ],
)
def test_values_that_cannot_be_meant_are_refused(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        Recipe.named("fast", **changes)


def test_an_unknown_recipe_is_refused_in_words():
    with pytest.raises(UsageError, match="choose one of paper, fast"):
        Recipe.named("slow")
