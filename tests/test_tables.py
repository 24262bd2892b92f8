"""What `tables.js` and the style sheet make of tables and printed text, in a browser as narrow as a telephone."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import CHROMIUM, Page

STATIC = Path(__file__).resolve().parents[1] / "book" / "_static"
MARKDOWN = '<div class="pst-scrollable-table-container"><table class="table">{}</table></div>'
PAGE = f"""<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="{(STATIC / "custom.css").as_uri()}">
<style>.pst-scrollable-table-container {{ overflow-x: auto }}</style>
<script src="{(STATIC / "tables.js").as_uri()}"></script>
<section id="wide">{MARKDOWN.format("<tr>" + "<td>unbreakable-words</td>" * 9 + "</tr>")}</section>
<section id="narrow">{MARKDOWN.format("<tr><td>short</td></tr>")}</section>
<section id="frame"><table class="dataframe"><thead><tr><th>name</th><th>minutes</th></tr></thead><tbody>
<tr><td>a</td><td>12</td></tr><tr><td>b</td><td>&lt; 1</td></tr><tr><td>c</td><td>3</td></tr></tbody></table></section>
<div class="cell_output"><div class="output stream"><pre>{"name      1.0 " * 9}</pre></div></div>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome here, which these tests drive")
    folder = tmp_path_factory.mktemp("tables")
    (folder / "index.html").write_text(PAGE, encoding="utf-8")
    with Page(folder / "profile", 400, 700) as shown:
        shown.open((folder / "index.html").as_uri())
        yield shown
        assert shown.errors == []


def test_cut_columns_of_a_table_in_markdown_are_told(page):
    assert page.run("document.querySelector('#wide .table-more').checkVisibility()")
    assert page.run("document.querySelector('#wide div').matches('.cut[role=region][tabindex=\"0\"]')")
    assert not page.run("document.querySelector('#narrow .table-more').checkVisibility()")
    page.run("document.querySelector('#wide div').scrollLeft = 1e5")
    page.wait("!document.querySelector('#wide div').matches('.cut')")
    assert page.run("document.querySelectorAll('#frame .table-more').length") == 1


def test_less_than_one_is_a_number(page):
    found = "[...document.querySelectorAll('#frame tbody td:last-child')].map((cell) => [cell.textContent, {}])"
    assert page.run(found.format("cell.className")) == [["12", "number"], ["< 1", "number"], ["3", "number"]]
    page.run("document.querySelectorAll('#frame th button')[1].click()")
    assert [text for text, _ in page.run(found.format("0"))] == ["< 1", "3", "12"]


def test_columns_of_printed_text_stay_below_each_other(page):
    """Where they do not fit, the text scrolls in itself and the page does not; wide windows wrap long sentences."""
    wider = "(({scrollWidth, clientWidth, offsetHeight}) => [scrollWidth > clientWidth, offsetHeight < 60])(%s)"
    assert page.run(wider % "document.querySelector('pre')") == [True, True]
    page.size(1400, 900)
    assert page.run("getComputedStyle(document.querySelector('pre')).whiteSpace") == "pre-wrap"
    page.size(400, 700)
