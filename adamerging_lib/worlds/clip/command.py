"""The subcommand ``adamerging fetch``: its options, and what it says."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ...runtime import places
from .. import profiles
from ..tiny.tasks import HUB
from . import fetch, hub
from .hub import size

_EPILOG = """\
The files go below $ADAMERGING_ASSETS (by default adamerging/assets of the user's cache folder), as they lie on the hub.
An interrupted run is taken up by the next; files that are there are checked against the hub's digests, not fetched
again, and never replaced without --force."""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand to the command's parser."""
    parser = commands.add_parser("fetch", help="models and data sets of a profile, from the hub", epilog=_EPILOG)
    parser.add_argument(
        "--profile",
        required=True,
        choices=[name for name in profiles.PROFILES if name == HUB or name.startswith("clip-")],
        help="for which profile",
    )
    parser.add_argument("--tasks", metavar="A,B", help="some of its tasks; by default the paper's eight")
    parser.add_argument("--only", choices=("models", "datasets"), help="one of the two")
    parser.add_argument(
        "--splits", metavar="A,B",
        help="of the data sets: test by default; test,train for methods that need training images, and for tiny-hub",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, and stop")
    parser.add_argument("--force", action="store_true", help="replace files that are not the hub's")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    """What the subcommand does.

    Raises:
        ValueError: saying what to mend.
    """
    tasks = given.tasks.split(",") if given.tasks else None
    chosen = profiles.check_tasks(profiles.profile(given.profile), tasks)
    root = places.assets()
    splits = given.splits or ("test,train" if given.profile == HUB else "test")
    everything = list(hub.repositories(given.profile, chosen, only=given.only, splits=splits.split(",")))
    wanted = [repository for repository in everything if not repository.source]
    elsewhere = [repository for repository in everything if repository.source]
    try:
        files = list(fetch.ask(wanted))
    except ConnectionError as error:
        print(fetch.by_hand(everything, root, error))
        return
    print(f"checking what is in {root}", flush=True)
    states = {file: fetch.state_of(file, root) for file in files}
    needed = [file for file, state in states.items() if state != fetch.THERE]
    print(told(files, states, root))
    if strangers := [file.place for file in needed if states[file] == fetch.DIFFERENT and not given.force]:
        raise ValueError(
            f"below {root} lies, under a name of the hub's, what is not the hub's file: {', '.join(strangers)}. Move "
            f"it away, or replace it with --force"
        )
    fetch.room(needed, root)
    if needed and not given.dry_run:
        _fetch(needed, root)
    if missing := [name for repository in elsewhere for name in hub.present(repository, root)[0]]:
        raise ValueError(
            f"these are not on the hub: download them from where {elsewhere[0].page} says, and put them below "
            f"{root}:\n  " + "\n  ".join(missing)
        )
    if given.profile == HUB and not given.dry_run:
        print("next: `adamerging zoo --profile tiny-hub` makes packs of these images, once, and trains on them")


def _fetch(needed: Sequence[fetch.File], root: Path) -> None:
    fetch.check(root)
    for number, file in enumerate(needed, 1):
        print(f"{number}/{len(needed)} {file.place}, {size(fetch.remaining(file, root))} to come", flush=True)
        try:
            fetch.download(file, root)
        except ConnectionError as error:
            raise ValueError(f"{error}; {number - 1} of {len(needed)} files are done. Run the same again") from error
    print(f"all is there, and as the hub has it: {root}")


def told(files: Sequence[fetch.File], states: dict[fetch.File, str], root: Path) -> str:
    """What is needed, what of it is here, licences and sources, and the room it takes."""
    lines = []
    for repository in dict.fromkeys(file.repository for file in files):
        own = [file for file in files if file.repository == repository]
        missing = [file for file in own if states[file] != fetch.THERE]
        lines.append(
            {
                "from": repository.page,
                "for": repository.task or "base",
                "files": len(own),
                "size": size(sum(file.size for file in own)),
                "to fetch": size(sum(fetch.remaining(file, root) for file in missing)) if missing else "-",
                "licence": own[0].licence,
            }
        )
    table = pd.DataFrame(lines).to_string(index=False, justify="left")
    named = [f"{states[file]}: {file.place}, {size(file.size)}" for file in files if states[file] != fetch.THERE]
    needed = sum(fetch.remaining(file, root) for file in files if states[file] != fetch.THERE)
    there = next(place for place in (root, *root.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    end = f"{size(needed)} to fetch into {root}, where {size(free)} are free" if needed else "nothing is missing"
    return "\n".join([table, *named, end])
