"""What pages show that is made when the book is built: claims, their count, worlds side by side, runs, methods.

The directives write MyST text and let the book's own parser read it, so that links and badges are checked like those
of any page. `DIRECTIVES` lists them.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from adamerging_lib import records
from adamerging_lib.methods import methods
from adamerging_lib.methods.registry import find
from adamerging_lib.runtime import places

from .. import claims, judge, rooms
from .. import costs as study_costs
from ..check import show as check
from . import made_by
from .answer import WORLDS, answer_text, findings_text
from .changes import changes_text
from .comparisons import claims_beside_text, comparison_text, page_of, reasons_beside_text, worlds_text
from .edition import citation_text
from .experiments import experiments_text
from .forest import PANELS, forest_text
from .markdown import measured, table
from .play.page import play_text, sweep_text
from .roles import file_of
from .summary import averages_text, gains_text, winners_text
from .worlds import columns, heading


def claims_text() -> str:
    """The papers' claims, one section per document, with published and measured values, verdicts and reasons."""
    known, worlds = claims.by_papers(), columns()
    parts = []
    for source in dict.fromkeys(claim.where.partition(",")[0] for _, claim in known):
        rows, reasons = [], []
        for number, (room, claim) in enumerate(known, start=1):
            if claim.where.partition(",")[0] != source:
                continue
            found = [claims.verdict(room, claim.id, profile) for profile in worlds]
            shown = [measured(v) if claim.concerns(w) else "–" for v, w in zip(found, worlds, strict=True)]
            place = claim.where.partition(",")[2].strip()
            rows.append([
                f'<a id="{claim.id}" href="#{claim.id}">{number}</a>', f"{claim.claim} ({place})", *shown,
                claim.published and f"*{claim.published}*",
                f"{claim.required} {claim.unit}", f"{{doc}}`page </notebooks/{room}>`",
            ])  # fmt: skip
            for profile, v in zip(worlds, found, strict=True):
                why = claim.why.get(profile)
                if v is not None and (v.word == judge.FAILS or (v.word == judge.UNDECIDED and why)):
                    reasons.append(f"* **{number}, {worlds[profile]}** ({v.word}): {why or 'no reason known yet'}")
        header = ["", "claim", *worlds.values(), "published", "holds here if", "proof"]
        parts.append(f"## {source}\n\n{table(rows, header)}")
        if reasons:
            parts.append("**Why some do not hold, or are undecided**\n\n" + "\n".join(reasons) + "\n")
    return "\n".join(parts)


def claims_count_text() -> str:
    """How many of the papers' claims got which word, one line per world."""
    known, rows = claims.by_papers(), []
    for profile, world in columns().items():
        asked = [(room, claim) for room, claim in known if claim.concerns(profile)]
        found = [claims.verdict(room, claim.id, profile) for room, claim in asked]
        words = Counter(judge.NOT_RUN if v is None else v.word for v in found)
        alone = sum(v is not None and v.point_only for v in found)
        rows.append([heading(world), len(asked), *(words[word] for word in judge.WORDS), alone])
    return table(rows, ["", "claims", *judge.WORDS, f"of these by {judge.POINT_ONLY}"])


def claims_data() -> list[dict[str, object]]:
    """Every claim, of papers and of the study, with the verdict of each world that has a record, as plain values."""
    found = []
    for room, claim in claims.every():
        told = {"experiment": room, "id": claim.id, "claim": claim.claim, "by": claim.by, "where": claim.where}
        told |= {"holds_if": f"{claim.required} {claim.unit}", "published": claim.published or None}
        told |= {"page": page_of(room, claim), "worlds": {}}
        for profile in columns():
            v = claims.verdict(room, claim.id, profile) if claim.concerns(profile) else None
            if v is not None and v.word != judge.NOT_RUN:
                told["worlds"][profile] = {"word": str(v), "value": v.point, "interval": v.interval}
        found.append(told)
    return found


