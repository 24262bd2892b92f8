"""The subcommand ``adamerging fetch``: its options, and what it says."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..runtime import places
from ..runtime.values import one_of
from ..worlds import profiles
from ..worlds.clip import fetch, hub
from ..worlds.clip.hub import size
from ..worlds.tiny.tasks import HUB

_KINDS = ("models", "datasets")


def fetch_profile(
    profile: str,
    *,
    tasks: str | None = None,
    only: str | None = None,
    splits: str | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> None:
    """Fetch what a profile needs, and say what and how much it is.

    Arguments:
        profile: one that takes files of the hub.
        tasks: some of its tasks, ``A,B``; default: the paper's eight.
        only: ``models`` or ``datasets``.
        splits: of the data sets, ``A,B``; default: what the profile needs.
        dry_run: only say what would be fetched.
        force: replace files that are not the hub's.

    Raises:
        ValueError: saying what to mend.
    """
    if only is not None:
        one_of("--only", only, _KINDS)
    chosen = profiles.check_tasks(_on_hub(profile), tasks.split(",") if tasks else None)
    root = places.assets()
    splits = splits or ("test,train" if profile == HUB else "test")
    everything = list(hub.repositories(profile, chosen, only=only, splits=splits.split(",")))
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
    if strangers := [file.place for file in needed if states[file] == fetch.DIFFERENT and not force]:
        raise ValueError(
            f"below {root} lies, under a name of the hub's, what is not the hub's file: {', '.join(strangers)}. Move "
            f"it away, or replace it with --force"
        )
    fetch.room(needed, root)
    if needed and not dry_run:
        _fetch(needed, root)
    if missing := [name for repository in elsewhere for name in hub.present(repository, root)[0]]:
        raise ValueError(
            f"these are not on the hub: download them from where {elsewhere[0].page} says, and put them below "
            f"{root}:\n  " + "\n  ".join(missing)
        )
    if profile == HUB and not dry_run:
        print("next: `adamerging zoo --profile tiny-hub` makes packs of these images, once, and trains on them")


def _on_hub(name: str) -> profiles.Profile:
    known = [each for each in profiles.PROFILES if each == HUB or each.startswith("clip-")]
    if name in profiles.PROFILES and name not in known:
        raise ValueError(f"profile {name!r} takes nothing from the hub: choose from {', '.join(known)}")
    return profiles.profile(name)


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
