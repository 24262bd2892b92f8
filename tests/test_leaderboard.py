"""The leaderboard: who competes with whom, what it shows, and what it costs."""

import dataclasses
import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from madeup import LEVELS, OTHERS, leaderboard_rows, named
from matplotlib.colors import to_hex
from matplotlib.text import Text
from vision import VISION, lab

from adamerging_lib import methods, run_method
from adamerging_lib.methods import registry, runnable
from adamerging_lib.published import POOLS, pool_averages
from adamerging_lib.published import leaderboard as published_rows
from adamerging_lib.published.competitions import BOUNDS, NEEDS, REFERENCE, competitions
from adamerging_study import claims, frames, judge, measuring, style
from adamerging_study.leaderboard import numbers, show
from adamerging_study.leaderboard.measure import measure
from adamerging_study.sample import Sample

METHODS = [method for method in [*LEVELS, *OTHERS] if method in methods().index]
LABELS = methods()["label"]


def made_up(ids, **levels):
    return named(leaderboard_rows(ids, **levels))


@pytest.fixture(scope="module")
def rows():
    return made_up(METHODS)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_only_methods_with_the_same_needs_and_kind_compete(rows):
    frame = show.standings(rows)
    assert sorted(frame.index) == sorted(METHODS)
    for _name, part in frame.groupby("competition", observed=True):
        assert part["average"].is_monotonic_decreasing
        if part.index[0] not in BOUNDS:
            assert part["needs"].nunique() == part["gives"].nunique() == 1
    groups = frame["competition"].astype(str)
    assert set(groups[list(BOUNDS)]) == {REFERENCE}
    assert groups["ties"] == groups["task_arithmetic"] == "from checkpoints alone, one model for all tasks"
    assert groups["layer_wise_adamerging"] == "from unlabelled test images, one model for all tasks"
    assert list(dict.fromkeys(groups)) == [name for name in competitions() if name in set(groups)]


def test_standings_hold_the_records_numbers(rows):
    row = show.standings(rows).loc["ties"]
    assert row["average"] == pytest.approx(72) and row["seconds"] == pytest.approx(5.1) and row["storage"] == 0
    assert row["memory"] == pytest.approx(40.000005)
    spread = np.linspace(-4, 4, 8)
    assert row["normalised"] == pytest.approx(100 * np.mean((72 + spread) / (95 + spread)))
    both = pd.concat([rows, made_up(["ties"], ties=74.0).assign(seed=1)])
    again = show.standings(both).loc["ties"]
    assert again["average"] == pytest.approx(73) and again["seconds"] == pytest.approx((5.1 + 0.1) / 2)


def test_experts_that_were_not_run_leave_the_share_open(rows):
    frame = show.standings(rows[rows["method"] != "individual"])
    assert frame["normalised"].isna().all()
    shown = show.by_competition(rows[rows["method"] != "individual"])[1]._repr_html_()
    assert "<td>–</td>" in shown and "nan" not in shown.lower()


def test_memory_that_a_system_does_not_tell_is_left_open(rows):
    shown = show.by_competition(rows.assign(memory=None))
    assert all("nan" not in repr(table).lower() for table in shown)
    assert shown[1].frame["measured", "MB"].isna().all() and shown[1].frame["measured", "seconds"].notna().all()


@pytest.mark.parametrize("pool", POOLS)
def test_tables_hold_one_pool_beside_the_measured_numbers(rows, pool):
    shown = show.by_competition(rows, pool)
    assert sum(len(table.frame) for table in shown) == len(METHODS)
    theirs = pool_averages(pool)
    for table in shown:
        parts = table.frame.columns.get_level_values(0).unique().tolist()
        assert parts == ["measured", f"published, {pool}"]
        for method in methods().index[methods()["label"].isin(table.frame.index)]:
            line = table.frame.loc[LABELS[method]]
            level = LEVELS[method] if method in LEVELS else OTHERS[method][0]
            assert line["measured", "average"].startswith(f"{level:.1f} ± ")
            for arch, value in line[f"published, {pool}"].items():
                expected = theirs[arch].get(method, np.nan)
                assert pd.isna(value) if pd.isna(expected) else float(value) == expected
    text = show.pool_caption(pool)
    assert pool in text and not any(other in text for other in POOLS if other != pool)


def test_numbers_are_shown_as_they_were_printed(rows):
    (table,) = [t for t in show.by_competition(rows) if "Individual" in t.frame.index]
    assert table.frame.loc["Individual", "published, P1"].tolist() == ["90.5", "92.65", "94.2"]


