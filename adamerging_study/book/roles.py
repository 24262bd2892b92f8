"""What prose may say of numbers: Sphinx roles that look them up, so that no page holds a number typed by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes

from adamerging_lib import records
from adamerging_lib.published import figure1, published
from adamerging_lib.runtime import places

from .. import claims, outcomes, rooms
from ..sample import interval
from .markdown import badge_colour

# A record's place, the name of a number, and how to format it: ``+tiny/robustness: gain_impulse_noise:.2f``.
ASKED = re.compile(r"(?P<sign>\+?)(?P<profile>[\w-]+)/(?P<room>\w+): *(?P<name>[\w-]+)(?P<format>:[^:\s]+)?")

_RECORD = re.compile(r"(?P<profile>[\w-]+)/(?P<room>\w+)")

NO_INTERVAL = "no interval"


def published_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """A number of the paper: ``1:Task Arithmetic:Average`` (table, method, task) or ``figure 1:Ties-Merging``."""
    place, method, *task = text.split(":")
    rows = figure1() if place == "figure 1" else published(table=int(place)).query("task == @task[0]")
    rows = rows[rows["method"] == method]
    if len(rows) != 1:
        return [], [inliner.reporter.error(f"{rawtext}: {len(rows)} published numbers fit.", line=lineno)]
    return [nodes.inline(rawtext, str(rows["accuracy"].item()), classes=["published"])], []


def number_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """A number, or a word, of a record by its name in the room's `numbers`: ``tiny/robustness: gain_impulse_noise``.

    A ``+`` before it asks for the sign; a format after the name (``:.0f``) for other digits than one (two below 1).
    """
    return _looked_up(rawtext, text, lineno, inliner, lambda values, style: style(float(values[0])))


def interval_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The 95 % interval of a number, as in "4.9 to 7.6"; *no interval* where the record holds no outcomes."""

    return _looked_up(rawtext, text, lineno, inliner, _span)


def intervals_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """What the 95 % intervals of a record are over: ``mini/performance``; *no intervals* where it holds no outcomes."""
    asked = _RECORD.fullmatch(text)
    path = asked and asked["room"] in rooms.rooms() and claims.record_of(asked["room"], asked["profile"])
    if not path:
        return [], [inliner.reporter.error(f"{rawtext}: there is no such record.", line=lineno)]
    over = covered(path)
    told = f"95 % intervals {over}" if over else "no intervals, because the record holds no outcomes of single inputs"
    return [nodes.Text(told)], []


