"""Made by: below figures and tables of an experiment, and nowhere else, what made them, by files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adamerging_study import rooms
from adamerging_study.book import directives, made_by, notebooks

ROOT = Path(__file__).resolve().parents[1]


def noted(path, name, run, profile):
    made = notebooks.read(path)
    shown = [cell.id for cell in made.cells if made_by._shows(cell)]
    made_by.add(made, name, run, profile)
    return shown, [(place, cell) for place, cell in enumerate(made.cells) if cell.id.startswith("made-by-")], made


@pytest.mark.parametrize("name", rooms.rooms())
def test_each_figure_and_table_names_its_cell_its_record_and_a_command(name):
    shown, notes, made = noted(ROOT / "notebooks" / f"{name}.ipynb", name, None, rooms.face(name).world)
    assert len(notes) == len(shown) > 0
    for place, note in notes:
        before = made.cells[place - 1]
        called = f"[{before.execution_count}]" if re.fullmatch("[0-9a-f]{8}", before.id) else before.id
        assert f"Cell `{called}` of `notebooks/{name}.ipynb`" in note.source and before.id in shown
        if not made_by.keeps(before):
            (record,) = re.findall(r"`(results/[^`]+\.json)`", note.source)
            assert (ROOT / record).is_file() and f"adamerging_study.book.redraw {name}`" in note.source


def test_variants_name_their_own_files():
    path = ROOT / "book/runs/tiny/performance.ipynb"
    _, notes, _ = noted(path, "performance", "tiny", "tiny")
    record = "book/runs/tiny/performance/tiny/performance.json"
    assert notes and all(f"`{record}`" in note.source for _, note in notes) and (ROOT / record).is_file()
    assert all("redraw performance --run tiny`" in note.source for _, note in notes)


def test_pages_without_a_record_have_no_notes():
    _, notes, _ = noted(ROOT / "notebooks/apply.ipynb", "apply", None, "mini")
    assert notes == []


@pytest.mark.parametrize(
    ("make", "arguments", "anew"),
    [
        *((name, (), "{doc}`/book/rerun`") for name in ("averages", "task-gains", "winners", "claims", "experiments")),
        ("forest", (), "{doc}`/book/rerun`"),
        ("costs", ("step",), "`python benchmarks/adamerging_step.py`"),
        ("costs", ("study",), "`python benchmarks/adamerging_step.py`"),
        ("costs", ("recipe",), "`python benchmarks/recipe_cost.py`"),
    ],
)
def test_what_is_made_with_a_page_names_files_that_are_there(monkeypatch, make, arguments, anew):
    monkeypatch.chdir(ROOT)
    note = directives.NOTES[make](*arguments)
    files = re.findall(r"`([^`]+\.(?:json|yml))`", note)
    assert files and all(list(ROOT.glob(file)) for file in files)
    assert f"Measured anew: {anew}." in note and "`make html`" in note
