"""The first page: its sentences, tables and figure say what the records of both worlds say, with their uncertainty."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from madeup import leaderboard_rows, performance_rows

from adamerging_lib import methods, records
from adamerging_lib.methods import registry
from adamerging_lib.runtime import places
from adamerging_study import claims, outcomes
from adamerging_study.book import answer, directives, forest, roles, summary
from adamerging_study.judge import FAILS, HOLDS, NOT_RUN, UNDECIDED
from adamerging_study.performance.numbers import LEARNED
from adamerging_study.style import colour

BOARD = ("zero_shot", "individual", *LEARNED, "task_arithmetic", "tsv_m", "wudi", "emr", "prodistill", "nash_mtl")
ABOVE = {"tsv_m": 85.0, "wudi": 86.0}  # of the best form of AdaMerging, 81 in the made-up rows


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkout without records."""
    monkeypatch.setattr(places, "committed", lambda: tmp_path / "committed/results")
    monkeypatch.setenv("ADAMERGING_RESULTS", str(tmp_path / "fresh"))
    return tmp_path / "fresh"


@pytest.fixture
def worlds(folder):
    """Records of both worlds: outcomes of images in the drawn world, and none on photographs."""
    keep(folder, "mini", performance_rows(), outcomes=True)
    keep(folder, "mini", board(), "leaderboard", outcomes=True)
    keep(folder, "tiny", performance_rows(layer_wise_adamerging=71.0))
    keep(folder, "tiny", board(), "leaderboard")
    return folder


def board(**levels):
    return leaderboard_rows(BOARD, **{**ABOVE, **levels})


def keep(folder, profile, frame, room="performance", outcomes=False, **parameters):
    """Write a record of made-up rows."""
    rows = [row.dropna().to_dict() for _, row in frame.iterrows()]
    rows = [with_outcomes(row) if outcomes and row["task"] != "Average" else row for row in rows]
    head = (room, profile, {"steps": 7, **parameters}, None, rows, [0], "2026-01-01T00:00:00", 1.0)
    records.write(records.new(*head, methods=methods().to_dict("index")), folder / profile / f"{room}.json")


def with_outcomes(row):
    """The row, of as many right answers as its accuracy says, the first images being the easy ones."""
    right = round(row["accuracy"] * row["n"] / 100)
    hits = np.arange(int(row["n"])) < right
    return {**row, "accuracy": 100 * right / row["n"], "right": outcomes.pack(hits)}


def plain(text):
    """Made text as a reader sees it, without what the boxes of its numbers tell."""
    return re.sub(r"\{measured\}`(.*?) <[^>]*>`", r"\1", text)


def known(low, high):
    """An array whose interval is about that."""
    return np.concatenate([[(low + high) / 2], np.linspace(low, high, 2001)])


def bare(point):
    return np.array([point, np.nan, np.nan])


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (known(1, 3), HOLDS),
        (known(-3, -1), FAILS),
        (known(-1, 3), UNDECIDED),
        (known(0, 0), UNDECIDED),
        (bare(0.1), HOLDS),
        (bare(-0.1), FAILS),
        (bare(1e-12), UNDECIDED),
        (bare(np.nan), NOT_RUN),
    ],
)
def test_the_interval_decides_between_gain_and_loss(values, word):
    assert answer.direction(values) == word


def test_differences_are_told_with_their_uncertainty():
    assert answer.told(known(4.0, 8.0)) == "+6.0 points (95 % interval 4.1 to 7.9)"
    assert answer.told(known(-1.0, 0.5)) == "−0.25 points (95 % interval −0.96 to 0.46)"
    assert answer.told(known(4.0, 8.0), "over stones") == "+6.0 points (95 % interval 4.1 to 7.9 over stones)"
    assert answer.told(bare(-2.0), "over stones") == "−2.0 points (point value only)"
    assert answer.brief(known(-3.0, 1.0)) == "−1.0 (−2.9 to 0.9)"
    assert answer.brief(bare(6.9)) == "+6.9 (point value only)"
    assert answer.told(bare(np.nan)) == answer.brief(bare(np.nan)) == "not run"


