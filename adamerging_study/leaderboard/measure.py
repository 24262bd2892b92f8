"""The measurement behind the leaderboard: every method once, those that learn each with a recipe of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adamerging_lib.methods import runnable
from adamerging_lib.methods.adamerging import METHOD_IDS
from adamerging_lib.methods.registry import find, hyper_parameters
from adamerging_lib.suite import Suite

from .. import measuring


def measure(
    suite: Suite,
    *,
    methods: Sequence[str] = (),
    recipe: str = "mini",
    test_images: int = 0,
    setting: str = "transductive",
    seed: int = 0,
    device: str = "cpu",
    **adamerging: Any,
) -> list[dict[str, Any]]:
    """Measure methods one after another.

    Arguments:
        suite: what to merge, and the test images.
        methods: method ids; empty for all that the suite has everything for, see `runnable`.
        recipe: ``mini`` or ``paper``, of every method that has recipes.
        test_images: drawn per task; 0 for all.
        setting, seed, device: as in `measuring.measure`.
        adamerging: hyper-parameters of the four AdaMerging methods in place of a recipe. Those of the main comparison
            make its fits serve here too, from the cache.

    Returns:
        Rows of a record; those of the task ``Average`` tell what each model costs.
    """
    suite, options = suite.some_images(test_images or None), {"setting": setting, "seed": seed, "device": device}
    rows = []
    for method in methods or runnable(suite):
        learning = {"recipe": recipe} if "recipe" in hyper_parameters(find(method)) else {}
        if adamerging and method in METHOD_IDS.values():
            learning = adamerging
        rows += measuring.measure(suite, method, learning=learning, **options)
    return rows
