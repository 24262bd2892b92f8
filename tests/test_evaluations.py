"""Kept evaluations: read where the probe agrees and nowhere else, and a wrong one is found."""

import dataclasses

import numpy as np
import pytest
import torch

from adamerging_lib import evaluate, merge, run_method
from adamerging_lib.merged import Merged
from adamerging_lib.runtime import places
from adamerging_study import evaluations, measuring
from adamerging_study.evaluations import Evaluations, using


@pytest.fixture(autouse=True)
def _no_sample(monkeypatch):
    """The whole suite evaluates one in twenty anew, others with every commit; these tests count images."""
    monkeypatch.delenv(evaluations.WHICH, raising=False)


@pytest.fixture
def images(monkeypatch):
    """How many images were run through a model so far."""
    seen, plain = [0], Merged.features

    def counted(self, encoder, state, images, task=None):
        seen[0] += len(images)
        return plain(self, encoder, state, images, task)

    monkeypatch.setattr(Merged, "features", counted)
    return seen


@pytest.fixture
def model(suite):
    return merge("task_arithmetic", suite.task_vectors())


def again(book, tmp_path):
    """The same evaluations in a later run: written and read."""
    evaluations.write(book.used, tmp_path / "kept.json")
    return Evaluations(evaluations.read(tmp_path / "kept.json"))