def test_accuracies_by_task_follow_the_standings(rows):
    frame = show.by_task(rows)
    assert frame.index.tolist() == [LABELS[m] for m in show.standings(rows).index]
    assert frame.loc["Ties-Merging", "scenes"] == "68.0" and frame.columns[-1] == "Average"


@pytest.mark.parametrize("pool", POOLS)
def test_everything_published_of_a_pool_is_listed_once(rows, pool):
    frame, theirs = show.published_beside(rows, pool), published_rows(pool)
    assert len(frame) == len(theirs.groupby(["method", "source"]))
    shown = frame.filter(like="published, ").stack().dropna()
    assert sorted(map(float, shown)) == sorted(theirs["accuracy"])
    measured = frame["measured"].dropna()
    assert measured.index.is_unique and measured["Ties-Merging"] == "72.0"
    assert set(theirs.loc[theirs["method"].isin(measured.index), "method_id"]) <= set(METHODS)


def test_sentences_name_the_winner_of_each_competition(rows):
    lines = show.in_words(rows)
    started = [line for line in lines if line.startswith("From unlabelled test images, one model for all tasks")]
    frame = show.standings(rows)
    best = frame[frame["competition"] == "from unlabelled test images, one model for all tasks"].index[0]
    assert len(started) == 1 and f"{LABELS[best]} leads with" in started[0]
    better = show.in_words(made_up(METHODS, task_wise_adamerging=95.5))
    assert any("Task-wise AdaMerging leads with 95.5" in line for line in better)
    assert not any("Individual" in line for line in lines)


def test_slow_methods_are_named_slowest_first(rows):
    slow = show.slow(rows, 8.0)
    assert slow[0].endswith(f"{rows['seconds'].max():.0f} s") and "Layer-wise AdaMerging++: 9 s" in slow
    assert show.slow(rows, 1e6) == ["none"]


def test_order_is_compared_with_the_published_one(rows):
    (line,) = show.order_in_words(rows, "P1", "ViT-B-32")
    theirs = pool_averages("P1")["ViT-B/32"].dropna()
    count = len([method for method in METHODS if method in theirs and method not in BOUNDS])
    assert line.startswith(f"{count} merging methods have an average published for ViT-B/32 in pool P1")
    opposite = {method: 150 - theirs[method] for method in METHODS if method in theirs and method not in BOUNDS}
    (line,) = show.order_in_words(made_up(METHODS, **opposite), "P1", "ViT-B-32")
    assert line.endswith("rank correlation with the order here: -1.00.")
    (line,) = show.order_in_words(made_up(["ties", "individual"]), "P3", "ViT-L-14")
    assert line.startswith("Fewer than three")


def test_what_a_reference_point_costs_is_not_shown(rows):
    shown = show.by_competition(rows)[0].frame["measured"]
    assert "Individual" in shown.index and shown[["seconds", "MB"]].isna().all().all()
    assert shown["numbers kept per task"].notna().all()


def test_every_method_gets_a_budget_of_its_own(suite):
    fitted = {"steps": 2, "lr": 0.5, "batch_size": 4, "batches": 1}
    ran = measure(suite, methods=["zero_shot", "ties", "task_wise_adamerging"], **fitted, seed=3)
    assert [row["method"] for row in ran] == [
        m for m in ("zero_shot", "ties", "task_wise_adamerging") for _ in range(4)
    ]
    assert {row["seed"] for row in ran} == {3}
    costs = [row for row in ran if row["task"] == "Average"]
    assert all(row["seconds"] > 0 and row["storage"] == 0 for row in costs)
    again = measure(suite, methods=["task_wise_adamerging"], **fitted, seed=3)
    assert again[-1]["seconds"] == costs[-1]["seconds"]  # the same fit, from the cache
    other = measure(suite, methods=["task_wise_adamerging"], recipe="mini", seed=3)
    assert other[-1]["seconds"] != costs[-1]["seconds"]


def test_no_list_of_methods_means_all_that_the_suite_has_everything_for(suite, monkeypatch):
    every = list(methods().index)
    assert runnable(suite) == every
    assert runnable(dataclasses.replace(suite, joint=None)) == [id for id in every if id != "traditional_mtl"]
    untrained = runnable(dataclasses.replace(suite, train=None))
    with pytest.raises(ValueError, match="training images"):
        run_method("regmean", dataclasses.replace(suite, train=None))
    assert untrained == [id for id in every if not registry.find(id).trains] and "regmean" not in untrained
    asked = []
    monkeypatch.setattr(measuring, "measure", lambda _, method, **__: asked.append(method) or [])
    measure(suite)
    assert asked == every
    asked.clear()
    measure(suite, methods=["ties", "dare"])
    assert asked == ["ties", "dare"]


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


