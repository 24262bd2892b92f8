"""Recipes: named sets of hyper-parameters of a method that learns, overridden one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..runtime.values import is_number, one_of
from ..suite import SETTINGS


def resolve(recipes: Mapping[str, Mapping[str, Any]], recipe: str, **given: Any) -> dict[str, Any]:
    """The values of a recipe, overridden by those given that are not None.

    Arguments:
        recipes: recipe name → hyper-parameter → value; whole numbers and real numbers stay what they are.
        recipe: which one.
        given: hyper-parameter → value, or None for the recipe's.

    Raises:
        ValueError: for an unknown recipe, a count that is not a whole number of at least 1 (0 for ``steps`` and
            ``epochs``), or another value that is not a positive number.
    """
    one_of("recipe", recipe, recipes)
    options = {**recipes[recipe], **{name: value for name, value in given.items() if value is not None}}
    for name, value in options.items():
        if not isinstance(recipes[recipe][name], int):
            check_positive(name, value)
        else:
            check_count(name, value, least=0 if name in ("steps", "epochs") else 1)
    return options


def check_count(name: str, value: Any, *, least: int = 1) -> None:
    """Raise ValueError unless a value is a whole number of at least ``least``."""
    if not (is_number(value) and isinstance(value, int) and value >= least):
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError unless a value is a positive finite number."""
    if not (is_number(value) and 0 < value < float("inf")):
        raise ValueError(f"{name}={value!r} must be a positive number")


def check_setting(setting: str) -> None:
    """Raise ValueError unless a setting is ``transductive`` or ``inductive``."""
    one_of("setting", setting, SETTINGS)