@pytest.mark.parametrize(
    ("mini", "tiny", "phrase"),
    [
        (HOLDS, HOLDS, "reproduces in both worlds of images"),
        (HOLDS, FAILS, "reproduces in the drawn world but not on photographs"),
        (FAILS, HOLDS, "reproduces on photographs but not in the drawn world"),
        (HOLDS, UNDECIDED, "reproduces in the drawn world and is undecided on photographs"),
        (FAILS, UNDECIDED, "does not reproduce in the drawn world and is undecided on photographs"),
        (UNDECIDED, UNDECIDED, "is undecided in both worlds of images"),
        (NOT_RUN, FAILS, "does not reproduce on photographs and was not measured in the drawn world"),
    ],
)
def test_two_words_become_one_phrase(mini, tiny, phrase):
    assert answer.spoken({"mini": mini, "tiny": tiny}) == phrase


@pytest.mark.parametrize(
    ("mini", "tiny", "text", "phrase"),
    [
        (HOLDS, HOLDS, HOLDS, "reproduces in both worlds of images and on text"),
        (HOLDS, FAILS, HOLDS, "reproduces in the drawn world and on text but not on photographs"),
        (HOLDS, HOLDS, UNDECIDED, "reproduces in both worlds of images and is undecided on text"),
        (HOLDS, FAILS, UNDECIDED, "reproduces in the drawn world but not on photographs and is undecided on text"),
        (FAILS, FAILS, HOLDS, "reproduces on text but not in both worlds of images"),
    ],
)
def test_three_words_become_one_phrase(mini, tiny, text, phrase):
    assert answer.spoken({"mini": mini, "tiny": tiny, "mini-text": text}) == phrase


