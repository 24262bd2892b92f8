"""The measuring loop and the diagnostics of experts, on the toy suite."""

import numpy as np
import pandas as pd
import pytest
import torch

from adamerging_lib import TaskVectors, records
from adamerging_lib import geometry as diagnostics
from adamerging_study import experiments, verdicts


def flat(tv):
    return torch.cat([v.double().flatten(1) for v in tv.vectors.values()], dim=1)


def test_cosines_agree_with_one_long_vector_a_task(suite):
    tv = suite.task_vectors()
    long = torch.nn.functional.normalize(flat(tv), dim=1)
    frame = diagnostics.cosines(tv)
    np.testing.assert_allclose(frame, long @ long.T, atol=1e-12)
    assert frame.index.tolist() == frame.columns.tolist() == list(tv.tasks)


def test_cosines_of_a_copy_an_opposite_and_nothing(suite):
    base, moved = suite.pretrained, suite.experts["alpha"]
    opposite = {key: 2 * base[key] - moved[key] if base[key].is_floating_point() else base[key] for key in base}
    tv = TaskVectors.from_state_dicts(base, {"a": moved, "same": moved, "against": opposite, "none": base})
    np.testing.assert_allclose(diagnostics.cosines(tv).loc["a"], [1, 1, -1, 0], atol=1e-6)


def test_relative_norms(suite):
    tv = suite.task_vectors()
    base = torch.cat([suite.pretrained[key].double().flatten() for key in tv.vectors])
    np.testing.assert_allclose(diagnostics.relative_norms(tv), flat(tv).norm(dim=1) / base.norm())


@pytest.fixture(scope="module")
def expert_rows(suite):
    return diagnostics.measure_experts(suite, [0.0, 0.3, 1.0])


def test_expert_path_runs_from_zero_shot_to_the_expert(suite, expert_rows):
    path = diagnostics.path_of(pd.DataFrame(expert_rows))
    assert path.index.tolist() == list(suite.tasks) and path.columns.tolist() == [0.0, 0.3, 1.0]
    zero, expert = (experiments.measure(suite, method)[:-1] for method in ("zero_shot", "individual"))
    assert path[0.0].tolist() == [row["accuracy"] for row in zero]
    np.testing.assert_allclose(path[1.0], [row["accuracy"] for row in expert], atol=100 / 30 + 1e-9)


def test_rows_of_experts_are_fit_for_a_record_and_give_the_cosines_back(suite, expert_rows):
    record = records.new("mini_suite", "toy", {}, suite, expert_rows, [0], "2026-01-01T00:00:00", 1.0)
    assert records.compare(record, record) == []
    square = diagnostics.cosines_of(pd.DataFrame(expert_rows))
    pd.testing.assert_frame_equal(square, diagnostics.cosines(suite.task_vectors()), atol=1e-12)


def test_gain_share_and_summary(expert_rows):
    path = pd.DataFrame({0.0: [40.0, 50.0], 0.3: [70.0, 50.0], 1.0: [90.0, 90.0]}, index=["b", "a"])
    assert diagnostics.gain_share(path, 0.3).to_dict() == pytest.approx({"b": 60, "a": 0})
    with pytest.raises(ValueError, match="no α = 0.5"):
        diagnostics.gain_share(path, 0.5)
    rows = pd.DataFrame(expert_rows)
    table = diagnostics.summary(rows)
    assert table.index.tolist() == ["alpha", "beta", "gamma"]
    assert table["expert"].tolist() == [f"{value:.1f}" for value in diagnostics.path_of(rows)[1.0]]
    assert table.loc["alpha", "largest cosine with another"] == "0.03"


def test_expert_verdicts_name_what_fails(expert_rows):
    good = {0.0: 50.0, 0.3: 70.0, 0.5: 85.0, 1.0: 95.0}
    rows = [
        {"method": "expert_path", "condition": f"alpha={a:.2f}", "alpha": a, "task": task, "accuracy": accuracy, "n": 9}
        for a, accuracy in good.items()
        for task in "ab"
    ]
    norm = {"method": "task_vectors", "condition": "relative_norm", "value": 0.1}
    rows += [{**norm, "task": "a"}, {**norm, "task": "b"}]
    rows += [{"method": "task_vectors", "condition": "cosine", "task": "a", "other": "b", "value": 0.05}]
    frame = pd.DataFrame(rows)
    assert {verdict.word for verdict in verdicts.experts(frame)} == {"holds"}
    for column, place, value, start in [
        ("value", rows.index(rows[-1]), -0.3, "Task vectors"),
        ("accuracy", 5, 71.0, "Every expert"),
        ("accuracy", 4, 96.5, "No way"),
    ]:
        broken = frame.copy()
        broken.loc[place, column] = value
        failed = [verdict.check for verdict in verdicts.experts(broken) if verdict.word != "holds"]
        assert len(failed) == 1 and failed[0].startswith(start), failed
