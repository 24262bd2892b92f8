"""The built pages as a browser shows them, wide and narrow, light and dark.

axe-core measures contrast and the rules of WCAG 2 A and AA; the rest is asked of the page itself. Colours do not depend
on the width here, so contrast is measured at the width of a laptop.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from adamerging_study.book.build import BROWSERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = Path(os.environ.get("ADAMERGING_PAGES", ROOT / "_build/html"))
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
WIDE, NARROW = ({"width": width, "height": 900} for width in (1400, 400))
CONTRAST = "color-contrast"
RULES = {
    # Sphinx sets a signature of several lines as a list of definitions without terms.
    "definition-list": {"enabled": False},
    CONTRAST: {"enabled": False},  # on its own, once per theme
}
# Docutils gives entries of a bibliography a role that ARIA has given up, and so their list no entries.
DOCUTILS = ("doc-biblioentry", ".citation-list")
MISSING = [
    "no Playwright: `pip install -e .[look]`" if find_spec("axe_playwright_python") is None else "",
    f"no browser: install one of {', '.join(BROWSERS)}" if BROWSER is None else "",
    f"{PAGES} holds no built book: `make html` builds it" if not (PAGES / "book").is_dir() else "",
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(any(MISSING), reason="; ".join(filter(None, MISSING))),
]
FOUND = sorted(
    path.relative_to(PAGES).as_posix() for part in ("book", "notebooks") for path in (PAGES / part).rglob("*.html")
)

# What a reader can use but the Tab key cannot reach: links, buttons and fields that are shown, yet out of its order.
UNREACHABLE = """() => [...document.querySelectorAll(
    "article :is(a[href], button, input, select, textarea, summary, [role=button], [onclick])")]
  .filter((e) => e.checkVisibility({visibilityProperty: true}) && e.tabIndex < 0 && !e.disabled
    && !e.matches(".headerlink"))
  .map((e) => e.outerHTML.slice(0, 120))"""
ALTS = "() => [...document.querySelectorAll('article img')].map((e) => [e.getAttribute('src').slice(-40), e.alt])"
THEME = "(theme) => { for (const key of ['theme', 'mode']) document.documentElement.dataset[key] = theme }"
OVERFLOW = "() => Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - window.innerWidth"
FOCUSED = "() => document.activeElement.outerHTML.slice(0, 200)"


@pytest.fixture(scope="module")
def page():
    """A page of a headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # No sandbox: a container's root user cannot have one, and the pages are ours.
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=WIDE)
        page.set_default_timeout(300_000)  # a busy machine is slow, not wrong
        yield page
        browser.close()


@pytest.fixture(scope="module")
def axe():
    """What axe-core finds on a page, one line per violation and element."""
    from axe_playwright_python.sync_playwright import Axe

    measure = Axe()

    def found(page, options) -> list[str]:
        # Without preload axe does not try to fetch style sheets, which it may not from disk.
        response = measure.run(page, options={"resultTypes": ["violations"], "preload": False, **options}).response
        nodes = [(violation["id"], node) for violation in response["violations"] for node in violation["nodes"]]
        return [f"{rule}: {node['target']}: {node['failureSummary']}" for rule, node in nodes]

    return found


@pytest.fixture
def told(page):
    """What a page's scripts report as uncaught errors."""
    errors = []

    def note(error) -> None:
        errors.append(str(error))

    page.on("pageerror", note)
    yield errors
    page.remove_listener("pageerror", note)


def show(page, name, viewport=WIDE, theme="light") -> None:
    page.set_viewport_size(viewport)
    page.goto((PAGES / name).as_uri())
    page.evaluate(THEME, theme)
    page.wait_for_timeout(300)  # transitions of colours


@pytest.mark.parametrize("name", FOUND)
def test_pages_follow_the_rules_for_all_readers(page, axe, told, name):
    """Alt texts are sentences or phrases, too: no name of a file, no single word; and no script fails."""
    show(page, name)
    assert told == []
    broken = axe(page, {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]}, "rules": RULES})
    assert [line for line in broken if not any(known in line for known in DOCUTILS)] == []
    assert page.evaluate(UNREACHABLE) == []
    for source, told in page.evaluate(ALTS):
        assert re.search(r"\w+ \w+ \w+", told) and not re.search(r"\.(png|svg|jpe?g)$", told), (source, told)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", FOUND)
def test_text_has_a_contrast_of_4_5(page, axe, name, theme):
    show(page, name, theme=theme)
    assert axe(page, {"runOnly": [CONTRAST]}) == []


@pytest.mark.parametrize("name", FOUND)
def test_nothing_wider_than_a_telephone(page, name):
    show(page, name, NARROW)
    assert page.evaluate(OVERFLOW) <= 0


def test_the_tab_key_reaches_a_table_s_controls(page):
    """The filter, the button that saves, and every header that sorts; and Enter sorts."""
    show(page, "book/report.html")
    wanted = page.locator("article table th button").count()
    assert wanted
    page.locator("article h1").click()
    reached = 0
    for _ in range(400):
        page.keyboard.press("Tab")
        if "<button" in (focused := page.evaluate(FOCUSED)) and "Sort by this column" in focused:
            reached += 1
            if reached == wanted:
                break
    assert reached == wanted
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"


def test_a_link_to_a_claim_opens_the_list_that_it_is_folded_in(page):
    """Claims are cited by anchor, and stand in folded lists."""
    claims = json.loads((PAGES / "claims.json").read_text(encoding="utf-8"))["claims"]
    for claim in (claims[0], claims[-1]):
        name, anchor = claim["page"].split("#")
        page.goto(f"{(PAGES / name).as_uri()}#{anchor}")
        assert page.locator(f"[id='{anchor}']").is_visible(), claim["page"]
