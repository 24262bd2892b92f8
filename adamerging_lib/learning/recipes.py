"""Recipes: named sets of hyper-parameters of a method that learns, overridden one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..suite import SETTINGS


def resolve(recipes: Mapping[str, Mapping[str, Any]], recipe: str, **given: Any) -> dict[str, Any]:
    """The values of a recipe, overridden by those given that are not None.

    Arguments:
        recipes: recipe name → hyper-parameter → value; whole numbers and real numbers stay what they are.
        recipe: which one.
        given: hyper-parameter → value, or None for the recipe's.

    Raises:
        ValueError: for an unknown recipe, a count that is no whole number of at least 1 (0 for ``steps`` and
            ``epochs``), or another value that is no positive number.
    """
    if recipe not in recipes:
        raise ValueError(f"recipe {recipe!r} is unknown; choose from {', '.join(recipes)}")
    options = {**recipes[recipe], **{name: value for name, value in given.items() if value is not None}}
    for name, value in options.items():
        if not isinstance(recipes[recipe][name], int):
            check_positive(name, value)
        else:
            check_count(name, value, least=0 if name in ("steps", "epochs") else 1)
    return options


def check_count(name: str, value: Any, *, least: int = 1) -> None:
    """Raise ValueError unless a value is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError unless a value is a positive finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{name}={value!r} must be a positive number")


def check_setting(setting: str) -> None:
    """Raise ValueError unless a setting is ``transductive`` or ``inductive``."""
    if setting not in SETTINGS:
        raise ValueError(f"setting {setting!r} is unknown; use {' or '.join(SETTINGS)}")
