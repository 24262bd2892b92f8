"""The published numbers are complete, unchanged, and their slips are all listed."""

import math

import pytest

from adamerging_lib.methods import methods
from adamerging_lib.published import (
    ARCHITECTURES,
    METHOD_IDS,
    POOLS,
    figure1,
    leaderboard,
    pool_averages,
    published,
    slips,
)
from adamerging_lib.published.competitions import NEEDS
from adamerging_lib.worlds.roles import HUB_STAND_IN, STAND_IN, TINY_STAND_IN

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
    for roles in (STAND_IN, TINY_STAND_IN, HUB_STAND_IN):
        assert [*roles.values(), "Average"] == tasks
    assert all(name == published_name.lower() for name, published_name in HUB_STAND_IN.items())


def test_figure_1_agrees_with_table_1_but_for_the_listed_slip():
    averages = published("performance", table=1).query("task == 'Average'").set_index("method_id")["accuracy"]
    differs = [row.method for row in figure1().itertuples() if averages[row.method_id] != row.accuracy]
    assert differs == ["Ties-Merging"]
    assert (slips()["where"] == "Figure 1").any()


@pytest.mark.parametrize("pool", POOLS)
def test_rows_of_a_pool_are_whole(pool):
    rows = leaderboard(pool)
    assert set(rows["pool"]) == {pool} and set(rows["arch"]) <= set(ARCHITECTURES)
    assert rows["accuracy"].between(40, 100).all() and (rows[["method", "source"]] != "").all().all()
    assert set(rows["needs"]) <= {*NEEDS, ""} and (rows.loc[rows["needs"] == "", "note"] != "").all()
    assert set(rows["method_id"]) <= {*methods().index, ""}
    assert not rows.duplicated(["method", "arch", "source"]).any()


def test_pools_are_never_mixed():
    with pytest.raises(TypeError):
        leaderboard()
    with pytest.raises(ValueError, match="No published row has pool 'P4'.*Known: P1, P2, P3"):
        pool_averages("P4")
    experts = [pool_averages(pool).loc["individual", "ViT-B/32"] for pool in POOLS]
    assert experts == [90.5, 90.3, 92.8]
    for pool in POOLS:
        accuracy = leaderboard(pool)["accuracy"].tolist()
        assert set(pool_averages(pool).stack().dropna()) <= set(accuracy)


def test_pool_1_holds_the_papers_own_averages():
    theirs = published("performance").query("task == 'Average'")
    frame = pool_averages("P1")
    for row in theirs.itertuples():
        assert frame.loc[row.method_id, ARCHITECTURES[row.arch]] == row.accuracy, (row.method, row.arch)


def test_a_method_of_several_sources_counts_by_its_first_and_by_no_other():
    rows = leaderboard("P1", "ViT-B-32").query("method_id == 'fisher'")
    assert rows["accuracy"].tolist() == [68.3, 69.8]
    row = pool_averages("P1").loc["fisher"]
    assert row["ViT-B/32"] == 68.3 and math.isnan(row["ViT-B/16"])  # 73.9 is of the second source
    assert pool_averages("P1").loc["ties"].tolist() == [72.4, 77.0, 86.0]  # not the validated 73.6


@pytest.mark.parametrize(
    ("pool", "arch", "method", "accuracy"),
    [
        ("P1", "ViT-B-16", "tsv_m", 87.38),
        ("P1", "ViT-L-14", "emr", 93.73),
        ("P2", "ViT-B-32", "regmean_pp", 84.4),
        ("P2", "ViT-L-14", "wemoe", 93.8),
        ("P3", "ViT-B-32", "iso_cts", 86.2),
        ("P3", "ViT-L-14", "consensus_ta", 86.3),
    ],
)
def test_values_of_the_leaderboard(pool, arch, method, accuracy):
    assert pool_averages(pool).loc[method, ARCHITECTURES[arch]] == accuracy


def test_a_caller_cannot_change_the_numbers_of_the_next_one():
    rows = published()
    rows["accuracy"] = 0.0
    assert published()["accuracy"].max() == 100
