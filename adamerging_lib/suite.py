"""A suite: everything one profile needs to merge and to measure — encoder, checkpoints, heads, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from .task_vectors import TaskVectors

SETTINGS = ("transductive", "inductive")
"""How test images serve adaptation and measurement: the same ones (the papers'), or two halves."""


@dataclass(frozen=True)
class TaskData:
    """Labelled images of one task, decoded once.

    Arguments:
        images: uint8 ``[n, 3, height, width]``, before any normalisation; for text, tokens int64 ``[n, length]``.
        labels: int64 ``[n]``, indices into ``classes``. Only evaluation and training read them.
        classes: class names in label order.

    Example:
        >>> data = am.TaskData(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("cat", "dog"))
        >>> len(data)
        4
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Suite:
    """A profile that was loaded.

    Arguments:
        profile: the profile's name (``mini``, ``tiny``, ``clip-b32``, ...).
        encoder: image encoder as a template; its own weights are never used, every call goes through
            ``torch.func.functional_call(encoder, state_dict, (images,))`` on normalised float images and returns
            features ``[n, dim]``, not normalised; for text, on tokens.
        pretrained: state dict of θ0.
        experts: task name → state dict of θ_k, in the suite's task order.
        joint: state dict of the joint-training model (Traditional MTL), or None where the profile has none.
        heads: task name → weight ``[classes, dim]``, unit rows already times exp(logit_scale).
        test: task name → test images and labels.
        mean, std: per-channel normalisation of images in [0, 1]; None for inputs that the encoder takes as they are,
            such as tokens.
        assets: file name → SHA-256 of every checkpoint used.
        train: task name → training images and labels, which may be loaded lazily; None where the
            profile has none. Read it through `training`.

    Example:
        >>> suite = am.load_suite("mini", tasks=["digits", "signs"]).some_images(10)
        >>> {task: len(data) for task, data in suite.test.items()}
        {'digits': 10, 'signs': 10}
    """

    profile: str
    encoder: nn.Module
    pretrained: Mapping[str, Tensor]
    experts: Mapping[str, Mapping[str, Tensor]]
    joint: Mapping[str, Tensor] | None
    heads: Mapping[str, Tensor]
    test: Mapping[str, TaskData]
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    assets: Mapping[str, str] = field(default_factory=dict)
    train: Mapping[str, TaskData] | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names in the suite's order."""
        return tuple(self.experts)

    def task_vectors(self) -> TaskVectors:
        """Return θ0 and the stacked T_k = θ_k − θ0 of the suite's experts."""
        return TaskVectors.from_state_dicts(self.pretrained, self.experts)

    def training(self) -> dict[str, TaskData]:
        """Return training images of the suite's tasks; labels are for the methods that say they need them.

        Raises:
            ValueError: the profile has no training images, or none for one of the tasks.
        """
        if missing := [task for task in self.tasks if task not in (self.train or {})]:
            raise ValueError(
                f"profile {self.profile!r} has no training images of {', '.join(missing)}: give the suite some"
            )
        return {task: self.train[task] for task in self.tasks}

    def subset(self, tasks: Sequence[str]) -> Suite:
        """Return the suite with only some of its tasks, in the order given; without the joint model, which knows all.

        Raises:
            ValueError: the suite does not have one of the tasks.
        """
        if unknown := [task for task in tasks if task not in self.experts]:
            raise ValueError(f"the suite has no task {unknown[0]!r}; it has {', '.join(self.tasks)}")
        parts = {name: {task: getattr(self, name)[task] for task in tasks} for name in ("experts", "heads", "test")}
        return replace(self, **parts, joint=None)

    def some_images(self, count: int | None, seed: int = 0) -> Suite:
        """Return the suite with a seeded draw of test images, the same ones of a task however it is corrupted.

        Arguments:
            count: images per task; None, or a task with fewer: all of them.
            seed: of the draw.
        """
        if count is None:
            return self
        if count < 1:
            raise ValueError(f"{count} test images per task leave nothing to measure: give at least 1, or None for all")
        test = {}
        for task, data in self.test.items():
            order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
            index = order[:count].sort().values
            test[task] = replace(data, images=data.images[index], labels=data.labels[index])
        return replace(self, test=test)

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise images, uint8 ``[n, 3, h, w]`` → float32 ``[n, 3, h, w]``: (x / 255 − mean) / std, on their device.

        Without mean and std, images are left unchanged.
        """
        return images if self.mean is None else normalise(images, self.mean, self.std)


def normalise(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """uint8 ``[n, 3, h, w]`` → float32 ``[n, 3, h, w]``: (x / 255 − mean) / std, on the images' device."""
    mean_, std_ = (_channels(tuple(v), images.device) for v in (mean, std))
    return images.to(torch.float32).div_(255).sub_(mean_).div_(std_)


@lru_cache(maxsize=16)
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    # Kept, because making it anew for every batch makes a GPU wait. Never an inference tensor, whatever asks first.
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, 3, 1, 1)


def split_indices(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the two disjoint halves of n test images in the inductive setting.

    Arguments:
        n: number of images, at least 2.
        seed: of the shuffle.

    Returns:
        (adapt ``[n // 2]``, held_out ``[n − n // 2]``): int64 indices in ascending order.

    Example:
        >>> adapt, held_out = am.split_indices(10)
        >>> len(adapt), len(held_out), set(adapt.tolist()) & set(held_out.tolist())
        (5, 5, set())
    """
    if n < 2:
        raise ValueError(f"{n} images cannot be split into an adaptation and a held-out half: give at least 2")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: n // 2].sort().values, order[n // 2 :].sort().values