def test_ranking_puts_every_method_in_a_row_of_its_own_best_on_top(rows):
    axes = show.ranking(rows).axes[0]
    frame = show.standings(rows)
    merging = frame[frame["competition"] != REFERENCE].sort_values("average", kind="stable")
    assert [text.get_text() for text in axes.get_yticklabels()] == list(merging["label"])
    assert points(axes) == sorted(zip(merging["average"], range(len(merging)), strict=True))
    upright = {line.get_label(): line.get_xdata()[0] for line in axes.lines if not line.get_label().startswith("_")}
    assert upright == {LABELS[method]: frame.loc[method, "average"] for method in METHODS if method in BOUNDS}


def test_ranking_has_an_interval_where_one_is_known(rows):
    bars = [line for line in show.ranking(rows).axes[0].lines if len(line.get_xdata()) == 2 and line.get_lw() == 1.8]
    half = frames.average_half_widths(rows)
    merging = [method for method in METHODS if method not in BOUNDS]
    assert len(bars) == half[merging].notna().sum()
    widths = sorted((line.get_xdata()[1] - line.get_xdata()[0]) / 2 for line in bars)
    assert widths == pytest.approx(sorted(half[merging].dropna()))


def test_storage_figure_puts_every_method_with_parts_at_its_place(rows):
    axes = show.over_storage(rows).axes[0]
    frame = show.standings(rows)
    merging = frame[frame["competition"] != REFERENCE]
    kept, none = merging[merging["storage"] > 0], merging[(merging["storage"] == 0) & (merging["needs"] != "labels")]
    best = f"best that keeps nothing: {none.loc[none['average'].idxmax(), 'label']}"
    assert names(axes) == {*kept["label"], best, *(LABELS[method] for method in BOUNDS if method in METHODS)}
    assert points(axes) == sorted(zip(kept["storage"], kept["average"], strict=True))
    assert axes.get_xscale() == "log"


def test_seconds_figure_draws_all_methods_and_names_those_that_matter(rows):
    axes = show.over_seconds(rows).axes[0]
    frame = show.standings(rows)
    merging = frame[frame["competition"] != REFERENCE]
    assert points(axes) == sorted(zip(merging["seconds"], merging["average"], strict=True))
    single = merging[(merging["gives"] == "one model for all tasks") & (merging["needs"] != "labels")]
    fastest = single.sort_values(["seconds", "average"], ascending=[True, False]).iloc[0]
    told = names(axes)
    assert {fastest["label"], single.loc[single["average"].idxmax(), "label"]} <= told
    assert {LABELS[method] for method in (*show.ADAMERGING, *BOUNDS) if method in METHODS} <= told
    assert {*merging.loc[merging["gives"] == "parts for each task", "label"]} <= told
    without = show.over_seconds(rows.assign(seconds=np.where(rows["method"] == "ties", np.nan, rows["seconds"])))
    assert "Ties-Merging" not in names(without.axes[0])


@pytest.mark.parametrize("draw", [show.over_storage, show.over_seconds])
def test_names_do_not_cover_each_other_nor_leave_the_picture(rows, draw):
    crowded = made_up(METHODS, **dict.fromkeys([m for m in METHODS if m not in BOUNDS], 70.0))
    for data in (rows, crowded):
        figure = draw(data)
        for axes in figure.axes:
            for a, b in itertools.combinations(boxes(axes), 2):
                assert not a.shrunk(1, 0.98).overlaps(b.shrunk(1, 0.98))
            for box in boxes(axes):
                assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1


@pytest.mark.parametrize("draw", [show.over_storage, show.over_seconds])
def test_title_says_the_finding_and_labels_do_not_compete(draw):
    figure = draw(made_up(METHODS, ties=95.5))
    assert "Ties-Merging, 95.5" in figure.get_suptitle()
    labelled = [method for method in METHODS if methods().loc[method, "needs"] == "labels"]
    figure = draw(made_up(METHODS, **dict.fromkeys(labelled, 95.5)))
    assert "95.5" not in figure.get_suptitle()


def test_parts_for_each_task_do_not_stand_in_the_title_of_seconds():
    title = show.over_seconds(made_up(METHODS, tall_masks=95.5, ties=94.0)).get_suptitle()
    assert "one model at any price: Ties-Merging, 94.0" in title and "95.5" not in title


def test_a_subset_without_storage_can_be_drawn():
    figure = show.over_storage(made_up(["individual", "ties", "weight_averaging"]))
    told = names(figure.axes[0])
    assert "Individual" in told and len(told) == 2 and not points(figure.axes[0])


