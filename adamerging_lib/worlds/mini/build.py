"""`make zoo`: train all that the `mini` profile ships, from nothing, and say how it compares with what is shipped.

    adamerging zoo --profile mini [--out FOLDER] [--device auto] [--workers 2] [--install]

Stages: draw captioned images, pre-train the CLIP, fine-tune an expert for each task, train the joint model, write the
manifest. Each stage resumes where it was cut off; a finished one is not done again. On two cores it takes about an
hour.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...evaluation import evaluate
from ...forward import resolve_device
from ...methods import individual, traditional_mtl, zero_shot
from ...runtime.atomic import atomic
from ...runtime.environment import environment
from ...state import load, save, sha256
from ...suite import TaskData, normalise
from ..encoders import MINI_MEAN, MINI_STD, MiniConfig, mini_clip, mini_tokenize
from ..training import fine_tune, pre_train
from ..zoo import SCHEMA, SHIPPED, encoder_settings, pack_text, read_manifest, save_checkpoint
from .stages import Schedule, seconds, timed, write_json
from .tasks import TASKS
from .tasks.pretraining import captioned
from .world import load_mini, mini_heads, mini_images

CHUNK = 1000


@dataclass(frozen=True)
class Recipe:
    """Everything that the zoo depends on, besides the code."""

    encoder: MiniConfig = field(default_factory=MiniConfig)
    images: int = 400_000
    pretraining: Schedule = field(default_factory=lambda: Schedule(steps=3400, lr=1.5e-3, batch_size=384, warmup=200))
    fine_tuning: Schedule = field(default_factory=lambda: Schedule(steps=600, lr=2.5e-4, batch_size=64, warmup=30))
    joint: Schedule = field(default_factory=lambda: Schedule(steps=600, lr=5e-4, batch_size=32, warmup=30))

    def plain(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return {
            "encoder": encoder_settings(self.encoder),
            "pre-training": {"images": self.images, **asdict(self.pretraining)},
            "fine-tuning": asdict(self.fine_tuning),
            "joint": asdict(self.joint),
        }


def _captioned(chunk: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    return captioned(*chunk)


def draw_pretraining(folder: Path, count: int, workers: int) -> tuple[Tensor, list[str]]:
    """The captioned images, drawn by several processes; kept as files until the zoo is done (3 kB per image)."""
    images_path, captions_path = folder / "images.npy", folder / "captions.json"
    if not captions_path.is_file():
        images = np.lib.format.open_memmap(images_path, "w+", np.uint8, (count, 3, 32, 32))
        captions: list[str] = []
        chunks = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        with get_context("spawn").Pool(workers) as pool:
            drawn = zip(chunks, pool.imap(_captioned, chunks), strict=True)
            for (start, stop), (part, texts) in tqdm(drawn, total=len(chunks), desc="drawing", unit="k images"):
                images[start:stop] = part
                captions += texts
        images.flush()
        with atomic(captions_path) as partial:
            partial.write_text(json.dumps(captions), encoding="utf-8")
    return torch.from_numpy(np.load(images_path)), json.loads(captions_path.read_text(encoding="utf-8"))


def _normalise(images: Tensor) -> Tensor:
    return normalise(images, MINI_MEAN, MINI_STD)


class Builder:
    """The stages, sharing a work folder."""

    def __init__(self, recipe: Recipe, work: Path, device: str, workers: int):
        # Of the tasks too: a further one is in the joint model, and its words are among the text tower's.
        plan = {"tasks": list(TASKS), **recipe.plain()}
        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
        self.recipe, self.device, self.workers = recipe, str(resolve_device(device)), workers
        self.work = work / digest
        self.out = self.work / "mini"
        self.out.mkdir(parents=True, exist_ok=True)

    def clip(self) -> nn.Module:
        """The pre-trained CLIP, trained now unless the work folder has it."""
        plan, model = self.recipe.pretraining, mini_clip(self.recipe.encoder, seed=self.recipe.pretraining.seed)
        done = self.work / "clip.pt"
        if not done.is_file():
            with timed(self.work, "drawing"):
                images, captions = draw_pretraining(self.work, self.recipe.images, self.workers)
            distinct = sorted(set(captions))
            place = {caption: row for row, caption in enumerate(distinct)}
            which = torch.tensor([place[caption] for caption in captions])
            checkpoint = self.work / "pretraining.pt"
            with timed(self.work, "pre-training"):
                pre_train(
                    model, images, which, mini_tokenize(distinct), _normalise, **asdict(plan),
                    device=self.device, checkpoint=checkpoint,
                )  # fmt: skip
            prompts = [t.format(c) for task in TASKS.values() for c in task.classes for t in task.templates]
            with atomic(done) as partial:
                torch.save({"clip": model.state_dict(), "tokens": mini_tokenize(distinct + prompts).unique()}, partial)
            checkpoint.unlink(missing_ok=True)
            (self.work / "images.npy").unlink(missing_ok=True)
        saved = torch.load(done, weights_only=True)
        model.load_state_dict(saved["clip"])
        save_checkpoint("pretrained", model.visual.state_dict(), self.out)
        save_checkpoint("text", pack_text(model, saved["tokens"]), self.out)
        return model.eval()

    def heads(self, clip: nn.Module) -> dict[str, Tensor]:
        """The heads of all tasks, of the text tower, unless the work folder has them; in full precision."""
        path = self.out / "heads.safetensors"
        if not path.is_file():
            save(path, mini_heads(clip.cpu(), list(TASKS)))
        return load(path)

    def tune(
        self,
        name: str,
        clip: nn.Module,
        data: Mapping[str, TaskData],
        heads: Mapping[str, Tensor],
        plan: Schedule,
        seed: int,
    ) -> None:
        """Fine-tune a copy of the vision tower on one task or on all, unless that is done."""
        if (self.out / f"{name}.safetensors").is_file():
            return
        start = mini_clip(self.recipe.encoder)
        start.load_state_dict(clip.state_dict())
        encoder, checkpoint = start.visual, self.work / f"{name}.pt"
        settings = {**asdict(plan), "seed": seed}
        options = {"device": self.device, "checkpoint": checkpoint, "label": name}
        with timed(self.work, "joint" if name == "joint" else "fine-tuning"):
            fine_tune(encoder, data, heads, _normalise, **settings, **options)
        save_checkpoint(name, encoder.state_dict(), self.out)
        checkpoint.unlink(missing_ok=True)

    def run(self) -> dict[str, Any]:
        """All stages; returns the manifest."""
        clip, plan = self.clip(), self.recipe.fine_tuning
        heads = self.heads(clip)
        data = {task: mini_images(task, "train") for task in TASKS}
        for place, task in enumerate(TASKS):
            self.tune(task, clip, {task: data[task]}, heads, plan, plan.seed + place)
        self.tune("joint", clip, data, heads, self.recipe.joint, self.recipe.joint.seed)
        return self.finish()

    def finish(self) -> dict[str, Any]:
        """Write the manifest, then measure what was written, as a user will load it."""
        names = ["pretrained", "text", "heads", *TASKS, "joint"]
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "recipe": self.recipe.plain(),
            "environment": environment(self.device),
            "seconds": seconds(self.work),
            "files": {name: file_entry(self.out / f"{name}.safetensors") for name in names},
        }
        write_json(self.out / "manifest.json", manifest)
        suite = load_mini(list(TASKS), self.out)
        manifest["accuracies"] = {
            merged.method: {row.task: round(row.accuracy, 2) for row in evaluate(suite, merged).itertuples()}
            for merged in (zero_shot(suite.task_vectors()), individual(suite), traditional_mtl(suite))
        }
        write_json(self.out / "manifest.json", manifest)
        return manifest


def file_entry(path: Path) -> dict[str, Any]:
    """Manifest entry of a file: checksum and bytes."""
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def report(manifest: Mapping[str, Any], shipped: Mapping[str, Any] | None) -> str:
    """Average accuracies of a zoo beside the shipped one's, one line per model."""
    lines = []
    for method, tasks in manifest["accuracies"].items():
        mean = sum(tasks.values()) / len(tasks)
        line = f"{method:16s} {mean:5.1f} %  worst {min(tasks, key=tasks.get)} {min(tasks.values()):5.1f} %"
        if shipped:
            before = shipped["accuracies"][method].values()
            line += f"   (shipped {sum(before) / len(before):5.1f} %)"
        lines.append(line)
    return "\n".join(lines)


def build(out: Path, device: str = "auto", workers: int = 2, install: bool = False) -> None:
    """Train all that the mini profile ships, and say how it compares with what is shipped.

    Arguments:
        out: work folder; what is finished there is not done again.
        device: cpu, cuda or auto.
        workers: processes that draw images.
        install: replace what is shipped by the result.
    """
    builder = Builder(Recipe(), out, device, workers)
    manifest = builder.run()
    shipped = read_manifest() if (SHIPPED / "manifest.json").is_file() else None
    print(report(manifest, shipped))
    print(f"zoo written to {builder.out}")
    if install:
        SHIPPED.mkdir(exist_ok=True)
        for path in builder.out.iterdir():
            shutil.copy2(path, SHIPPED / path.name)
        print(f"installed into {SHIPPED}")
