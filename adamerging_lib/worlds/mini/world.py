"""The `mini` profile: the shipped zoo and the procedural tasks as a suite."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...runtime.cache import cached, fingerprint_code
from ...suite import Suite, TaskData
from ..encoders import MINI_MEAN, MINI_STD, mini_tokenize
from ..heads import zero_shot_head
from ..zoo import SHIPPED, load_checkpoint, load_clip, read_manifest
from .tasks import SIZES, TASKS, render

TRAINING_POOL = 2000  # images per task: what merging methods get of the experts' 4,000


class TrainingImages(Mapping[str, TaskData]):
    """Task → the first training images of a mini task, drawn only when asked for: most methods never do."""

    def __init__(self, tasks: Sequence[str], count: int = TRAINING_POOL) -> None:
        self._tasks, self._count = tuple(tasks), count

    def __getitem__(self, task: str) -> TaskData:
        if task not in self._tasks:
            raise KeyError(task)
        return mini_images(task, "train", self._count)

    def __contains__(self, task: object) -> bool:  # Mapping's own would draw the images
        return task in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def load_mini(tasks: Sequence[str], folder: Path = SHIPPED) -> Suite:
    """The mini suite from a zoo folder; see `load_suite`.

    Its heads are read, though the text tower makes them: on another processor they would differ in their last bits, and
    nothing that is kept under digests of a suite's data would be found there.
    """
    manifest = read_manifest(folder)
    encoder, heads = load_clip(folder, manifest).visual, load_checkpoint("heads", folder, manifest)
    names = ["pretrained", "heads", "joint", *tasks]
    return Suite(
        profile="mini",
        encoder=encoder,
        pretrained=dict(encoder.state_dict()),
        experts={task: load_checkpoint(task, folder, manifest) for task in tasks},
        joint=load_checkpoint("joint", folder, manifest),
        heads={task: heads[task] for task in tasks},
        test={task: mini_images(task, "test") for task in tasks},
        mean=MINI_MEAN,
        std=MINI_STD,
        train=TrainingImages(tasks),
        assets={f"mini/{name}.safetensors": manifest["files"][name]["sha256"] for name in names},
    )


def mini_heads(clip: nn.Module, tasks: Sequence[str]) -> dict[str, Tensor]:
    """Zero-shot heads of mini tasks from the text tower of a mini CLIP, ``[classes, dim]`` each."""
    device = clip.logit_scale.device
    scale = clip.logit_scale.exp().item()

    def encode(prompts: list[str]) -> Tensor:
        return clip.encode_text(mini_tokenize(prompts).to(device))

    return {task: zero_shot_head(TASKS[task].classes, TASKS[task].templates, encode, scale) for task in tasks}


def mini_images(task: str, split: str, count: int | None = None) -> TaskData:
    """Images of a mini task, drawn once and then kept in the cache.

    Arguments:
        task: task id.
        split: ``train``, ``validation`` or ``test``.
        count: number of images, from the first; the split's own size by default.

    Raises:
        ValueError: unknown task or split.
    """
    count = SIZES.get(split, 0) if count is None else count

    def compute() -> tuple[dict[str, Tensor], dict]:
        images, labels = render(task, split, 0, count)
        return {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)}, {}

    # Pillow draws the text and NumPy the noise: another version may draw another image.
    drawn_by = {name: importlib.metadata.version(name) for name in ("pillow", "numpy", "scikit-learn", "matplotlib")}
    parameters = {"task": task, "split": split, "count": count, **drawn_by}
    tensors, _ = cached("images", parameters, {}, fingerprint_code(render), compute)
    return TaskData(tensors["images"], tensors["labels"], TASKS[task].classes)
