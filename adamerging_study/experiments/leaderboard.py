"""The leaderboard: every method once on the same experts, each with a budget of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from adamerging_lib.methods.adamerging import METHOD_IDS
from adamerging_lib.methods.registry import find, hyper_parameters
from adamerging_lib.suite import Suite

from . import measure


def leaderboard(
    suite: Suite,
    methods: Iterable[str],
    *,
    recipe: str = "mini",
    adamerging: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Measure methods one after another; whoever has recipes takes its own of one name.

    Arguments:
        suite: what to merge, and the test images.
        methods: method ids.
        recipe: ``mini`` or ``paper``, of every method that has recipes.
        adamerging: hyper-parameters of the four AdaMerging methods instead, where another experiment has fitted them
            so: their fits are then read from the cache.
        options: seed, setting, device and progress, as for `measure`.

    Returns:
        Rows of a record, see `measure`; those of the task ``Average`` tell what each model costs.
    """
    rows = []
    for method in methods:
        learning = {"recipe": recipe} if "recipe" in hyper_parameters(find(method)) else {}
        if adamerging and method in METHOD_IDS.values():
            learning = adamerging
        rows += measure(suite, method, learning=learning, **options)
    return rows