def status_text() -> str:
    """Every record, of default notebooks and of variants: time, device, versions, seeds and assets."""
    rows, assets, versions = [], {}, {}
    runs = Path("book/runs")
    for path in [*sorted(places.committed().glob("*/*.json")), *sorted(runs.glob("*/*/*/*.json"))]:
        default = runs not in path.parents
        fresh = places.results() / path.relative_to(places.committed()) if default else path
        record = records.read(fresh if fresh.is_file() else path)
        environment = record["environment"]
        assets |= record["assets"]
        digest = hashlib.sha256(repr(sorted(record["assets"].items())).encode()).hexdigest()[:8]
        name = record["experiment"]
        address = f"notebooks/{name}" if default else path.parents[1].relative_to(".").as_posix()
        told = name if default else f"{name}, run {path.parts[2]}"
        page = f"{{doc}}`{told} </{address}>`" if Path(f"{address}.ipynb").is_file() else told
        versions[tuple(sorted(environment["versions"].items()))] = None
        rows.append([
            page, record["profile"], f"{record['seconds']:.0f}", environment["device"], environment["threads"],
            ", ".join(map(str, record["seeds"])), record["started"][:10], f"`{digest}`",
        ])  # fmt: skip
    header = ["notebook", "profile", "seconds", "device", "threads", "seeds", "date", "assets"]
    listed = "\n".join(f"{name} {checksum}" for name, checksum in sorted(assets.items()))
    made = "\n".join(", ".join(f"{k} {v}" for k, v in one) for one in versions)
    return (
        f"{table(rows, header)}\n:::{{dropdown}} Versions\n```text\n{made}\n```\n:::\n\n"
        f":::{{dropdown}} SHA-256 of the assets\n```text\n{listed}\n```\n:::\n"
    )


def benchmarks_text() -> str:
    """Every row of the benchmarks' records: what was measured, and where it was, beside what, and their ratio."""
    rows = []
    for path in sorted(Path("benchmarks/results").glob("*.json")):
        record = records.read(path)
        for row in record["rows"]:
            told = ", ".join(str(row[key]) for key in ("case", "method") if key in row)
            numbers = [f"{row[key]:.4g}" if key in row else "–" for key in ("value", "baseline", "ratio")]
            rows.append([record["experiment"], told, row["quantity"], *numbers, record["environment"]["device"]])
    return table(rows, ["benchmark", "case", "quantity", "value", "against", "ratio", "device"])


def batchnorm_text() -> str:
    """What a merged model with BatchNorm reaches by what is done with its statistics, beside its experts."""
    record = records.read("benchmarks/results/batchnorm.json")
    rows = []
    for row in record["rows"]:
        learned, _, rest = row["case"].partition(", recalibrate=")
        rows.append([learned, rest, *(f"{row[key]:.1f}" for key in ("value", "spread", "baseline"))])
    spread = f"largest less smallest of {len(record['seeds'])} orders"
    return table(rows, ["coefficients", "statistics made anew at the end", "average accuracy, %", spread, "experts"])


def costs_text(which: str) -> str:
    """``step``: an adaptive step, measured; ``study``: what the published one would take; ``recipe``: ours."""
    if which == "recipe":
        return _recipe_text()
    found = study_costs.measured()
    if which == "study":
        header, *rows = study_costs.study_rows(found)
        return table(rows, header)
    header = ["arch", "K", "device", "numbers", "images", "seconds per step", "GB at the peak"]
    targets = ["plain (≤ 1.15)", "backward per task (≥ 3)", "merge per forward (≥ 10)"]
    targets.append("memory, (K + 3) encoders (≤ 1)")
    return table(study_costs.step_rows(found), header + targets)


def _recipe_text() -> str:
    """What this study's recipe and others reach from the same images, by their own steps and in its seconds."""
    record = records.read("benchmarks/results/recipe_cost.json")
    header = ["method", "budget", "accuracy on other images, %", "steps", "seconds of one core"]
    rows = []
    for row in record["rows"]:
        label = row["method"] if " " in row["method"] else find(row["method"]).label
        accuracy = f"{row['value']:.1f} ({row['spread']:.1f})"
        rows.append([label, row["budget"], accuracy, row["steps"], f"{row['seconds']:.0f}"])
    return table(rows, header)


def methods_text() -> str:
    """Every method of the registry: what it needs, gives and keeps, whether it asks for the task, and its source."""
    rows = []
    for id in methods().index:
        method = find(id)
        named = f"{method.label}<br>`{id}`"
        asks = "yes" if method.task_id else "no"
        rows.append([named, method.needs, method.gives, method.task_specific, asks, method.source])
    return table(rows, ["method", "needs", "gives", "keeps per task", "asks for the task", "source"])