@pytest.mark.parametrize("vision", VISION)
def test_colours_of_needs_can_be_told_apart(vision):
    for a, b in itertools.combinations(style.NEEDS_COLOURS.values(), 2):
        assert np.linalg.norm(lab(a, vision) - lab(b, vision)) >= 20, (a, b)
    for a, b in itertools.product(style.NEEDS_COLOURS.values(), style.METHOD_COLOURS.values()):
        assert np.linalg.norm(lab(a, vision) - lab(b, vision)) >= 12, (a, b)
    assert len(set(style.NEEDS_MARKERS.values())) == len(NEEDS)


def test_needs_have_their_colours_in_the_order_of_the_library():
    assert tuple(style.NEEDS_COLOURS) == NEEDS


def test_a_marker_has_the_colour_and_shape_of_what_its_method_needs(rows):
    frame = show.standings(rows)
    drawn = {line.get_ydata()[0]: line for line in show.over_seconds(rows).axes[0].lines if line.get_marker() != "None"}
    for method in ("wudi", "regmean", "surgery", "taps", "layer_wise_adamerging"):
        row = frame.loc[method]
        line = drawn[row["average"]]
        expected = style.METHOD_COLOURS.get(method, style.NEEDS_COLOURS[row["needs"]]).lower()
        hollow = row["gives"] == "parts for each task"
        assert line.get_marker() == style.NEEDS_MARKERS[row["needs"]]
        assert to_hex(line.get_markeredgecolor() if hollow else line.get_markerfacecolor()) == expected
        assert (to_hex(line.get_markerfacecolor()) == "#ffffff") == hollow


# ----------------------------------------------------------------------------------------------- numbers and claims


def found(rows):
    return {name: values[0] for name, values in numbers.numbers(Sample(rows, draws=0, where=claims.WHERE)).items()}


def words(rows):
    known = numbers.numbers(Sample(rows, draws=0, where=claims.WHERE))
    return {claim.id: judge.judge(claim, known).word for claim in claims.claims_of("leaderboard")}


def test_numbers_are_those_of_the_standings(rows):
    told, frame = found(rows), show.standings(rows)
    assert told["methods"] == len(METHODS) - 3
    assert told["tsv_m_average"] == pytest.approx(84.2) and told["tsv_m_over_ties"] == pytest.approx(12.2)
    assert told["ties_over_tsv_m"] == pytest.approx(-12.2)
    assert told["free_beyond_ties"] == pytest.approx(85.4 - 72) and told["images_beyond_free"] == pytest.approx(2.5)
    assert told["parts_beyond_one"] == pytest.approx(92.0 - 87.9)
    best = {needs: numbers.words(rows)[f"{needs}_best"] for needs in ("nothing_one", "labels_parts")}
    assert best == {"nothing_one": "SWUDI", "labels_parts": "TAPS"}
    for key, label in numbers.words(rows).items():
        (method,) = LABELS.index[LABELS == label]
        assert told[key.replace("_best", "_average")] == pytest.approx(frame.loc[method, "average"])


def test_a_competition_that_nobody_entered_has_no_number():
    few = made_up(["individual", "ties", "task_arithmetic", "tsv_m"])
    told = found(few)
    assert np.isnan(told["labels_one_average"]) and told["nothing_one_average"] == pytest.approx(84.2)
    assert list(numbers.words(few)) == ["nothing_one_best"]


def test_no_number_or_word_hangs_on_the_order_of_methods(rows):
    tie = made_up(METHODS, swudi_a=85.4)
    for data in (rows, tie):
        turned = data.iloc[::-1].reset_index(drop=True)
        assert found(turned) == pytest.approx(found(data), nan_ok=True)
        assert numbers.words(turned) == numbers.words(data)
        assert list(show.standings(turned).index) == list(show.standings(data).index)
    assert numbers.words(tie)["nothing_one_best"] == "SWUDI"


def test_claims_hold_in_a_world_like_the_published_one(rows):
    assert set(words(rows).values()) == {"holds"}


@pytest.mark.parametrize(
    ("id", "levels"),
    [
        ("tsv-m-over-ties", {"tsv_m": 71.9}),
        ("regmean-pp-over-regmean", {"regmean_pp": 71.7}),
        ("tint-over-prior", {"tint_pp": 80.8}),
        ("adarank-over-lw", {"adarank": 79.0}),
        ("parts-over-one", {"prodistill": 94.0}),
        ("free-over-ties", {"ties": 95.5}),
        ("images-over-free", {"tsv_m": 88.0}),
    ],
)
def test_each_claim_falls_with_its_method(id, levels):
    assert words(made_up(METHODS, **levels))[id] == "does not hold"


def test_what_was_not_run_is_not_judged():
    told = words(made_up(["individual", "ties", "task_arithmetic"]))
    assert told.pop("free-over-ties") == "does not hold"
    assert set(told.values()) == {"not run"}
