"""Recipes: values overridden one by one, and refused with the name of what is wrong."""

from __future__ import annotations

import pytest

from adamerging_lib.learning.recipes import check_setting, resolve

RECIPES = {"paper": {"steps": 500, "lr": 1e-3, "batch_size": 16}, "mini": {"steps": 5, "lr": 1e-2, "batch_size": 4}}


def test_given_values_win():
    assert resolve(RECIPES, "paper") == RECIPES["paper"]
    assert resolve(RECIPES, "mini", steps=0, lr=None, batch_size=1) == {"steps": 0, "lr": 1e-2, "batch_size": 1}
    assert resolve(RECIPES, "mini", lr=1)["lr"] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": -1}, "steps=-1 must be a whole number of at least 0"),
        ({"steps": 1.5}, "steps=1.5 must be a whole number"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ({"batch_size": True}, "batch_size=True must be a whole number"),
        ({"lr": 0}, "lr=0 must be a positive number"),
        ({"lr": float("nan")}, "lr=nan must be a positive number"),
        ({"lr": "fast"}, "lr='fast' must be a positive number"),
    ],
)
def test_bad_values(given, message):
    with pytest.raises(ValueError, match=message):
        resolve(RECIPES, "paper", **given)


def test_bad_names():
    with pytest.raises(ValueError, match="recipe 'quick' is unknown"):
        resolve(RECIPES, "quick")
    with pytest.raises(ValueError, match="setting 'online' is unknown"):
        check_setting("online")