def faults_text(profile: str) -> str:
    """What `adamerging check` found of the faults that were injected into a profile's experts, and false alarms."""
    if not (path := claims.record_of("check", profile)):
        return f"The doctor was not tried on {profile} yet: `make book` does it.\n"
    rows = records.frame(records.read(path))
    shown = [check.hits(rows), check.alarms(rows)]
    return "\n".join(table(frame.itertuples(index=False), frame.columns) for frame in shown)


class _Text(SphinxDirective):
    """A directive whose text a function gives."""

    optional_arguments = 5

    def run(self) -> list[nodes.Node]:
        """The parsed text."""
        text = self.make(*self.arguments)
        if self.note:
            text += f"\n{self.note(*self.arguments)}"
        kept = [*places.committed().glob("*/*.json"), *Path("book/runs").absolute().glob("*/*/*/*.json")]
        for path in [*rooms.HERE.glob("*/claims.yml"), *kept]:
            self.env.note_dependency(str(path))
        node = nodes.container()
        node.document = self.state.document
        self.state.nested_parse(
            StringList(text.splitlines(), source=self.name), self.content_offset, node, match_titles=1
        )
        return node.children


class _Drawing(_Text):
    """One whose function draws a picture: beside the doctrees, whence Sphinx copies it into the built book."""

    def run(self) -> list[nodes.Node]:
        """The parsed text."""
        picture = Path(self.env.doctreedir, "drawn", f"{self.name}.png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        address = os.path.relpath(picture, Path(self.env.doc2path(self.env.docname)).parent)
        self.arguments = [picture, Path(address).as_posix()]
        return super().run()


def directive(
    make: Callable[..., str], note: Callable[..., str] | None = None, kind: type[_Text] = _Text
) -> type[_Text]:
    """A directive from a function of its arguments that gives MyST text, and from one that gives a note below it."""
    return type(make.__name__, (kind,), {"make": staticmethod(make), "note": note and staticmethod(note)})


def _from(room: str, profiles: Iterable[str] = tuple(WORLDS)) -> Callable[..., str]:
    """The note of what is made from an experiment's records in some worlds."""

    def note(*_: object) -> str:
        found = [claims.record_of(room, profile) for profile in profiles]
        return made_by.generated(file_of(path) for path in found if path)

    return note


def _from_all() -> str:
    return made_by.generated(["results/*/*.json", "book/runs/*/*/*/*.json", "adamerging_study/*/claims.yml"])


def _from_benchmark(which: str) -> str:
    name, more = ("recipe_cost", "") if which == "recipe" else ("adamerging_step", "*")
    return made_by.generated([f"benchmarks/results/{name}{more}.json"], f"`python benchmarks/{name}.py`")


DIRECTIVES = {
    "answer": answer_text,
    "forest": forest_text,
    "findings": findings_text,
    "averages": averages_text,
    "task-gains": gains_text,
    "winners": winners_text,
    "claims": claims_text,
    "claims-count": claims_count_text,
    "claims-beside": claims_beside_text,
    "reasons-beside": reasons_beside_text,
    "run-status": status_text,
    "benchmarks": benchmarks_text,
    "batchnorm": batchnorm_text,
    "costs": costs_text,
    "run-comparison": comparison_text,
    "worlds": worlds_text,
    "methods-table": methods_text,
    "faults-found": faults_text,
    "play": play_text,
    "lambda-sweep": sweep_text,
    "experiments": experiments_text,
    "changes": changes_text,
    "how-to-cite": citation_text,
}


NOTES = {
    "forest": _from("performance", PANELS),
    "averages": _from("performance"),
    "task-gains": _from("performance"),
    "winners": _from("leaderboard"),
    "experiments": _from_all,
    "claims": _from_all,
    "claims-count": _from_all,
    "costs": _from_benchmark,
}
"""Directive → what says below it what it was made from."""
DRAWN = {"forest"}
"""Directives whose function draws a picture into a file."""


def setup(app) -> None:
    """Add the directives to Sphinx."""
    for name, make in DIRECTIVES.items():
        app.add_directive(name, directive(make, NOTES.get(name), _Drawing if name in DRAWN else _Text))
