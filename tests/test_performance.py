"""The main comparison: numbers, claims, tables and figures say what the rows say, no more."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from madeup import LEVELS, SCALINGS, named, performance_rows
from matplotlib.colors import to_hex

from adamerging_lib import methods, records
from adamerging_lib.published import ARCHITECTURES, published
from adamerging_lib.worlds.roles import STAND_IN
from adamerging_study import claims, frames, measuring, outcomes
from adamerging_study.book import pictures
from adamerging_study.judge import FAILS, HOLDS, NOT_RUN
from adamerging_study.performance import show
from adamerging_study.performance.measure import measure
from adamerging_study.sample import Sample, interval
from adamerging_study.style import colour

LABEL = methods()["label"]


@pytest.fixture(scope="module")
def rows():
    return named(performance_rows())


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def record_of(frame, profile="mini"):
    rows = [row.dropna().to_dict() for _, row in frame.drop(columns=["label", "needs"], errors="ignore").iterrows()]
    known = methods().to_dict("index")
    return records.new("performance", profile, {}, None, rows, [0], "2026-01-01T00:00:00", 1.0, methods=known)


def words_of(frame, profile="mini"):
    return {verdict.claim.id: verdict.word for verdict in claims.verdicts_of(record_of(frame, profile))}


def failing(frame):
    return {id for id, word in words_of(frame).items() if word == FAILS}


def test_accuracies_keep_the_order_of_the_record_and_leave_the_sweep_out(rows):
    frame = frames.accuracies(rows)
    assert frame.index.tolist() == list(LEVELS)
    assert frame.columns.tolist() == [*STAND_IN, "Average"]
    assert frame.loc["ties", "scenes"] == pytest.approx(68)
    assert frame["Average"].to_dict() == pytest.approx(LEVELS)


def test_several_seeds_are_averaged(rows):
    second = named(performance_rows(layer_wise_adamerging=84.0).assign(seed=1))
    both = pd.concat([rows, second], ignore_index=True)
    assert frames.averages(both)["layer_wise_adamerging"] == pytest.approx(82)
    assert frames.accuracies(both).loc["ties"].equals(frames.accuracies(rows).loc["ties"])
    assert show.comparison(both).loc["Layer-wise AdaMerging", ("average", "measured")].startswith("82.0 ± ")
    assert claims.numbers_of(record_of(both))["lw_over_ta"][0] == pytest.approx(13)


def test_methods_that_learn_or_draw_run_with_every_seed_and_all_others_with_the_first(suite):
    learning = {"steps": 2, "lr": 0.05, "batch_size": 4}
    methods = ["ties", "dare", "layer_wise_adamerging"]
    rows = pd.DataFrame(measure(suite, methods=methods, swept=["ties"], scalings=[0.1], seeds=[3, 5], **learning))
    plain, swept = rows[rows["scaling"].isna()], rows[rows["scaling"].notna()]
    assert plain.groupby("method")["seed"].unique().map(list).to_dict() == {
        "ties": [3], "dare": [3, 5], "layer_wise_adamerging": [3, 5],
    }  # fmt: skip
    assert set(swept["seed"]) == {3} and len(rows) == 6 * (len(suite.tasks) + 1)
    for seed in (3, 5):
        again = measuring.measure(suite, "layer_wise_adamerging", seed=seed, learning=learning)
        own = plain[(plain["method"] == "layer_wise_adamerging") & (plain["seed"] == seed)]
        assert own["entropy"].tolist() == [row["entropy"] for row in again]
    assert plain.loc[plain["method"] == "layer_wise_adamerging", "entropy"].nunique() == 2 * (len(suite.tasks) + 1)


def with_outcomes(accuracies, seed=0, n=200):
    """Rows of one method that is right on the first images of each task."""
    about = {"method": "ties", "condition": "clean", "seed": seed}
    rows = [
        {**about, "task": task, "accuracy": accuracy, "n": n,
         "right": outcomes.pack(np.arange(n) < accuracy * n / 100)}
        for task, accuracy in accuracies.items()
    ]  # fmt: skip
    return [*rows, {**about, "task": "Average", "accuracy": np.mean(list(accuracies.values())), "n": n * len(rows)}]


def test_intervals_of_one_seed_are_over_images_and_of_several_over_seeds_too():
    one = with_outcomes({"a": 70.0, "b": 80.0})
    apart = [row for s, d in enumerate((-4, 0, 4)) for row in with_outcomes({"a": 70.0 + d, "b": 80.0 + d}, seed=s)]
    narrow, wide = (frames.interval_half_widths(pd.DataFrame(rows)).loc["ties"] for rows in (one, apart))
    assert narrow["a"] == pytest.approx(196 * np.sqrt(0.7 * 0.3 / 200), rel=0.1)
    # Seeds alone: t of two degrees of freedom times 4/√3.
    assert wide["a"] > 4.303 * 4 / np.sqrt(3) * 0.95 and wide["Average"] > 4.303 * 4 / np.sqrt(3) * 0.95
    for rows, half in ((one, narrow), (apart, wide)):
        sample = Sample(pd.DataFrame(rows))
        for task in ("a", "b", "Average"):
            _, low, high = interval(sample.accuracy("ties", task))
            assert half[task] == pytest.approx((high - low) / 2)
        assert frames.average_half_widths(pd.DataFrame(rows))["ties"] == half["Average"]


def test_rows_without_outcomes_have_intervals_over_images_beside_rows_with_outcomes():
    kept = pd.DataFrame(with_outcomes({"a": 70.0, "b": 80.0}))
    bare = kept.drop(columns="right").assign(method="dare")
    half = frames.interval_half_widths(pd.concat([kept, bare], ignore_index=True))
    assert half.notna().all(axis=None)
    np.testing.assert_allclose(half.loc["dare"], half.loc["ties"], rtol=0.1)


def test_the_comparison_holds_measured_and_published_numbers_apart(rows):
    frame = show.comparison(rows)
    assert frame.index.tolist() == [LABEL[method] for method in LEVELS]
    assert frame.columns.get_level_values(0).unique().tolist() == ["average", "average, published", "measured, by task"]
    assert frame["measured, by task"].columns.tolist() == list(STAND_IN)
    assert frame.loc["Ties-Merging", ("measured, by task", "scenes")].startswith("68.0 ± ")
    assert frame.loc["Ties-Merging", ("average", "measured")].startswith("72.0 ± ")
    theirs = published("performance").query("task == 'Average'")
    for row in theirs.itertuples():
        if row.method_id in LEVELS:
            shown = frame.loc[LABEL[row.method_id], ("average, published", ARCHITECTURES[row.arch])]
            assert shown == f"{row.accuracy:.1f}"
    assert frame.loc["Pretrained", "average, published"].isna().all()


def test_the_published_table_is_shown_as_printed():
    printed = show.published_performance("ViT-B-32")
    assert printed.shape == (11, 9) and printed.iloc[0, 0] == "75.3"
    assert set(printed.columns.get_level_values(0)) == {"published, ViT-B/32"}


def test_names_are_those_of_the_record(rows):
    renamed = rows.assign(label=rows["label"].replace("Ties-Merging", "Knots"))
    assert "Knots" in show.comparison(renamed).index and "Ties-Merging" not in show.ranking(renamed).index


def test_intervals_shrink_with_images_and_with_tasks():
    few, many = (frames.interval_half_widths(performance_rows(n=n)).loc["ties"] for n in (100, 10_000))
    assert few["aerial"] == pytest.approx(10 * many["aerial"], rel=0.15)
    # 1.96 √(p (1 − p) / n), and √8 less for the mean of eight
    assert few["aerial"] == pytest.approx(196 * np.sqrt(0.7029 * 0.2971 / 100), rel=0.1)
    assert few["Average"] == pytest.approx(few.drop("Average").mean() / np.sqrt(8), rel=0.1)


def test_gaps_are_paired_with_the_experts(rows):
    frame = show.gap_to_experts(rows)
    assert "individual" not in frame.index
    np.testing.assert_allclose(frame.loc["traditional_mtl"], -2)
    with pytest.raises(ValueError, match="'individual'"):
        show.gap_to_experts(rows[rows["method"] != "individual"])


def test_ranking_orders_merging_methods_and_puts_the_published_place_beside(rows):
    frame = show.ranking(rows)
    assert frame.index[0] == "Layer-wise AdaMerging++" and frame.index[-1] == "Weight Averaging"
    assert not {"Pretrained", "Individual", "Traditional MTL"} & set(frame.index)
    assert frame["place"].tolist() == frame["published place"].astype(int).tolist() == list(range(1, 8))
    swapped = show.ranking(named(performance_rows(ties=68.0)))
    assert swapped.index[4:6].tolist() == ["Task Arithmetic", "Ties-Merging"]
    assert swapped.loc["Ties-Merging", "published place"] == "4"
    assert swapped.loc["Task-wise AdaMerging", "lead over the next"] == "+2.0"


def test_ranking_in_words_is_computed_not_written(rows):
    lines = show.ranking_in_words(rows)
    assert lines[0] == "Best merged model: Layer-wise AdaMerging++, 81.0 on average."
    assert "It is 14.0 points below Individual (95.0)." in lines
    gain = "Layer-wise AdaMerging is 10.0 points above Task Arithmetic at its best λ (0.2)"
    assert f"{gain}; published, ViT-B/32: 11.0 points above it." in lines
    worse = show.ranking_in_words(named(performance_rows(layer_wise_adamerging=60.0)))
    assert any(line.startswith("Layer-wise AdaMerging is 10.0 points below Task Arithmetic") for line in worse)


def test_best_scaling_reads_the_sweep(rows):
    assert show.best_scaling(rows, "task_arithmetic") == pytest.approx((0.2, 70.0))
    assert show.best_scaling(rows, "weight_averaging") is None
    assert show.sweep(rows)["scaling"].unique().tolist() == SCALINGS
    without = rows[rows["scaling"].isna()].drop(columns="scaling")
    assert show.sweep(without).empty and show.best_scaling(without, "ties") is None


def test_numbers_by_hand(rows):
    found = {name: values[0] for name, values in claims.numbers_of(record_of(rows)).items()}
    expected = {
        "lw_average": 80.0, "worst_expert": 91.0,
        "lw_over_ta": 11.0, "lw_over_ties": 8.0, "lw_over_tw": 9.0, "lwpp_over_ties": 9.0, "lwpp_over_twpp": 7.0,
        "lwpp_over_lw": 1.0, "tw_over_ta": 2.0, "twpp_over_ties": 2.0, "ties_over_ta": 3.0, "individual_over_ta": 26.0,
        "mtl_over_individual": -2.0, "mtl_distance": 2.0, "mtl_over_ties": 21.0,
        "wa_below_all": 4.0,  # Task Arithmetic is next
        "bounds_over_merged": 12.0,  # Traditional MTL against layer-wise AdaMerging++
        "best_scaling_ta": 0.2, "ta_best": 70.0, "ta_below_best": 1.0, "ta_at_one": 70 - 40 * 0.64,
        "ta_range": 40 * 0.64, "ties_range": 40 * 0.64, "ties_below_best": 1.0, "lw_over_best_ta": 10.0,
        "lwpp_over_best_ties": 8.0,
        "best_average": 81.0, "tw_over_lw": -9.0,
        "lw_tasks_that_gain": 8, "lw_gain_on_scenes": 11.0, "individual_on_scenes": 91.0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_tasks_that_gain_are_counted_one_by_one(rows):
    mixed = rows.copy()
    at = mixed["scaling"].isna() & (mixed["method"] == "layer_wise_adamerging")
    for task, accuracy in {"scenes": 60.0, "signs": 95.0}.items():
        mixed.loc[at & (mixed["task"] == task), "accuracy"] = accuracy
    found = claims.numbers_of(record_of(mixed))
    before = frames.accuracies(rows).loc["task_arithmetic"]
    assert found["lw_tasks_that_gain"][0] == 7
    assert found["lw_gain_on_scenes"][0] == pytest.approx(60 - before["scenes"])
    assert found["lw_gain_on_signs"][0] == pytest.approx(95 - before["signs"])
    assert found["lw_gain_on_aerial"][0] == pytest.approx(11)


def test_the_best_method_is_called_by_its_name(rows):
    assert claims.words_of(record_of(rows)) == {"best_method": "Layer-wise AdaMerging++"}
    other = performance_rows(task_wise_adamerging=90.0)  # the bounds, which are above it, merge nothing
    assert claims.words_of(record_of(other)) == {"best_method": "Task-wise AdaMerging"}
    assert claims.words_of(record_of(rows[rows["method"] == "individual"])) == {}


@pytest.mark.parametrize(
    ("id", "levels"),
    [
        ("gate-zero-shot", {"zero_shot": 76.0}),
        ("gate-zero-shot", {"zero_shot": 34.0}),
        ("gate-experts", {"individual": 91.0, "traditional_mtl": 90.0}),
        ("gate-worst-expert", {"individual": 94.0}),
        ("gate-mtl", {"traditional_mtl": 90.5}),
        ("gate-merging-hurts", {"task_arithmetic": 84.0, "ties": 84.0}),
        ("gate-ties", {"ties": 67.9}),
        ("gate-learned", {"layer_wise_adamerging": 74.9}),
    ],
)
def test_the_gate_holds_on_a_world_like_clips_and_fails_line_by_line(rows, id, levels):
    assert {word for name, word in words_of(rows).items() if name.startswith("gate-")} == {HOLDS}
    broken = performance_rows(**levels)
    if id == "gate-worst-expert":
        broken.loc[(broken["method"] == "individual") & (broken["task"] == "signs"), "accuracy"] = 84.9
    assert {name for name in failing(broken) if name.startswith("gate-")} == {id}


def test_claims_follow_the_averages(rows):
    # The sweeps have their tops at 0.2, a point above the default.
    assert failing(rows) == {"best-lambda-ta", "best-lambda-ties"}
    for levels, more in [
        ({"layer_wise_adamerging_pp": 79.5}, {"pp-over-plain"}),
        ({"weight_averaging": 69.5}, {"wa-lowest"}),
        ({"traditional_mtl": 80.5}, {"bounds", "mtl-near-individual", "gate-mtl"}),
        ({"task_wise_adamerging": 68.0}, {"tw-over-ta"}),
    ]:
        assert failing(performance_rows(**levels)) - failing(rows) == more


def test_what_was_not_run_is_not_judged(rows):
    few = rows[rows["method"].isin(["individual", "task_arithmetic"]) & rows["scaling"].isna()]
    words = words_of(few)
    ran = {"gate-experts": HOLDS, "gate-worst-expert": HOLDS, "gate-merging-hurts": HOLDS}
    assert {id: word for id, word in words.items() if word != NOT_RUN} == ran
    assert not any(id.startswith("gate-") for id in words_of(few, "tiny"))


def test_figure_1_draws_sweeps_as_curves_and_everything_else_as_level_lines(rows):
    axes = show.accuracy_over_scaling(rows).axes[0]
    drawn = {to_hex(line.get_color()): line for line in axes.lines}
    curve = drawn[colour("task_arithmetic").lower()]
    np.testing.assert_allclose(curve.get_xdata(), SCALINGS)
    np.testing.assert_allclose(curve.get_ydata(), [70 - 40 * (s - 0.2) ** 2 for s in SCALINGS])
    for method in set(LEVELS) - {"task_arithmetic", "ties"}:
        np.testing.assert_allclose(drawn[colour(method).lower()].get_ydata(), LEVELS[method])
    assert {text.get_text() for text in axes.texts} == {LABEL[method] for method in LEVELS}
    low, high = axes.get_ylim()
    assert low < min(line.get_ydata().min() for line in axes.lines) and high == 100


def test_published_marks_of_figure_1_only_when_asked_for(rows):
    plain, marked = (show.accuracy_over_scaling(rows, mark).axes[0] for mark in (False, True))
    assert plain.get_legend() is None
    assert [text.get_text() for text in marked.get_legend().texts] == ["published, ViT-B/32"]
    marks = [line for line in marked.lines if line.get_marker() == "D" and len(line.get_xdata())]
    found = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in marks}
    assert found == {(0.3, 69.1), (0.3, 72.9), (1.0, 88.9), (1.0, 80.1)}


def test_figure_1_works_without_a_sweep(rows):
    axes = show.accuracy_over_scaling(rows[rows["scaling"].isna()].drop(columns="scaling")).axes[0]
    assert sorted(line.get_ydata()[0] for line in axes.lines) == pytest.approx(sorted(LEVELS.values()))


def test_average_bars_start_at_zero_and_are_sorted(rows):
    axes = show.average_accuracies(rows, "ViT-B-32").axes[0]
    assert axes.get_xlim()[0] == 0
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(sorted(LEVELS.values()))
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == [LABEL[method] for method in sorted(LEVELS, key=LEVELS.get)]
    marks = next(line for line in axes.lines if line.get_marker() == "D")
    theirs = dict(zip(names, marks.get_xdata(), strict=True))
    assert theirs["Ties-Merging"] == 72.4 and np.isnan(theirs["Pretrained"])


def test_average_bars_have_their_intervals(rows):
    axes = show.average_accuracies(rows).axes[0]
    half = frames.interval_half_widths(rows)["Average"]
    bars = [segments[0][:, 0] for segments in (lines.get_segments() for lines in axes.collections)]
    order = sorted(LEVELS, key=LEVELS.get)
    for (low, high), method in zip(bars, order, strict=True):
        assert (high - low) / 2 == pytest.approx(half[method]) and (high + low) / 2 == pytest.approx(LEVELS[method])


def test_gap_heat_map_shows_the_gaps_rounded(rows):
    axes = show.gaps(rows).axes[0]
    shown = np.array([float(text.get_text()) for text in axes.texts]).reshape(len(LEVELS) - 1, 9)
    expected = show.gap_to_experts(rows)["Average"].sort_values(ascending=False)
    np.testing.assert_allclose(shown[:, -1], expected, atol=0.51)
    assert axes.get_yticklabels()[0].get_text() == "Traditional MTL"


def test_readme_picture_is_made_by_one_command(rows, tmp_path):
    records.write(record_of(rows), tmp_path / "performance.json")
    assert pictures.main([str(tmp_path / "performance.json"), str(tmp_path / "readme.png")]) == 0
    height, width, _ = plt.imread(tmp_path / "readme.png").shape
    assert width > 1000 and height > 400
