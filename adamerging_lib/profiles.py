"""Profiles: one pipeline at several scales. A profile names encoder, tasks and checkpoints; the rest is shared."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .suite import Suite


@dataclass(frozen=True)
class Profile:
    """What a profile is, and how it is loaded.

    Arguments:
        name: its id.
        summary: one line for people.
        tasks: all its tasks, in order.
        recipe: the AdaMerging recipe that fits its hardware.
        load: tasks → suite.
    """

    name: str
    summary: str
    tasks: tuple[str, ...]
    recipe: str
    load: Callable[[Sequence[str]], Suite]


def _load_mini(tasks: Sequence[str]) -> Suite:
    from .mini import load_mini  # open_clip and the generators cost seconds that other profiles need not pay

    return load_mini(tasks)


PROFILES: dict[str, Profile] = {
    "mini": Profile(
        name="mini",
        summary="eight procedural tasks at 32 px, a CLIP of our own with a six-block ViT; two CPU cores, minutes",
        tasks=("scenes", "vehicles", "aerial", "landcover", "housenumbers", "signs", "digits", "textures"),
        recipe="mini",
        load=_load_mini,
    ),
}


def profile(name: str) -> Profile:
    """A profile by name.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if name not in PROFILES:
        near = difflib.get_close_matches(name, PROFILES, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown profile {name!r}: {hint}the profiles are {', '.join(PROFILES)}")
    return PROFILES[name]


def load_suite(name: str = "mini", *, tasks: Sequence[str] | None = None) -> Suite:
    """Everything of a profile: encoder, θ0, θ_k, joint model, heads and test images.

    Arguments:
        name: profile id.
        tasks: some of its tasks, in the order wanted; all by default.

    Raises:
        ValueError: for an unknown profile or task, a task named twice, or none.
        CheckpointError: for a checkpoint that is missing or does not have its checksum.
    """
    chosen = profile(name)
    tasks = chosen.tasks if tasks is None else tuple(tasks)
    if not tasks or len(set(tasks)) != len(tasks):
        raise ValueError(f"tasks {list(tasks)} are empty or named twice: give each task once")
    if unknown := [task for task in tasks if task not in chosen.tasks]:
        near = difflib.get_close_matches(unknown[0], chosen.tasks, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"profile {name!r} has no task {unknown[0]!r}: {hint}its tasks are {', '.join(chosen.tasks)}")
    return chosen.load(tasks)
