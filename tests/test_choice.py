"""The table that says which method to take: every merging method once, in the row of what it needs."""

import adamerging_lib as am
from adamerging_lib.methods import registry
from adamerging_lib.published.competitions import BOUNDS
from adamerging_study.choice import choice


def test_every_merging_method_has_one_row():
    frame = choice()
    listed = [(row, id) for _, row in frame.iterrows() for id in row["methods"].split(", ")]
    assert sorted(id for _, id in listed) == sorted(set(am.methods().index) - set(BOUNDS))
    for row, id in listed:
        known = registry.find(id)
        assert row["besides the checkpoints"] == known.needs
        shared = known.static and known.task_specific == "nothing"
        assert row["comes out"] == ("one model for all tasks" if shared else "parts for each task")
        assert row["call"] == ("adamerging merge" if known.takes == "task_vectors" else "am.run_method")
