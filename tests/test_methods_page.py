"""The page of all methods lists every registered method, and describes those it describes in the right section."""

import re
from pathlib import Path

from adamerging_lib import methods
from adamerging_lib.methods.registry import find
from adamerging_lib.published.competitions import GIVES, NEEDS
from adamerging_study.book import directives

PAGE = (Path(__file__).resolve().parents[1] / "book/methods.md").read_text(encoding="utf-8")


def test_the_page_holds_the_table_of_all_methods():
    """Hence a new method stands on the page without an entry of its own."""
    assert "```{methods-table}\n```" in PAGE
    text = directives.methods_text()
    for id in methods().index:
        method = find(id)
        (line,) = [line for line in text.splitlines() if f"`{id}`" in line]
        cells = [cell.strip().replace("\\|", "|") for cell in line.strip("|").split(" | ")]
        asks = "yes" if method.task_id else "no"
        assert cells[1:5] == [method.needs, method.gives, method.task_specific, asks]
        assert cells[0].startswith(method.label) and cells[5] == method.source
    assert {find(id).needs for id in methods().index} == set(NEEDS)
    assert {find(id).gives for id in methods().index} == set(GIVES)


def test_a_described_method_stands_once_in_the_section_of_its_competition():
    found = {}
    for part in PAGE.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        # A term of a definition list: names, and ids in brackets.
        for term in re.findall(r"^([^:\n{].*\(.*`.*)\n: ", text, re.MULTILINE):
            for id in re.findall(r"`([a-z_]+)`", term):
                assert id not in found, f"{id} stands twice"
                found[id] = title[:1].lower() + title[1:]
    assert "ties" in found and found == {id: find(id).competition for id in found}
