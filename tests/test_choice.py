"""The tables that say which method to take: every method in the row of what it needs, advice from the leaderboards."""

import json
import re
from pathlib import Path

import adamerging_lib as am
from adamerging_lib import records
from adamerging_lib.methods import registry
from adamerging_lib.published.competitions import BOUNDS
from adamerging_study.choice import choice

ROOT = Path(__file__).resolve().parents[1]
LEADERBOARDS = ("results/mini/leaderboard.json", "book/runs/tiny/leaderboard/tiny/leaderboard.json")


def test_every_merging_method_has_one_row():
    frame = choice()
    listed = [(row, id) for _, row in frame.iterrows() for id in row["methods"].split(", ")]
    assert sorted(id for _, id in listed) == sorted(set(am.methods().index) - set(BOUNDS))
    for row, id in listed:
        known = registry.find(id)
        assert row["besides the checkpoints"] == known.needs
        shared = known.static and known.task_specific == "nothing"
        assert row["result"] == ("one model for all tasks" if shared else "parts for each task")
        assert row["call"] == ("adamerging merge" if known.takes == "task_vectors" else "am.run_method")


def test_first_choices_are_the_best_of_their_kind_on_both_leaderboards():
    cells = json.loads((ROOT / "notebooks/merge_your_own.ipynb").read_text(encoding="utf-8"))["cells"]
    (advice,) = ["".join(c["source"]) for c in cells if "".join(c["source"]).startswith("## Which method?")]
    rows = re.findall(r"^\| ([\w ]+) \| (one model|parts per task) \| ([^|]+) \|", advice, re.MULTILINE)
    assert len(rows) == 5
    found = [records.frame(records.read(ROOT / path)).query("task == 'Average'") for path in LEADERBOARDS]
    both = set.intersection(*(set(frame["method"]) for frame in found))
    for path, rows_of in zip(LEADERBOARDS, found, strict=True):
        frame = rows_of[rows_of["method"].isin(both)].set_index("method")["accuracy"]
        for needs, gives, ids in rows:
            gives = {"one model": "one model for all tasks", "parts per task": "parts for each task"}[gives]
            row = choice().query("`besides the checkpoints` == @needs and `result` == @gives")
            rivals = frame.reindex(row["methods"].item().split(", ")).dropna().sort_values(ascending=False)
            chosen = re.findall(r"`(\w+)`", ids)
            assert set(chosen) == set(rivals.index[: len(chosen)]), f"{path}: {needs}, {gives}: {rivals}"
            # What is on this leaderboard only, and above the first choice there, is named below the table.
            every = rows_of.set_index("method")["accuracy"].reindex(row["methods"].item().split(", ")).dropna()
            above = set(every[every > rivals.iloc[0]].index)
            assert all(f"`{id}`" in advice.partition("Newer methods")[2] for id in above), f"{path}: {above}"
