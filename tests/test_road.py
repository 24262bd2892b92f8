"""The road of a suite through `adamerge`: it stays short, so that a newcomer can walk it."""

from __future__ import annotations

import sys
from pathlib import Path

import adamerging_lib as am

LIBRARY = str(Path(am.__file__).parent) + "/"
EVERYTHING = {"vectors": "ties", "setting": "inductive", "images": 8}


def walked(suite: am.Suite, **options) -> tuple[set[str], set[str]]:
    """Files of the library that a call of `adamerge` enters, and those of them whose functions hold the suite."""
    entered, holding = set(), set()

    def note(frame, event, _) -> None:
        path = frame.f_code.co_filename
        if event in ("call", "return") and path.startswith(LIBRARY):
            entered.add(path.removeprefix(LIBRARY))
            if any(value is suite for value in frame.f_locals.values()):
                holding.add(path.removeprefix(LIBRARY))

    am.adamerge(suite, steps=0, progress=False)  # torch loads much when an optimiser is first made, slowly if watched
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        am.adamerge(suite, recipe="mini", steps=1, batch_size=4, progress=False, **options)
    finally:
        sys.setprofile(before)
    return entered, holding


def test_few_files_hold_the_suite(suite, tmp_path):
    _, holding = walked(suite, checkpoint=tmp_path / "run.safetensors", **EVERYTHING)
    assert "suite.py" in holding and len(holding) <= 9, sorted(holding)


def test_the_plain_road_is_short(suite):
    """Fourteen files before there was a seam for learners; one more since one helper refuses all unknown names.

    Four more since models are told from adapters and quantised ones, made to fit, and run by a part `adapt` shares.
    """
    entered, _ = walked(suite)
    assert len(entered) <= 19, sorted(entered)
