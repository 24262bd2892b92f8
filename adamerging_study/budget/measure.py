"""The measurement: one setting varied at a time around a short base run, looks along a long one, more and more tasks.

The factor ``steps`` reads the models along one long run; ``tasks`` adds the tasks one by one, in the suite's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adamerging_lib.merged import Merged
from adamerging_lib.methods import adamerge, run_method
from adamerging_lib.methods.adamerging import METHOD_IDS
from adamerging_lib.suite import Suite

from .. import evaluations, measuring
from . import METHOD, STEPS, TASKS

Row = dict[str, Any]

_CLAMPS = {"clamp": True, "free": False}  # the others are called as `adamerge` calls them
# Parameter of the notebook → the factor that it varies, and which arguments of `adamerge` one of its values stands for.
FACTORS: Mapping[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "lrs": ("lr", lambda lr: {"lr": lr}),
    "batch_sizes": ("batch size", lambda size: {"batch_size": size}),
    "images": ("images", lambda count: {"images": count or None}),
    "granularities": ("granularity", lambda name: {"granularity": name}),
    "ranges": ("range of λ", lambda name: {"clamp": _CLAMPS.get(name, name)}),
    "starts": ("start", lambda scaling: {"init": scaling}),
    "diversities": ("diversity", lambda weight: {"objective": {"diversity": weight}}),
    "seeds": ("seed", lambda seed: {"seed": seed}),
}


def measure(
    suite: Suite,
    *,
    steps_shown: Sequence[int] = (),
    task_counts: Sequence[int] = (),
    test_images: int = 0,
    setting: str = "transductive",
    seed: int = 0,
    device: str = "cpu",
    **parameters: Any,
) -> list[Row]:
    """The base run, then one setting varied at a time, then looks along one long run, then more and more tasks.

    Arguments:
        suite: what to merge, and the test images.
        steps_shown: where to look along one run of as many steps as the largest of them.
        task_counts: how many tasks, the first of the suite, are merged; Task Arithmetic and the experts beside.
        test_images: drawn per task; 0 for all.
        setting, seed, device: as in `measuring.measure`.
        parameters: those of ``FACTORS``, each with the values to try: 0 ``images`` for all of them, ``ranges`` by name
            (``clamp``, ``free``, ``sigmoid``, ``tanh``). What remains are hyper-parameters of the base run: steps, lr,
            batch_size, batches.

    Returns:
        Rows of a record.

    Raises:
        ValueError: for a hyper-parameter that AdaMerging does not have.
    """
    suite = suite.some_images(test_images or None)
    tried = {name: parameters.pop(name) for name in FACTORS if name in parameters}
    base = {**parameters, "seed": seed, "setting": setting, "device": device}
    rows = _one(suite, base)
    for name, values in tried.items():
        factor, arguments = FACTORS[name]
        for value in values:
            about = {"factor": factor, "level": level(factor, value)}
            rows += _one(suite, {**base, **arguments(value)}, about)
    return rows + _along(suite, base, steps_shown) + _counted(suite, base, task_counts)


def level(factor: str, value: Any) -> str:
    """A value of a factor as it stands in tables."""
    if factor == "images" and not value:
        return "all"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _one(suite: Suite, hyper: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> list[Row]:
    """Rows of one run; those of a granularity that is not a method of its own do not tell what the run cost."""
    granularity = hyper.get("granularity", "tensor")
    own = {name: value for name, value in hyper.items() if name not in ("granularity", "seed", "setting", "device")}
    common = {name: hyper[name] for name in ("seed", "setting", "device")}
    if (granularity, "plain") in METHOD_IDS:
        return measuring.measure(suite, METHOD_IDS[granularity, "plain"], about=about, learning=own, **common)
    fit = adamerge(suite, progress=False, granularity=granularity, **own, **common)
    return _rows(suite, fit, hyper, about or {})


def _along(suite: Suite, base: Mapping[str, Any], steps_shown: Sequence[int]) -> list[Row]:
    if not steps_shown:
        return []
    fit = run_method(METHOD, suite, progress=False, **{**base, "steps": max(steps_shown)})
    looks = {step: measuring.at_step(suite, fit, step) for step in steps_shown}
    return [
        row
        for step, merged in looks.items()
        for row in _rows(suite, merged, base, {"factor": STEPS, "level": str(step)})
    ]


def _counted(suite: Suite, base: Mapping[str, Any], task_counts: Sequence[int]) -> list[Row]:
    learning = {name: value for name, value in base.items() if name not in ("seed", "setting", "device")}
    common = {name: base[name] for name in ("seed", "setting", "device")}
    return [
        row
        for count in task_counts
        for method in ("task_arithmetic", METHOD, "individual")
        for row in measuring.measure(
            suite.subset(suite.tasks[:count]), method, learning=learning,
            about={"factor": TASKS, "level": str(count)}, **common,
        )
    ]  # fmt: skip


def _rows(suite: Suite, merged: Merged, hyper: Mapping[str, Any], about: Mapping[str, Any]) -> list[Row]:
    frame = evaluations.evaluate(suite, merged, setting=hyper["setting"], device=hyper["device"])
    identity = {"condition": "clean", "group": "all", "seed": hyper["seed"]}
    return measuring.rows_of(frame, method=merged.method, **identity, **about)
