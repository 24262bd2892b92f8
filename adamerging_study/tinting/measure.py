"""The measurement behind the study of Tinting: variants, neighbours, pilot, both settings, what the filter keeps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from adamerging_lib.evaluation import predictions
from adamerging_lib.layers import role
from adamerging_lib.learning.imitation import keeps
from adamerging_lib.methods import Merged, run_method
from adamerging_lib.suite import SETTINGS, Suite

from .. import measuring
from ..fits import Wanted
from . import PILOT, VARIANTS

LEARNED = "layer_wise_adamerging"


def measure(
    suite: Suite,
    *,
    recipe: str = "mini",
    epochs: int | None = None,
    pilot_epochs: int = 10,
    layers: Sequence[str] = (),
    adamerging_steps: int = 500,
    adamerging_lr: float = 0.001,
    adamerging_batches: int = 2,
    test_images: int = 0,
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """All variants of Tinting, its neighbours, the pilot, both settings, and what the filter keeps.

    Arguments:
        suite: what to merge, and the test images.
        recipe: of Tinting, ``mini`` or ``paper``.
        epochs: rounds over the tasks, where not the recipe's.
        pilot_epochs: rounds of the pilot's short fits.
        layers: tinted one at a time, alone, in the pilot; empty for `pilot_layers`.
        adamerging_steps, adamerging_lr, adamerging_batches: of layer-wise AdaMerging.
        test_images: drawn per task; 0 for all.
        seeds: of the order of images and tasks; the first serves the pilot and the filter.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Rows of a record.
    """
    suite, options = suite.some_images(test_images or None), {"seed": seeds[0], "device": device}
    learning = _tinting(recipe, epochs)
    adamerging = _adamerging(adamerging_steps, adamerging_lr, adamerging_batches)
    by_method = {LEARNED: adamerging, "tint": learning, "tint_pp": learning}
    rows = []
    for method in ("task_arithmetic", "individual", *by_method):
        for setting, seed in itertools.product(SETTINGS, measuring.seeds_of(method, seeds)):
            given = {**options, "seed": seed, "setting": setting}
            rows += measuring.measure(suite, method, learning=by_method.get(method), **given)
    for (variant, (_, changed)), seed in itertools.product(VARIANTS.items(), seeds):
        given = {**options, "seed": seed, "learning": learning | changed}
        rows += measuring.measure(suite, "tint", about={"variant": variant}, **given)
    for layer in layers or pilot_layers(suite):
        about = {"variant": PILOT, "layer": layer}
        hyper = {**learning, "epochs": pilot_epochs, "layer": layer, "learn": "layer"}
        rows += measuring.measure(suite, "tint", about=about, learning=hyper, **options)
    fit, plain = (measuring.fit(suite, method, learning=learning, **options) for method in ("tint_pp", "tint"))
    size = sum(t.numel() for t in suite.pretrained.values() if t.is_floating_point())
    share = {"method": "tint", "quantity": "share of the encoder", "value": 100 * plain.task_storage / size}
    return [*rows, *filter_rows(suite, fit, device), share]


def kept(
    *,
    recipe: str,
    epochs: int | None,
    adamerging_steps: int,
    adamerging_lr: float,
    adamerging_batches: int,
    test_images: int,
    seeds: Sequence[int],
    device: str = "cpu",
    **_: Any,
) -> Iterator[Wanted]:
    """The fits that a run with these parameters reads where they are kept, except those of the main comparison.

    Arguments:
        recipe, epochs, adamerging_steps, adamerging_lr, adamerging_batches: as in `measure`, like all that follow.
    """
    adamerging = _adamerging(adamerging_steps, adamerging_lr, adamerging_batches)
    learning = _tinting(recipe, epochs)

    def few(suite: Suite) -> Suite:
        return suite.some_images(test_images or None)

    for seed in seeds:
        inductive, options = {"setting": "inductive", "seed": seed}, {"device": device}
        yield Wanted(f"inductive-{seed}", LEARNED, {**options, **adamerging, **inductive}, few)
        for method in ("tint", "tint_pp"):
            yield Wanted(f"{method}-{seed}", method, {**options, **learning, "seed": seed}, few)
            yield Wanted(f"inductive-{method}-{seed}", method, {**options, **learning, **inductive}, few)
        for variant, (_, changed) in VARIANTS.items():
            name = f"tint-{variant.replace(' ', '-')}-{seed}"
            yield Wanted(name, "tint", {**options, **learning, **changed, "seed": seed}, few)


def _tinting(recipe: str, epochs: int | None) -> Mapping[str, Any]:
    return {"recipe": recipe, **({} if epochs is None else {"epochs": epochs})}


def _adamerging(steps: int, lr: float, batches: int) -> Mapping[str, Any]:
    """As in the main comparison, whose fits then serve here too."""
    return {"steps": steps, "lr": lr, "batch_size": 16, "batches": batches}


def pilot_layers(suite: Suite) -> list[str]:
    """Layers worth tinting one at a time: the head, the projection, and each block's last matrix, from the top down."""
    names = list(suite.task_vectors().vectors)
    blocks = [name.removesuffix(".weight") for name in names if role(name) == "MLP out"]
    top = [name for name in ("proj", "head.weight") if name in names]
    return ["head", *top, *reversed(blocks)]


def filter_rows(suite: Suite, fit: Merged, device: str = "cpu") -> list[dict[str, Any]]:
    """What the confidence filter kept over the epochs; of the finished model, how much, and how often it is right."""
    rows = []
    history = fit.history.groupby("epoch")[["kept", "agreement"]].mean()
    for epoch, row in history.iterrows():
        for quantity in ("kept", "agreement"):
            value = 100 * float(row[quantity])
            rows.append({"method": fit.method, "quantity": quantity, "epoch": int(epoch), "value": value})
    experts = predictions(suite, run_method("individual", suite), device=device)
    for (task, scores, labels), (_, expert, _) in zip(predictions(suite, fit, device=device), experts, strict=True):
        kept, _ = keeps(expert, scores)
        right = expert.argmax(-1) == labels
        about = {"method": fit.method, "task": task}
        rows.append({**about, "quantity": "kept in the end", "value": _percent(kept), "n": len(labels)})
        rows.append({**about, "quantity": "right if kept", "value": _percent(right[kept]), "n": int(kept.sum())})
        rows.append({**about, "quantity": "right if dropped", "value": _percent(right[~kept]), "n": int((~kept).sum())})
    return rows


def _percent(flags: Tensor) -> float | None:
    """Share of True in percent; None of nothing."""
    return 100 * flags.double().mean().item() if len(flags) else None
