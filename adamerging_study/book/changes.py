"""Named versions of the study, and which verdicts changed from one to the next.

python -m adamerging_study.book.changes note paper-recipe --title "The paper's recipe" --told "Five seeds, 500 steps."

A version keeps the words of every record on every claim, as ``results/verdicts.csv`` had them at its commit, so that
pages can compare versions where there is no history of git: in an archive, or in a shallow clone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import yaml

from adamerging_lib.command.line import call
from adamerging_lib.runtime import places
from adamerging_lib.runtime.atomic import atomic

from .. import claims
from ..judge import POINT_ONLY, WORDS
from .markdown import badge, table
from .worlds import TITLES

VERDICTS = "results/verdicts.csv"
_PLACE = re.compile(r"(?:results|book/runs/(?P<run>[^/]+)/\w+)/(?P<profile>[^/]+)/(?P<room>\w+)\.json")


def folder() -> Path:
    """Where versions lie: ``versions.yml``, and one table of words each."""
    return places.committed() / "versions"


def versions() -> list[dict[str, str]]:
    """Every named version, the oldest first: name, title, date, commit, told."""
    path = folder() / "versions.yml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or []) if path.is_file() else []


def words(path: Path) -> dict[tuple[str, str], str]:
    """(record, claim) → word, of a table of verdicts."""
    frame = pd.read_csv(path, dtype=str)
    return {(row.record, row.claim): row.word for row in frame.itertuples()}


def note(name: str, title: str, told: str, commit: str = "HEAD") -> Path:
    """Name a version: keep the verdicts that are committed there.

    Arguments:
        name: lower-case letters, digits and hyphens; the name of its file.
        title: its heading on the page.
        told: what was done since the version before, in a sentence or two.
        commit: any name of git for the commit.

    Raises:
        ValueError: the name is taken or no name, there is no such commit, or it has no verdicts.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError(f"{name!r} is not a name of a version: take lower-case letters, digits and hyphens")
    known = versions()
    if name in [version["name"] for version in known]:
        raise ValueError(f"there is a version {name!r} already: take another name")
    kept = _git("show", f"{commit}:{VERDICTS}", mend=f"name a commit that has {VERDICTS}")
    full, date = _git("show", "--no-patch", "--format=%H %cs", commit, mend="name a commit").split()
    folder = places.committed() / "versions"
    with atomic(folder / f"{name}.csv") as temporary:
        temporary.write_text(kept, encoding="utf-8")
    known.append({"name": name, "title": title, "date": date, "commit": full, "told": told})
    with atomic(folder / "versions.yml") as temporary:
        temporary.write_text(yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=118), encoding="utf-8")
    return folder / f"{name}.csv"


def changes_text() -> str:
    """What changed from each version to the next, the latest first, and since the last one."""
    known = versions()
    if not known:
        raise ValueError(f"{folder()} names no version: `python -m adamerging_study.book.changes note` does")
    found = [words(folder() / f"{version['name']}.csv") for version in known]
    now = words(places.committed() / "verdicts.csv")
    parts = [f"## Since then\n\n{_compared(found[-1], now)}"] if now != found[-1] else []
    for place in range(len(known) - 1, -1, -1):
        version = known[place]
        when = f"{version['date']}, commit {version['commit'][:7]}"
        head = f"## {version['title']}\n\n*{when}.* {version['told']}\n\n"
        parts.append(head + (_compared(found[place - 1], found[place]) if place else _first(found[0])))
    return "\n".join(parts)


def _first(words: dict[tuple[str, str], str]) -> str:
    counted = Counter(map(_plain, words.values()))
    said = ", ".join(f"{counted[word]} *{word}*" for word in WORDS if counted[word])
    return f"{len(words)} verdicts: {said}.\n"


def _compared(before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> str:
    """One pair of versions: a sentence that counts, and a table of the words that changed."""
    both = [key for key in after if key in before]
    changed = [key for key in both if _plain(before[key]) != _plain(after[key])]
    how = f"the word of {len(changed)} changed" if changed else "no word changed"
    counts = f"{len(both)} verdicts are in both versions; {how}."
    counts += _listed("New", [key for key in after if key not in before])
    counts += _listed("No longer there", [key for key in before if key not in after])
    if not changed:
        return f"{counts}\n"
    rows = [[_claim(*key), _place(key[0]), _badge(before[key]), _badge(after[key])] for key in changed]
    return f"{counts}\n\n{table(rows, ['claim', 'measured in', 'before', 'then'])}"


def _listed(lead: str, keys: list[tuple[str, str]]) -> str:
    counted = Counter(_world(record) for record, _ in keys)
    return f" {lead}: {len(keys)} ({'; '.join(f'{n} in {world}' for world, n in counted.items())})." if keys else ""


def _claim(record: str, id: str) -> str:
    """The claim in today's words, linked where *Claims* lists it; its id where it is no longer made."""
    room = _PLACE.fullmatch(record)["room"]
    claim = next((c for place, c in claims.every() if (place, c.id) == (room, id)), None)
    if claim is None:
        return f"`{id}`"
    return f'<a href="claims.html#{id}">{claim.claim}</a>' if claim.by == "paper" else claim.claim


def _place(record: str) -> str:
    """An experiment and its run, as in "robustness, photographs"."""
    return f"{_PLACE.fullmatch(record)['room'].replace('_', ' ')}, {_world(record)}"


def _world(record: str) -> str:
    """What readers call the world of a record and its run; versions may know worlds that are gone."""
    run, profile = _PLACE.fullmatch(record).group("run", "profile")
    return TITLES.get(profile, profile) + (f", run {run}" if run and run != profile else "")


def _plain(word: str) -> str:
    return word.removesuffix(f" ({POINT_ONLY})")


def _badge(word: str) -> str:
    return badge(_plain(word)) + (r"\*" if word != _plain(word) else "")


def _git(*arguments: str, mend: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=places.committed().parent, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)}: {done.stderr.strip()}: {mend}")
    return done.stdout


# -------------------------------------------------------------------------------------------------- the command line

PROGRAM = "python -m adamerging_study.book.changes"
app = typer.Typer(help="Named versions of the study.", add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _group() -> None:
    """Named versions of the study."""


@app.command("note", epilog=f'Example:\n  {PROGRAM} note seeds --title "More seeds" --told "Ten seeds of each fit."')
def _note(
    name: Annotated[str, typer.Argument(help="lower-case letters, digits and hyphens")],
    title: Annotated[str, typer.Option(help="heading on the page What changed")],
    told: Annotated[str, typer.Option(help="what was done since the version before")],
    commit: Annotated[str, typer.Option(help="of which the committed verdicts are kept")] = "HEAD",
) -> None:
    """Keep the committed verdicts under a name."""
    print(note(name, title, told, commit))


def main(arguments: list[str] | None = None) -> int:
    """The command line above; see `line.call` for the exit code."""
    return call(app, PROGRAM, arguments)


if __name__ == "__main__":
    sys.exit(main())
