"""Texts that set worlds and runs side by side: claims, reasons, and a variant beside the default run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from adamerging_lib import records
from adamerging_lib.worlds.profiles import PROFILES

from .. import claims, judge, rooms
from ..reasons import show as reasons
from .markdown import measured, table
from .worlds import TITLES, columns, nearest

_LEGEND = (
    "In brackets: the 95 % interval from which the verdict follows ({doc}`/book/claims` says how). "
    "A number without an interval involves no chance"
)
MISSING = "–"
"""For a key that a row does not have."""
_TITLES = {"paper": "The papers' claims", "study": "The study's own claims"}
_STARRED = ", unless an asterisk says that the verdict rests on the measured value alone"


def worlds_text(name: str) -> str:
    """What is claimed of an experiment beside what every world's record says, folded; empty for other notebooks.

    The papers' claims and the study's own are folded apart.

    Arguments:
        name: a notebook.
    """
    known = claims.claims_of(name) if name in rooms.rooms() else []
    if not known:
        return ""
    sides = {speaker: [claim for claim in known if claim.by == speaker] for speaker in judge.SPEAKERS}
    parts = [
        f":::::{{dropdown}} {_TITLES[speaker]}, in every world: {len(part)}\n{_claimed(name, part)}:::::\n"
        for speaker, part in sides.items()
        if part
    ]
    legend = _LEGEND + (_STARRED if any(r"\*" in part for part in parts) else "")
    return "\n".join([*parts, f"{legend}.\n"])


def anchor(room: str, claim: judge.Claim) -> str:
    """The id of a claim's row: the claim's own on the page of the papers' claims, else with its experiment's name."""
    return claim.id if claim.by == "paper" else f"{room}-{claim.id}"


def page_of(room: str, claim: judge.Claim) -> str:
    """Where a claim stands in the built book: the papers' on one page, the study's own on their experiment's."""
    page = "book/claims" if claim.by == "paper" else f"notebooks/{room}"
    return f"{page}.html#{anchor(room, claim)}"


def _claimed(room: str, known: Sequence[judge.Claim]) -> str:
    near = [nearest(room, profile) for profile in columns()]
    worlds = {profile: TITLES[profile] for profile in near if claims.record_of(room, profile)}
    printed = any(claim.published for claim in known)

    def found(claim: judge.Claim, profile: str) -> str:
        return measured(claims.verdict(room, claim.id, profile)) if claim.concerns(profile) else "–"

    def link(claim: judge.Claim) -> str:
        id = anchor(room, claim)
        return f' <a id="{id}" href="#{id}" aria-label="Link to this claim">#</a>' if claim.by == "study" else ""

    rows = [
        [
            f"{claim.claim}<br><small>holds at {claim.required} {claim.unit}{link(claim)}</small>",
            *([claim.published and f"*{claim.published}*"] if printed else []),
            *(found(claim, profile) for profile in worlds),
        ]
        for claim in known
    ]
    return table(rows, ["claim", *(["published"] if printed else []), *worlds.values()])


def claims_beside_text(*profiles: str) -> str:
    """Those of the papers' claims, of all that were measured on each of some profiles, whose verdicts differ."""
    rows, count = [], 0
    for number, (room, claim) in enumerate(claims.by_papers(), start=1):
        found = [claims.verdict(room, claim.id, profile) for profile in profiles]
        if any(v is None or v.word == judge.NOT_RUN for v in found):
            continue
        count += 1
        if len({v.word for v in found}) > 1:
            rows.append([number, claim.claim, *map(measured, found), f"{claim.required} {claim.unit}"])
    told = f"Of {count} claims that were measured on each, {count - len(rows)} have the same verdict"
    if not rows:
        return f"{told}.\n"
    return f"{told}. The others:\n\n{table(rows, ['', 'claim', *map(TITLES.get, profiles), 'holds here if'])}"


