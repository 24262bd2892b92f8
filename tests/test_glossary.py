"""The glossary: pages of prose and of notebooks link each of its terms where they first use it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adamerging_study.book import notebooks
from adamerging_study.book.sphinx import present

BOOK = Path(__file__).resolve().parents[1] / "book"
UNLINKED = ("glossary", "references")
PAGES = sorted(path for path in BOOK.glob("*.md") if path.stem not in UNLINKED)
NOTEBOOKS = sorted(path for path in (BOOK.parent / "notebooks").glob("*.ipynb"))

# Not prose: formulas, comments, options, headings, targets; code is left out by `prose`.
_NO_PROSE = re.compile(r"\$\$.*?\$\$|\$[^$\n]*\$|^(?:%|:[\w-]+:|#|\([\w-]+\)=$).*?$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"(`{3,}|:{3,})(.*)")
_CODE = ("{eval-rst}", "{literalinclude}", "{raw}")
_LINKED = "⟦linked⟧"
_TERM = re.compile(r"\{term\}`(?:[^`<]*<)?([^`<>]+)>?`")
_LITERAL = re.compile(r"(?:\{[\w:]+\})?`[^`]*`")


def entries() -> list[list[str]]:
    """The glossary's entries, each by its names."""
    page = (BOOK / "glossary.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^```\{glossary\}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [re.findall(r"^(\S.*)$", entry, re.MULTILINE) for entry in listed.strip().split("\n\n")]


def prose(text: str) -> str:
    """A page without code, formulas and headings; what directives hold is prose, except sources."""
    lines, code = [], None
    for line in text.splitlines():
        fence = _FENCE.fullmatch(line)
        if code:
            code = None if fence and fence[1] == code else code
        elif fence:
            code = fence[1] if fence[2] and (fence[2][0] != "{" or fence[2].startswith(_CODE)) else None
        else:
            lines.append(line)
    return _NO_PROSE.sub("", "\n".join(lines))


def unlinked(text: str, names: list[str]) -> bool:
    """Whether a page's first use of a term, by any of its names, is no link to the glossary."""
    linked = _TERM.sub(lambda match: _LINKED if " ".join(match[1].split()) in names else match[0], prose(text))
    plain = _LITERAL.sub("", linked)
    words = "|".join(r"\s+".join(map(re.escape, name.split())) for name in names)
    first = re.search(rf"{_LINKED}|(?<![\w-])(?:{words})s?(?![\w-])", plain, re.IGNORECASE)
    return first is not None and first[0] != _LINKED


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_links_the_terms_that_it_uses_where_it_first_uses_them(page):
    text = page.read_text(encoding="utf-8")
    assert [names[0] for names in entries() if unlinked(text, names)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_default_pages_of_notebooks_do_so_in_the_order_of_the_page(path, monkeypatch):
    """Take-aways come first there; a variant's page, which leaves cells out, may begin with a later use."""
    monkeypatch.chdir(BOOK.parent)
    shown = present(notebooks.read(path), f"notebooks/{path.stem}")
    text = "\n\n".join(cell.source for cell in shown.cells if cell.cell_type == "markdown")
    assert [names[0] for names in entries() if unlinked(text, names)] == []


def test_the_glossary_is_in_order_and_has_no_name_twice():
    names = [name for entry in entries() for name in entry]
    first = [entry[0].lower() for entry in entries()]
    assert len(set(names)) == len(names) and first == sorted(first)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("An expert is good.", True),
        ("{term}`Experts <expert>` are good; an expert is.", False),
        ("An expert, or {term}`expert`.", True),
        ("## The expert\n\n```bash\nexpert\n```\n\n`expert`, {doc}`the expert <x>`, expertise", False),
        ("```{admonition} In short\nExperts.\n```", True),
        ("{term}`head`, then experts.", True),
    ],
)
def test_first_uses_are_found_in_prose_alone(text, wrong):
    assert unlinked(text, ["expert"]) is wrong
