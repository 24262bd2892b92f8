"""Pages made when the book is built: claims, their count, status of runs, variants beside defaults, the methods.

The directives ``{claims}``, ``{claims-count}``, ``{claims-beside}``, ``{reasons-beside}``, ``{run-status}``,
``{benchmarks}``, ``{costs}``, ``{run-comparison}`` and ``{methods-table}`` write MyST text and let the book's own
parser read it, so that links and badges are checked like those of any page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from . import claims, places, records, study_costs, verdicts
from .methods import methods
from .tables import reasons

BADGES = {verdicts.HOLDS: "success", verdicts.FAILS: "danger", verdicts.NOT_RUN: "secondary"}


def badge(word: str) -> str:
    """A verdict as a badge of sphinx-design."""
    return f"{{bdg-{BADGES[word]}}}`{word}`"


def table(rows: Iterable[Iterable[object]], header: Iterable[str]) -> str:
    """A Markdown table in the look of the notebooks' data frames; pipes and line ends in cells are made harmless."""
    lines = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in [list(header), *rows]]
    lines.insert(1, ["---"] * len(lines[0]))
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"::::{{table}}\n:class: dataframe\n\n{body}\n::::\n"


def claims_text() -> str:
    """All claims, one section a document, with published value, measured values and verdicts; failures explained."""
    known = claims.read()
    profiles = claims.profiles(known)
    parts = []
    for source in dict.fromkeys(claim.where.partition(",")[0] for claim in known):
        rows, reasons = [], []
        for number, claim in enumerate(known, start=1):
            if claim.where.partition(",")[0] != source:
                continue
            found = [claims.verdict(claim, profile) for profile in profiles]
            cells = [f"{badge(v.word)}<br>{_number(v)}" if v.word != verdicts.NOT_RUN else badge(v.word) for v in found]
            place = claim.where.partition(",")[2].strip()
            rows.append([
                number, f"{claim.claim} ({place})", *cells, claim.published and f"*{claim.published}*",
                f"{claim.required} {claim.unit}", f"{{doc}}`page </{claim.page}>`",
            ])  # fmt: skip
            for profile, v in zip(profiles, found, strict=True):
                if v.word == verdicts.FAILS:
                    reason = claim.why.get(profile, "no reason known yet")
                    reasons.append(f"* **{number}, {profile}**: {reason}")
        header = ["", "claim", *profiles, "published", "holds here if", "proof"]
        parts.append(f"## {source}\n\n{table(rows, header)}")
        if reasons:
            parts.append("**Why some do not hold**\n\n" + "\n".join(reasons) + "\n")
    return "\n".join(parts)


def claims_beside_text(*profiles: str) -> str:
    """Those claims, of all that were measured on each of some profiles, whose verdicts differ; and how many do not."""
    rows, measured = [], 0
    for number, claim in enumerate(claims.read(), start=1):
        found = [claims.verdict(claim, profile) for profile in profiles]
        if any(v.word == verdicts.NOT_RUN for v in found):
            continue
        measured += 1
        if len({v.word for v in found}) > 1:
            cells = [f"{badge(v.word)}<br>{_number(v)}" for v in found]
            rows.append([number, claim.claim, *cells, f"{claim.required} {claim.unit}"])
    told = f"Of {measured} claims that were measured on each, {measured - len(rows)} have the same verdict"
    if not rows:
        return f"{told}.\n"
    return f"{told}. The others:\n\n{table(rows, ['', 'claim', *profiles, 'holds here if'])}"


def reasons_beside_text(*profiles: str) -> str:
    """Experts and what adaptation gained, task by task, on profiles with the same tasks.

    Raises:
        ValueError: for a profile without a record of the experiment.
    """
    paths = {profile: claims.record_of("reasons", profile) for profile in profiles}
    if missing := [profile for profile, path in paths.items() if path is None]:
        raise ValueError(f"no record of reasons for {', '.join(missing)}: run the notebook on that profile")
    frame = reasons.beside({profile: pd.DataFrame(claims.rows_of(path)) for profile, path in paths.items()})
    return table(frame.reset_index().to_numpy(), ["task", *frame])


def _number(verdict: verdicts.Verdict) -> str:
    return f"{verdict.value:.{verdict.digits}f}"


def claims_count_text() -> str:
    """How many claims hold, one line a profile."""
    known = claims.read()
    lines = []
    for profile in claims.profiles(known):
        count = claims.count([claims.verdict(claim, profile) for claim in known])
        told = ", ".join(f"{number} {badge(word)}" for word, number in count.items() if number)
        lines.append(f"* `{profile}`: of {len(known)} claims, {told}")
    return "\n".join(lines) + "\n"


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
    """Every row of the benchmarks' records: what was measured, beside what, and their ratio."""
    rows = []
    for path in sorted(Path("benchmarks/results").glob("*.json")):
        record = records.read(path)
        for row in record["rows"]:
            told = ", ".join(str(row[key]) for key in ("case", "method") if key in row)
            numbers = [f"{row[key]:.4g}" for key in ("value", "baseline", "ratio")]
            rows.append([record["experiment"], told, row["quantity"], *numbers, record["environment"]["device"]])
    return table(rows, ["benchmark", "case", "quantity", "value", "against", "ratio", "device"])


