"""What readers call worlds and runs, and which pages an experiment has beside its default one."""

from __future__ import annotations

from pathlib import Path

import yaml

from adamerging_lib.published import ARCHITECTURES
from adamerging_lib.worlds.clip import hub
from adamerging_lib.worlds.profiles import PROFILES

from .. import claims

RUNS_FILE = Path("runs.yml")
DEFAULT = "mini"
"""The profile of the notebooks' default runs."""

# Here and not in the library: a word that pages use should not make notebooks run again.
TITLES = {
    "mini": "the drawn world",
    "mini-text": "the world of text",
    "tiny": "photographs",
    "tiny-64": "photographs at 64 px",
    "tiny-128": "photographs at 128 px",
    "tiny-short": "photographs, experts trained less",
    "tiny-hub": "photographs from the hub",
    **{
        f"{name}{suffix}": f"the paper's scale, {ARCHITECTURES[arch]}{pool}"
        for name, arch in hub.ARCHITECTURES.items()
        for suffix, pool in (("", ""), ("-p1", ", pool P1"), ("-p3", ", pool P3"))
    },
}
"""Profile → what prose calls its world."""


def columns() -> dict[str, str]:
    """Profile → title, of the worlds that pages set side by side; see `claims.profiles`."""
    return {name: TITLES[name] for name in claims.profiles({name: known.base for name, known in PROFILES.items()})}


def nearest(room: str, profile: str) -> str:
    """The profile itself where an experiment has a record of it, else one of the same world that it has one of."""
    alike = [name for name, known in PROFILES.items() if known.base == profile]
    return next((name for name in (profile, *alike) if claims.record_of(room, name)), profile)


def called(run: str, profile: str) -> str:
    """What a reader calls a run: by its world, and by its own name where that is another.

    Arguments:
        run: its name in ``runs.yml``.
        profile: the one it ran on.
    """
    return TITLES[profile] if run == profile else f"{TITLES[profile]}, run {run}"


def heading(told: str) -> str:
    """What `called` gives, as it stands at the beginning of a line."""
    return told[0].upper() + told[1:]


def run_of(docname: str) -> str | None:
    """The run whose page ``docname`` is; None for a default page."""
    parts = docname.split("/")
    return parts[2] if parts[:2] == ["book", "runs"] and len(parts) == 4 else None


def variants(name: str) -> dict[str, str]:
    """Run → profile, of all that ``runs.yml`` has of notebook ``name``; those named after their world first."""
    text = yaml.safe_load(RUNS_FILE.read_text(encoding="utf-8")) if RUNS_FILE.is_file() else {}
    runs = {run: pages[name].get("profile", DEFAULT) for run, pages in text.get("runs", {}).items() if name in pages}
    return dict(sorted(runs.items(), key=lambda entry: entry[0] != entry[1]))


def links(name: str, run: str | None = None) -> str:
    """A line of links to the other pages of an experiment; empty where it has none.

    Arguments:
        name: its notebook.
        run: the variant whose page the line stands on; None for the default page.
    """
    pages = {f"/notebooks/{name}": TITLES[DEFAULT]} if run else {}
    for other, profile in variants(name).items():
        if other != run and Path(f"book/runs/{other}/{name}.ipynb").is_file():
            pages[f"/book/runs/{other}/{name}"] = called(other, profile)
    linked = " · ".join(f"{{doc}}`{told} <{page}>`" for page, told in pages.items())
    return linked and f"Other runs of this experiment: {linked}"
