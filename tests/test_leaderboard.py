"""The leaderboard: who competes with whom, what it shows, and what it costs."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from madeup import LEVELS, OTHERS, leaderboard_rows
from matplotlib.colors import to_hex
from matplotlib.text import Text
from test_figures import VISION, lab

from adamerging_lib import methods, records
from adamerging_lib.methods.registry import NEEDS
from adamerging_lib.published import POOLS, pool_averages
from adamerging_lib.published import leaderboard as published_rows
from adamerging_study import tables, verdicts
from adamerging_study.experiments import leaderboard as experiment
from adamerging_study.figures import leaderboard as figures
from adamerging_study.figures import style
from adamerging_study.tables import leaderboard

METHODS = [method for method in [*LEVELS, *OTHERS] if method in methods().index]


@pytest.fixture(scope="module")
def rows():
    return leaderboard_rows(METHODS)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_only_methods_with_the_same_needs_and_kind_compete(rows):
    frame = leaderboard.standings(rows)
    assert sorted(frame.index) == sorted(METHODS)
    for _name, part in frame.groupby("group", observed=True):
        assert part["average"].is_monotonic_decreasing
        if part.index[0] not in tables.BOUNDS:
            assert part["needs"].nunique() == part["kind"].nunique() == 1
    groups = frame["group"].astype(str)
    assert set(groups[list(tables.BOUNDS)]) == {leaderboard.REFERENCE}
    assert groups["ties"] == groups["task_arithmetic"] == "from checkpoints alone, one model for all tasks"
    assert groups["layer_wise_adamerging"] == "from unlabelled test images, one model for all tasks"
    assert list(dict.fromkeys(groups)) == [name for name in leaderboard.group_names() if name in set(groups)]


def test_standings_hold_the_records_numbers(rows):
    row = leaderboard.standings(rows).loc["ties"]
    assert row["average"] == pytest.approx(72) and row["seconds"] == pytest.approx(5.1) and row["storage"] == 0
    assert row["memory"] == pytest.approx(40.000005)
    spread = np.linspace(-4, 4, 8)
    assert row["normalised"] == pytest.approx(100 * np.mean((72 + spread) / (95 + spread)))
    both = pd.concat([rows, leaderboard_rows(["ties"], ties=74.0).assign(seed=1)])
    again = leaderboard.standings(both).loc["ties"]
    assert again["average"] == pytest.approx(73) and again["seconds"] == pytest.approx((5.1 + 0.1) / 2)


def test_experts_that_were_not_run_leave_the_share_open(rows):
    frame = leaderboard.standings(rows[rows["method"] != "individual"])
    assert frame["normalised"].isna().all()
    shown = leaderboard.by_group(rows[rows["method"] != "individual"])[1]._repr_html_()
    assert "<td>–</td>" in shown and "nan" not in shown.lower()


def test_memory_that_a_system_does_not_tell_is_left_open(rows):
    shown = leaderboard.by_group(rows.assign(memory=None))
    assert all("nan" not in repr(table).lower() for table in shown)
    assert shown[1].frame["measured", "MB"].isna().all() and shown[1].frame["measured", "seconds"].notna().all()


@pytest.mark.parametrize("pool", POOLS)
def test_tables_hold_one_pool_beside_the_measured_numbers(rows, pool):
    shown = leaderboard.by_group(rows, pool)
    assert sum(len(table.frame) for table in shown) == len(METHODS)
    theirs = pool_averages(pool)
    for table in shown:
        parts = table.frame.columns.get_level_values(0).unique().tolist()
        assert parts == ["measured", f"published, {pool}"]
        for method in methods().index[methods()["label"].isin(table.frame.index)]:
            line = table.frame.loc[tables.label(method)]
            level = LEVELS[method] if method in LEVELS else OTHERS[method][0]
            assert line["measured", "average"].startswith(f"{level:.1f} ± ")
            for arch, value in line[f"published, {pool}"].items():
                expected = theirs[arch].get(method, np.nan)
                assert pd.isna(value) if pd.isna(expected) else float(value) == expected
    text = leaderboard.pool_caption(pool)
    assert pool in text and not any(other in text for other in POOLS if other != pool)


def test_numbers_are_shown_as_they_were_printed(rows):
    (table,) = [t for t in leaderboard.by_group(rows) if "Individual" in t.frame.index]
    assert table.frame.loc["Individual", "published, P1"].tolist() == ["90.5", "92.65", "94.2"]


def test_accuracies_by_task_follow_the_standings(rows):
    frame = leaderboard.by_task(rows)
    assert frame.index.tolist() == [tables.label(m) for m in leaderboard.standings(rows).index]
    assert frame.loc["Ties-Merging", "scenes"] == "68.0" and frame.columns[-1] == "Average"


@pytest.mark.parametrize("pool", POOLS)
def test_everything_published_of_a_pool_is_listed_once(rows, pool):
    frame, theirs = leaderboard.published_beside(rows, pool), published_rows(pool)
    assert len(frame) == len(theirs.groupby(["method", "source"]))
    shown = frame.filter(like="published, ").stack().dropna()
    assert sorted(map(float, shown)) == sorted(theirs["accuracy"])
    measured = frame["measured"].dropna()
    assert measured.index.is_unique and measured["Ties-Merging"] == "72.0"
    assert set(theirs.loc[theirs["method"].isin(measured.index), "method_id"]) <= set(METHODS)


def test_sentences_name_the_winner_of_each_competition(rows):
    lines = leaderboard.in_words(rows)
    started = [line for line in lines if line.startswith("From unlabelled test images, one model for all tasks")]
    frame = leaderboard.standings(rows)
    best = frame[frame["group"] == "from unlabelled test images, one model for all tasks"].index[0]
    assert len(started) == 1 and f"{tables.label(best)} leads with" in started[0]
    better = leaderboard.in_words(leaderboard_rows(METHODS, task_wise_adamerging=95.5))
    assert any("Task-wise AdaMerging leads with 95.5" in line for line in better)
    assert not any("Individual" in line for line in lines)


def test_numbers_for_prose_and_slow_methods(rows):
    found = leaderboard.numbers(rows)
    assert found["methods"] == len(METHODS) - 3
    frame = leaderboard.standings(rows)
    best = frame[frame["group"] == "from checkpoints alone, one model for all tasks"].iloc[0]
    assert found["nothing_one_best"] == tables.label(best.name) and found["nothing_one_average"] == best["average"]
    slow = leaderboard.slow(rows, 8.0)
    assert slow[0].endswith(f"{rows['seconds'].max():.0f} s") and "Layer-wise AdaMerging++: 9 s" in slow
    assert leaderboard.slow(rows, 1e6) == ["none"]


def test_order_is_compared_with_the_published_one(rows):
    (line,) = leaderboard.order_in_words(rows, "P1", "ViT-B-32")
    theirs = pool_averages("P1")["ViT-B/32"].dropna()
    count = len([method for method in METHODS if method in theirs and method not in tables.BOUNDS])
    assert line.startswith(f"{count} merging methods have an average published for ViT-B/32 in pool P1")
    opposite = {method: 150 - theirs[method] for method in METHODS if method in theirs and method not in tables.BOUNDS}
    (line,) = leaderboard.order_in_words(leaderboard_rows(METHODS, **opposite), "P1", "ViT-B-32")
    assert line.endswith("rank correlation with the order here: -1.00.")
    (line,) = leaderboard.order_in_words(leaderboard_rows(["ties", "individual"]), "P3", "ViT-L-14")
    assert line.startswith("Fewer than three")


def test_what_a_reference_point_costs_is_not_shown(rows):
    shown = leaderboard.by_group(rows)[0].frame["measured"]
    assert "Individual" in shown.index and shown[["seconds", "MB"]].isna().all().all()
    assert shown["numbers kept a task"].notna().all()


def test_experiment_gives_every_method_its_own_budget(suite):
    fitted = {"steps": 2, "lr": 0.5, "batch_size": 4, "batches": 1}
    ran = experiment.leaderboard(suite, ["zero_shot", "ties", "task_wise_adamerging"], adamerging=fitted, seed=3)
    assert [row["method"] for row in ran] == [
        m for m in ("zero_shot", "ties", "task_wise_adamerging") for _ in range(4)
    ]
    assert {row["seed"] for row in ran} == {3}
    costs = [row for row in ran if row["task"] == "Average"]
    assert all(row["seconds"] > 0 and row["storage"] == 0 for row in costs)
    again = experiment.leaderboard(suite, ["task_wise_adamerging"], adamerging=fitted, seed=3)
    assert again[-1]["seconds"] == costs[-1]["seconds"]  # the same fit, from the cache
    other = experiment.leaderboard(suite, ["task_wise_adamerging"], recipe="mini", seed=3)
    assert other[-1]["seconds"] != costs[-1]["seconds"]
    record = records.new("leaderboard", "toy", {}, suite, ran, [3], "2026-01-01", 1.0)
    assert records.compare(record, record) == []


# ---------------------------------------------------------------------------------------------------------- figures


def names(axes):
    return {text.get_text() for text in axes.texts}


def points(axes):
    """Places of all markers, sorted."""
    lines = [line for line in axes.lines if line.get_marker() != "None"]
    return sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines)


def boxes(axes):
    axes.figure.canvas.draw()
    return [Text.get_window_extent(text) for text in axes.texts]  # an annotation's own counts its line too


def test_storage_figure_puts_every_method_once_and_at_its_place(rows):
    figure = figures.over_storage(rows)
    left, right = figure.axes
    merging = [method for method in METHODS if method not in tables.BOUNDS]
    keeps = [method for method in merging if OTHERS.get(method, (0, 0, 0))[2] > 0]
    assert names(left) == {tables.label(method) for method in merging if method not in keeps}
    assert names(right) == {tables.label(method) for method in [*keeps, *tables.BOUNDS]}
    frame = leaderboard.standings(rows)
    kept = frame.loc[keeps]
    assert points(right) == sorted(zip(kept["storage"], kept["average"], strict=True))
    none = frame.loc[[method for method in merging if method not in keeps], "average"]
    assert sorted(y for _, y in points(left)) == pytest.approx(sorted(none))
    assert right.get_xscale() == "log"


def test_seconds_figure_draws_all_methods_but_the_reference_points(rows):
    axes = figures.over_seconds(rows).axes[0]
    frame = leaderboard.standings(rows)
    merging = frame[frame["group"] != leaderboard.REFERENCE]
    assert points(axes) == sorted(zip(merging["seconds"], merging["average"], strict=True))
    assert names(axes) == {tables.label(method) for method in frame.index}
    without = figures.over_seconds(rows.assign(seconds=np.where(rows["method"] == "ties", np.nan, rows["seconds"])))
    assert "Ties-Merging" not in names(without.axes[0])


@pytest.mark.parametrize("draw", [figures.over_storage, figures.over_seconds])
def test_names_do_not_cover_each_other_nor_leave_the_picture(rows, draw):
    crowded = leaderboard_rows(METHODS, **dict.fromkeys([m for m in METHODS if m not in tables.BOUNDS], 70.0))
    for data in (rows, crowded):
        figure = draw(data)
        for axes in figure.axes:
            for a, b in itertools.combinations(boxes(axes), 2):
                assert not a.shrunk(1, 0.98).overlaps(b.shrunk(1, 0.98))
            for box in boxes(axes):
                assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1


@pytest.mark.parametrize("draw", [figures.over_storage, figures.over_seconds])
def test_title_says_the_finding_and_labels_do_not_compete(draw):
    figure = draw(leaderboard_rows(METHODS, ties=95.5))
    assert "Ties-Merging, 95.5" in figure.get_suptitle()
    labelled = [method for method in METHODS if methods().loc[method, "needs"] == "labels"]
    figure = draw(leaderboard_rows(METHODS, **dict.fromkeys(labelled, 95.5)))
    assert "95.5" not in figure.get_suptitle()


def test_parts_for_each_task_do_not_stand_in_the_title_of_seconds():
    title = figures.over_seconds(leaderboard_rows(METHODS, tall_masks=95.5, ties=94.0)).get_suptitle()
    assert "one model at any price: Ties-Merging, 94.0" in title and "95.5" not in title


def test_a_subset_without_storage_can_be_drawn():
    figure = figures.over_storage(leaderboard_rows(["individual", "ties", "weight_averaging"]))
    assert names(figure.axes[1]) == {"Individual"}


@pytest.mark.parametrize("vision", VISION)
def test_colours_of_needs_can_be_told_apart(vision):
    for a, b in itertools.combinations(style.NEEDS_COLOURS.values(), 2):
        assert np.linalg.norm(lab(a, vision) - lab(b, vision)) >= 20, (a, b)
    for a, b in itertools.product(style.NEEDS_COLOURS.values(), style.METHOD_COLOURS.values()):
        assert np.linalg.norm(lab(a, vision) - lab(b, vision)) >= 12, (a, b)
    assert len(set(style.NEEDS_MARKERS.values())) == len(NEEDS)


def test_every_method_has_a_colour_its_own_or_of_its_needs():
    for method, row in methods().iterrows():
        expected = style.METHOD_COLOURS.get(method, style.NEEDS_COLOURS[row["needs"]])
        assert to_hex(style.colour(method)).upper() == expected
        assert style.marker(method) == style.NEEDS_MARKERS[row["needs"]]


# --------------------------------------------------------------------------------------------------------- verdicts


def words(found):
    return {verdict.check: verdict.word for verdict in found}


def test_statements_hold_in_a_world_like_the_published_one(rows):
    assert set(words(verdicts.leaderboard(rows)).values()) == {"holds"}


def test_each_statement_falls_with_its_method(rows):
    breaks = {
        "TSV-M is above Ties-Merging": {"tsv_m": 71.9},
        "RegMean++ is above RegMean": {"regmean_pp": 71.7},
        "Tint++ is above Tint": {"tint_pp": 88.9},
        "AdaRank is above Layer-wise AdaMerging": {"adarank": 79.0},
        "Without labels, parts for each task come nearest to the experts": {"prodistill": 94.0},
    }
    for statement, levels in breaks.items():
        found = words(verdicts.leaderboard(leaderboard_rows(METHODS, **levels)))
        assert found[statement] == "does not hold", statement
    found = words(verdicts.leaderboard(leaderboard_rows(METHODS, ties=95.5)))
    assert found["The best model from checkpoints alone is above Ties-Merging"] == "does not hold"


def test_what_was_not_run_is_not_judged():
    found = words(verdicts.leaderboard(leaderboard_rows(["individual", "ties", "task_arithmetic"])))
    assert found["The best model from checkpoints alone is above Ties-Merging"] == "does not hold"
    found.pop("The best model from checkpoints alone is above Ties-Merging")
    assert set(found.values()) == {"not run"}
