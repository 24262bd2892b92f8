"""The list of experiments: what each asks, how long it takes, where it was run, and what became of its claims."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from adamerging_lib import records

from .. import claims, rooms
from ..judge import FAILS, HOLDS, NOT_RUN, UNDECIDED, WORDS
from .markdown import table
from .worlds import TITLES, columns, heading, nearest


def experiments_text() -> str:
    """A table of every experiment that has a record: question, minutes, and per world the count of each word."""
    worlds = columns()
    rows = []
    for room in rooms.rooms():
        near = {profile: nearest(room, profile) for profile in worlds}
        if (default := claims.record_of(room, rooms.face(room).world)) is None:
            continue
        asked = f"{{doc}}`/notebooks/{room}`<br>{rooms.face(room).question}"
        rows.append([asked, minutes(records.read(default)["seconds"]), *(_counted(room, *at) for at in near.items())])
    return (
        f"{table(rows, ['experiment', 'minutes', *map(heading, worlds.values())])}\n"
        f"Under each world: on how many claims of the experiment, the papers' and the study's own, the word is "
        f"*{HOLDS}* / *{FAILS}* / *{UNDECIDED}*, with a link to that run. Minutes: wall-clock time when the "
        "record was made, on a machine that did other work, too, so often several times what a page itself says of an "
        "idle core; fits that are kept were read.\n"
    )


def minutes(seconds: float) -> str:
    """Seconds as whole minutes."""
    return "< 1" if seconds < 60 else f"{seconds / 60:.0f}"


def _counted(room: str, world: str, profile: str) -> str:
    """The count in a world's column, with the name of the profile where it is not the world's first."""
    if (record := claims.record_of(room, profile)) is None:
        return "–"
    words = Counter(verdict.word for verdict in claims.verdicts_at(record))
    told = " / ".join(str(words[word]) for word in WORDS if word != NOT_RUN)
    told += f", {words[NOT_RUN]} not run" if words[NOT_RUN] else ""
    page = f"notebooks/{room}" if rooms.face(room).world == profile else f"book/runs/{profile}/{room}"
    told = f"{{doc}}`{told} </{page}>`" if Path(f"{page}.ipynb").is_file() else told
    return told if profile == world else f"{told}<br><small>{TITLES[profile]}</small>"
