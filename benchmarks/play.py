"""How long the page *Play: merge in your browser* takes to answer, in the built book, in a headless Chromium.

All times are measured in the page: from its opening to the first answer, which is for the images that it shows, then
from each move of a slider to the answer for these and for all images. Wall-clock seconds of a browser that uses as many
cores as it finds; nothing else is measured beside them.

    python benchmarks/play.py --page _build/html/book/play.html
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Page  # noqa: E402

from adamerging_lib import records  # noqa: E402
from adamerging_lib.runtime.environment import environment  # noqa: E402

PAGE, OUTPUT = ROOT / "_build/html/book/play.html", ROOT / "benchmarks/results/play.json"
SHOWN, ALL = "the images shown", "all images"
WATCH = """
window.playTimes = {};
new MutationObserver((changes) => {
  for (const { target, attributeName } of changes) {
    if (target.id !== "play") continue;
    if (attributeName === "data-first") playTimes.shown ??= performance.now();
    if (target.dataset.state === "done") playTimes.all ??= performance.now();
  }
}).observe(document, { subtree: true, attributeFilter: ["data-first", "data-state"] });
"""
_MOVE = """
(() => {
  const slider = document.querySelector(".play-task input[type=range]"), at = Number(slider.min);
  document.getElementById("play").dataset.state = "asked";
  slider.value = at + (Number(slider.max) - at) * %s;
  window.playTimes = {};
  window.playAsked = performance.now();
  slider.dispatchEvent(new Event("input"));
})()
"""
_DONE = "document.getElementById('play').dataset.state === 'done' && window.playTimes.all !== undefined"


def opening(page: Page, address: str) -> dict[str, float]:
    """Seconds from the opening of the page to its answer, by which images it is for."""
    page.send("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
    page.open(address)
    page.wait(_DONE)
    return _seconds(page, "0")


def moves(page: Page, count: int) -> list[dict[str, float]]:
    """As `opening`, of so many moves of the first task's slider, one after another."""
    found = []
    for n in range(count):
        page.run(_MOVE % ((n + 1) / (count + 1)))
        page.wait(_DONE)
        found.append(_seconds(page, "window.playAsked"))
    return found


def rows_of(first: dict[str, float], moved: Iterable[dict[str, float]]) -> list[dict[str, Any]]:
    """Rows of the record: the opening, then median and worst of the moves."""
    moved = list(moved)
    rows = [{"case": f"opening, {which}", "quantity": "seconds", "value": first[which]} for which in first]
    for which in first:
        times = [one[which] for one in moved]
        for word, value in (("median", statistics.median(times)), ("worst", max(times))):
            case = f"move of a slider, {which}, {word} of {len(times)}"
            rows.append({"case": case, "quantity": "seconds", "value": value})
    return [{**row, "value": round(row["value"], 3)} for row in rows]


def _seconds(page: Page, since: str) -> dict[str, float]:
    shown, whole = page.run(f"[playTimes.shown - {since}, playTimes.all - {since}]")
    return {SHOWN: shown / 1000, ALL: whole / 1000}


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=PAGE, help="of the built book")
    parser.add_argument("--moves", type=int, default=8)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    started, clock, around = dt.datetime.now(dt.UTC), time.perf_counter(), environment()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Page(Path(profile)) as page:
        around["versions"]["browser"] = page.send("Browser.getVersion")["product"]
        around["threads"] = page.run("navigator.hardwareConcurrency")
        rows = rows_of(opening(page, given.page.resolve().as_uri()), moves(page, given.moves))
    for row in rows:
        print(f"{row['case']}: {row['value']} s")
    seconds = time.perf_counter() - clock
    record = records.new(
        "play", "benchmark", {"moves": given.moves}, None, rows, [0], started, seconds, environment=around
    )
    records.write(record, given.output)
    print(given.output)


if __name__ == "__main__":
    main()
