"""What of the drawn world goes into a browser: rounded weights, heads, a few test images, and sets of coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from adamerging_lib import records
from adamerging_lib.layers import block_rows
from adamerging_lib.suite import Suite
from adamerging_lib.worlds.encoders import MINI_MEAN, MINI_STD
from adamerging_lib.worlds.mini.tasks import TASKS
from adamerging_lib.worlds.mini.world import mini_images
from adamerging_lib.worlds.zoo import load_checkpoint, load_clip, read_manifest

from ... import claims, fits
from .quantise import NARROW, WIDE, Quantised, quantise

PROFILE = "mini"
IMAGES = 50
"""Test images per task, the first of each: classes take turns, so they are balanced."""
LEARNED = {"task_wise_adamerging": "Task-wise AdaMerging", "layer_wise_adamerging": "Layer-wise AdaMerging"}
"""Methods whose kept fits of seed 0 the page offers → label. Those with ++ merge other vectors."""


@dataclass(frozen=True)
class Choice:
    """A set of coefficients that a reader may start from.

    Arguments:
        id, label: its names.
        coefficients: λ ``[K, R]``, one column per tensor of the encoder.
    """

    id: str
    label: str
    coefficients: Tensor


@dataclass(frozen=True)
class Rounded:
    """The encoder and its task vectors, rounded.

    Arguments:
        pretrained: tensor name → θ0, eight bits.
        vectors: task → tensor name → task vector, four bits, or eight where it is not a matrix.
    """

    pretrained: Mapping[str, Quantised]
    vectors: Mapping[str, Mapping[str, Quantised]]


def small_suite(images: int = IMAGES) -> Suite:
    """The drawn world with so many test images per task, of which no others are drawn: that would take a minute."""
    manifest = read_manifest()
    encoder, heads = load_clip(manifest=manifest).visual, load_checkpoint("heads", manifest=manifest)
    return Suite(
        profile=PROFILE, encoder=encoder, pretrained=dict(encoder.state_dict()),
        experts={task: load_checkpoint(task, manifest=manifest) for task in TASKS}, joint=None, heads=heads,
        test={task: mini_images(task, "test", images) for task in TASKS}, mean=MINI_MEAN, std=MINI_STD,
    )  # fmt: skip


def rounded(suite: Suite) -> Rounded:
    """A suite's encoder and task vectors with few bits per weight."""
    theta0 = {name: tensor.numpy() for name, tensor in suite.pretrained.items()}
    return Rounded(
        {name: quantise(tensor, WIDE) for name, tensor in theta0.items()},
        {
            task: {name: quantise(expert[name].numpy() - theta0[name], bits(theta0[name])) for name in theta0}
            for task, expert in suite.experts.items()
        },
    )


def bits(tensor: np.ndarray) -> int:
    """Bits per weight that a tensor of a task vector gets."""
    return NARROW if tensor.ndim > 1 else WIDE


def widened(suite: Suite, weights: Rounded) -> Suite:
    """The suite whose encoder and experts are the rounded ones, as the browser computes with them."""
    theta0 = {name: torch.from_numpy(found.values()) for name, found in weights.pretrained.items()}
    experts = {
        task: {name: theta0[name] + torch.from_numpy(found.values()) for name, found in vector.items()}
        for task, vector in weights.vectors.items()
    }
    return replace(suite, pretrained=theta0, experts=experts)


def choices(suite: Suite) -> list[Choice]:
    """The sets of coefficients: those that nobody has to learn, and those that were learned with the paper's recipe."""
    tasks, tensors = len(suite.tasks), len(suite.pretrained)
    fixed = [
        ("pretrained", "Pretrained: all λ = 0", 0.0),
        ("average", f"Weight Averaging: all λ = 1/{tasks}", 1 / tasks),
        ("arithmetic", "Task Arithmetic: all λ = 0.3", 0.3),
    ]
    learned = [Choice(method, f"{label}: learned, seed 0", _kept(suite, method)) for method, label in LEARNED.items()]
    return [*(Choice(id, label, torch.full((tasks, tensors), value)) for id, label, value in fixed), *learned]


def depths(suite: Suite) -> list[str]:
    """Tensor by tensor, the part of the encoder that it belongs to: embeddings, a block, or the head."""
    return list(block_rows(suite.pretrained).values())


def sweep() -> dict[str, dict[str, dict[str, float]]]:
    """Method → λ → task (and ``Average``) → accuracy in percent, of the record of the main comparison."""
    rows = records.frame(records.read(claims.record_of("performance", PROFILE)))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows[rows["scaling"].notna()].sort_values("scaling", kind="stable").to_dict("records"):
        at = found.setdefault(row["method"], {}).setdefault(f"{row['scaling']:g}", {})
        at[row["task"]] = row["accuracy"]
    return found


def _kept(suite: Suite, method: str) -> Tensor:
    """The coefficients that a kept fit ended with, spread over all tensors, with five digits."""
    kept = fits.read(fits.folder(PROFILE) / f"performance-{method}-0.safetensors")
    if kept.tasks != suite.tasks or kept.rows not in (("all",), tuple(suite.pretrained)):
        raise ValueError(f"the kept fit of {method} is of other tasks or tensors than the encoder of {PROFILE}")
    return kept.path[-1].expand(len(kept.tasks), len(suite.pretrained)).double().round(decimals=5).float()
