"""Run records: what may stand in them, and what counts as a difference."""

from __future__ import annotations

import copy
import datetime as dt
import json

import numpy as np
import pytest

import adamerging_lib as am
from adamerging_lib import records
from adamerging_lib.runtime.environment import environment
from adamerging_study import outcomes


@pytest.fixture
def record(suite):
    frame = am.evaluate(suite, am.run_method("task_arithmetic", suite))
    rows = records.rows_of(frame, method="task_arithmetic", condition="clean", group="all", seed=0, scaling=0.3)
    started = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    around = environment()
    return records.new("performance", "toy", {"recipe": "mini"}, suite, rows, [0], started, 12.34, environment=around)


def test_schema(record, suite):
    assert tuple(record) == records.FIELDS
    assert record["started"] == "2026-01-02T03:04:05+00:00" and record["seconds"] == 12.3
    assert record["assets"] == dict(suite.assets) and record["seeds"] == [0]
    assert set(record["environment"]) == {"versions", "device", "threads"}
    assert {"python", "torch", "open_clip_torch"} <= record["environment"]["versions"].keys()
    assert [row["task"] for row in record["rows"]] == [*suite.tasks, "Average"]
    row = record["rows"][0]
    assert row.keys() == {
        "method", "condition", "group", "seed", "scaling", "task", "accuracy", "n", "entropy", "loss", "calibration",
        "setting", "split",
    }  # fmt: skip
    assert type(row["accuracy"]) is float and type(row["n"]) is int and row["setting"] == "transductive"


def test_write_and_read(record, tmp_path):
    path = tmp_path / "toy" / "performance.json"
    records.write(record, path)
    assert records.read(path) == record
    # One row per line, so that a diff of two runs shows what moved.
    assert sum('"task":' in line for line in path.read_text().splitlines()) == len(record["rows"])
    records.write({**record, "rows": []}, path)
    assert records.read(path)["rows"] == []


def test_readers_refuse_what_they_do_not_know(record, tmp_path):
    path = tmp_path / "r.json"
    for content, message in [
        ({**record, "schema": 1}, "has schema 1, this version reads 2"),
        ([], "has schema 'list'"),
        ({key: v for key, v in record.items() if key != "seeds"}, r"lacks or adds the fields \['seeds'\]"),
        ({**record, "note": 1}, r"lacks or adds the fields \['note'\]"),
        ({**record, "rows": {}}, "'rows' must be a list"),
    ]:
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"r\.json.*{message}"):
            records.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"r\.json is not JSON"):
        records.read(path)
    with pytest.raises(ValueError, match="no record at .*nowhere.json"):
        records.read(tmp_path / "nowhere.json")


def test_outcomes_that_look_like_a_path_are_kept(record, tmp_path):
    """Of 400 images the first twelve right: base64 of ones is a slash for each six."""
    right = outcomes.pack(np.arange(400) < 200)
    assert right.startswith("//")
    record["rows"][0]["right"] = right
    records.write(record, tmp_path / "r.json")
    assert records.read(tmp_path / "r.json")["rows"][0]["right"] == right


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"rows\[0\].accuracy is nan"),
        (float("inf"), r"rows\[0\].accuracy is inf"),
        ({1, 2}, r"rows\[0\].accuracy is a set"),
        ("/some/where/model.safetensors", "holds a path of this machine"),
        ("~/where/model", "holds a path of this machine"),
        ("C:\\where\\model", "holds a path of this machine"),
        ({3: 4}, "key 3 is not text"),
    ],
)
def test_records_hold_plain_finite_values_and_no_paths(record, tmp_path, value, message):
    record["rows"][0]["accuracy"] = value
    with pytest.raises(ValueError, match=message):
        records.write(record, tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


def test_names_that_look_a_little_like_paths_are_fine(record):
    record["parameters"] = {"arch": "ViT-B/32", "scale": "1/8", "file": "zoo/mini/a.safetensors"}
    records.check(record)


def test_compare(record):
    assert records.compare(record, copy.deepcopy(record)) == []
    new = copy.deepcopy(record)
    new["rows"].reverse()
    new |= {"environment": {}, "started": "later", "seconds": 1.0}
    assert records.compare(record, new) == []

    moved = copy.deepcopy(record)
    moved["rows"][1]["accuracy"] += 0.9
    moved["rows"][1]["entropy"] += 5
    assert records.compare(record, moved, 1.0) == []
    (difference,) = records.compare(record, moved, 0.5)
    assert "task=beta" in difference and "accuracy was" in difference and "allowed ±0.5" in difference
    (difference,) = records.compare(record, moved, {"entropy": 0.1})
    assert "entropy was" in difference

    lost = {**record, "rows": record["rows"][1:]}
    (difference,) = records.compare(record, lost)
    assert difference.startswith("row is gone: ") and "task=alpha" in difference and "scaling=0.3" in difference
    (difference,) = records.compare(lost, record)
    assert difference.startswith("row is new: ")
    (difference,) = records.compare(record, {**record, "rows": [*record["rows"], record["rows"][0]]})
    assert difference.startswith("row twice in the new record")

    fewer = copy.deepcopy(record)
    fewer["rows"][0]["n"] = 29
    (difference,) = records.compare(record, fewer)
    assert difference.endswith("n was 30, is 29")
    (difference,) = records.compare(record, {**record, "parameters": {"recipe": "paper"}})
    assert difference == "parameters: {'recipe': 'mini'} before, {'recipe': 'paper'} now"
    bare = copy.deepcopy(record)
    del bare["rows"][0]["accuracy"]
    (difference,) = records.compare(record, bare)
    assert "accuracy is in one record only" in difference


def test_a_frame_says_of_each_row_what_its_method_is_called_needs_and_gives(suite):
    rows = [{"method": id, "accuracy": 50.0} for id in ("ties", "surgery", "emr")] + [{"kind": "alone"}]
    known = am.methods().to_dict("index")
    record = records.new("leaderboard", "toy", {}, suite, rows, [0], "2026-01-01", 1.0, methods=known)
    frame = records.frame(record)
    assert frame["label"][:3].tolist() == ["Ties-Merging", "Representation Surgery", "EMR-Merging"]
    assert frame["needs"][:3].tolist() == ["nothing", "unlabelled test images", "nothing"]
    # One encoder for all tasks with an adapter for each; and an encoder for each.
    assert frame["gives"][:3].tolist() == ["one model for all tasks", "parts for each task", "parts for each task"]
    assert frame.loc[3, ["label", "needs", "gives"]].isna().all()
