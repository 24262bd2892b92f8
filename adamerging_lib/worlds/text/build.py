"""`adamerging zoo --profile mini-text`: train all that the world of text ships, from nothing.

Stages: make the pre-training lines and their tokens, pre-train the encoder by masked words, fit a head per task, fine-
tune an expert per task, train the joint model, write the manifest. Each stage resumes where it was cut off; a finished
one is not done again.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...evaluation import evaluate
from ...forward import resolve_device
from ...merged import Merged
from ...methods import individual, traditional_mtl, zero_shot
from ...runtime.atomic import atomic
from ...runtime.environment import environment
from ...state import load
from ...suite import Suite, TaskData
from ...vectors.geometry import cosines, relative_norms
from ..mini.build import file_entry, report
from ..mini.stages import Schedule, seconds, timed, write_json
from ..training import batch_indices, fine_tune, optimise
from ..zoo import SCHEMA, read_manifest, save_checkpoint
from .encoder import (
    PAD,
    TextConfig,
    TextEncoder,
    Tokenizer,
    affine_head,
    encoder_state,
    fit_head,
    masked,
    masked_lm,
    masked_loss,
    train_tokenizer,
)
from .pretraining import lines
from .tasks import TASKS
from .world import MADE_BY, PROFILE, SHIPPED, load_text, text_data

CHUNK = 1000


@dataclass(frozen=True)
class Recipe:
    """Everything that the zoo depends on, besides the code.

    Arguments:
        encoder: sizes.
        lines: of the pre-training stream; the vocabulary is made from the first ``vocabulary_lines``.
        rate: share of words masked.
        head_texts: labelled texts per class that a head is fitted to; head_decay: of its weight.
        pretraining, fine_tuning, joint: schedules.
    """

    encoder: TextConfig = field(default_factory=TextConfig)
    lines: int = 192_000
    vocabulary_lines: int = 20_000
    rate: float = 0.3
    head_texts: int = 256
    head_decay: float = 1e-4
    pretraining: Schedule = field(default_factory=lambda: Schedule(steps=1500, lr=2e-3, batch_size=128, warmup=100))
    fine_tuning: Schedule = field(default_factory=lambda: Schedule(steps=250, lr=4e-4, batch_size=32, warmup=20))
    joint: Schedule = field(default_factory=lambda: Schedule(steps=300, lr=6e-4, batch_size=16, warmup=30))

    def plain(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        own = asdict(self)
        return {
            "encoder": own.pop("encoder"), "pre-training": own.pop("pretraining"),
            "fine-tuning": own.pop("fine_tuning"), "joint": own.pop("joint"), **own,
        }  # fmt: skip


class Builder:
    """The stages, sharing a work folder.

    Arguments:
        recipe: what is trained.
        work: folder; every recipe has one of its own in it.
        device: ``cpu``, ``cuda`` or ``auto``.
    """

    def __init__(self, recipe: Recipe, work: Path, device: str):
        plan = {"tasks": list(TASKS), **recipe.plain()}
        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
        self.recipe, self.device = recipe, str(resolve_device(device))
        self.work = work / f"{PROFILE}-{digest}"
        self.out = self.work / PROFILE
        self.out.mkdir(parents=True, exist_ok=True)

    def stream(self) -> Tensor:
        """The pre-training lines as tokens, int16 ``[lines, length]``, and beside them the tokenizer's file."""
        done = self.work / "stream.pt"
        if not done.is_file():
            with timed(self.work, "lines"):
                count, texts = self.recipe.lines, []
                for start in tqdm(range(0, count, CHUNK), desc="lines", unit="k lines"):
                    texts += lines(start, min(start + CHUNK, count))
                with atomic(self.out / "tokenizer.json") as partial:
                    train_tokenizer(texts[: self.recipe.vocabulary_lines], self.recipe.encoder.vocabulary, partial)
                tokens = self.tokenizer()(texts).to(torch.int16)
            with atomic(done) as partial:
                torch.save(tokens, partial)
        return torch.load(done, weights_only=True)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer made from the stream."""
        return Tokenizer(self.out / "tokenizer.json", self.recipe.encoder.length)

    def pretrained(self) -> TextEncoder:
        """The pre-trained encoder, trained now unless the work folder has it."""
        encoder, done = TextEncoder(self.recipe.encoder), self.work / "pretrained.pt"
        if not done.is_file():
            tokens = self.stream()
            model = masked_lm(self.recipe.encoder, seed=self.recipe.pretraining.seed).to(self.device)
            checkpoint = self.work / "pretraining.pt"
            with timed(self.work, "pre-training"):
                pre_train(model, tokens, self.recipe, self.device, checkpoint)
            with atomic(done) as partial:
                torch.save(dict(encoder_state(model.cpu())), partial)
            checkpoint.unlink(missing_ok=True)
        encoder.load_state_dict(torch.load(done, weights_only=True))
        save_checkpoint("pretrained", encoder.state_dict(), self.out)
        return encoder.eval().requires_grad_(False)

    def heads(self, encoder: TextEncoder, data: Mapping[str, TaskData]) -> dict[str, Tensor]:
        """The heads of all tasks, fitted to features of the pre-trained encoder unless the work folder has them."""
        path, parts = self.out / "heads.safetensors", {}
        if not path.is_file():
            for task, given in data.items():
                count = self.recipe.head_texts * len(given.classes)  # classes take turns
                with torch.inference_mode():
                    features = encoder(given.images[:count])
                weight, bias = fit_head(features, given.labels[:count], len(given.classes), self.recipe.head_decay)
                parts |= {f"{task}.weight": weight, f"{task}.bias": bias}
            save_checkpoint("heads", parts, self.out)
        kept = {key: tensor.float() for key, tensor in load(path).items()}
        return {task: affine_head(kept[f"{task}.weight"], kept[f"{task}.bias"]) for task in data}

    def tune(
        self,
        name: str,
        encoder: TextEncoder,
        data: Mapping[str, TaskData],
        heads: Mapping[str, Tensor],
        plan: Schedule,
        seed: int,
    ) -> None:
        """Fine-tune a copy of the encoder on one task or on all, unless that is done."""
        if (self.out / f"{name}.safetensors").is_file():
            return
        copied, checkpoint = copy.deepcopy(encoder).requires_grad_(True), self.work / f"{name}.pt"
        settings = {**asdict(plan), "seed": seed}
        options = {"device": self.device, "checkpoint": checkpoint, "label": name, "margin": 0, "save_every": 100}
        with timed(self.work, "joint" if name == "joint" else "fine-tuning"):
            fine_tune(copied, data, heads, _as_is, **settings, **options)
        save_checkpoint(name, copied.cpu().state_dict(), self.out)
        checkpoint.unlink(missing_ok=True)

    def run(self) -> dict[str, Any]:
        """All stages; returns the manifest."""
        encoder, plan = self.pretrained(), self.recipe.fine_tuning
        data = {task: text_data(task, "train", self.tokenizer()) for task in TASKS}
        heads = self.heads(encoder, data)
        for place, task in enumerate(TASKS):
            self.tune(task, encoder, {task: data[task]}, heads, plan, plan.seed + place)
        self.tune("joint", encoder, data, heads, self.recipe.joint, self.recipe.joint.seed)
        return self.finish()

    def finish(self) -> dict[str, Any]:
        """Write the manifest, then measure what was written, as a user will load it."""
        names = ["pretrained", "heads", *TASKS, "joint"]
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "recipe": self.recipe.plain(),
            "environment": environment(self.device),
            "seconds": seconds(self.work),
            "files": {name: file_entry(self.out / f"{name}.safetensors") for name in names},
            "tokenizer": file_entry(self.out / "tokenizer.json"),
        }
        write_json(self.out / "manifest.json", manifest)
        suite = load_text(list(TASKS), self.out)
        manifest["accuracies"] = {
            merged.method: {row.task: round(row.accuracy, 2) for row in evaluate(suite, merged).itertuples()}
            for merged in (zero_shot(suite.task_vectors()), individual(suite), traditional_mtl(suite))
        }
        manifest["diagnosis"] = diagnosis(suite)
        write_json(self.out / "manifest.json", manifest)
        return manifest


def diagnosis(suite: Suite, alphas: Sequence[float] = (0.25, 0.5, 0.75)) -> dict[str, dict[str, Any]]:
    """How nearly linear the way to each expert is, and how nearly orthogonal task vectors are.

    Arguments:
        suite: with its experts.
        alphas: where to measure.

    Returns:
        ``path``: α → task → accuracy of θ0 + α T_k on task k; ``norm``: task → ‖T_k‖ / ‖θ0‖; ``cosine``: pair → cosine.
    """
    tv, path = suite.task_vectors(), {}
    for alpha in alphas:
        one = torch.tensor([[alpha]], dtype=torch.float64)
        states = {task: tv.subset([task]).merge(one, "task") for task in tv.tasks}
        frame = evaluate(suite, Merged(None, "expert_path", {"alpha": alpha}, tv.tasks, task_states=states))
        path[str(alpha)] = {row.task: round(row.accuracy, 2) for row in frame.itertuples()}
    angles, norms = cosines(tv), relative_norms(tv)
    pairs = combinations(tv.tasks, 2)
    return {
        "path": path,
        "norm": {task: round(float(norms[task]), 4) for task in tv.tasks},
        "cosine": {f"{a} {b}": round(float(angles.loc[a, b]), 4) for a, b in pairs},
    }


def _as_is(tokens: Tensor) -> Tensor:
    return tokens


def pre_train(model: nn.Module, tokens: Tensor, recipe: Recipe, device: str, checkpoint: Path) -> None:
    """A ``BertForMaskedLM`` trained to guess masked words.

    A step takes half of its lines from the shorter half of the stream and half from the longer one: padding would be
    half of all work.

    Arguments:
        model: trained in place, on the device.
        tokens: int16 ``[lines, length]``.
        recipe: with the schedule and the share of words masked.
        device: ``cpu`` or ``cuda``.
        checkpoint: see `optimise`.
    """
    plan = asdict(recipe.pretraining)
    batch, seed = plan.pop("batch_size"), plan.pop("seed")
    length = (tokens != PAD).sum(1)
    halves = length.argsort(stable=True).tensor_split(2)

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        values = []
        for place, half in enumerate(halves):
            rows = half[batch_indices(step, batch // 2, len(half), seed + 7919 * place)]
            chosen = tokens[rows, : int(length[rows].max())].long()
            given, guessed = masked(chosen, recipe.rate, recipe.encoder.vocabulary, generator)
            values.append(masked_loss(model, *(part.to(device) for part in (chosen, given, guessed))))
        return torch.stack(values).mean()

    optimise(model, loss, **plan, checkpoint=checkpoint, label="pre-training", save_every=100)


def build(out: Path, device: str = "auto", install: bool = False) -> None:
    """Train all that the world of text ships, and say how it compares with what is shipped.

    Arguments:
        out: work folder; what is finished there is not done again.
        device: cpu, cuda or auto.
        install: replace what is shipped by the result.
    """
    builder = Builder(Recipe(), out, device)
    manifest = builder.run()
    shipped = read_manifest(SHIPPED, MADE_BY) if (SHIPPED / "manifest.json").is_file() else None
    print(report(manifest, shipped))
    print(f"zoo written to {builder.out}")
    if install:
        SHIPPED.mkdir(exist_ok=True)
        for path in builder.out.iterdir():
            shutil.copy2(path, SHIPPED / path.name)
        print(f"installed into {SHIPPED}")
