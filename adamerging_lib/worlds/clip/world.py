"""The `clip-*` profiles: OpenAI's CLIP and experts fine-tuned from it, real data sets, heads from the text tower."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from torch import Tensor, nn

from ...checkpoints import load_clip_model, load_encoder, load_head
from ...checkpoints.reading import open_source
from ...runtime import places
from ...runtime.cache import cached, fingerprint_code
from ...state import fingerprint
from ...suite import Suite, TaskData
from ..encoders import text_encoder
from ..heads import zero_shot_head
from . import hub
from .store import task_images
from .tasks import TASKS

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""What CLIP's own images were normalised by."""
TRAINING_POOL = 2000  # images per task: what merging methods get of the training images

T = TypeVar("T")


class Lazy(Mapping[str, T], Generic[T]):
    """Task → what ``make`` makes of it, when it is first asked for; then kept."""

    def __init__(self, tasks: Sequence[str], make: Callable[[str], T]) -> None:
        self._made: dict[str, T] = {}
        self._tasks, self._make = dict.fromkeys(tasks), make

    def __getitem__(self, task: str) -> T:
        if task not in self._tasks:
            raise KeyError(task)
        if task not in self._made:
            self._made[task] = self._make(task)
        return self._made[task]

    def __contains__(self, task: object) -> bool:  # Mapping's own would make it
        return task in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def load_clip(profile: str, tasks: Sequence[str], root: Path | None = None) -> Suite:
    """The suite of a clip profile, from files that `adamerging fetch` or a person put there; see `load_suite`.

    The architecture is that of the base's ``config.json``, which is θ0. Experts are read when they are first asked for,
    training images too. Heads are those published with the experts, where there are any, else the text tower's.

    Arguments:
        profile: its name.
        tasks: which, in this order.
        root: folder of the files; default: `places.assets`.

    Raises:
        CheckpointError: naming every file that is missing or cut short, or the checkpoint that does not fit its base.
        ValueError: naming what is wrong with a data set.
    """
    root = places.assets() if root is None else Path(root)
    hub.need(profile, hub.repositories(profile, tasks), root)
    base, experts = hub.base_model(profile), {task: hub.expert_model(profile, task) for task in tasks}
    files = {task: hub.weights(expert, root) for task, expert in experts.items()}
    given = {task: path for task, expert in experts.items() if (path := hub.head(expert, root))}
    clip = load_clip_model(root / base.place)
    visual, size = clip.visual, clip.visual.image_size[0]
    pretrained = dict(visual.state_dict())

    def training(task: str) -> TaskData:
        hub.need(profile, [hub.data_set(task, ("train",))], root, "--splits test,train")
        return task_images(TASKS[task], "train", root, size=size, count=TRAINING_POOL)

    return Suite(
        profile=profile,
        encoder=visual,
        pretrained=pretrained,
        experts=Lazy(tasks, lambda task: load_encoder(files[task], visual, pretrained)),
        joint=None,
        heads={**clip_heads(clip, [t for t in tasks if t not in given]), **{t: load_head(p) for t, p in given.items()}},
        test={task: task_images(TASKS[task], "test", root, size=size) for task in tasks},
        mean=MEAN,
        std=STD,
        train=Lazy(tasks, training),
        assets=dict(_digests([hub.weights(base, root), *files.values(), *given.values()], root)),
    )


def _digests(files: Sequence[Path], root: Path) -> Iterator[tuple[str, str]]:
    for file in files:
        place = file.parent.relative_to(root / "models").as_posix()
        yield from ((f"{place}/{name}", digest) for name, digest in open_source(file).digests().items())


def clip_heads(clip: nn.Module, tasks: Sequence[str]) -> dict[str, Tensor]:
    """Zero-shot heads from the text tower of a CLIP model, ``[classes, dim]`` each, kept in the cache by content.

    Arguments:
        clip: an open_clip model with both towers.
        tasks: names of tasks, whose class names and prompts are taken.
    """
    text = {key: tensor for key, tensor in clip.state_dict().items() if not key.startswith("visual.")}
    assets = {"text tower": fingerprint(text)}
    block, scale = clip.transformer.resblocks[0], clip.logit_scale.detach().exp().item()
    made_by = {"heads": block.attn.num_heads, "activation": type(block.mlp.gelu).__name__}
    made_by["open_clip_torch"] = importlib.metadata.version("open_clip_torch")  # whose tokens they are
    heads = {}
    for task in tasks:
        classes, templates = TASKS[task].classes, TASKS[task].templates

        def compute(task=task, classes=classes, templates=templates) -> tuple[dict[str, Tensor], dict]:
            return {"head": zero_shot_head(classes, templates, text_encoder(clip, task), scale)}, {}

        parameters = {"classes": list(classes), "templates": list(templates), **made_by}
        tensors, _ = cached("head", parameters, assets, fingerprint_code(zero_shot_head, text_encoder), compute)
        heads[task] = tensors["head"]
    return heads
