"""The trained checkpoints of shipped profiles: safetensors with a manifest, verified whenever they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..state import CheckpointError, load, save, sha256
from .encoders import MiniConfig, mini_clip

SHIPPED = Path(__file__).parent / "mini" / "zoo"
SCHEMA = 1
MAKE_ZOO = "make zoo"
_ROWS, _VALUES = "token_embedding.rows", "token_embedding.values"
_EMBEDDING = "token_embedding.weight"


def read_manifest(folder: Path = SHIPPED, made_by: str = MAKE_ZOO) -> dict[str, Any]:
    """The manifest of a zoo: recipe, versions, checksums, and accuracies at training time.

    Arguments:
        folder: of the zoo; that of the drawn world by default.
        made_by: the command that trains it, for errors.

    Raises:
        CheckpointError: where it is missing or of another schema.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise CheckpointError(
            f"no zoo at {folder}: {path.name} is missing; run `{made_by}` or install the package again"
        )
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {manifest.get('schema')!r}, this version reads {SCHEMA}; run `{made_by}`"
        )
    return manifest


def load_checkpoint(
    name: str, folder: Path = SHIPPED, manifest: Mapping[str, Any] | None = None, made_by: str = MAKE_ZOO
) -> dict[str, Tensor]:
    """One checkpoint of a zoo, verified against its manifest and widened to float32.

    Arguments:
        name: ``pretrained``, ``text`` or ``heads``, ``joint``, or a task.
        folder, made_by: see `read_manifest`.
        manifest: the folder's, where it has been read.

    Raises:
        CheckpointError: where the file is not in the manifest, is missing, or does not have the checksum stated there.
    """
    files = (manifest or read_manifest(folder, made_by))["files"]
    if name not in files:
        raise CheckpointError(
            f"the zoo at {folder} has no checkpoint {name!r}; it has {', '.join(files)}; `{made_by}` trains one "
            "for each task"
        )
    path = folder / f"{name}.safetensors"
    if path.is_file() and (found := sha256(path)) != files[name]["sha256"]:
        raise CheckpointError(
            f"{path} has SHA-256 {found[:12]}…, the manifest says {files[name]['sha256'][:12]}…: "
            f"the file is damaged or of another training; restore it or run `{made_by}`"
        )
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in load(path).items()}


def save_checkpoint(name: str, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write one checkpoint of a zoo, in half precision."""
    tensors = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    save(folder / f"{name}.safetensors", tensors)


def pack_text(model: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """The text tower without the vocabulary rows that no caption and no prompt uses (98 % of it).

    Arguments:
        model: the mini CLIP.
        tokens: every token sequence to keep words of, int64 ``[n, context]``.
    """
    state = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("visual.")}
    embedding = state.pop(_EMBEDDING)
    rows = tokens.unique().to(embedding.device)
    return {**state, _ROWS: rows, _VALUES: embedding[rows]}


def load_clip(folder: Path = SHIPPED, manifest: Mapping[str, Any] | None = None) -> nn.Module:
    """The pre-trained mini CLIP, both towers; words that the zoo does not ship have a zero embedding."""
    manifest = manifest or read_manifest(folder)
    model = mini_clip(MiniConfig(**manifest["recipe"]["encoder"]))
    state = {f"visual.{key}": tensor for key, tensor in load_checkpoint("pretrained", folder, manifest).items()}
    text = load_checkpoint("text", folder, manifest)
    embedding = torch.zeros_like(model.token_embedding.weight)
    embedding[text.pop(_ROWS)] = text.pop(_VALUES)
    model.load_state_dict({**state, **text, _EMBEDDING: embedding})
    return model.eval().requires_grad_(False)


def encoder_settings(config: MiniConfig) -> dict[str, int]:
    """The encoder's sizes as the manifest keeps them."""
    return asdict(config)
