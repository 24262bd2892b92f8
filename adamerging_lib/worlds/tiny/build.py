"""`adamerging zoo --profile tiny`: fine-tune the experts of a tiny profile and its joint model, on this machine.

Every model resumes where it was cut off, a finished one is not trained again, and one that another process is at is
left to it. At 96 px a core learns from 56 images per second, 92 in bfloat16 where it has that: on two cores, by two
processes side by side, everything takes an hour and three quarters, or one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...evaluation import evaluate
from ...forward import resolve_device
from ...methods import individual, zero_shot
from ...runtime.environment import environment
from ...state import save, sha256
from ...suite import Suite, normalise
from ..encoders import TINY_MEAN, TINY_STD
from ..mini.stages import seconds, timed, write_json
from ..training import fine_tune
from ..zoo import SCHEMA
from .experts import model_folder, plan
from .tasks import task_set
from .world import LOGIT_SCALE, asset_files, digest, pretrained_encoder, tiny_head, tiny_images

SAVE_EVERY = 100  # steps: a minute or two


def build(
    profile: str, names: Sequence[str], device: str = "auto", *, bfloat16: bool = False
) -> dict[str, dict[str, Any]]:
    """Train models of a tiny profile.

    Arguments:
        profile: its name.
        names: tasks, and ``joint``.
        device: ``cpu``, ``cuda`` or ``auto``.
        bfloat16: see `training.fine_tune`; the manifests say it.

    Returns:
        Manifests of those that are trained, by name; one that another process is at is left out.

    Raises:
        CheckpointError: saying which assets are missing.
        ValueError: naming what is wrong with an asset.
    """
    files = asset_files(task_set(profile) if "joint" in names else names, profile)
    manifests = {}
    for name in names:
        print(f"{name}: ", end="", flush=True)
        made = train(name, profile, files, str(resolve_device(device)), bfloat16)
        if made is None:
            print("another process is at it")
            continue
        manifests[name] = made
        print(told(made), flush=True)
    return manifests


def train(
    name: str, profile: str, files: Mapping[str, Path], device: str, bfloat16: bool
) -> dict[str, Any] | None:  # fmt: skip
    """One model, trained unless it is; its manifest, or None where another process is training it."""
    recipe = plan(name, profile, LOGIT_SCALE, {part: digest(path) for part, path in files.items()})
    folder = model_folder(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "training.lock", timeout=0):
            if not (folder / "manifest.json").is_file():
                write_json(folder / "manifest.json", _trained(recipe, profile, folder, files, device, bfloat16))
            (folder / "training.pt").unlink(missing_ok=True)
    except Timeout:
        return None
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def _trained(
    recipe: Mapping[str, Any], profile: str, folder: Path, files: Mapping[str, Path], device: str, bfloat16: bool
) -> dict[str, Any]:  # fmt: skip
    tasks, size, known = list(recipe["views"]), recipe["image_size"], task_set(profile)
    encoder = pretrained_encoder(files["pretrained"], size)
    pretrained = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    heads = {task: tiny_head(task, files, size, encoder) for task in tasks}
    data = {task: tiny_images(task, "train", files[task], size) for task in tasks}
    with timed(folder, "training"):
        fine_tune(
            encoder.requires_grad_(True), data, heads,
            lambda images: normalise(images, TINY_MEAN, TINY_STD), **recipe["training"], device=device,
            checkpoint=folder / "training.pt", label=recipe["model"], save_every=SAVE_EVERY,
            views={task: known[task].views for task in tasks}, bfloat16=bfloat16,
        )  # fmt: skip
    state = encoder.cpu().state_dict()
    save(folder / "model.safetensors", state)
    test = {task: tiny_images(task, "test", files[task], size) for task in tasks}
    models = dict.fromkeys(tasks, state)
    suite = Suite(recipe["model"], encoder, pretrained, models, None, heads, test, TINY_MEAN, TINY_STD)
    rows = {
        m.method: evaluate(suite, m, device=device).set_index("task")
        for m in (zero_shot(suite.task_vectors()), individual(suite))
    }
    return {
        "schema": SCHEMA,
        "recipe": recipe,
        "environment": {**environment(device), "precision": "bfloat16" if bfloat16 else "float32"},
        "seconds": seconds(folder),
        "sha256": sha256(folder / "model.safetensors"),
        "test_images": {task: len(data) for task, data in test.items()},
        "accuracies": {method: frame["accuracy"].round(2).to_dict() for method, frame in rows.items()},
    }


def told(manifest: Mapping[str, Any]) -> str:
    """What is known of a trained model, one line."""
    before, after = (
        sum(values.values()) / len(values)
        for values in (manifest["accuracies"][m] for m in ("zero_shot", "individual"))
    )
    minutes = manifest["seconds"]["training"] / 60
    return (
        f"{after:.1f} % of {sum(manifest['test_images'].values())} test images, zero-shot {before:.1f} %; "
        f"{manifest['recipe']['training']['steps']} steps in {minutes:.0f} min"
    )
