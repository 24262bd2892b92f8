"""The measurement behind Tables 1, 2 and 5 and Figure 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adamerging_lib.suite import Suite

from .. import fits, measuring
from ..fits import Wanted


def measure(
    suite: Suite,
    *,
    methods: Sequence[str],
    swept: Sequence[str] = (),
    scalings: Sequence[float] = (),
    test_images: int = 0,
    setting: str = "transductive",
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
    **learning: Any,
) -> list[dict[str, Any]]:
    """Every method at its default, then one λ for all tasks varied for some.

    Arguments:
        suite: what to merge, and the test images.
        methods: method ids.
        swept: methods whose λ is varied.
        scalings: values of that λ.
        test_images: drawn per task; 0 for all.
        seeds: of the order of images; methods that learn are run with each.
        setting, device: as in `measuring.measure`.
        learning: hyper-parameters of adaptive methods.

    Returns:
        Rows of a record.
    """
    suite, options = suite.some_images(test_images or None), {"setting": setting, "device": device}
    rows = []
    for method in methods:
        for seed in measuring.seeds_of(method, seeds):
            rows += measuring.measure(suite, method, learning=learning, seed=seed, **options)
    for method in swept:
        rows += measuring.sweep(suite, method, scalings, seed=seeds[0], **options)
    return rows


def kept(
    *, methods: Sequence[str], test_images: int, setting: str, seeds: Sequence[int], device: str = "cpu", **others: Any
) -> Iterator[Wanted]:
    """The fits that a run with these parameters reads where they are kept.

    Arguments:
        methods, test_images, setting, seeds, device: as in `measure`.
        others: further parameters of the notebook, the hyper-parameters of adaptive methods among them.
    """
    learning = {name: value for name, value in others.items() if name not in ("swept", "scalings")}
    for method in fits.learned(methods):
        for seed in seeds:
            options = {**learning, "seed": seed, "setting": setting, "device": device}
            yield Wanted(f"{method}-{seed}", method, options, lambda suite: suite.some_images(test_images or None))