def verdict_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The verdict of a record on a claim, as a badge: ``mini/performance: lw-over-ta``."""
    asked = ASKED.fullmatch(text)
    verdict = asked and claims.verdict(asked["room"], asked["name"], asked["profile"])
    if not verdict:
        return [], [inliner.reporter.error(f"{rawtext}: no record or no claim has that name.", line=lineno)]
    colour = badge_colour(verdict.word)
    return [nodes.inline(rawtext, str(verdict), classes=["sd-badge", f"sd-bg-{colour}", f"sd-bg-text-{colour}"])], []


def measured_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """A measured number of a text that is made when the book is built, see `marked`."""
    told, _, about = text.removesuffix(">").rpartition(" <")
    return [_explained(rawtext, told, about)], []


def marked(told: str, about: str) -> str:
    """MyST text of a number that tells where it comes from, as those of `number_role` do; plain without ``about``.

    Arguments:
        told: the number.
        about: see `about`.
    """
    return f"{{measured}}`{told} <{about}>`" if about else told


def _looked_up(rawtext: str, text: str, lineno: int, inliner, told: Callable) -> tuple[list, list]:
    asked = ASKED.fullmatch(text)
    path = asked and asked["room"] in rooms.rooms() and claims.record_of(asked["room"], asked["profile"])
    if not path:
        return [], [inliner.reporter.error(f"{rawtext}: there is no such record.", line=lineno)]
    values = claims.numbers_at(path).get(asked["name"])
    if values is None:
        words = claims.words_of(records.read(path))
        if asked["name"] in words:
            return [_explained(rawtext, words[asked["name"]], origin(path, asked["name"]))], []
    if values is None or math.isnan(values[0]):
        return [], [inliner.reporter.error(f"{rawtext}: the record has no such number.", line=lineno)]
    style = style_of(asked, values[0])
    return [_explained(rawtext, told(values, style), about(path, asked["name"], values, style))], []


def about(path: Path, name: str, values: np.ndarray, style: Callable[[float], str]) -> str:
    """Where a number comes from, see `origin`, and its 95 % interval.

    Arguments:
        path: of the record.
        name: of the number.
        values: ``[1 + draws]``, see `Sample`.
        style: how ends of the interval are written.
    """
    span = _span(values, style)
    return f"{origin(path, name)}; {span if span == NO_INTERVAL else f'95 % interval {span} {covered(path)}'}"


def style_of(asked: re.Match[str], value: float) -> Callable[[float], str]:
    """How a number is printed, and the ends of its interval.

    Arguments:
        asked: a match of `ASKED`.
        value: the number, which decides on its digits where no format is asked for.
    """
    form = f"{asked['sign']}{(asked['format'] or f':.{digits(value)}f')[1:]}"
    return lambda number: f"{number:{form}}".replace("-", "−")


def covered(path: Path) -> str:
    """What the intervals of a record are over: "over test images and seeds 0 to 4", "over test images, seed 0 alone".

    Empty for a record without outcomes, which has no intervals.

    Arguments:
        path: of the record.
    """
    return _covered(path, path.stat().st_mtime_ns)


@cache
def _covered(path: Path, stamp: int) -> str:
    record = records.read(path)
    return over(record["rows"], "texts" if "text" in record["profile"] else "images")


def over(rows: Iterable[Mapping[str, Any]], inputs: str = "images") -> str:
    """As `covered`, of a record's rows."""
    seeds = {row.get("seed") for row in rows if outcomes.FIELD in row}
    known = sorted(int(seed) for seed in seeds if seed is not None)
    if not seeds:
        return ""
    told = f"over test {inputs}"
    if len(known) > 1:
        return f"{told} and {seeds_told(known)}"
    return f"{told}, {seeds_told(known)} alone" if known else told


def seeds_told(seeds: Sequence[int]) -> str:
    """Seeds in words: "seed 0", "seeds 0 to 4", "seeds 0, 2"."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    whole = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"seeds {seeds[0]} to {seeds[-1]}" if whole else f"seeds {', '.join(map(str, seeds))}"


def origin(path: Path, name: str) -> str:
    """Where a number comes from: its name, record, the day of the run, and its seeds.

    Arguments:
        path: of the record.
        name: of the number.
    """
    return f"{name} in {_origin(path, path.stat().st_mtime_ns)}"


@cache
def _origin(path: Path, stamp: int) -> str:
    record, runs = records.read(path), places.committed().parent / "book" / "runs"
    run = f"run {path.relative_to(runs).parts[0]}" if runs in path.parents else "default run"
    seeds = ", ".join(map(str, record["seeds"]))
    counted = f"seed{'s' * (len(record['seeds']) > 1)} {seeds}"
    return f"{file_of(path)}; {run} of {record['started'][:10]}; {counted}"


def file_of(path: Path) -> str:
    """A record's file, from the repository's root; of a fresh default run, that of the record that it becomes."""
    root = places.committed().parent
    own = root / "book" / "runs" in path.parents
    return path.relative_to(root).as_posix() if own else f"results/{path.parent.name}/{path.name}"


def _span(values: np.ndarray, style: Callable[[float], str]) -> str:
    _, low, high = interval(values)
    return NO_INTERVAL if low is None or high is None else f"{style(low)} to {style(high)}"


def _explained(rawtext: str, text: str, about: str) -> nodes.abbreviation:
    """Text that tells where it comes from when the pointer rests on it."""
    return nodes.abbreviation(rawtext, text, explanation=about, classes=["measured"])


def digits(value: float) -> int:
    """How many digits after the point a measured number has on a page."""
    return 2 if abs(value) < 1 else 1
