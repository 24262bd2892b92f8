"""The guard: it watches what is not learned from, chooses by the experts' beliefs, and goes back where it should."""

from __future__ import annotations

import json
import math

import pytest
import torch
from test_adapt import Net, batches, fitted
from torch.nn import functional as F

import adamerging_lib as am
from adamerging_lib.adapting.batches import Batches, length, watched
from adamerging_lib.forward import features, logits
from adamerging_lib.learning import guard as guards
from adamerging_lib.learning.adaptation import Adaptation
from adamerging_lib.learning.guard import SHARE, WATCHED, Look, suite_guard
from adamerging_lib.methods.run import pack, run_method, unpack

CPU = torch.device("cpu")
OPTIONS = {"steps": 8, "lr": 0.1, "batch_size": 4, "progress": False}


def streams_of(suite, images=None, **options):
    return Adaptation({"batch_size": 4}, **options).streams(suite, images=images)


def parts_of(suite, seed=0):
    """Learned and watched indices of every task, found by the images themselves."""
    streams = streams_of(suite, seed=seed)
    _, learned = suite_guard(suite, streams, CPU)
    return streams, learned


@pytest.mark.parametrize("images", [None, 9])
def test_nothing_that_is_watched_is_learned_from(suite, images):
    for stream in streams_of(suite, images=images):
        count = stream.n // SHARE
        rest, apart = stream.parted(count)
        learned = set(rest.indices(0).tolist()) | {i for n in range(2 * stream.n) for i in rest.indices(n).tolist()}
        pool = {i for n in range(2 * stream.n) for i in stream.indices(n).tolist()}
        assert len(learned) == stream.n - count and learned < pool
        seen = stream.images[sorted(pool - learned)]
        assert sorted(map(torch.sum, apart.batch(0).long())) == sorted(map(torch.sum, seen.long()))


