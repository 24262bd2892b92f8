"""The subcommand ``adamerging zoo``: its options, and what it starts."""

from __future__ import annotations

import argparse
import difflib

from .profiles import profile
from .tiny.tasks import SETTINGS

_EPILOG = """\
The models of a tiny profile go below adamerging/zoo of the user's cache folder; images and pretrained weights are taken
from $ADAMERGING_ASSETS, where `adamerging fetch --profile tiny-hub` puts what that profile needs. An interrupted run is
taken up by the next. The mini profile ships its models; `--profile mini` trains them from nothing, into _build/zoo."""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand to the command's parser."""
    parser = commands.add_parser("zoo", help="train the models of a profile on this machine", epilog=_EPILOG)
    parser.add_argument("--profile", required=True, choices=("mini", *SETTINGS), help="for which profile")
    parser.add_argument("--models", metavar="A,B", help="some of a tiny profile's: tasks, and joint; all by default")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument(
        "--bfloat16", action="store_true", help="tiny profiles: train in it, faster where the hardware has it"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    """What the subcommand does.

    Raises:
        ValueError: saying what to mend.
    """
    if given.profile == "mini":
        if given.models:
            raise ValueError("--models is for tiny profiles: the mini world's models are trained one from the other")
        from .mini.build import main

        main(["--device", given.device])
        return
    known = (*profile(given.profile).tasks, "joint")
    names = tuple(given.models.split(",")) if given.models else known
    if unknown := [name for name in names if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"profile {given.profile!r} has no model {unknown[0]!r}: {hint}it has {', '.join(known)}")
    from .tiny.build import build

    build(given.profile, names, given.device, bfloat16=given.bfloat16)
