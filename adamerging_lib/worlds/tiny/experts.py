"""The recipe of the tiny profiles' models, and where those that this machine has trained lie.

A model's folder is named by a digest of everything it was trained from: its recipe, the packs and the pretrained
weights. A change of one task's recipe or pack therefore trains that expert anew, and the joint model, and no other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...runtime import places
from ...state import CheckpointError, load, sha256
from ..mini.stages import Schedule
from ..zoo import SCHEMA
from .tasks import SETTINGS, task_set

EXPERT = Schedule(steps=800, lr=1e-4, batch_size=64, warmup=60)
JOINT = Schedule(steps=800, lr=1e-4, batch_size=16, warmup=60)


@dataclass(frozen=True)
class Model:
    """A trained model as it was read.

    Arguments:
        state: its state dict.
        sha256: of its file.
        manifest: recipe, checksums of what it was trained from, accuracies, versions, seconds.
    """

    state: dict[str, Tensor]
    sha256: str
    manifest: dict[str, Any]


def plan(name: str, profile: str, logit_scale: float, digests: Mapping[str, str]) -> dict[str, Any]:
    """Everything that a model depends on besides the code, as plain values.

    Arguments:
        name: a task, or ``joint``.
        profile: a tiny profile.
        logit_scale: of the heads.
        digests: ``pretrained`` and every task that is trained on → SHA-256 of its file.
    """
    setting, known = SETTINGS[profile], task_set(profile)
    tasks = list(known) if name == "joint" else [name]
    place = 0 if name == "joint" else list(known).index(name)
    schedule = JOINT if name == "joint" else replace(EXPERT, steps=known[name].steps or EXPERT.steps)
    schedule = asdict(replace(schedule, steps=schedule.steps // setting.shorter))
    return {
        "model": name,
        "image_size": setting.image_size,
        "logit_scale": logit_scale,
        "training": {**schedule, "seed": schedule["seed"] + place},
        "views": {task: asdict(known[task].views) for task in tasks},
        "inputs": {part: digests[part] for part in ("pretrained", *tasks)},
    }


def model_folder(plan: Mapping[str, Any]) -> Path:
    """Where a model of this plan lies, trained or not."""
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
    return places.zoo() / f"tiny-{plan['image_size']}" / f"{plan['model']}-{digest}"


def read_model(
    name: str, profile: str, logit_scale: float, digests: Mapping[str, str], *, needed: bool = True
) -> Model | None:
    """A trained model, verified.

    Arguments:
        name: a task, or ``joint``.
        profile: whose.
        logit_scale, digests: see `plan`.
        needed: raise where it is not trained, instead of returning None.

    Raises:
        CheckpointError: where it is not trained yet, or its file is damaged; with the command that mends it.
    """
    folder = model_folder(plan(name, profile, logit_scale, digests))
    path, mend = folder / "model.safetensors", f"run `adamerging zoo --profile {profile}`"
    if not (folder / "manifest.json").is_file():
        if needed:
            raise CheckpointError(f"the model {name!r} of these images and this recipe is not trained yet: {mend}")
        return None
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest.get("schema") != SCHEMA or not path.is_file() or sha256(path) != manifest["sha256"]:
        raise CheckpointError(f"{path} is missing or not what its manifest says: delete {folder}, then {mend}")
    return Model(load(path), manifest["sha256"], manifest)