def reasons_beside_text(*profiles: str) -> str:
    """Experts and what adaptation gained, task by task, on profiles with the same tasks.

    Raises:
        ValueError: for a profile without a record of the experiment.
    """
    paths = {profile: claims.record_of("reasons", profile) for profile in profiles}
    if missing := [profile for profile, path in paths.items() if path is None]:
        raise ValueError(f"no record of reasons for {', '.join(missing)}: run the notebook on that profile")
    frame = reasons.beside({TITLES[profile]: records.frame(records.read(path)) for profile, path in paths.items()})
    return table(frame.reset_index().to_numpy(), ["task", *frame])


def comparison_text(name: str, run: str) -> str:
    """Averages of a variant's record beside those of the default run; empty where one of them has no record."""
    path = next(iter(sorted(Path("book/runs", run, name).glob("*/*.json"))), None)
    if path is None:
        return ""
    variant = records.read(path)
    own = claims.record_of(variant["experiment"], variant["profile"])
    if own is None or own.resolve() == path.resolve():  # the only run of its world: beside the one that it changes
        worlds = [PROFILES[variant["profile"]].base or "mini", "mini"]
        own = next(filter(None, (claims.record_of(variant["experiment"], world) for world in worlds)))
    default = records.read(own)
    factors = rooms.face(variant["experiment"]).factors
    sides = [side(record["rows"], factors) for record in (default, variant)]
    if not len(sides[0]) or not len(sides[1]):
        return ""
    both = pd.concat(sides, axis=1, keys=["default", "this run"])
    both = both.loc[[key for key in dict.fromkeys([*sides[0].index, *sides[1].index])]]
    for key in ("condition", "unseen"):  # where this run looked at one situation alone, the others are not its own
        if len(own := sides[1].index.unique(key)) == 1:
            both = both[both.index.get_level_values(key).isin(own)]
    if both.index.nlevels > 1:  # what is the same in every row says nothing
        both = both.droplevel([name for name in both.index.names[1:] if both.index.unique(name).size < 2])
    known = {**default["methods"], **variant["methods"]}
    rows = [
        [
            known[key[0]]["label"] if key[0] in known else key[0],
            *(f"{part:g}" if isinstance(part, float) else part for part in key[1:]),
            *("–" if pd.isna(v) else f"{v:.1f}" for v in (a, b)),
            "–" if pd.isna(b - a) else f"{b - a:+.1f}",
        ]
        for key, (a, b) in zip(map(_parts, both.index), both.to_numpy(), strict=True)
    ]
    other, this = (TITLES[record["profile"]] for record in (default, variant))
    if other == this:
        other, this = "the default run", "this run"
    header = [*(name.replace("_", " ") for name in both.index.names), other, this, "difference"]
    return f"## Beside {other}\n\nAverage accuracy, percent.\n\n{table(rows, header)}"


def _parts(key: object) -> tuple:
    return key if isinstance(key, tuple) else (key,)


def side(rows: Iterable[Mapping[str, Any]], factors: Iterable[str]) -> pd.Series:
    """Average accuracy by method and by what else tells its rows apart; mean over seeds.

    Sweeps over λ, looks along the way and single levels of other factors are left out: a page of its own shows them.

    Arguments:
        rows: of a record.
        factors: those of its experiment.
    """
    keys = ["method", "condition", "severity", "adapted_on", "unseen", "group", "setting"]
    varied = set(factors) - set(keys)
    frame = pd.DataFrame([r for r in rows if r.get("task") == "Average" and "accuracy" in r and not varied & r.keys()])
    if frame.empty:
        return pd.Series(dtype=float)
    if "condition" in frame:
        frame["condition"] = frame["condition"].str.replace("_", " ")
    frame = frame.reindex(columns=[*keys, "accuracy"])  # all keys, so that two records have the same
    frame[keys] = frame[keys].astype(object).where(frame[keys].notna(), MISSING)
    return frame.groupby(keys, sort=False)["accuracy"].mean()
