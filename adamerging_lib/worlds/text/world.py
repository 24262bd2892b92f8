"""The `mini-text` profile: the shipped zoo and the tasks of text as a suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...merged import PerTask
from ...runtime.cache import cached, fingerprint_code
from ...state import CheckpointError, sha256
from ...suite import Suite, TaskData
from ..zoo import load_checkpoint, read_manifest
from .encoder import TextConfig, TextEncoder, Tokenizer, affine_head
from .tasks import SIZES, TASKS, render

PROFILE = "mini-text"
SHIPPED = Path(__file__).parent / "zoo"
MADE_BY = f"adamerging zoo --profile {PROFILE} --install"
TRAINING_POOL = 2000  # texts per task: what merging methods get of the experts' 4,000


def load_text(tasks: Sequence[str], folder: Path = SHIPPED) -> Suite:
    """The suite of the world of text from a zoo folder; see `load_suite`.

    Its ``images`` are tokens, which the encoder takes as they are.
    """
    manifest = read_manifest(folder, MADE_BY)
    tokenizer = load_tokenizer(folder, manifest)
    encoder = TextEncoder(TextConfig(**manifest["recipe"]["encoder"]))
    encoder.load_state_dict(load_checkpoint("pretrained", folder, manifest, MADE_BY))
    heads = load_checkpoint("heads", folder, manifest, MADE_BY)
    names = ["pretrained", "heads", "joint", *tasks]
    files = {f"{PROFILE}/{name}.safetensors": manifest["files"][name]["sha256"] for name in names}
    return Suite(
        profile=PROFILE,
        encoder=encoder.eval().requires_grad_(False),
        pretrained=dict(encoder.state_dict()),
        experts={task: load_checkpoint(task, folder, manifest, MADE_BY) for task in tasks},
        joint=load_checkpoint("joint", folder, manifest, MADE_BY),
        heads={task: affine_head(heads[f"{task}.weight"], heads[f"{task}.bias"]) for task in tasks},
        test={task: text_data(task, "test", tokenizer) for task in tasks},
        mean=None,
        std=None,
        train=PerTask(tuple(tasks), lambda task: text_data(task, "train", tokenizer, TRAINING_POOL)),
        assets={**files, f"{PROFILE}/tokenizer.json": manifest["tokenizer"]["sha256"]},
    )


def load_tokenizer(folder: Path = SHIPPED, manifest: dict[str, Any] | None = None) -> Tokenizer:
    """The tokenizer of a zoo folder, verified against its manifest.

    Raises:
        CheckpointError: where it is missing, or does not have the checksum stated there.
    """
    manifest = manifest or read_manifest(folder, MADE_BY)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"no tokenizer at {path}: restore it or run `{MADE_BY}`")
    if (found := sha256(path)) != manifest["tokenizer"]["sha256"]:
        raise CheckpointError(
            f"{path} has SHA-256 {found[:12]}…, the manifest says {manifest['tokenizer']['sha256'][:12]}…: the file is "
            f"damaged or of another training; restore it or run `{MADE_BY}`"
        )
    return Tokenizer(path, manifest["recipe"]["encoder"]["length"])


def text_data(task: str, split: str, tokenizer: Tokenizer, count: int | None = None) -> TaskData:
    """Texts of a task as tokens, made once and then kept in the cache.

    Arguments:
        task: task id.
        split: ``train``, ``validation`` or ``test``.
        tokenizer: makes the tokens.
        count: number of texts, from the first; the split's own size by default.

    Raises:
        ValueError: unknown task or split.
    """
    count = SIZES.get(split, 0) if count is None else count

    def compute() -> tuple[dict[str, Tensor], dict]:
        texts, labels = render(task, split, 0, count)
        return {"tokens": tokenizer(texts), "labels": torch.tensor(labels)}, {}

    parameters = {"task": task, "split": split, "count": count, "length": tokenizer.length}
    sources = fingerprint_code(render, Tokenizer)
    tensors, _ = cached("texts", parameters, {"tokenizer": tokenizer.digest}, sources, compute)
    return TaskData(tensors["tokens"], tensors["labels"], TASKS[task].classes)
