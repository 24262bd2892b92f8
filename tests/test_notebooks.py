"""What the committed notebooks show is what the committed records hold, to the last digit.

nbval runs the notebooks anew, so it must forgive digits that move from machine to machine. Here the measuring calls
give back the committed rows instead, everything else runs as it is, and every text, table and glued value must be
equal: a number altered by hand, in a notebook or in a record, has nowhere to hide.
"""

import re
from pathlib import Path

import nbformat
import pytest

from adamerging_study import rooms
from adamerging_study.book import alts, redraw
from adamerging_study.book.build import typed_numbers
from adamerging_study.book.worlds import DEFAULT, run_of

ROOT = Path(__file__).resolve().parents[1]

# Notebooks that measure nothing and so have no record.
NO_RECORD = {"apply", "by_hand", "merge_your_own"}
# Figures of what is in no record: images, and published coefficients.
NO_FINDING = {"contact-sheet", "robustness-04", "coefficients-14"}
# Experiments whose page teaches a command, step by step: there the code is what a reader comes for.
HOW_TO = {"check"}


def shown(cell):
    """What a cell shows, without pictures and execution counts."""
    found = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            found.append((output.name, output.text))
        elif output.output_type == "error":
            found.append(("error", output.ename, output.evalue))
        else:
            found += [(kind, value) for kind, value in sorted(output.data.items()) if not kind.startswith("image/")]
    return found


def differences(stored, again):
    """Ids of the cells that show something else than they did."""
    return [a.id for a, b in zip(stored.cells, again.cells, strict=True) if shown(a) != shown(b)]


@pytest.mark.parametrize("room", rooms.rooms())
def test_notebook_shows_its_record(room, tmp_path, monkeypatch):
    stored = nbformat.read(ROOT / "notebooks" / f"{room}.ipynb", as_version=4)
    monkeypatch.setenv("ADAMERGING_RESULTS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    again = redraw.redrawn(stored, ROOT / "results" / rooms.face(room).world / f"{room}.json", ROOT / "notebooks")
    assert differences(stored, again) == []


def test_every_notebook_is_of_an_experiment():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == {*rooms.rooms(), *NO_RECORD}


def test_an_altered_digit_is_found():
    """What `differences` sees: a digit in a table, in printed text, an error."""

    def cell(**output):
        made = nbformat.v4.new_code_cell("x", id="one")
        made.outputs = [nbformat.v4.new_output(**output)]
        return nbformat.v4.new_notebook(cells=[made])

    table = {"output_type": "execute_result", "data": {"text/plain": "a 1.5", "text/html": "<td>1.5</td>"}}
    altered = {**table, "data": {**table["data"], "text/html": "<td>1.6</td>"}}
    assert differences(cell(**table), cell(**table)) == []
    assert differences(cell(**table), cell(**altered)) == ["one"]
    printed = {"output_type": "stream", "name": "stdout", "text": "holds 3"}
    assert differences(cell(**printed), cell(**{**printed, "text": "holds 4"})) == ["one"]
    assert differences(cell(**printed), cell(output_type="error", ename="E", evalue="v", traceback=[])) == ["one"]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_is_fit_to_be_committed(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    # Between title and parameters only what is said of the default run alone, how long it takes, may stand,
    # and the sentences that a page begins with in the book.
    said = (["default-only"], ["take-away"])
    rest = [cell for cell in notebook.cells[1:4] if cell.metadata.get("tags") not in said]
    assert rest[0].cell_type == "code" and rest[0].metadata["tags"] == ["parameters"]
    assert notebook.metadata.kernelspec.name == "python3"
    # A variant's page lies elsewhere: only links from the root of the book hold on both.
    assert not re.search(r"\{doc\}`(?!/|[^`<]*</)", "".join(cell.source for cell in notebook.cells))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        assert cell.execution_count is not None or not cell.source, f"cell {cell.id} was not executed"
        for kind, *text in shown(cell):
            assert kind not in ("stderr", "error"), f"cell {cell.id}: {text}"
            assert not any(place in str(text) for place in ("/work/", "/tmp/", "/home/", "/root/", "C:\\\\")), cell.id
    for cell in code:
        if any(kind == "image/png" for output in cell.outputs for kind in output.get("data", ())):
            told = cell.metadata["mystnb"]
            assert told["figure"]["name"].startswith("fig-") and len(told["figure"]["caption"]) > 40, cell.id
            assert len(told["image"]["alt"]) > 40, cell.id


RESULT_FIRST = [ROOT / "notebooks" / f"{room}.ipynb" for room in rooms.rooms() if room not in HOW_TO]
RESULT_FIRST += [path for path in sorted((ROOT / "book/runs").glob("*/*.ipynb")) if path.stem not in HOW_TO]


@pytest.mark.parametrize("path", RESULT_FIRST, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_page_of_an_experiment_says_what_to_take_away_and_what_to_see_first(path):
    cells = nbformat.read(path, as_version=4).cells
    tagged = {tag: [cell for cell in cells if tag in cell.metadata.get("tags", [])] for tag in ("take-away", "lead")}
    (take_away,) = tagged["take-away"]
    assert take_away.cell_type == "markdown" and "{number}`" in take_away.source
    # Words that a number of another world would belie have no place in a box that all worlds share.
    assert not typed_numbers(re.sub(r"95 %|λ = 0\.3", "", take_away.source))
    shown = [kind for cell in tagged["lead"] for output in cell.outputs for kind in output.get("data", ())]
    assert {"image/png", "text/html"} & set(shown)


PAGES = sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "book/runs").glob("*/*.ipynb")])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_figures_say_in_words_what_they_show(path):
    notebook, run = nbformat.read(path, as_version=4), run_of(path.relative_to(ROOT).with_suffix("").as_posix())
    profile = notebook.metadata.get("papermill", {}).get("parameters", {}).get("profile", DEFAULT)
    images = {cell.id: cell.metadata.get("mystnb", {}).get("image") for cell in notebook.cells}
    images = {cell: image for cell, image in images.items() if image}
    for cell, image in images.items():
        # A finding's numbers are looked up, and nothing else is one.
        assert ("finding" in image) == (cell not in NO_FINDING), cell
        assert not typed_numbers(image["alt"]) and not typed_numbers(image.get("finding", "")), cell
        assert image["alt"].endswith(".") and image.get("finding", ".").endswith("."), cell
    alts.add(notebook, path.stem, run, profile)
    for cell, image in images.items():
        assert "finding" not in image and len(image["alt"]) <= 350 and "`" not in image["alt"], cell


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_variants_say_of_their_figures_what_the_notebook_says(path):
    stored, own = (nbformat.read(file, as_version=4) for file in (ROOT / "notebooks" / path.name, path))
    said = {cell.id: cell.metadata.get("mystnb", {}).get("image") for cell in stored.cells}
    assert [c.id for c in own.cells if c.id in said and c.metadata.get("mystnb", {}).get("image") != said[c.id]] == []
