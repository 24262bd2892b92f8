"""Tables and verdicts say what the record says, no more."""

import numpy as np
import pandas as pd
import pytest
from madeup import LEVELS, SCALINGS, performance_rows

from adamerging_lib.published import ARCHITECTURES, published
from adamerging_lib.worlds.roles import STAND_IN
from adamerging_study import tables, verdicts


@pytest.fixture(scope="module")
def rows():
    return performance_rows()


def test_accuracies_keep_the_order_of_the_record_and_leave_the_sweep_out(rows):
    frame = tables.accuracies(rows)
    assert frame.index.tolist() == list(LEVELS)
    assert frame.columns.tolist() == [*STAND_IN, "Average"]
    assert frame.loc["ties", "scenes"] == pytest.approx(68)
    assert frame["Average"].to_dict() == pytest.approx(LEVELS)


def test_several_seeds_are_averaged(rows):
    second = performance_rows(layer_wise_adamerging=84.0).assign(seed=1)
    both = pd.concat([rows, second], ignore_index=True)
    assert tables.averages(both)["layer_wise_adamerging"] == pytest.approx(82)
    assert tables.accuracies(both).loc["ties"].equals(tables.accuracies(rows).loc["ties"])
    assert tables.performance(both).loc["Layer-wise AdaMerging", ("average", "measured")].startswith("82.0 ± ")


def test_performance_table_holds_measured_and_published_numbers_apart(rows):
    frame = tables.performance(rows)
    assert frame.index[0] == "Pretrained" and "Layer-wise AdaMerging++" in frame.index
    assert frame.columns.get_level_values(0).unique().tolist() == ["average", "average, published", "measured, by task"]
    assert frame["measured, by task"].columns.tolist() == list(STAND_IN)
    assert frame.loc["Ties-Merging", ("measured, by task", "scenes")].startswith("68.0 ± ")
    assert frame.loc["Ties-Merging", ("average", "measured")].startswith("72.0 ± ")
    theirs = published("performance").query("task == 'Average'")
    for row in theirs.itertuples():
        if row.method_id in LEVELS:
            shown = frame.loc[tables.label(row.method_id), ("average, published", ARCHITECTURES[row.arch])]
            assert shown == f"{row.accuracy:.1f}"
    assert frame.loc["Pretrained", "average, published"].isna().all()


def test_intervals_shrink_with_images_and_with_tasks():
    few, many = (tables.interval_half_widths(performance_rows(n=n)).loc["ties"] for n in (100, 10_000))
    assert few["aerial"] == pytest.approx(10 * many["aerial"], rel=0.15)
    # 1.96 √(p (1 − p) / n), and √8 less for the mean of eight
    assert few["aerial"] == pytest.approx(196 * np.sqrt(0.7029 * 0.2971 / 100), rel=0.1)
    assert few["Average"] == pytest.approx(few.drop("Average").mean() / np.sqrt(8), rel=0.1)


def test_gaps_are_paired_with_the_experts(rows):
    frame = tables.gap_to_experts(rows)
    assert "individual" not in frame.index
    np.testing.assert_allclose(frame.loc["traditional_mtl"], -2)
    with pytest.raises(ValueError, match="no rows of 'individual'"):
        tables.gap_to_experts(rows[rows["method"] != "individual"])


def test_ranking_orders_merging_methods_and_puts_the_published_place_beside(rows):
    frame = tables.ranking(rows)
    assert frame.index[0] == "Layer-wise AdaMerging++" and frame.index[-1] == "Weight Averaging"
    assert not {"Pretrained", "Individual", "Traditional MTL"} & set(frame.index)
    assert frame["place"].tolist() == frame["published place"].astype(int).tolist() == list(range(1, 8))
    swapped = tables.ranking(performance_rows(ties=68.0))
    assert swapped.index[4:6].tolist() == ["Task Arithmetic", "Ties-Merging"]
    assert swapped.loc["Ties-Merging", "published place"] == "4"
    assert swapped.loc["Task-wise AdaMerging", "lead over the next"] == "+2.0"


def test_ranking_in_words_is_computed_not_written(rows):
    lines = tables.ranking_in_words(rows)
    assert lines[0] == "Best merged model: Layer-wise AdaMerging++, 81.0 on average."
    assert "It is 14.0 points below Individual (95.0)." in lines
    gain = "Layer-wise AdaMerging is 10.0 points above Task Arithmetic at its best λ (0.2)"
    assert f"{gain}; published, ViT-B/32: 11.0 points above it." in lines
    worse = tables.ranking_in_words(performance_rows(layer_wise_adamerging=60.0))
    assert any(line.startswith("Layer-wise AdaMerging is 10.0 points below Task Arithmetic") for line in worse)


def test_best_scaling_reads_the_sweep(rows):
    assert tables.best_scaling(rows, "task_arithmetic") == pytest.approx((0.2, 70.0))
    assert tables.best_scaling(rows, "weight_averaging") is None
    assert tables.sweep(rows)["scaling"].unique().tolist() == SCALINGS
    without = rows[rows["condition"] == "clean"].drop(columns="scaling")
    assert tables.sweep(without).empty and tables.best_scaling(without, "ties") is None


