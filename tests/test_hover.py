"""What figures keep of their marks, where it lies in the picture, and what the page makes of it."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from browser import CHROMIUM, Page
from nbclient import NotebookClient

from adamerging_study import hover
from adamerging_study.book import hover as page
from adamerging_study.style import heatmap, styled

CODE = """
import matplotlib.pyplot as plt
from adamerging_study.style import styled

@styled
def drawn():
    figure, axes = plt.subplots(figsize=(4, 3))
    axes.plot([1, 2, 3], [10, 30, 20], "o", color="#ff0000", ms=9, label="Ties", mec="none")
    axes.set(xlabel="seconds; more", ylabel="accuracy (%)")
    axes.annotate("the best", (2, 30))
    return figure

drawn()
plt.show()
"""
STATIC = Path(__file__).resolve().parents[1] / "book" / "_static"


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_heatmaps_tell_row_column_and_value():
    figure, axes = plt.subplots()
    heatmap(axes, pd.DataFrame([[0.25, 1], [2, np.nan]], ["signs", "digits"], ["early", "late"]), 1)
    told = [text for *_, text in hover.spots(figure)]
    assert told == ["signs, early: 0.25", "signs, late: 1", "digits, early: 2"]  # an empty cell has nothing to tell


def test_images_are_heatmaps_too():
    figure, axes = plt.subplots()
    axes.imshow([[1.0, 2.0]])
    axes.set_xticks([0, 1], ["one", "two"])
    assert [text for *_, text in hover.spots(figure)] == ["one: 1", "two: 2"]


def test_marks_tell_their_name_and_numbers_and_those_outside_are_left_out():
    figure, axes = plt.subplots()
    axes.scatter([1, 5], [2, 2], label="merged")
    axes.plot([1.5], [3], "s")  # no name
    axes.plot([1, 2], [1, 2], "-", label="a line without marks")
    axes.set(xlim=(0, 3), ylim=(0, 4), xlabel="images", ylabel="points")
    assert [text for *_, text in hover.spots(figure)] == ["1.5 images, 3 points", "merged: 1 images, 2 points"]


def test_ticks_with_names_stand_for_numbers():
    figure, axes = plt.subplots()
    axes.plot([4.0], [1], "o", label="_hidden")
    axes.set_yticks([0, 1], ["zero", "one"])
    assert [text for *_, text in hover.spots(figure)] == ["one: 4"]


def test_too_many_marks_are_none():
    figure, axes = plt.subplots()
    axes.scatter(np.arange(hover.MOST + 1), np.arange(hover.MOST + 1))
    assert hover.spots(figure) == []


@pytest.fixture(scope="module")
def executed():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return notebook


def test_spots_lie_on_the_marks_of_the_picture(executed):
    """In a Jupyter, whose pictures are cropped: the red there is where it is said to be."""
    (output,) = [o for o in executed.cells[0].outputs if "image/png" in o.get("data", ())]
    spots = json.loads(output.metadata["image/png"][hover.KEY])
    assert [text for *_, text in spots] == [
        "the best: 2 seconds, 30 accuracy (%)", "Ties: 3 seconds, 20 accuracy (%)", "Ties: 1 seconds, 10 accuracy (%)",
    ]  # fmt: skip
    picture = plt.imread(io.BytesIO(base64.b64decode(output.data["image/png"])))
    high, wide = picture.shape[:2]
    for across, down, _ in spots:
        red, green, blue = picture[round(down * high), round(across * wide), :3]
        assert red > 0.9 and green < 0.1 and blue < 0.1, (across, down)


def test_the_page_holds_them_below_the_figure_and_no_script_ends_early(executed):
    notebook = nbformat.from_dict(json.loads(json.dumps(executed)))
    notebook.cells.append(nbformat.v4.new_markdown_cell("text"))
    (output,) = [o for o in notebook.cells[0].outputs if "image/png" in o.get("data", ())]
    told = output.metadata["image/png"][hover.KEY]
    output.metadata["image/png"][hover.KEY] = told.replace("the best: 2 seconds, 30 accuracy (%)", "</script>")
    page.add(notebook, "mini")
    assert [cell.cell_type for cell in notebook.cells] == ["code", "markdown", "markdown"]
    source = notebook.cells[1].source
    assert source.count("</script>") == 1
    told = json.loads(re.search(r'class="figure-hover">(.*)</script>', source)[1])
    assert told["run"] == "mini" and told["figures"][0][0][2] == "</script>"
    quiet = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    page.add(quiet, "mini")
    assert len(quiet.cells) == 1


def test_outside_jupyter_figures_are_drawn_as_ever():
    figure = styled(lambda: sns.lineplot(x=[1, 2], y=[1, 2]).figure)()
    assert figure.axes


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome here, which this test drives")
def test_numbers_of_the_text_tell_where_they_come_from_by_key_and_by_finger(tmp_path):
    (tmp_path / "index.html").write_text(
        f'<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="{(STATIC / "custom.css").as_uri()}">'
        "<style>html { --pst-color-text-muted: #555; }</style>"
        f'<script src="{(STATIC / "hover.js").as_uri()}"></script><h1>Page</h1><p>By '
        '<abbr class="measured" title="lw in results/mini/performance.json; seed 0">6.3</abbr> points, and '
        '<abbr class="measured" title="another">7.1</abbr>; <abbr title="no number">etc.</abbr></p>',
        encoding="utf-8",
    )
    box = "document.querySelector('.hover-told')"
    shown = f"{box}.hidden ? null : {box}.textContent"
    with Page(tmp_path / "profile", 400, 700) as page:
        page.open((tmp_path / "index.html").as_uri())
        assert page.run("getComputedStyle(document.querySelector('.measured')).textDecorationStyle") == "dotted"
        assert page.run(shown) is None
        page.press("Tab", 9)
        assert page.run(shown) == "lw in results/mini/performance.json; seed 0"
        page.press("Escape", 27)
        assert page.run(shown) is None
        page.press("Tab", 9)
        assert page.run(shown) == "another"
        assert page.run(f"{box}.getBoundingClientRect().right <= innerWidth")
        page.press("Tab", 9)
        assert page.run(shown) is None
        tap(page, "document.querySelector('.measured')")
        assert page.run(shown) == "lw in results/mini/performance.json; seed 0"
        tap(page, "document.querySelector('h1')")
        assert page.run(shown) is None and page.errors == []


def tap(page, element):
    middle = "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
    x, y = page.run(f"{middle}({element}.getBoundingClientRect())")
    page.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    page.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page.run("new Promise((done) => setTimeout(done, 100))")
