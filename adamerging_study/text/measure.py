"""The measurement behind the page on text: every method at its default, those that learn with several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adamerging_lib.methods.adamerging import METHOD_IDS
from adamerging_lib.methods.registry import find, hyper_parameters
from adamerging_lib.suite import Suite

from .. import measuring
from ..fits import Wanted

TINTING = ("tint", "tint_pp")


def measure(
    suite: Suite,
    *,
    methods: Sequence[str],
    epochs: int = 500,
    recipe: str = "mini",
    test_images: int = 0,
    setting: str = "transductive",
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
    **adamerging: Any,
) -> list[dict[str, Any]]:
    """Measure methods one after another; those that learn, or draw at random, once with each seed.

    Arguments:
        suite: what to merge, and the test texts.
        methods: method ids.
        epochs: rounds of Tint and Tint++ over the tasks.
        recipe: of every method that learns, except the four of AdaMerging.
        test_images: test texts drawn per task; 0 for all.
        setting, device: as in `measuring.measure`.
        seeds: of the order of texts.
        adamerging: hyper-parameters of the four AdaMerging methods, as in the main comparison.

    Returns:
        Rows of a record.
    """
    suite, options = suite.some_images(test_images or None), {"setting": setting, "device": device}
    rows = []
    for method in methods:
        learning = _learning(method, epochs, recipe, adamerging)
        for seed in measuring.seeds_of(method, seeds):
            rows += measuring.measure(suite, method, learning=learning, seed=seed, **options)
    return rows


def kept(
    *,
    methods: Sequence[str],
    epochs: int,
    test_images: int,
    setting: str,
    seeds: Sequence[int],
    device: str = "cpu",
    **_: Any,
) -> Iterator[Wanted]:
    """The fits of Tint and Tint++ that a run with these parameters reads; AdaMerging's are the main comparison's.

    Arguments:
        methods, epochs, test_images, setting, seeds, device: as in `measure`.
    """
    for method in (method for method in methods if method in TINTING):
        for seed in seeds:
            options = {**_learning(method, epochs, "", {}), "seed": seed, "setting": setting, "device": device}
            yield Wanted(f"{method}-{seed}", method, options, lambda suite: suite.some_images(test_images or None))


def _learning(method: str, epochs: int, recipe: str, adamerging: dict[str, Any]) -> dict[str, Any]:
    if method in METHOD_IDS.values():
        return adamerging
    if method in TINTING:
        return {"recipe": "paper", "epochs": epochs}
    return {"recipe": recipe} if "recipe" in hyper_parameters(find(method)) else {}