def probe_size(suite):
    return sum(-(-len(data) // evaluations.EVERY) for data in suite.test.values())


def same(found, expected):
    for name in expected.columns.drop("right"):
        assert found[name].tolist() == expected[name].tolist(), name
    assert all((a == b).all() for a, b in zip(found["right"], expected["right"], strict=True))


def test_without_a_run_it_is_the_librarys_evaluation(suite, model):
    same(evaluations.evaluate(suite, model), evaluate(suite, model, outcomes=True))


def test_a_later_run_evaluates_only_the_probe(suite, model, images, tmp_path):
    expected = evaluate(suite, model, outcomes=True)
    book = Evaluations()
    with using(book):
        same(evaluations.evaluate(suite, model), expected)
        first = images[0]
        same(evaluations.evaluate(suite, model), expected)
    assert images[0] - first == probe_size(suite) < sum(map(len, suite.test.values())) and len(book.used) == 1
    later = again(book, tmp_path)
    before = images[0]
    with using(later):
        same(evaluations.evaluate(suite, model), expected)
    assert images[0] - before == probe_size(suite)
    assert later.used == book.used


def test_both_settings_are_kept_apart(suite, tmp_path):
    models = {
        setting: run_method("task_wise_adamerging", suite, steps=1, setting=setting, cache=False, progress=False)
        for setting in ("transductive", "inductive")
    }
    book = Evaluations()
    for _ in range(2):
        with using(book):
            for setting, fit in models.items():
                same(evaluations.evaluate(suite, fit), evaluate(suite, fit, setting=setting, outcomes=True))
        book = again(book, tmp_path)
    assert len(book.known) == 2


def moved(model, key="proj"):
    """The same method and hyper-parameters, other weights."""
    state = {
        name: tensor + 0.02 * torch.randn_like(tensor) if name == key else tensor
        for name, tensor in model.state.items()
    }
    return dataclasses.replace(model, state=state)


CHANGES = {
    "weights": lambda suite, model: (suite, moved(model, next(iter(model.state)))),
    "hyper-parameters": lambda suite, model: (
        suite,
        dataclasses.replace(model, hyper={**model.hyper, "scaling": 0.31}),
    ),
    "labels": lambda suite, model: (_with(suite, "labels", lambda labels: labels.flip(0)), model),
    "images": lambda suite, model: (_with(suite, "images", lambda images: images // 2), model),
    "heads": lambda suite, model: (
        dataclasses.replace(suite, heads={task: head * 1.001 for task, head in suite.heads.items()}),
        model,
    ),
}


def _with(suite, name, change):
    task = suite.tasks[-1]
    data = dataclasses.replace(suite.test[task], **{name: change(getattr(suite.test[task], name))})
    return dataclasses.replace(suite, test={**suite.test, task: data})


@pytest.mark.parametrize("change", CHANGES)
def test_another_model_or_data_is_evaluated_whole(suite, model, images, tmp_path, change):
    book = Evaluations()
    with using(book):
        evaluations.evaluate(suite, model)
    other, changed = CHANGES[change](suite, model)
    before = images[0]
    with using(again(book, tmp_path)):
        found = evaluations.evaluate(other, changed)
    assert images[0] - before == probe_size(suite) + sum(map(len, suite.test.values()))
    same(found, evaluate(other, changed, outcomes=True))


def test_of_several_models_that_say_the_same_of_themselves_each_gets_its_own(suite, model, tmp_path):
    models = [model, moved(model, next(iter(model.state)))]
    book = Evaluations()
    with using(book):
        for one in models:
            evaluations.evaluate(suite, one)
    later = again(book, tmp_path)
    with using(later):
        for one in reversed(models):
            same(evaluations.evaluate(suite, one), evaluate(suite, one, outcomes=True))
    assert len(later.used) == 2


def test_what_is_measured_can_be_chosen(suite, model):
    def classes(scores, labels):
        return {"n": len(labels), "predicted": int(scores.argmax(-1).unique().numel())}

    with using(Evaluations()):
        plain = evaluations.evaluate(suite, model)
        found = evaluations.evaluate(suite, model, measure=classes)
    assert {"n", "predicted"} < set(found.columns) and "accuracy" not in found and "accuracy" in plain


def test_a_wrong_evaluation_is_found_where_it_is_evaluated_anew(suite, model, monkeypatch):
    book = Evaluations()
    with using(book):
        evaluations.evaluate(suite, model)
    book.used[0].rows[0]["accuracy"] += 1
    doubted = {}
    for number in range(400):
        monkeypatch.setenv(evaluations.WHICH, f"some:{number}")
        doubted.setdefault(evaluations._doubted(book.used[0]), []).append(f"some:{number}")
    assert 8 <= len(doubted[True]) <= 35  # one in twenty of 400
    monkeypatch.setenv(evaluations.WHICH, doubted[False][0])
    with using(Evaluations(book.used)):
        evaluations.evaluate(suite, model)
    monkeypatch.setenv(evaluations.WHICH, doubted[True][0])
    with using(Evaluations(book.used)), pytest.raises(ValueError, match=f"accuracy.*{suite.tasks[0]}"):
        evaluations.evaluate(suite, model)


def test_all_images_where_that_is_asked_for(monkeypatch, tmp_path, suite, model):
    monkeypatch.setattr(places, "committed", lambda: tmp_path)
    book = Evaluations()
    with using(book):
        evaluations.evaluate(suite, model)
    evaluations.write(book.used, tmp_path / evaluations.place("toy", "performance"))
    assert evaluations.begin("toy", "performance").known == book.used
    monkeypatch.setenv(evaluations.WHICH, "all")
    assert not evaluations.begin("toy", "performance").known
    monkeypatch.setenv(evaluations.WHICH, "half")
    with pytest.raises(ValueError, match="ADAMERGING_EVALUATE=half"):
        evaluations.begin("toy", "performance")


def test_a_run_writes_its_evaluations_beside_its_record(suite, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "results", lambda: tmp_path)
    monkeypatch.setattr(places, "committed", lambda: tmp_path / "committed")
    given = {"profile": "toy", "methods": ["task_arithmetic"], "seeds": [0]}
    run = measuring.begin("performance", {**given, "__annotations__": dict.fromkeys(given)})
    run.finish(run.measure(suite))
    (entry,) = evaluations.read(tmp_path / "toy/evaluations/performance.json")
    assert entry.about["method"] == "task_arithmetic"
    expected = evaluate(suite, merge("task_arithmetic", suite.task_vectors()))
    assert [row["accuracy"] for row in entry.rows] == expected["accuracy"].tolist()
    assert np.shape(list(entry.probe.values())) == (len(suite.test), 2)


def test_another_file_is_named(tmp_path):
    (tmp_path / "odd.json").write_text('{"schema": 9}')
    with pytest.raises(ValueError, match=r"odd\.json"):
        evaluations.read(tmp_path / "odd.json")