def test_at_most_a_quarter_and_at_most_so_many(suite, monkeypatch):
    _, learned = parts_of(suite)
    before = streams_of(suite)
    least = min(stream.n for stream in before)
    assert {b.n - a.n for a, b in zip(learned, before, strict=True)} == {min(WATCHED, least // SHARE)}
    monkeypatch.setattr(guards, "WATCHED", 2)
    _, learned = parts_of(suite)
    assert {b.n - a.n for a, b in zip(learned, before, strict=True)} == {2}


def test_what_it_saw_is_what_its_formula_says(suite):
    """A(λ), lead and standard error written out, image by image, for the states of the path."""
    fit = am.adamerge(suite, guard=True, **OPTIONS)
    assert fit.guard["step"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    tv, found, others = suite.task_vectors(), {}, {}
    for step in fit.guard["step"]:
        state = tv.merge(fit.trajectory[step], "tensor")
        found[step], others[step] = [], []
        for task, stream in zip(suite.tasks, streams_of(suite), strict=True):
            images = suite.normalise(stream.parted(min(s.n for s in streams_of(suite)) // SHARE)[1].batch(0))
            with torch.no_grad():
                ours = logits(features(suite.encoder, state, images), suite.heads[task])
                theirs = logits(features(suite.encoder, suite.experts[task], images), suite.heads[task])
            belief = F.softmax(theirs.double(), -1)
            found[step].append(torch.stack([row[i] for row, i in zip(belief, ours.argmax(-1), strict=True)]))
            said = F.softmax(ours.double(), -1)
            agreed = (ours.argmax(-1) == theirs.argmax(-1)).double().mean()
            mean = said.mean(0)
            others[step].append([-(said * said.log()).sum(-1).mean(), -(mean * mean.log()).sum(), agreed])
    for _, row in fit.guard.iterrows():
        leads = [now - then for now, then in zip(found[row["step"]], found[0], strict=True)]
        assert row["expected"] == pytest.approx(float(sum(part.mean() for part in found[row["step"]])) / 3, abs=1e-6)
        assert row["lead"] == pytest.approx(float(sum(part.mean() for part in leads)) / 3, abs=1e-6)
        error = math.sqrt(sum(float(part.var()) / len(part) for part in leads)) / 3
        assert row["error"] == pytest.approx(error, abs=1e-6)
        mean = torch.tensor(others[row["step"]]).mean(0).tolist()
        assert row[["entropy", "variety", "agreement"]].tolist() == pytest.approx(mean, abs=1e-5)


def test_the_state_that_is_kept_is_the_one_that_is_marked(suite):
    fit = am.adamerge(suite, guard=True, objective="imitation", **OPTIONS)
    assert fit.guard["kept"].sum() == 1
    step = int(fit.guard["step"][fit.guard["kept"]].item())
    best = fit.guard["lead"].idxmax()
    assert step == (fit.guard["step"][best] if fit.guard["lead"][best] > fit.guard["error"][best] else 0)
    assert torch.equal(fit.coefficients.values, fit.trajectory[step])
    expected = suite.task_vectors().merge(fit.trajectory[step], "tensor")
    assert all(torch.equal(fit.state[key], expected[key]) for key in expected)


def beliefs(monkeypatch, values):
    """Experts that believe what a test says: the values of one look after the other, for every image."""
    looks = iter(values)
    monkeypatch.setattr(guards, "_look", lambda *_: seen(next(looks)))


def seen(values):
    return Look(values, torch.zeros(len(values), 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("last", "kept"),
    [([0.9, 0.9, 0.9, 0.8], 1), ([0.1, 0.1, 0.1, 0.2], 0), ([0.5, 0.5, 0.5, 0.5], 0), ([1.0, 0.2, 0.5, 0.4], 0)],
    ids=["better", "worse", "equal", "better by less than its error"],
)
def test_it_goes_back_unless_the_lead_is_clear(suite, monkeypatch, last, kept):
    same = [torch.full((4,), 0.5, dtype=torch.float64)] * 3
    beliefs(monkeypatch, [same, same, [torch.tensor(last, dtype=torch.float64)] * 3])  # checked, start, end
    fit = am.adamerge(suite, guard=True, **{**OPTIONS, "steps": 1})
    assert fit.guard["kept"].tolist() == [kept == 0, kept == 1]
    assert torch.equal(fit.coefficients.values, fit.trajectory[kept])


def test_a_model_that_gives_no_numbers_counts_as_wrong(suite):
    guard, _ = suite_guard(suite, streams_of(suite), CPU)
    tv = suite.task_vectors()
    path = torch.stack([torch.full((3, len(tv.rows("tensor").names)), value) for value in (0.3, 1e30)])
    table = guard.looked(tv, path, "tensor", tuple(suite.tasks), CPU)
    assert table["expected"][0] > 0 and table["expected"][1] == 0 and table["kept"].tolist() == [True, False]
    alike = sum(math.log(len(suite.heads[task])) for task in suite.tasks) / len(suite.tasks)
    assert table["agreement"][1] == 0 and table["variety"][1] == pytest.approx(alike) == table["entropy"][1]


def test_without_a_guard_all_is_as_it_was(suite):
    fit = am.adamerge(suite, **OPTIONS)
    assert fit.guard is None and torch.equal(fit.coefficients.values, fit.trajectory[-1])
    assert "guard" not in fit.hyper and am.adamerge(suite, guard=True, **OPTIONS).hyper["guard"] is True


def test_a_resumed_run_keeps_the_same_state(suite, tmp_path):
    whole = am.adamerge(suite, guard=True, objective="imitation", **OPTIONS)
    path = tmp_path / "run.safetensors"
    am.adamerge(suite, guard=True, objective="imitation", checkpoint=path, **{**OPTIONS, "steps": 3})
    again = am.adamerge(suite, guard=True, objective="imitation", checkpoint=path, **OPTIONS)
    assert again.guard.equals(whole.guard) and torch.equal(again.coefficients.values, whole.coefficients.values)


def test_it_comes_back_from_the_cache(suite):
    fit = run_method("layer_wise_adamerging", suite, cache=False, guard=True, **OPTIONS)
    again = unpack(*pack(fit))
    assert again.guard.equals(fit.guard)


def test_too_few_images_are_refused_by_name(suite):
    with pytest.raises(ValueError, match="guard=True keeps one of 4 images back, and task 'alpha' has 3"):
        am.adamerge(suite, guard=True, images=3, **OPTIONS)


# Own models and data


def test_own_data_is_parted_by_its_bytes():
    data = batches(size=6)["pets"]
    stream = Batches(data, "pets", guarded=True)
    learned, apart = list(stream.one_pass()), stream.watched(1000)
    assert sum(map(length, learned)) + sum(map(length, apart)) == sum(map(len, data))
    assert not any(watched(part).any() for part in learned) and all(watched(part).all() for part in apart)
    other = Batches([torch.cat(data).flip(0)], "pets", guarded=True).watched(1000)
    assert sorted(torch.cat(apart).sum((1, 2, 3)).tolist()) == sorted(torch.cat(other).sum((1, 2, 3)).tolist())
    assert sum(map(length, stream.watched(1))) < sum(map(length, apart))


def test_own_models_are_guarded_saved_and_explained(tmp_path):
    fit = fitted(guard=True, objective="imitation", steps=6)
    assert torch.equal(fit.coefficients.values, fit.trajectory[fit.guard["step"][fit.guard["kept"]].item()])
    assert "The guard " in str(fit.explain())
    fit.save(tmp_path / "merged")
    assert am.load_adapted(tmp_path / "merged", Net()).guard.equals(fit.guard)
    assert json.loads((tmp_path / "merged" / "adapted.json").read_text())["hyper"]["guard"] is True


def test_words_say_whether_it_went_back(monkeypatch):
    for last, said in ((0.9, "The guard kept the last state: +40.0"), (0.1, "The guard went back to the start")):
        same = [torch.full((4,), 0.5, dtype=torch.float64)] * 2
        beliefs(monkeypatch, [same, same, [torch.full((4,), last, dtype=torch.float64)] * 2])
        fit = fitted(guard=True, steps=1)
        assert said in str(fit.explain())


def test_one_output_has_no_class_to_compare():
    with pytest.raises(ValueError, match="a head with one output has none"):
        fitted(guard=True, objective="imitation", logits=lambda task, output: output[:, :1])


def test_data_that_leaves_nothing_to_watch_is_refused():
    one = next(x for x in torch.cat(batches()["pets"]).split(1) if not watched(x).any())
    with pytest.raises(ValueError, match=r"guard=True keeps a part of data\['pets'\] back, and it has too few"):
        Batches([one], "pets", guarded=True).watched(10)
