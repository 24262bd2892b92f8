"""Roles: which published data set's place a task takes, in every world; read off the worlds' own tables of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .mini import tasks as mini
from .tiny import tasks as tiny


def _of(tasks: Mapping[str, mini.MiniTask | tiny.TinyTask]) -> dict[str, str]:
    return {name: task.stand_in for name, task in tasks.items() if task.stand_in}


STAND_IN = _of(mini.TASKS)
"""Task of the mini world → the published task that it stands in for; a task that has no such role is not here."""
TINY_STAND_IN = _of(tiny.TASKS)
"""The same for the tasks of the tiny profiles that need no hub."""
HUB_STAND_IN = _of(tiny.HUB_TASKS)
"""The same for those of the profile `tiny-hub`: the published tasks themselves."""
ROLES = STAND_IN | TINY_STAND_IN | HUB_STAND_IN


def same_role(tasks: Iterable[str], known: Iterable[str]) -> list[str]:
    """Names of tasks as those who know others call them; the one place that translates, in both directions.

    Arguments:
        tasks: names, of the mini world's tasks or of published ones.
        known: the names there are.

    Returns:
        Every task of ``tasks`` under the name in ``known`` that has the same role; as it is where there is none.
    """
    by_role = {ROLES.get(task, task): task for task in known}
    return [by_role.get(ROLES.get(task, task), task) for task in tasks]
