"""The measurement behind Tables 1, 2 and 5 and Figure 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adamerging_lib.suite import Suite

from .. import measuring


def measure(
    suite: Suite,
    *,
    methods: Sequence[str],
    swept: Sequence[str] = (),
    scalings: Sequence[float] = (),
    test_images: int = 0,
    setting: str = "transductive",
    seed: int = 0,
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
        setting, seed, device: as in `measuring.measure`.
        learning: hyper-parameters of adaptive methods.

    Returns:
        Rows of a record.
    """
    suite, options = suite.some_images(test_images or None), {"setting": setting, "seed": seed, "device": device}
    rows = []
    for method in methods:
        rows += measuring.measure(suite, method, learning=learning, **options)
    for method in swept:
        rows += measuring.sweep(suite, method, scalings, **options)
    return rows
