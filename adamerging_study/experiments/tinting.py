"""Model Tinting taken apart: which layer, λ and layer alone and together, the filter, and images held out.

Rows of a record: as in `measure`; ``condition`` names the variant (``clean`` is the method itself, ``layer only``,
``coefficients only``, ``soft labels``, ``surest half``, ``pilot``) and ``layer`` the tinted layer of a ``pilot`` row.
``quantity`` rows: ``kept`` and ``agreement`` over epochs (percent, from the fit); of the finished model over all test
images ``kept in the end``, ``right if kept``, ``right if dropped``; ``share of the encoder`` (percent a task).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from adamerging_lib.evaluation import predictions
from adamerging_lib.layers import role
from adamerging_lib.learning.imitation import keeps
from adamerging_lib.methods import Merged, run_method
from adamerging_lib.suite import Suite

from . import measure

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "clean": ("tint", {}),
    "coefficients only": ("tint", {"learn": "coefficients"}),
    "layer only": ("tint", {"learn": "layer"}),
    "soft labels": ("tint", {"targets": "soft"}),
    "surest half": ("tint", {"top_p": 0.5}),
}


def pilot_layers(suite: Suite) -> list[str]:
    """Layers worth tinting one at a time: the head, the projection, and each block's last matrix, from the top down."""
    names = list(suite.task_vectors().vectors)
    blocks = [name.removesuffix(".weight") for name in names if role(name) == "MLP out"]
    top = [name for name in ("proj", "head.weight") if name in names]
    return ["head", *top, *reversed(blocks)]


def tinting(
    suite: Suite,
    learning: Mapping[str, Any],
    adamerging: Mapping[str, Any],
    *,
    layers: Sequence[str],
    pilot: Mapping[str, Any],
    seed: int = 0,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """All variants of Tinting, its neighbours, the pilot, both settings, and what the filter keeps.

    Arguments:
        suite: what to merge, and the test images.
        learning: of Tinting: recipe, epochs, lr, batch_size.
        adamerging: of layer-wise AdaMerging: steps, lr and so on.
        layers: tinted one at a time, alone, in the pilot.
        pilot: of the pilot's short fits, like ``learning``.
        seed: of the order of images.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Rows of a record.
    """
    options = {"seed": seed, "device": device}
    rows = []
    for method in ("task_arithmetic", "individual"):
        for setting in ("transductive", "inductive"):
            rows += measure(suite, method, setting=setting, **options)
    for setting in ("transductive", "inductive"):
        rows += measure(suite, "layer_wise_adamerging", setting=setting, learning=adamerging, **options)
        for method in ("tint", "tint_pp"):
            rows += measure(suite, method, setting=setting, learning=learning, **options)
    for name, (method, changed) in VARIANTS.items():
        if changed:
            rows += measure(suite, method, condition=name, learning={**learning, **changed}, **options)
    for layer in layers:
        hyper = {**pilot, "layer": layer, "learn": "layer"}
        rows += [{**r, "layer": layer} for r in measure(suite, "tint", condition="pilot", learning=hyper, **options)]
    fit = run_method("tint_pp", suite, **learning, progress=False, **options)
    head = run_method("tint", suite, **learning, progress=False, **options)
    size = sum(t.numel() for t in suite.pretrained.values() if t.is_floating_point())
    share = {"method": "tint", "quantity": "share of the encoder", "value": 100 * head.task_storage / size}
    return [*rows, *filter_rows(suite, fit, device), share]


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