def costs_text(which: str) -> str:
    """``step``: what an adaptive step costs, measured; ``study``: what the published study would take."""
    found = study_costs.measured()
    if which == "study":
        header, *rows = study_costs.study_rows(found)
        return table(rows, header)
    targets = ["plain (≤ 1.15)", "backward a task (≥ 3)", "merge a forward (≥ 10)", "memory, (K + 3) encoders (≤ 1)"]
    header = ["arch", "K", "device", "numbers", "images", "seconds a step", "GB at the peak", *targets]
    return table(study_costs.step_rows(found), header)


def comparison_text(name: str, run: str) -> str:
    """Averages of a variant's record beside those of the default run; empty where one of them has no record."""
    path = next(iter(sorted(Path("book/runs", run, name).glob("*/*.json"))), None)
    if path is None:
        return ""
    variant = records.read(path)
    own = claims.record_of(variant["experiment"], variant["profile"])
    if own is None or own.resolve() == path.resolve():  # the only run of its world stands beside the default world
        own = claims.record_of(variant["experiment"], "mini")
    default = records.read(own)
    sides = [side(default["rows"]), side(variant["rows"])]
    if not len(sides[0]) or not len(sides[1]):
        return ""
    both = pd.concat(sides, axis=1, keys=["default", "this run"])
    both = both.loc[[key for key in dict.fromkeys([*sides[0].index, *sides[1].index])]]
    if both.index.nlevels > 1:  # what is the same in every row says nothing
        both = both.droplevel([name for name in both.index.names[1:] if both.index.unique(name).size < 2])
    names = methods()["label"]
    rows = [
        [
            names.get(key[0], key[0]),
            *("–" if pd.isna(part) else f"{part:g}" if isinstance(part, float) else part for part in key[1:]),
            *("–" if pd.isna(v) else f"{v:.1f}" for v in (a, b)),
            "–" if pd.isna(b - a) else f"{b - a:+.1f}",
        ]
        for key, (a, b) in zip(map(_parts, both.index), both.to_numpy(), strict=True)
    ]
    header = [
        *(name.replace("_", " ") for name in both.index.names),
        f"default ({default['profile']})",
        f"this run ({variant['profile']})",
        "difference",
    ]
    return f"## Beside the default run\n\nAverage accuracy, percent.\n\n{table(rows, header)}"


def _parts(key: object) -> tuple:
    return key if isinstance(key, tuple) else (key,)


def methods_text() -> str:
    """Every method of the registry: what it needs and keeps, whether it asks for the task, and its source."""
    yes = {True: "yes", False: "no"}
    rows = [
        [f"{row.label}<br>`{id}`", row.needs, row.task_specific, yes[row.task_id], yes[row.static], row.source]
        for id, row in methods().iterrows()
    ]
    return table(rows, ["method", "needs", "keeps a task", "asks for the task", "one fixed model", "source"])


def side(rows: Iterable[Mapping[str, Any]]) -> pd.Series:
    """Average accuracy by method and by what else tells its rows apart; mean over seeds.

    Sweeps over λ and looks along the way are left out: a page of its own shows them.
    """
    keys = ["method", "condition", "severity", "adapted_on", "group", "setting"]
    frame = pd.DataFrame(
        [r for r in rows if r.get("task") == "Average" and "accuracy" in r and not {"scaling", "step"} & r.keys()]
    )
    if frame.empty:
        return pd.Series(dtype=float)
    if "condition" in frame:
        frame["condition"] = frame["condition"].str.replace("_", " ")
    return frame.groupby([key for key in keys if key in frame], sort=False, dropna=False)["accuracy"].mean()


class _Text(SphinxDirective):
    """A directive whose text a function gives."""

    optional_arguments = 5

    def run(self) -> list[nodes.Node]:
        """The parsed text."""
        text = self.make(*self.arguments)
        self.env.note_dependency(str(claims.FILE))
        for path in places.committed().glob("*/*.json"):
            self.env.note_dependency(str(path))
        node = nodes.container()
        node.document = self.state.document
        self.state.nested_parse(
            StringList(text.splitlines(), source=self.name), self.content_offset, node, match_titles=1
        )
        return node.children


def directive(make) -> type[_Text]:
    """A directive from a function of its arguments that gives MyST text."""
    return type(make.__name__, (_Text,), {"make": staticmethod(make)})


DIRECTIVES = {
    "claims": claims_text,
    "claims-count": claims_count_text,
    "claims-beside": claims_beside_text,
    "reasons-beside": reasons_beside_text,
    "run-status": status_text,
    "benchmarks": benchmarks_text,
    "costs": costs_text,
    "run-comparison": comparison_text,
    "methods-table": methods_text,
}


def setup(app) -> None:
    """Add the directives to Sphinx."""
    for name, make in DIRECTIVES.items():
        app.add_directive(name, directive(make))
