"""The tinting experiment on the toy suite: rows, tables, figures, verdicts."""

from __future__ import annotations

import pandas as pd
import pytest

from adamerging_lib import evaluate, run_method
from adamerging_study import tables, verdicts
from adamerging_study.experiments import tinting as study
from adamerging_study.figures import tinting as figures

SHORT = {"recipe": "mini", "epochs": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def frame():
    import toy

    suite = toy.suite(seed=0)
    layers = study.pilot_layers(suite)
    short = {"recipe": "mini", "steps": 2, "batch_size": 4}
    return pd.DataFrame(study.tinting(suite, SHORT, short, layers=layers, pilot=SHORT))


def test_pilot_goes_from_the_head_down(suite):
    blocks = [f"transformer.resblocks.{i}.mlp.c_proj" for i in (1, 0)]
    assert study.pilot_layers(suite) == ["head", "proj", *blocks]


def test_every_variant_and_setting_is_measured(frame, suite):
    for condition in study.VARIANTS:
        assert 0 <= tables.tinting.average(frame, "tint", condition) <= 100
    expected = evaluate(suite, run_method("tint_pp", suite, **SHORT, progress=False))["accuracy"].mean()
    assert tables.tinting.average(frame, "tint_pp") == pytest.approx(expected)
    assert list(tables.tinting.pilot(frame).index) == study.pilot_layers(suite)
    assert tables.tinting.settings(frame).shape == (5, 2)
    share = frame[frame["quantity"] == "share of the encoder"]["value"].item()
    assert 0 < share < 100


def test_what_the_filter_keeps_adds_up(frame):
    own = frame[frame["quantity"].isin(["right if kept", "right if dropped"])]
    assert (own.groupby("task")["n"].sum() == 30).all()
    epochs = frame[frame["quantity"] == "kept"]
    assert list(epochs["epoch"]) == [0, 1] and epochs["value"].between(0, 100).all()


def test_tables_figures_and_verdicts(frame):
    assert len(tables.tinting.variants(frame)) == 9 and len(tables.tinting.kept_text(frame)) == 3
    for draw in (figures.single_layers, figures.what_is_learned, figures.filtering):
        assert draw(frame).axes
    assert len(verdicts.tinting(frame)) == 11
