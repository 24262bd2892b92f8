"""The page of all methods names every registered method once, in the section of what it needs and gives."""

import re
from pathlib import Path

from adamerging_lib import methods
from adamerging_lib.methods.registry import NEEDS
from adamerging_study.book import directives
from adamerging_study.tables import leaderboard

PAGE = (Path(__file__).resolve().parents[1] / "book/methods.md").read_text(encoding="utf-8")


def test_every_method_stands_once_in_the_section_of_its_group():
    found = {}
    for part in PAGE.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        # A term of a definition list: names, and ids in brackets.
        for term in re.findall(r"^([^:\n{].*\(.*`.*)\n: ", text, re.MULTILINE):
            for id in re.findall(r"`([a-z_]+)`", term):
                assert id not in found, f"{id} stands twice"
                found[id] = title[:1].lower() + title[1:]
    assert found == {id: leaderboard.group(id) for id in methods().index}


def test_table_of_methods_holds_the_registry():
    text = directives.methods_text()
    for id, row in methods().iterrows():
        (line,) = [line for line in text.splitlines() if f"`{id}`" in line]
        assert row.label in line and row.needs in line and row.source in line
        assert line.count("yes") == int(row.task_id) + int(row.static)
    assert set(NEEDS) == set(methods()["needs"])
