"""The experiments: one folder each, found by the ``claims.yml`` in it.

A room has a face that is the same everywhere:

* ``__init__.py`` states the question, the columns of its rows, and what two runs of it may differ by;
* ``measure.py`` has ``measure(suite, **parameters) -> rows``, the parameters being those of the notebook;
* ``numbers.py`` has ``numbers(sample) -> {name: [1 + draws]}``, everything that claims and prose may quote;
* ``show.py`` has tables and figures, functions of rows that import neither torch nor a method;
* ``claims.yml`` says which number decides which claim, and where its threshold lies.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Face:
    """What a room's ``__init__`` states, as ``FACE``.

    Arguments:
        question: what the experiment asks, one sentence.
        factors: column → meaning, of the columns that tell rows apart beyond those of `measuring.measure`; a row that
            a factor does not concern lacks it.
        measured: column → meaning, of measured columns beyond those of `measuring.measure`.
        shown: parameters of the notebook that change only what is shown; no part of a record.
        loads: parameters that say which suite to load, rather than how to measure it.
        tolerance: measured column → how far two runs on different machines may differ.
        world: profile of the notebook's default run.
        only: profiles that it runs on; empty for all.
    """

    question: str
    factors: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    loads: tuple[str, ...] = ("profile",)
    tolerance: Mapping[str, float] = field(default_factory=lambda: {"accuracy": 1.0})
    world: str = "mini"
    only: tuple[str, ...] = ()


def rooms() -> list[str]:
    """Names of all experiments, in the order of the book's contents where there is a checkout, else by name."""
    contents = HERE.parent / "_toc.yml"
    pages = re.findall(r"notebooks/(\w+)", contents.read_text(encoding="utf-8")) if contents.is_file() else []
    names = sorted(path.parent.name for path in HERE.glob("*/claims.yml"))
    return sorted(names, key=lambda name: pages.index(name) if name in pages else len(pages))


def face(room: str) -> Face:
    """What a room states about itself.

    Raises:
        ValueError: for a name that is not an experiment, listing those that are.
    """
    if room not in rooms():
        raise ValueError(f"there is no experiment {room!r}; there are {', '.join(rooms())}")
    return importlib.import_module(f".{room}", __package__).FACE


def part(room: str, name: str) -> ModuleType:
    """One module of a room: ``measure``, ``numbers`` or ``show``."""
    face(room)
    return importlib.import_module(f".{room}.{name}", __package__)
