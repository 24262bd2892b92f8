"""The trial of the doctor: faults are what they are called, hits name the right expert, tables follow the record."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import adamerging_lib as am
from adamerging_lib import records
from adamerging_lib.doctor import thresholds
from adamerging_lib.forward import entropy, features, logits
from adamerging_lib.vectors.geometry import relative_norms
from adamerging_study.book import directives
from adamerging_study.check import FAULTS, faults, measure, show

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def whole(suite, tmp_path):
    """Three honest experts, of which alpha is to be changed."""
    experts = dict(suite.experts)
    return faults.Set(suite, suite.pretrained, experts, "alpha", "beta", torch.Generator().manual_seed(0), tmp_path)


def moved(pretrained, expert):
    return float(relative_norms(am.TaskVectors.from_state_dicts(pretrained, {"one": expert}))["one"])


def test_every_fault_can_be_injected_and_is_described():
    assert faults._MAKE.keys() == FAULTS.keys()
    assert all(about.codes or about.why for about in FAULTS.values())


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "unsure"])
def test_a_fault_changes_the_set_and_leaves_the_honest_experts_as_they_were(whole, suite, fault):
    base, experts = faults.inject(fault, whole)
    assert list(experts) == list(suite.experts)
    same = [name for name in experts if experts[name] is suite.experts[name]]
    assert "gamma" in same and (base is not suite.pretrained or len(same) < 3)
    assert am.check(base, experts).experts.index.tolist() == list(suite.experts)


@pytest.mark.parametrize(("fault", "share"), [("half", 0.5), ("quarter", 0.25), ("stretched_3", 3), ("untrained", 0)])
def test_lengths_are_as_they_are_called(whole, suite, fault, share):
    _, experts = faults.inject(fault, whole)
    honest = moved(suite.pretrained, suite.experts["alpha"])
    assert moved(suite.pretrained, experts["alpha"]) == pytest.approx(share * honest, rel=1e-4)


def test_other_units_compute_the_same(whole, suite):
    _, experts = faults.inject("units", whole)
    images = torch.rand(4, 3, 8, 8)
    told = [features(suite.encoder, state, images) for state in (suite.experts["alpha"], experts["alpha"])]
    torch.testing.assert_close(*told, rtol=1e-4, atol=1e-5)
    assert moved(suite.experts["alpha"], experts["alpha"]) > 0.3


def test_an_unsure_expert_is_less_sure(whole, suite):
    worse, data = faults._unsure(whole, times=1.2, lr=1e-2, batch=10), suite.test["alpha"]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (suite.mean, suite.std))
    images = (data.images.float() / 255 - mean) / std
    doubt = [float(entropy(logits(features(suite.encoder, state, images), suite.heads["alpha"])).mean())
             for state in (suite.experts["alpha"], worse)]  # fmt: skip
    assert doubt[1] > doubt[0]


def test_a_hit_names_the_fault_and_the_expert(whole):
    base, experts = faults.inject("untrained", whole)
    report = am.check(base, experts)
    assert measure.hits(report, "untrained", "alpha")
    assert not measure.hits(report, "untrained", "beta") and not measure.hits(report, "cut", "alpha")
    assert measure.blamed(report, "untrained", ["alpha", "beta"]) == set()
    assert measure.blamed(report, "untrained", ["gamma", "beta"]) == {"alpha"}


def test_tables_hold_every_fault_and_every_set():
    rows = records.frame(records.read(ROOT / "results/mini/check.json"))
    hits, alarms = show.hits(rows), show.alarms(rows)
    assert hits["what was done"].tolist() == [about.told for about in FAULTS.values()]
    missed = hits["found"].map(lambda told: len(set(told.split(" of "))) == 2)
    assert (hits.loc[missed, "why it is missed"] != "").all() and (hits.loc[~missed, "why it is missed"] == "").all()
    assert alarms.iloc[-1]["honest sets"] == alarms.iloc[:-1]["honest sets"].sum() == 35
    text = directives.faults_text("mini")
    assert all(about.told in text for about in FAULTS.values()) and "| all | 35 | 0 |" in text
    assert "not tried" in directives.faults_text("clip-b32")


def test_false_alarms_by_length_on_every_set_of_other_worlds():
    """What the page says of photographs: four sets, all with Cars and EuroSAT; none where experts trained otherwise."""
    assert alarms("results/mini/mini_suite.json") == []
    assert alarms("book/runs/tiny-64/mini_suite/tiny-64/mini_suite.json") == []
    assert alarms("book/runs/tiny-short/mini_suite/tiny-short/mini_suite.json") == []
    photographs = alarms("book/runs/tiny/mini_suite/tiny/mini_suite.json")
    assert len(photographs) == 4 and all({"cars", "eurosat"} <= set(names) for names in photographs)


def alarms(path):
    """The sets of two to eight experts of a record of which the rules of length would warn, written anew."""
    rows = pd.DataFrame(json.loads((ROOT / path).read_text(encoding="utf-8"))["rows"])
    length = rows[rows["kind"] == "relative_norm"].set_index("task")["value"].to_dict()
    found = []
    for names in (names for size in range(2, 9) for names in itertools.combinations(length, size)):
        if len(names) == 2:
            low, high = sorted(length[name] for name in names)
            found += [names] if high / low > thresholds.FAR else []
            continue
        far = {name for name in names if beside(length, names, name) > thresholds.FAR}
        short = {name for name in names if beside(length, names, name, far) < thresholds.SHORT}
        found += [names] if far or short else []
    return found


def beside(length, names, name, but=()):
    return length[name] / np.median([length[other] for other in names if other != name and other not in but])