def test_parts_are_listed():
    assert [answer.listed("abc"[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_gains_and_losses_are_counted():
    gains = [known(1, 2), known(2, 3), known(-1, 1), known(-2, -1)]
    assert answer.counted(gains) == "2 gain, 1 lose, 1 undecided"
    assert answer.counted([bare(1.0), bare(2.0)]) == "2 gain, 0 lose (point value only)"


def test_the_lead_is_over_the_best_form_draw_by_draw():
    over = {f"a_over_{form}": np.array([9.0, 9.0, 9.0]) for form in LEARNED}
    over[f"a_over_{LEARNED[0]}"], over[f"a_over_{LEARNED[3]}"] = np.array([2.0, 1.0, 4.0]), np.array([3.0, 2.0, 1.0])
    assert answer.lead(over, "a").tolist() == [2.0, 1.0, 1.0]
    del over[f"a_over_{LEARNED[1]}"]
    assert np.isnan(answer.lead(over, "a")).all()


def test_the_answer_follows_the_records(worlds):
    text = plain(answer.answer_text())
    assert "gain reproduces in both worlds of images; its size (we ask for 5.5 of the published [+11.0]" in text
    assert "reproduces in the drawn world but not on photographs.**" in text
    assert " over test images, seed 0 alone) in the drawn world and " in text
    assert "+11.0 points (95 % interval " in text and "+2.0 points (point value only) on photographs" in text
    keep(worlds, "tiny", performance_rows(layer_wise_adamerging=68.0))
    assert "gain reproduces in the drawn world but not on photographs; its size" in plain(answer.answer_text())
    assert "−1.0 points (point value only) on photographs" in plain(answer.answer_text())


def test_measured_numbers_tell_record_run_seeds_and_interval(worlds):
    boxes = dict(re.findall(r"\{measured\}`([^`]*) <([^`]*)>`", answer.answer_text()))
    assert boxes["+2.0"] == (
        "lw_over_ta in results/tiny/performance.json; default run of 2026-01-01; seed 0; no interval"
    )
    assert re.search(r"; 95 % interval \+\d+\.\d to \+\d+\.\d over test images, seed 0 alone$", boxes["+11.0"])
    found = dict(re.findall(r"\{measured\}`([^`]*) <([^`]*)>`", answer.findings_text()))
    assert found["+10.0"].startswith("lw_average less ta_best in results/mini/performance.json; ")
    assert found["λ = 0.2"].startswith("best_scaling_t")
    assert found["8 gain, 0 lose"].startswith("lw_gain_on_… in results/mini/performance.json; ")
    assert found["+4.0"].startswith("the least tsv_m_over_… in results/tiny/leaderboard.json; ")
    assert "`" not in plain(answer.findings_text())


def test_the_lead_over_fixed_methods_at_their_best(worlds):
    text = plain(answer.best_text())
    assert "in the drawn world, over Task Arithmetic (λ = 0.2) +10.0 (" in text and "on text" not in text
    numbers = answer.numbers_of("performance")["mini"]
    assert answer.best_gain(numbers, "ties")[0] == pytest.approx(numbers["lw_average"][0] - numbers["ties_best"][0])
    keep(worlds, "mini-text", performance_rows(layer_wise_adamerging=60.0))
    text = plain(answer.best_text())
    assert "\n  * on text, over Task Arithmetic" in text and ", below and over Ties" in text
    rows = performance_rows()
    keep(worlds, "tiny", rows[rows["scaling"].isna()])
    assert "on photographs, over Task Arithmetic not run and over Ties-Merging not run" in plain(answer.best_text())


def test_tasks_are_counted_in_both_worlds_and_in_the_paper(worlds):
    text = plain(answer.tasks_text())
    assert "in the drawn world, 8 gain, 0 lose; on photographs, 8 gain, 0 lose (point value only)" in text
    assert "published, [8 gain, 0 lose]{.published}" in text


def test_published_gains_are_those_of_table_1():
    found = answer.published_gains("layer_wise_adamerging")
    assert len(found) == 8 and (found["SUN397"], found["MNIST"]) == (9.3, 0.2)


def test_methods_without_images_stand_above_adamerging_only_while_they_do(worlds):
    text = plain(answer.standing_text())
    assert "**Without any image**, TSV-M and closed-form WUDI stand above all four published" in text
    assert "published forms of AdaMerging (7 steps) in both worlds" in text
    assert "in the drawn world, TSV-M +4.0 (" in text and "on photographs, TSV-M +4.0 (point value only)" in text
    keep(worlds, "tiny", board(tsv_m=80.0), "leaderboard", steps=9)
    text = plain(answer.standing_text())
    assert "are *not* shown to stand above all four published forms of AdaMerging (7 and 9 steps) in" in text
    assert "TSV-M −1.0 (point value only), below and closed-form WUDI +5.0" in plain(answer.standing_text())
    keep(worlds, "tiny", board(tsv_m=81.0), "leaderboard", outcomes=True)
    assert "TSV-M +0.0 (0.0 to 0.0), undecided" in plain(answer.standing_text())
    without = board()[lambda rows: rows["method"] != "wudi"]
    keep(worlds, "tiny", without, "leaderboard")
    text = plain(answer.standing_text())
    assert "are *not* shown" in text and "closed-form WUDI not run" in text


def test_methods_said_to_need_no_image_are_registered_so():
    assert {registry.find(method).needs for method in answer.LEADERS} == {"nothing"}


def test_a_world_without_a_record_is_refused_with_the_mend(folder):
    with pytest.raises(ValueError, match="record of performance on mini: run that notebook"):
        answer.answer_text()


def test_averages_of_both_worlds_stand_beside_the_published(worlds):
    line = next(line for line in summary.averages_text().splitlines() if "Layer-wise AdaMerging |" in line)
    _, name, drawn, photographs, theirs, _ = (cell.strip() for cell in line.split("|"))
    assert name == "Layer-wise AdaMerging" and photographs == "71.0" and theirs == "[80.1]{.published}"
    assert drawn.startswith("80.0<br><small>7") and drawn.endswith("</small>")
    keep(worlds, "tiny", performance_rows()[lambda rows: rows["method"] != "layer_wise_adamerging"])
    assert "| – | [80.1]{.published} |" in summary.averages_text()
    assert "| Task Arithmetic, best λ | 70.0<br>" in summary.averages_text()
    assert "| Ties-Merging, best λ | " in summary.averages_text()


def test_gains_task_by_task_stand_beside_the_published_ones_of_their_place(worlds):
    lines = summary.gains_text().splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 2 + 8
    (scenes,) = [line for line in lines if line.startswith("| SUN397 |")]
    assert "| [+9.3]{.published} | +11.0 (" in scenes and "), scenes | +2.0, scenes |" in scenes
    other = performance_rows()
    keep(worlds, "tiny", other[other["task"] != "scenes"].replace({"task": {"signs": "gtsrb"}}))
    (scenes,) = [line for line in summary.gains_text().splitlines() if line.startswith("| SUN397 |")]
    assert scenes.endswith("| – |")
    assert "| +11.0, gtsrb |" in next(line for line in summary.gains_text().splitlines() if "| GTSRB |" in line)


def test_the_best_of_each_competition_without_labels(worlds):
    text = summary.winners_text()
    assert "| nothing | one model | WUDI (closed form), 86.0<br><small>8" in text
    assert "| nothing | one model and parts per task | EMR-Merging, 88.7<br>" in text
    assert "| unlabelled training images | one model | ProDistill, 86.0<br>" in text and "| ProDistill, 86.0 |" in text
    assert "Nash" not in text and "unlabelled training images | one model and parts" not in text


def test_the_figure_shows_gains_intervals_and_published_gains():
    gains = {(form, base): known(4, 6) for form in forest.FORMS for base in forest.BASES}
    best = [(form, "ta_best") for form in ("layer_wise_adamerging", "task_wise_adamerging", "task_wise_adamerging_pp")]
    other = {**gains, **dict(zip(best, (known(-3, -1), bare(2.0), bare(np.nan)), strict=True))}
    theirs = forest.published_averages()
    figure = forest.forest({"the drawn world": gains, "photographs": other}, {"the drawn world": theirs})
    above, below = figure.axes
    assert (above.get_title("left"), below.get_title("left")) == ("The drawn world", "Photographs")
    assert below.get_xlabel() == "points of average accuracy over Task Arithmetic"
    for axes, found in ((above, gains), (below, other)):
        diamonds = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
        assert diamonds == (pytest.approx([11.0, 12.0, 2.0, 4.6]) if axes is above else [])
        points = [(line.get_color(), line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
        run = {name: values for name, values in found.items() if not np.isnan(values[0])}
        assert points == [(colour(form), values[0]) for (form, _), values in run.items()]
        bars = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2 and np.ptp(line.get_xdata())]
        assert len(bars) == sum(len(values) > 3 for values in found.values())
        low, high = axes.get_xlim()
        assert low < -2.9 and high > 12
        numbers = [text.get_text() for text in axes.texts if text.get_text().strip("●○")]
        assert len(numbers) == len(run)
    assert "−2.0" in numbers


def test_gains_are_paired(worlds):
    numbers = answer.numbers_of("performance")["mini"]
    found = forest.gains(numbers)["layer_wise_adamerging", "ta_average"]
    np.testing.assert_allclose(found, numbers["lw_over_ta"])


def test_the_figure_in_words_begins_with_the_finding(worlds):
    found = {profile: forest.gains(numbers) for profile, numbers in answer.numbers_of("performance").items()}
    text = forest.alt(found)
    assert text.startswith("The sign of AdaMerging's gain reproduces in both worlds of images; its size (we")
    assert "Photographs, over λ = 0.3 and over the best λ: Layer-wise +2.0 (point value only), +1.0 (" in text
    assert text.endswith("Layer-wise +11.0, Layer-wise ++ +12.0, Task-wise +2.0, Task-wise ++ +4.6.")
    assert "On text" not in text
    with_text = forest.alt({**found, answer.TEXT: found["tiny"]})
    assert " On text the sign reproduces. Forest" in with_text and "The world of text, over λ = 0.3 and" in with_text
    assert not set('*[{"') & set(text)


def test_the_caption_tells_what_was_run(worlds):
    assert forest.run("mini") == "7 steps, 500 test images per task, seed 0"
    assert forest.run("tiny") == "7 steps, 500 test images per task, seed 0, no intervals"
    second = performance_rows().assign(seed=2)
    both = pd.concat([performance_rows(), second[second["method"].isin(LEARNED)]])
    both.loc[both["task"] == "scenes", "n"] = 400
    keep(worlds, "mini", both, outcomes=True)
    assert forest.run("mini") == "7 steps, 400 to 500 test images per task, seeds 0, 2"
    assert "The drawn world: 7 steps, 400 to 500" in forest.caption() and "all worlds" not in forest.caption()
    keep(worlds, "tiny", both, outcomes=True)
    assert forest.caption().endswith("All worlds: 7 steps, 400 to 500 test images per task, seeds 0, 2.")


@pytest.mark.parametrize(("seeds", "text"), [([3], "seed 3"), ([0, 1], "seeds 0, 1"), ([0, 2, 3], "seeds 0, 2, 3")])
def test_seeds_in_words(seeds, text):
    assert roles.seeds_told(seeds) == text
    assert roles.seeds_told([0, 1, 2]) == "seeds 0 to 2"


def test_claims_are_counted_by_world_in_four_words(worlds):
    lines = [line for line in directives.claims_count_text().splitlines() if line.startswith("|")]
    head, _, drawn, photographs = lines
    words = "holds | does not hold | undecided | not run"
    assert head == f"|  | claims | {words} | of these by point value only |"
    for line, profile, name in ((drawn, "mini", "The drawn world"), (photographs, "tiny", "Photographs")):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        known = sum(claim.concerns(profile) for _, claim in claims.by_papers())
        assert cells[0] == name and sum(map(int, cells[2:6])) == int(cells[1]) == known and int(cells[5]) > 0
    assert int(photographs.split("|")[7]) > int(drawn.split("|")[7])


def test_the_page_builds_without_a_warning(worlds, tmp_path):
    (tmp_path / "conf.py").write_text(
        'extensions = ["myst_nb", "sphinx_design", "adamerging_study.book.sphinx"]\nnb_execution_mode = "off"\n'
        'myst_enable_extensions = ["attrs_inline", "dollarmath", "colon_fence"]\nnumfig = True\n'
    )
    names = ("answer", "forest", "findings", "averages", "task-gains", "winners")
    (tmp_path / "index.md").write_text("# Index\n\n" + "\n\n".join(f"```{{{name}}}\n```" for name in names) + "\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book/rerun.md").write_text("---\norphan: true\n---\n\n# Rerun\n")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "-n", "-q", str(tmp_path), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html/index.html").read_text(encoding="utf-8")
    assert re.search(r'<abbr class="measured" title="lw_over_ta in results/tiny/[^"]*">\+2\.0</abbr> points', page)
    assert '<span class="published">+11.0</span>' in page
    assert 'href="_images/forest.png"' in page and 'src="_images/forest.png"' in page and "data:image" not in page
    assert (tmp_path / "html/_images/forest.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.png"))  # nothing beside the sources
    assert re.search(r'alt="The sign of AdaMerging(&#\w+;|\')s gain reproduces', page)
    assert "<strong>Without any image</strong>" in page and page.count("made-by") == 4
