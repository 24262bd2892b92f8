"""What a figure shows, at the end of its alternative text: a sentence made from numbers of the page's own run.

It stands in a cell's ``mystnb.image.finding``, with roles of the notebook's default run, and should be true whatever
the numbers are: ``Task Arithmetic: {number}`mini/performance: ta_average` percent, layer-wise AdaMerging: ...``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from nbformat import NotebookNode

from adamerging_lib import records
from adamerging_lib.runtime import places

from .. import claims, rooms
from .roles import ASKED, style_of

FINDING = "finding"

_NUMBER = re.compile(r"\{number\}`([^`]*)`")


def add(notebook: NotebookNode, name: str, run: str | None, profile: str) -> None:
    """End the alternative texts of a page with its findings, in place; none stays where Sphinx would see it.

    Arguments:
        notebook: the page.
        name: its name.
        run: the variant that the page shows, which may lack numbers; None for the default page.
        profile: the world that it ran on.

    Raises:
        ValueError: for a finding that cannot be read, or asks for what the default run's record does not have.
    """
    images = [cell.metadata.get("mystnb", {}).get("image", {}) for cell in notebook.cells]
    found = [(image, image.pop(FINDING)) for image in images if FINDING in image]
    if not found:
        return
    place, known = f"{rooms.face(name).world}/{name}", _known(name, run, profile)
    for image, sentence in found:
        try:
            told = said(sentence, place, known)
        except KeyError as error:
            if run is None:
                raise ValueError(f"{place} has no number {error}, for the alternative text {sentence!r}") from error
            told = None
        if told:
            image["alt"] = f"{image['alt']} {told}"


def said(sentence: str, place: str, known: Mapping[str, float | str]) -> str | None:
    """A finding as plain text, its numbers as the role prints them; None where one of them is NaN.

    Arguments:
        sentence: with roles ``{number}`...```.
        place: of the record that they ask for, ``mini/performance``.
        known: name → number or word of the record to tell of.

    Raises:
        KeyError: the record has no such number.
        ValueError: a role is misspelt, or asks for another record.
    """
    asked = [ASKED.fullmatch(role) for role in _NUMBER.findall(sentence)]
    own = all(role and f"{role['profile']}/{role['room']}" == place for role in asked)
    if not asked or not own or "`" in _NUMBER.sub("", sentence):
        raise ValueError(f"a finding should ask for numbers of {place} and for nothing else: {sentence!r}")
    values = [known[role["name"]] for role in asked]
    if any(value != value for value in values):
        return None
    told = [v if isinstance(v, str) else style_of(role, v)(v) for role, v in zip(asked, values, strict=True)]
    return _NUMBER.sub(lambda _: told.pop(0), sentence)


def _known(name: str, run: str | None, profile: str) -> dict[str, float | str]:
    """Every number and word of the record that a page shows; none where there is no record."""
    path: Path | None = claims.record_of(name, rooms.face(name).world)
    if run is not None:
        path = places.committed().parent / "book" / "runs" / run / name / profile / f"{name}.json"
    if path is None or not path.is_file():
        return {}
    numbers = {key: float(values[0]) for key, values in claims.numbers_at(path).items()}
    return claims.words_of(records.read(path)) | numbers
