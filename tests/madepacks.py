"""Made-up packs and pretrained weights in the layout that the tiny profiles read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from adamerging_lib.worlds.encoders import tiny_vit

CLASSES = ("dark", "middling", "bright")


def pictures(count: int, size: int, channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose brightness tells the class: uint8 ``[count, size, size, channels]`` and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    level = (60 + 70 * labels)[:, None, None, None]
    return np.clip(rng.normal(level, 20, (count, size, size, channels)), 0, 255).astype(np.uint8), labels


def write_arrays(path: Path, *, size: int = 32, channels: int = 3, counts: tuple[int, int] = (24, 9), seed: int = 0):
    """A pack of arrays."""
    parts = {"classnames": np.array(CLASSES)}
    for place, (split, count) in enumerate(zip(("train", "test"), counts, strict=True)):
        parts[f"{split}_images"], parts[f"{split}_labels"] = pictures(count, size, channels, seed + place)
    np.savez(path, **parts)


def write_jpegs(path: Path, *, size: int = 40, counts: tuple[int, int] = (24, 9), seed: int = 0):
    """A pack of JPEG files, the test images among the training images."""
    images, labels = pictures(sum(counts), size, 3, seed)
    files = []
    for image in images:
        Image.fromarray(image).save(buffer := io.BytesIO(), "JPEG", quality=95)
        files.append(buffer.getvalue())
    is_test = np.zeros(len(labels), np.uint8)
    is_test[np.linspace(0, len(labels) - 1, counts[1]).astype(int)] = 1
    np.savez(
        path, jpg_bytes=np.frombuffer(b"".join(files), np.uint8), offsets=np.cumsum([0, *map(len, files)]),
        labels=labels, is_test=is_test, classnames=np.array(CLASSES),
    )  # fmt: skip


def vit_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of a ViT-Ti/16 at 224 px, named as in the upstream file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = tiny_vit(224).state_dict()
    arrays = {}
    for name, tensor in state.items():
        if ".qkv." in name:
            for part, values in zip("qkv", tensor.chunk(3), strict=True):
                arrays[name.replace("qkv", part)] = values.numpy()
        else:
            arrays[name.replace("patch_embed.proj.", "patch_embed.")] = tensor.numpy()
    return {**arrays, "head_upstream.weight": np.zeros((200, 192), np.float32)}


def write_assets(root: Path, tasks: tuple[str, ...]) -> None:
    """Pretrained weights and a pack for each task, arrays and JPEG files in turn."""
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "vit_tiny_p16_224_upstream.npz", **vit_arrays())
    for place, task in enumerate(tasks):
        if place % 2:
            write_jpegs(root / f"{task}_3class_jpg40.npz", seed=10 * place)
        else:
            write_arrays(root / f"{task}.npz", channels=1 if place == 2 else 3, seed=10 * place)
