"""Checkpoints of a fit: everything a killed run needs to go on to the same result bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..state import load, load_metadata, save


def save_run(
    path: str | Path,
    identity: Mapping[str, Any],
    raw: Tensor,
    optimiser: torch.optim.Optimizer,
    losses: list[Tensor],
    trajectory: list[Tensor],
) -> None:
    """Write λ, the optimiser's state, losses and trajectory, all or nothing.

    Image streams need no state of their own: a batch is a function of seed, task and number.

    Arguments:
        path: target file.
        identity: what the run must agree in to be continued.
        raw: λ before clamping ``[K, R]``.
        optimiser: what moves it.
        losses: one ``[K]`` per step.
        trajectory: one ``[K, R]`` more than steps.
    """
    tensors = {"raw": raw, "trajectory": torch.stack(trajectory)}
    if losses:
        tensors["losses"] = torch.stack(losses)
        tensors |= {f"adam.{name}": value for name, value in optimiser.state[raw].items()}
    save(path, tensors, {"kind": "adamerging run", "identity": json.dumps(identity, sort_keys=True)})


def restore_run(
    path: str | Path, identity: Mapping[str, Any], raw: Tensor, optimiser: torch.optim.Optimizer, steps: int
) -> tuple[list[Tensor], list[Tensor]] | None:
    """Put λ and its optimiser back as they were; None where there is no checkpoint yet.

    Returns:
        (losses, trajectory), as lists.

    Raises:
        ValueError: where the file is another run's, naming what differs, or is further than ``steps``.
    """
    path = Path(path)
    if not path.exists():
        return None
    metadata = load_metadata(path)
    if metadata.get("kind") != "adamerging run":
        raise ValueError(f"{path} is not a checkpoint of an AdaMerging run: give another path")
    saved, wanted = json.loads(metadata["identity"]), json.loads(json.dumps(identity))
    if different := [key for key in sorted(saved.keys() | wanted.keys()) if saved.get(key) != wanted.get(key)]:
        listed = "; ".join(f"{k}: {_short(saved.get(k))} there, {_short(wanted.get(k))} here" for k in different)
        raise ValueError(f"{path} is a checkpoint of another run ({listed}): give another path, or delete it")
    tensors = load(path)
    trajectory = list(tensors["trajectory"].to(raw.device))
    if len(trajectory) - 1 > steps:
        raise ValueError(f"{path} has done {len(trajectory) - 1} steps, more than steps={steps}: ask for as many")
    with torch.no_grad():
        raw.copy_(tensors["raw"])
    adam = {name.removeprefix("adam."): value for name, value in tensors.items() if name.startswith("adam.")}
    if adam:
        optimiser.load_state_dict({**optimiser.state_dict(), "state": {0: adam}})
    return list(tensors["losses"].to(raw.device)) if "losses" in tensors else [], trajectory


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
