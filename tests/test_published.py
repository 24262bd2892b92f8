"""The published numbers are complete, unchanged, and their slips are all listed."""

import math

import pytest

from adamerging_lib.published import ARCHITECTURES, METHOD_IDS, STAND_IN, figure1, published, slips
from adamerging_lib.tasks import mini

KEYS = ["table", "arch", "experiment", "condition", "method", "group"]


def test_every_table_is_there_and_every_row_has_an_average_and_a_method_id():
    rows = published()
    assert rows["table"].unique().tolist() == [1, 2, 5, 3, 6, 4, 7]
    assert len(rows) == 514
    assert set(rows["arch"]) == set(ARCHITECTURES)
    assert rows["method_id"].notna().all()
    assert set(rows["method"]) <= set(METHOD_IDS)
    assert not rows.duplicated([*KEYS, "task"]).any()
    for key, group in rows.groupby(KEYS):
        assert (group["task"] == "Average").sum() == 1, key
    assert rows["accuracy"].between(0, 100).all()


@pytest.mark.parametrize(
    ("table", "method", "task", "accuracy"),
    [
        (1, "Layer-wise AdaMerging", "Average", 80.1),
        (1, "Ties-Merging", "SVHN", 86.2),
        (2, "AdaMerging++", "Cars", 90.3),
        (5, "Layer-wise AdaMerging++", "DTD", 69.8),
        (5, "Task Arithmetic", "Average", 73.8),
    ],
)
def test_values_read_off_the_paper(table, method, task, accuracy):
    rows = published("performance", table=table)
    row = rows[(rows["method"] == method) & (rows["task"] == task)]
    assert row["accuracy"].tolist() == [accuracy]


def test_average_slips_are_exactly_the_listed_ones():
    found = []
    for (table, _arch, experiment, condition, method, group), rows in published().groupby(KEYS):
        average = rows["task"] == "Average"
        printed, columns = rows.loc[average, "accuracy"].item(), rows.loc[~average, "accuracy"].mean()
        if abs(printed - columns) > 0.05 + 1e-9:  # more than rounding to one digit explains
            found.append((f"Table {table}", experiment, condition, method, group, printed, round(columns, 3)))
    listed = slips().query("method != ''")
    fields = ["where", "experiment", "condition", "method", "group", "printed", "found"]
    listed = [(*row[:5], float(row[5]), float(row[6])) for row in listed[fields].itertuples(index=False)]
    assert [row[:6] for row in sorted(found)] == [row[:6] for row in sorted(listed)]
    for ours, theirs in zip(sorted(found), sorted(listed), strict=True):
        assert math.isclose(ours[6], theirs[6], abs_tol=0.005)


def test_filters_narrow_and_refuse_unknown_values():
    assert set(published(arch="ViT-B-16")["table"]) == {5, 6, 7}
    assert set(published("robustness")["table"]) == {4, 7}
    with pytest.raises(ValueError, match="did you mean 'performance'"):
        published("perfomance")
    with pytest.raises(ValueError, match="No published row has table 8"):
        published(table=8)
    with pytest.raises(ValueError, match="ViT-B-32"):
        published(arch="ViT-B/33")


def test_stand_ins_follow_the_order_of_table_1():
    rows = published("performance", table=1)
    tasks = rows["task"].drop_duplicates().tolist()
    assert [*STAND_IN.values(), "Average"] == tasks


def test_figure_1_agrees_with_table_1_but_for_the_listed_slip():
    averages = published("performance", table=1).query("task == 'Average'").set_index("method_id")["accuracy"]
    differs = [row.method for row in figure1().itertuples() if averages[row.method_id] != row.accuracy]
    assert differs == ["Ties-Merging"]
    assert (slips()["where"] == "Figure 1").any()


def test_a_caller_cannot_change_the_numbers_of_the_next_one():
    rows = published()
    rows["accuracy"] = 0.0
    assert published()["accuracy"].max() == 100


def test_the_mini_tasks_name_the_same_data_sets():
    assert {task.name: task.stand_in for task in mini.TASKS.values()} == STAND_IN
