"""What the page *Play: merge in your browser* shows without JavaScript, and the script with the world that it reads.

The directives ``{play}`` and ``{lambda-sweep}`` leave places that ``play.js`` and ``sweep.js`` fill. The tables below
them hold the same numbers for print, and for browsers without JavaScript.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adamerging_lib.methods.registry import find

from ...sample import AVERAGE
from ..markdown import table
from . import world
from .kept import made

DATA = "play-world.js"
SCRIPTS = ("play-engine.js", "play.js", DATA)


def play_text() -> str:
    """The place of the controls, and a table of what rounding the weights costs."""
    rows = [
        [row["label"], f"{row['whole']:.2f}", f"{row['rounded']:.2f}", f"{row['rounded'] - row['whole']:+.2f}",
         row["changed"]]
        for row in made()[1]
    ]  # fmt: skip
    header = [
        "coefficients", "accuracy with whole weights, %", "with rounded weights, %", "difference, points",
        f"predictions that differ, of {len(world.TASKS) * world.IMAGES}",
    ]  # fmt: skip
    return f"{_place('play')}\n**What rounding the weights costs**\n\n{table(rows, header)}"


def sweep_text() -> str:
    """The place of the slider over λ with the record's numbers, and the same numbers as tables, one per method."""
    found = world.sweep()
    told = {"average": AVERAGE, "methods": [{"label": find(m).label, "accuracy": at} for m, at in found.items()]}
    parts = [_place("sweep", json.dumps(told, ensure_ascii=False, separators=(",", ":")))]
    for method, at in found.items():
        rows = [[task, *(f"{at[scaling][task]:.1f}" for scaling in at)] for task in next(iter(at.values()))]
        parts.append(f"**{find(method).label}**: accuracy in % per task and λ\n\n{table(rows, ['', *at])}")
    return "\n".join(parts)


def add_scripts(app, pagename: str, templatename: str, context: dict[str, Any], doctree) -> None:
    """Scripts and style of the two places, on the page that has them and on no other."""
    if app.builder.name != "html":  # one page with the whole book is for print
        return
    body = context.get("body", "")
    wanted = [name for mark, names in (("play", SCRIPTS), ("sweep", ("sweep.js",))) if _open(mark) in body
              for name in names]  # fmt: skip
    for name in wanted:
        app.add_js_file(name)
    if wanted:
        app.add_css_file("play.css")
    app.env.adamerging_plays = getattr(app.env, "adamerging_plays", False) or DATA in wanted


def write_data(app, exception: Exception | None) -> None:
    """The script with the world, beside the pages, where one of them plays with it."""
    if exception is None and getattr(app.env, "adamerging_plays", False):
        Path(app.outdir, "_static", DATA).write_bytes(made()[0])


def _place(name: str, data: str = "") -> str:
    """A place for JavaScript, with the data that it reads; a sentence stands there until a script fills it."""
    safe = data.replace("</", r"<\/")
    inside = f'<script type="application/json">{safe}</script>' if data else ""
    note = '<p class="play-static">This part moves with JavaScript; the table below it holds the same numbers.</p>'
    return f"```{{raw}} html\n{_open(name)}{inside}{note}</div>\n```\n"


def _open(name: str) -> str:
    return f'<div id="{name}" class="{name}">'
