"""Every experiment: its rows have the columns that it declares, claims and prose find their numbers, its page exists.

An experiment is tested by having a room: a new one needs parameters in small.yml, and fails here until it has.
"""

from __future__ import annotations

import ast
import inspect
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from adamerging_lib import records
from adamerging_study import claims, rooms
from adamerging_study.book import notebooks
from adamerging_study.measuring import Run

ROOT = Path(__file__).resolve().parents[1]
SMALL = yaml.safe_load((ROOT / "tests/small.yml").read_text(encoding="utf-8"))
# Columns of `measuring.measure`, which every experiment may have.
COMMON = {"method", "condition", "group", "seed", "task", "n", "setting", "split", *records.MEASURED}


@pytest.fixture(scope="module", params=rooms.rooms())
def room(request):
    return request.param


@pytest.fixture(scope="module")
def record(room, suite, tmp_path_factory):
    """The record of a small run on the toy suite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAMERGING_CACHE", str(tmp_path_factory.mktemp("fits")))
        return Run(room, "toy", SMALL[room]).measure(suite)


def test_small_parameters_are_of_every_experiment_and_of_no_other():
    assert set(SMALL) == set(rooms.rooms())


def test_the_room_says_what_it_asks(room):
    assert rooms.face(room).question.endswith("?")


def test_rows_have_the_declared_columns_and_no_other(room, record):
    face = rooms.face(room)
    found = {column for row in record["rows"] for column, value in row.items() if value is not None}
    assert found <= COMMON | set(face.factors) | set(face.measured)
    declared = {*face.factors, *face.measured} - found
    assert not declared, f"{room} declares columns that no row has: {sorted(declared)}"


def test_no_two_rows_are_about_the_same(record):
    assert records.compare(record, record) == []


def test_condition_speaks_of_the_images_only(record):
    from adamerging_lib.worlds.corruptions import CORRUPTIONS

    assert {row["condition"] for row in record["rows"] if "condition" in row} <= {"clean", *CORRUPTIONS}


def test_measured_images_keep_their_outcomes(record):
    frame = records.frame(record)
    measured = frame.reindex(columns=["accuracy", "n", "task", "right"])
    images = measured[measured["accuracy"].notna() & measured["n"].notna() & (measured["task"] != "Average")]
    assert images["right"].notna().all()


def test_numbers_are_arrays_of_draws_or_missing(record):
    lengths = {len(values) for values in claims.numbers_of(record).values()}
    assert len(lengths) == 1
    for name, values in claims.numbers_of(record).items():
        assert isinstance(values, np.ndarray) and not math.isinf(values[0]), name
        assert name.isidentifier()


def test_every_claim_names_a_number(room, record):
    numbers = claims.numbers_of(record)
    for claim in claims.claims_of(room):
        assert claim.value in numbers, claim.id


def test_numbers_of_the_committed_record(room):
    """Every number of the default run's record exists, but for those that its parameters leave out."""
    path = claims.record_of(room, rooms.face(room).world)
    assert path is not None, f"{room} has no committed record of its default run"
    for verdict in claims.verdicts_at(path):
        assert not math.isnan(verdict.point), f"{verdict.claim.id}: {verdict.claim.value} was not run"


def test_what_shows_and_counts_needs_no_torch(room):
    modules = f"adamerging_study.{room}.show, adamerging_study.{room}.numbers"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_notebook_gives_measure_what_it_takes(room):
    face, known = rooms.face(room), notebooks.parameters(ROOT / "notebooks" / f"{room}.ipynb")
    assert set(face.shown) <= set(known)
    given = set(known) - {"threads", *face.shown, *face.loads}
    signature = inspect.signature(rooms.part(room, "measure").measure).parameters
    rest = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    assert rest or given <= set(signature), given - set(signature)
    needed = {name for name, p in signature.items() if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    assert needed <= given


def test_the_book_has_a_page(room):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    assert f"notebooks/{room}" in pages
    source = "\n".join(notebooks.code_cells(ROOT / "notebooks" / f"{room}.ipynb"))
    assert f'begin("{room}", globals())' in source and "run.finish(" in source


def test_every_table_and_figure_is_shown(room):
    """A function of `show` that neither a page nor the room uses is dead."""
    tree = ast.parse((ROOT / "adamerging_study" / room / "show.py").read_text(encoding="utf-8"))
    public = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    places = [*(ROOT / "adamerging_study").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
    elsewhere = "\n".join(p.read_text(encoding="utf-8") for p in places if p.name != "show.py" or p.parent.name != room)
    unused = {name for name in public - used if name not in elsewhere}
    assert not unused, f"{room}/show.py: nobody shows {sorted(unused)}"
