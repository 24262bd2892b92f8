"""Entropy against loss: bins and correlations against plain loops, and the experiment on the toy suite."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from adamerging_study import figures, tables, verdicts
from adamerging_study.experiments.entropy_loss import binned, correlation, entropy_loss
from adamerging_study.figures import entropy_loss as drawn
from adamerging_study.verdicts import FAILS, HOLDS


def test_bins_are_open_on_the_left_and_the_last_has_no_end():
    uncertainty = torch.tensor([0.0, 0.05, 0.1, 0.1001, 0.95, 1.0, 1.001, 7.0], dtype=torch.float64)
    loss = torch.arange(8, dtype=torch.float64)
    found = {row["bin"]: (row["n"], row["loss"]) for row in binned(uncertainty, loss)}
    assert found == {0: (3, 1.0), 1: (1, 3.0), 9: (2, 4.5), 10: (2, 6.5)}


def test_bins_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    uncertainty, loss = torch.rand(2, 500, generator=generator, dtype=torch.float64) * 1.5
    for row in binned(uncertainty, loss):
        low, high = row["bin"] / 10, (row["bin"] + 1) / 10 if row["bin"] < 10 else math.inf
        inside = [v for e, v in zip(uncertainty.tolist(), loss.tolist(), strict=True) if low < e <= high]
        assert row["n"] == len(inside) and row["loss"] == pytest.approx(sum(inside) / len(inside))


def test_correlation_is_of_ranks():
    x = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert correlation(x, x.exp()) == pytest.approx(1)
    assert correlation(x, -x) == pytest.approx(-1)
    assert correlation(x, torch.ones(4)) is None


def test_experiment_on_a_toy(suite):
    learning = {"recipe": "mini", "steps": 2, "batch_size": 4}
    methods = ["task_arithmetic", "layer_wise_adamerging", "individual"]
    frame = pd.DataFrame(entropy_loss(suite, methods, learning))
    counts = frame[frame["condition"] == "bin"].groupby(["method", "task"])["n"].sum()
    assert (counts.drop("all", level="task") == 30).all() and (counts.xs("all", level="task") == 90).all()
    assert set(tables.entropy_loss.spearman(frame).columns) == {*suite.tasks, "all"}
    assert "%" in tables.entropy_loss.pooled(frame).to_string()
    for draw in (drawn.loss_by_entropy, drawn.loss_by_entropy_and_task, drawn.correlations):
        assert draw(frame, methods).axes
    assert len(verdicts.entropy_loss(frame, *methods[:2])) == 7


def test_verdicts_follow_the_rows():
    def rows(method, rho, losses):
        about = {"method": method, "seed": 0}
        points = [
            {**about, "condition": "bin", "task": t, "bin": b, "loss": v} for t in "ab" for b, v in enumerate(losses)
        ]
        return points + [{**about, "condition": "spearman", "task": t, "value": rho} for t in ("a", "b", "all")]

    frame = pd.DataFrame(rows("task_arithmetic", 0.9, [1, 2, 3]) + rows("layer_wise_adamerging", 0.3, [3, 2, 1]))
    words = [v.word for v in verdicts.entropy_loss(frame, "task_arithmetic", "layer_wise_adamerging")]
    assert words == [HOLDS, HOLDS, HOLDS, FAILS, HOLDS, FAILS, FAILS]
    assert figures.colour("individual")
