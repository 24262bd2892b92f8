"""What prose may say of numbers: Sphinx roles that look them up, so that no page holds a number typed by hand."""

from __future__ import annotations

import math
import re

import pandas as pd
from docutils import nodes

from adamerging_lib import records
from adamerging_lib.published import figure1, published
from adamerging_lib.runtime import places

from .. import claims, verdicts

_BADGES = {verdicts.HOLDS: "success", verdicts.FAILS: "danger", verdicts.NOT_RUN: "secondary"}


def published_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """A number of the paper: ``1:Task Arithmetic:Average`` (table, method, task) or ``figure 1:Ties-Merging``."""
    place, method, *task = text.split(":")
    rows = figure1() if place == "figure 1" else published(table=int(place)).query("task == @task[0]")
    rows = rows[rows["method"] == method]
    if len(rows) != 1:
        return [], [inliner.reporter.error(f"{rawtext}: {len(rows)} published numbers fit.", line=lineno)]
    return [nodes.inline(rawtext, str(rows["accuracy"].item()), classes=["published"])], []


def measured_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """A number of a record, by an expression of `claims.evaluate`: ``tiny/performance: average('ties')``.

    A ``+`` before it asks for the sign: ``+tiny/performance: average('ties') - average('task_arithmetic')``.
    """
    asked = re.fullmatch(r"(\+?)([\w-]+)/(\w+): *(.+)", text, re.DOTALL)
    path = asked and claims.record_of(asked[3], asked[2])
    value = claims.evaluate(asked[4], claims.rows_of(path)) if path else math.nan
    if math.isnan(value):
        return [], [inliner.reporter.error(f"{rawtext}: no record has that.", line=lineno)]
    digits = 2 if abs(value) < 1 else 1  # as verdicts have it
    return [nodes.inline(rawtext, f"{value:{asked[1]}.{digits}f}".replace("-", "−"))], []


def verdict_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The verdict of the performance record of the mini world on one statement of `verdicts`, as a badge."""
    record = records.read(places.results() / "mini" / "performance.json")
    found = {v.check: v.word for v in verdicts.performance(pd.DataFrame(record["rows"]), "mini")}
    if text not in found:
        known = "; ".join(found)
        return [], [inliner.reporter.error(f"{rawtext} is no statement of the record. Known: {known}", line=lineno)]
    colour = _BADGES[found[text]]
    return [nodes.inline(rawtext, found[text], classes=["sd-badge", f"sd-bg-{colour}", f"sd-bg-text-{colour}"])], []