def test_a_method_that_nobody_knows_is_refused(rows):
    strange = rows.assign(method=rows["method"].replace("ties", "knots"))
    with pytest.raises(ValueError, match="'knots' of the record is unknown"):
        tables.performance(strange)


def test_table_html_is_plain_stable_and_captioned(rows):
    table = tables.Table(tables.performance(rows), "Accuracy, A < B")
    page = table._repr_html_()
    assert page == tables.Table(tables.performance(rows), "Accuracy, A < B")._repr_html_()
    assert page.count("<caption>Accuracy, A &lt; B</caption>") == 1
    assert 'class="dataframe"' in page and "<style" not in page and ' id="' not in page
    assert "<br><small>± " in page and "<td>–</td>" in page and "NaN" not in page
    assert repr(table).startswith("Accuracy, A < B\n") and "NaN" not in repr(table)


def test_published_columns_are_marked_cell_by_cell(rows):
    page = tables.Table(tables.performance(rows), "Accuracy")._repr_html_()
    marked = page.count('<span class="published">')
    assert marked == tables.performance(rows)["average, published"].notna().sum().sum()
    assert '<span class="published">72.4</span>' in page and '<span class="published">72.0' not in page
    printed = tables.published_performance("ViT-B-32")
    assert printed.shape == (11, 9) and printed.iloc[0, 0] == "75.3"
    assert tables.Table(printed, "Table 1")._repr_html_().count('<span class="published">') == 99


def test_sentences_are_a_list():
    sentences = tables.Sentences(["A < B.", "C."])
    assert sentences._repr_html_() == "<ul>\n<li>A &lt; B.</li>\n<li>C.</li>\n</ul>"
    assert repr(sentences) == "A < B.\nC."


def words(found):
    return {verdict.check: verdict.word for verdict in found}


def test_the_gate_holds_on_a_world_like_clips_and_fails_line_by_line(rows):
    assert set(words(verdicts.mini_gate(rows)).values()) == {"holds"}
    breaks = {
        "Zero-shot lies": {"zero_shot": 76.0},
        "Experts reach": {"individual": 91.0, "traditional_mtl": 90.0},
        "No expert": {"individual": 92.0, "traditional_mtl": 90.0},
        "Traditional MTL": {"traditional_mtl": 90.5},
        "Task Arithmetic (λ": {"task_arithmetic": 84.0, "ties": 84.0},
        "Ties-Merging": {"ties": 67.9},
        "Layer-wise AdaMerging": {"layer_wise_adamerging": 74.9},
    }
    for start, levels in breaks.items():
        broken = performance_rows(**levels)
        if start == "No expert":
            broken.loc[(broken["method"] == "individual") & (broken["task"] == "signs"), "accuracy"] = 84.9
        failed = [check for check, word in words(verdicts.mini_gate(broken)).items() if word == "does not hold"]
        assert len(failed) == 1 and failed[0].startswith(start), (start, failed)


def test_order_verdicts_follow_the_averages(rows):
    assert set(words(verdicts.paper_order(rows)).values()) == {"holds"}
    found = words(verdicts.paper_order(performance_rows(layer_wise_adamerging_pp=79.5)))
    assert found.pop("Layer-wise AdaMerging++ is above Layer-wise AdaMerging") == "does not hold"
    assert set(found.values()) == {"holds"}
    found = words(verdicts.paper_order(performance_rows(weight_averaging=69.5)))
    assert found["Weight Averaging is the lowest merged model"] == "does not hold"
    found = words(verdicts.paper_order(performance_rows(traditional_mtl=80.5)))
    assert found["Individual and Traditional MTL are above every merged model"] == "does not hold"


def test_what_was_not_run_is_not_judged(rows):
    few = rows[rows["method"].isin(["individual", "task_arithmetic"]) & (rows["condition"] == "clean")]
    found = words(verdicts.performance(few, "mini"))
    assert found["Experts reach 92 on average"] == "holds"
    assert found["Ties-Merging ≥ Task Arithmetic − 1"] == "not run"
    assert found["Layer-wise AdaMerging ≥ Task Arithmetic at its best λ + 5"] == "not run"
    assert found["Individual and Traditional MTL are above every merged model"] == "not run"
    assert "Experts reach 92 on average" not in words(verdicts.performance(rows, "clip-b32"))


def test_verdict_lines_hold_no_measured_number(rows):
    lines = [str(verdict) for verdict in verdicts.performance(rows, "mini")]
    moved = [str(verdict) for verdict in verdicts.performance(performance_rows(ties=72.3), "mini")]
    assert lines == moved
    frame = verdicts.to_frame(verdicts.performance(rows, "mini"))
    assert frame.columns.tolist() == ["check", "measured", "required", "verdict"]
    assert frame.loc[0].tolist() == ["Zero-shot lies between 35 and 75", "48.0", "35 to 75", "holds"]
    assert frame.loc[5, "required"] == "≥ -1"
