"""Profiles: one pipeline at several scales. A profile names encoder, tasks and checkpoints; the rest is shared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..published import ARCHITECTURES, POOLS
from ..runtime.values import nearest, one_of
from ..suite import Suite
from .clip import hub
from .clip.tasks import TASKS as CLIP_TASKS
from .mini.tasks import TASKS as MINI_TASKS
from .roles import same_role
from .text.tasks import TASKS as TEXT_TASKS
from .tiny.tasks import HUB, SETTINGS, task_set


@dataclass(frozen=True)
class Profile:
    """What a profile is, and how it is loaded.

    Arguments:
        name: its id.
        summary: one line for people.
        tasks: its tasks, in order.
        recipe: the AdaMerging recipe that fits its hardware.
        load: tasks → suite.
        further: additional tasks, used only when they are named.
        base: the profile of which this one changes one setting; empty where it is its own world. The claims page
            has no separate column for it.
        without: method ids that it has no checkpoints for; a re-run leaves them out of a notebook's own list.

    Example:
        >>> am.profile("mini").tasks[:3]
        ('scenes', 'vehicles', 'aerial')
    """

    name: str
    summary: str
    tasks: tuple[str, ...]
    recipe: str
    load: Callable[[Sequence[str]], Suite]
    further: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    base: str = ""


def _load_mini(tasks: Sequence[str]) -> Suite:
    from .mini.world import load_mini  # open_clip and the generators cost seconds that other profiles need not pay

    return load_mini(tasks)


def _load_text(tasks: Sequence[str]) -> Suite:
    from .text.world import load_text  # transformers costs seconds, and is not always installed

    return load_text(tasks)


def _load_clip(name: str, tasks: Sequence[str]) -> Suite:
    from .clip.world import load_clip

    return load_clip(name, tasks)


def _load_tiny(name: str, tasks: Sequence[str]) -> Suite:
    from .tiny.world import load_tiny

    return load_tiny(name, tasks)


def _mini() -> Profile:
    """The drawn world: by default its tasks with a shipped expert. Where nothing is shipped, loading says so."""
    manifest = Path(__file__).parent / "mini" / "zoo" / "manifest.json"
    experts = json.loads(manifest.read_text(encoding="utf-8"))["files"] if manifest.is_file() else MINI_TASKS
    return Profile(
        name="mini",
        summary="procedural tasks at 32 px, a CLIP of our own with a six-block ViT; two CPU cores, minutes",
        tasks=tuple(task for task in MINI_TASKS if task in experts),
        recipe="mini",
        load=_load_mini,
        further=tuple(task for task in MINI_TASKS if task not in experts),
    )


def _text() -> Profile:
    """The world of text. Where nothing is shipped, loading says so."""
    return Profile(
        name="mini-text",
        summary="procedural tasks on English sentences, a BERT of our own with four blocks; two CPU cores, minutes",
        tasks=tuple(TEXT_TASKS),
        recipe="mini",
        load=_load_text,
    )


def _tiny(name: str, hardware: str) -> Profile:
    images = "some images of the paper's eight data sets" if name == HUB else "eight sets of real photographs"
    setting = SETTINGS[name]
    experts = f", experts trained for 1/{setting.shorter} of the steps" if setting.shorter > 1 else ""
    return Profile(
        name=name,
        summary=f"{images} at {setting.image_size} px, a pretrained ViT-Ti/16{experts}; {hardware}",
        tasks=tuple(task_set(name)),
        recipe="mini",
        load=partial(_load_tiny, name),
        base="" if name in ("tiny", HUB) else "tiny",
    )


def _clip(base: str, hardware: str, pool: str = "P2") -> Profile:
    """A profile at the paper's scale, with the paper's budgets."""
    name, arch = base if pool == "P2" else f"{base}-{pool.lower()}", hub.ARCHITECTURES[base]
    return Profile(
        name=name,
        summary=f"the paper's eight data sets at 224 px, {ARCHITECTURES[arch]}, {POOLS[pool]}; {hardware}",
        tasks=hub.EIGHT,
        recipe="paper",
        load=partial(_load_clip, name),
        further=tuple(task for task in CLIP_TASKS if task not in hub.EIGHT),
        without=("traditional_mtl",),
    )  # fmt: skip


_HARDWARE = {"clip-b32": "a GPU", "clip-b16": "a GPU", "clip-l14": "a large GPU"}
PROFILES: dict[str, Profile] = {
    "mini": _mini(),
    "mini-text": _text(),
    **{name: _tiny(name, "two CPU cores, two hours to train the experts once") for name in SETTINGS},
    **{
        clip.name: clip
        for base, hardware in _HARDWARE.items()
        for clip in (_clip(base, hardware, pool) for pool in ("P2", "P1", "P3"))
    },
}


def profile(name: str) -> Profile:
    """Return the profile of this name.

    Raises:
        ValueError: for an unknown name, with the nearest known one.

    Example:
        >>> am.profile("mini-text").summary.split(",")[0]
        'procedural tasks on English sentences'
    """
    one_of("profile", name, PROFILES)
    return PROFILES[name]


def check_tasks(profile: Profile, tasks: Sequence[str] | None = None) -> tuple[str, ...]:
    """The tasks chosen of a profile, under its own names; all by default.

    Arguments:
        profile: whose.
        tasks: names, each its own or that of another profile's task with the same role (``digits`` for ``MNIST``).

    Raises:
        ValueError: for an unknown task, a task named twice, or none.
    """
    known = (*profile.tasks, *profile.further)
    tasks = profile.tasks if tasks is None else tuple(same_role(tasks, known))
    if not tasks or len(set(tasks)) != len(tasks):
        raise ValueError(f"tasks {list(tasks)} are empty or named twice: give each task once")
    if unknown := [task for task in tasks if task not in known]:
        hint = nearest(unknown[0], known)
        raise ValueError(f"profile {profile.name!r} has no task {unknown[0]!r}: {hint}its tasks are {', '.join(known)}")
    return tasks


def load_suite(name: str = "mini", *, tasks: Sequence[str] | None = None) -> Suite:
    """Load everything that a profile has: encoder, θ0, θ_k, joint model, heads and test images.

    Arguments:
        name: profile id.
        tasks: some of its tasks, in the order wanted; see `check_tasks`. All by default; for a clip profile, the
            paper's eight, and ``hub.FOURTEEN`` or ``hub.TWENTY`` name the larger suites.

    Raises:
        ValueError: an unknown profile or task, a task named twice, or no task.
        CheckpointError: a checkpoint is missing or does not have its checksum.

    Example:
        >>> suite = am.load_suite("mini", tasks=["digits", "signs"])
        >>> suite.tasks
        ('digits', 'signs')
    """
    chosen = profile(name)
    return chosen.load(check_tasks(chosen, tasks))
