"""AdaMerging of any model: exact gradients for every kind of part, any batches, errors before the first step."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import assert_equal
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import adamerging_lib as am
from adamerging_lib import state as files
from adamerging_lib.adapting.adapt import adapt
from adamerging_lib.adapting.batches import Batches, held_out, length, rows
from adamerging_lib.adapting.engine import Engine
from adamerging_lib.adapting.parts import take_apart
from adamerging_lib.adapting.statistics import SHARE, layers, recalibrated
from adamerging_lib.learning.adaptation import Adaptation
from adamerging_lib.learning.objective import Objective
from adamerging_lib.learning.streams import task_streams

CPU = torch.device("cpu")
TASKS = {"pets": 3, "food": 4}
SHORT = {"steps": 4, "lr": 0.05, "progress": False}


class Net(nn.Module):
    """Convolution, BatchNorm, a weight under two names, a frozen buffer, and a linear head with bias."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.one = nn.Linear(4, 4, bias=False)
        self.two = nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight
        self.head = nn.Linear(4, classes)
        self.register_buffer("scale", torch.tensor([2.0, 0.5]))
        self.register_buffer("offset", torch.tensor(0.25), persistent=False)

    def forward(self, x, shift=None):
        x = x * self.scale.view(1, 2, 1, 1) + self.offset
        x = self.bn(self.conv(x if shift is None else x + shift)).relu().mean((2, 3))
        return self.head(self.two(torch.tanh(self.one(x))))


def states(seed: int = 0, dtype: torch.dtype = torch.float32):
    """θ0 and experts that moved a little, with statistics of their own and heads of their own size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base = Net().to(dtype).state_dict()
        experts = {}
        for task, classes in TASKS.items():
            own = Net(classes).to(dtype).state_dict()
            for key, t in base.items():
                if not key.startswith("head") and t.is_floating_point() and key != "scale":
                    own[key] = t + 0.2 * torch.randn_like(t)
            own["bn.running_var"] = own["bn.running_var"].abs() + 0.1
            own["two.weight"] = own["one.weight"]
            own["head.weight"], own["head.bias"] = 3 * own["head.weight"], torch.randn_like(own["head.bias"])
            experts[task] = own
    return base, experts


def images(seed: int, n: int = 24, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(n, 2, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def batches(dtype: torch.dtype = torch.float32, size: int = 6) -> dict[str, list[torch.Tensor]]:
    return {task: list((images(k, dtype=dtype) + 0.5 * k).split(size)) for k, task in enumerate(TASKS)}


def fitted(**options):
    base, experts = states()
    return adapt(Net(), base, experts, **{"data": batches(), "private": "head.*", **SHORT, **options})


# The gradient


def objective_of(base, experts, data, mode="none", taught=False, clamp=True, **terms):
    parts = take_apart(Net(), base, experts, "head.*")
    streams = {task: Batches(data[task], task) for task in experts}
    engine = Engine(Net(), parts, None, Adaptation(), mode, streams, taught)
    tv = parts.tv
    objective = Objective.of(engine.source, tv, tv.rows("tensor"), clamp=clamp, device=CPU, **terms)
    return objective, objective.model.drawn(list(streams.values()), range(2), CPU)[0]


def written_out(objective, experts, inputs, raw, mode):
    """Entropies per task with a graph through clamp, merge and model; BatchNorm by hand."""
    tv, used, losses = objective.tv, raw.clamp(0, 1), []
    state = dict(tv.pretrained)
    for key, t in tv.vectors.items():
        lam = used[:, objective.rows.index[key]]
        state[key] = state[key] + sum(lam[k] * t[k] for k in range(len(t)))
    mean, var = (
        torch.stack([own[f"bn.running_{what}"] for own in experts.values()]).mean(0) for what in ("mean", "var")
    )
    for own, parts in zip(experts.values(), inputs, strict=True):
        total = 0.0
        for batch in parts:
            x = batch * own["scale"].view(1, 2, 1, 1) + 0.25
            x = F.conv2d(x, state["conv.weight"], state["conv.bias"])
            batch_mean, batch_var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            m, v = {
                "none": (mean, var),
                "batch": (batch_mean, batch_var),
                "mixed": tuple(
                    (1 - SHARE) * kept + SHARE * new.detach() for kept, new in ((mean, batch_mean), (var, batch_var))
                ),
            }[mode]
            x = (x - m.view(1, -1, 1, 1)) / (v.view(1, -1, 1, 1) + 1e-5).sqrt()
            x = x * state["bn.weight"].view(1, -1, 1, 1) + state["bn.bias"].view(1, -1, 1, 1)
            x = x.relu().mean((2, 3))
            x = torch.tanh(x @ state["one.weight"].T) @ state["one.weight"].T
            p = (x @ own["head.weight"].T + own["head.bias"]).softmax(-1)
            total = total - (p * p.log()).sum(-1).mean()
        losses.append(total)
    return torch.stack(losses)


@pytest.mark.parametrize("mode", ["none", "batch", "mixed"])
@pytest.mark.parametrize("passes", [1, 2])
def test_gradient_equals_autograd_through_the_merge(mode, passes):
    """With BatchNorm, tied weights, and private heads of different size."""
    base, experts = states(dtype=torch.float64)
    objective, inputs = objective_of(base, experts, batches(torch.float64), mode, passes=passes)
    shape = len(TASKS), len(objective.rows.names)
    raw = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.4 - 0.2
    values, gradient = objective.losses_and_gradient(raw, inputs, 2)
    leaf = raw.clone().requires_grad_()
    expected = written_out(objective, experts, inputs, leaf, mode)
    torch.testing.assert_close(values, expected.detach(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), leaf)[0], rtol=1e-6, atol=1e-9)
    assert gradient.abs().max() > 1e-3


def test_dicts_give_the_gradient_of_keyword_arguments():
    base, experts = states(dtype=torch.float64)
    plain = batches(torch.float64)
    shift = torch.full((6, 1, 1, 1), 0.3, dtype=torch.float64)
    named = {t: [{"x": b - 0.3 / 2, "shift": shift, "labels": torch.zeros(6)} for b in own] for t, own in plain.items()}
    scaled = {t: [b - 0.3 / 2 for b in own] for t, own in plain.items()}
    objective, inputs = objective_of(base, experts, named)
    raw = torch.full((2, len(objective.rows.names)), 0.4, dtype=torch.float64)
    gradient = objective.losses_and_gradient(raw, inputs, 2)[1]
    other, bare = objective_of(base, experts, scaled)
    assert (other.losses_and_gradient(raw, bare, 2)[1] - gradient).abs().max() > 1e-6
    # x·scale + offset + shift, where x·scale differs per channel: by hand, with the scale divided out.
    by_hand = {
        t: [b - 0.15 + 0.3 / torch.tensor([2.0, 0.5]).double().view(1, 2, 1, 1) for b in own]
        for t, own in plain.items()
    }
    other, bare = objective_of(base, experts, by_hand)
    torch.testing.assert_close(other.losses_and_gradient(raw, bare, 2)[1], gradient, rtol=1e-8, atol=1e-10)


def test_imitation_is_the_cross_entropy_with_the_expert():
    from adamerging_lib.learning.imitation import imitation_loss

    base, experts = states(dtype=torch.float64)
    data = batches(torch.float64)
    objective, inputs = objective_of(base, experts, data, "batch", taught=True, loss=imitation_loss)
    raw = torch.full((2, len(objective.rows.names)), 0.4, dtype=torch.float64)
    values, _ = objective.losses_and_gradient(raw, inputs, 2)
    state = objective.tv._merge(raw, objective.rows)
    for k, own in enumerate(experts.values()):
        total = 0.0
        for batch in inputs[k]:
            target = functional_call(Net().double().eval(), own, (batch,)).softmax(-1)
            model = Net().double()
            model.train()
            scores = functional_call(model, {**state, **{n: t for n, t in own.items() if "head" in n}}, (batch,))
            total = total - (target * scores.log_softmax(-1)).sum(-1).mean()
        torch.testing.assert_close(values[k], total.detach(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("given", [{}, {"objective": "imitation"}, {"vectors": "tsv", "granularity": "component"}])
def test_it_is_the_engine_of_adamerge(given):
    """The same toy suite through both doors: the same coefficients."""
    suite = toy.suite(seed=3, dtype=torch.float64)
    options = {"steps": 6, "lr": 0.05, "batches": 2, "seed": 5, "progress": False, **given}
    expected = am.adamerge(suite, batch_size=4, **options)
    streams = task_streams(suite, suite.tasks, size=4, seed=5, setting="transductive", device=CPU)
    data = {
        s: [suite.normalise(stream.batch(n)) for n in range(12)] for s, stream in zip(suite.tasks, streams, strict=True)
    }
    fit = adapt(
        suite.encoder, suite.pretrained, suite.experts, data=data, **options,
        logits=lambda task, output: F.normalize(output, dim=-1) @ suite.heads[task].T,
    )  # fmt: skip
    torch.testing.assert_close(fit.trajectory, expected.trajectory, rtol=1e-9, atol=1e-9)
    assert fit.history[list(suite.tasks)].to_numpy() == pytest.approx(expected.history[list(suite.tasks)].to_numpy())
    assert (fit.trajectory[-1] - fit.trajectory[0]).abs().max() > 0.1


# What is merged, what is not


def test_parts():
    base, experts = states()
    parts = take_apart(Net(), base, experts, "head.*")
    assert tuple(parts.tv.vectors) == ("conv.weight", "conv.bias", "bn.weight", "bn.bias", "one.weight")
    assert parts.ties == {"two.weight": "one.weight"}
    assert {task: list(own) for task, own in parts.private.items()} == dict.fromkeys(
        TASKS, ["head.weight", "head.bias"]
    )
    average = torch.stack([own["bn.running_var"] for own in experts.values()]).mean(0)
    assert torch.equal(parts.tv.pretrained["bn.running_var"], average)
    assert torch.equal(parts.tv.pretrained["scale"], base["scale"])


def test_a_file_may_leave_out_what_is_tied_and_what_is_private(tmp_path):
    base, experts = states()
    whole = fitted()
    del base["one.weight"], base["head.weight"], base["head.bias"]
    for task, own in experts.items():
        del own["two.weight"]
        files.save(tmp_path / f"{task}.safetensors", own)
    files.save(tmp_path / "base.safetensors", base)
    paths = {task: tmp_path / f"{task}.safetensors" for task in experts}
    fit = adapt(Net(), tmp_path / "base.safetensors", paths, data=batches(), private="head.*", **SHORT)
    assert torch.equal(fit.trajectory, whole.trajectory)
    for task in TASKS:
        assert_equal(fit.state_dict(task), whole.state_dict(task))


def test_pickles_are_read_without_being_run(tmp_path):
    base, experts = states()
    torch.save(base, tmp_path / "base.pt")
    fit = adapt(Net(), tmp_path / "base.pt", experts, data=batches(), private="head.*", **SHORT)
    assert torch.equal(fit.trajectory, fitted().trajectory)


def test_nothing_that_is_given_changes():
    base, experts = states()
    model, data = Net().train(), batches()
    before = copy.deepcopy((base, experts, dict(model.state_dict()), data))
    draws = torch.get_rng_state()
    for mode in ("batch", "mixed"):
        adapt(model, base, experts, data=data, private="head.*", statistics=mode, **SHORT)
    assert torch.equal(torch.get_rng_state(), draws)
    assert model.training and not model.bn._forward_pre_hooks
    assert_equal(base, before[0])
    assert_equal(dict(model.state_dict()), before[2])
    for task in TASKS:
        assert_equal(experts[task], before[1][task])
        assert all(torch.equal(a, b) for a, b in zip(data[task], before[3][task], strict=True))


@pytest.mark.parametrize("granularity", ["task", "module", "tensor"])
@pytest.mark.parametrize("options", [{}, {"vectors": "ties", "keep": 0.5}, {"clamp": "tanh"}, {"combine": "pcgrad"}])
def test_options_of_adamerge(granularity, options):
    fit = fitted(granularity=granularity, **options)
    assert fit.coefficients.granularity == granularity and len(fit.history) == 4
    assert (fit.trajectory[-1] - fit.trajectory[0]).abs().max() > 0.01
    assert all(fit.hyper[name] == value for name, value in options.items())


def test_parts_of_ones_own():
    fit = fitted(vectors=lambda tv: tv.replace({key: t / 2 for key, t in tv.vectors.items()}), init=0.6, steps=0)
    plain = fitted(init=0.3, steps=0)
    for task in TASKS:
        for key, t in plain.state_dict(task).items():
            torch.testing.assert_close(fit.state_dict(task)[key], t)
    assert fit.hyper["vectors"].endswith("<lambda>")


def test_own_objectives():
    fit = fitted(objective=lambda task, scores: scores.square().mean() * (2 if task == "pets" else 1))
    entropic = fitted(objective={"diversity": 1.0, "weights": {"pets": 2.0}})
    assert not torch.equal(fit.trajectory, entropic.trajectory)
    prior = fitted(objective={"diversity": 1.0, "prior": "experts", "weights": {"pets": 2.0}})
    assert not torch.equal(prior.trajectory, entropic.trajectory)
    with pytest.raises(ValueError, match="gives no number that depends on the logits of 'pets'"):
        fitted(objective=lambda task, scores: scores.argmax().float())


# Statistics


def test_recalibrated_statistics_are_those_of_all_batches_together():
    model, data = Net().eval(), [images(0, 8), 2 + images(1, 4), images(2, 16)]
    names = ["bn.running_mean", "bn.running_var"]
    found = recalibrated(model, model, data, names)
    x = model.conv(torch.cat(data) * model.scale.view(1, 2, 1, 1) + 0.25).detach()
    torch.testing.assert_close(found["bn.running_mean"], x.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["bn.running_var"], x.var((0, 2, 3)), rtol=1e-5, atol=1e-6)
    assert not any(m.training for m in model.modules()) and not model.bn._forward_pre_hooks
    assert list(layers(model)) == ["bn"]


def test_statistics_at_the_end():
    kept, task, shared = (fitted(recalibrate=how) for how in ("none", "auto", "shared"))
    assert task.hyper["recalibrate"] == "task"
    name = "bn.running_mean"
    average = torch.stack([own[name] for own in states()[1].values()]).mean(0)
    assert all(torch.equal(kept.state_dict(t)[name], average) for t in TASKS)
    assert torch.equal(shared.state_dict("pets")[name], shared.state_dict("food")[name])
    assert not torch.equal(task.state_dict("pets")[name], task.state_dict("food")[name])
    model = task.model("food")
    x = model.conv(torch.cat(batches()["food"]) * model.scale.view(1, 2, 1, 1) + 0.25)
    torch.testing.assert_close(model.bn.running_mean, x.mean((0, 2, 3)).detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(kept.trajectory, task.trajectory)


# Batches


def test_tensors_tuples_and_dicts_are_the_same_data():
    plain = fitted()
    for wrap in (lambda b: (b, torch.zeros(6)), lambda b: [b], lambda b: {"x": b, "labels": torch.zeros(6)}):
        fit = fitted(data={task: [wrap(b) for b in own] for task, own in batches().items()})
        assert torch.equal(fit.trajectory, plain.trajectory)


def test_generators_are_read_as_far_as_needed():
    def endless(own):
        while True:
            yield from own

    fit = fitted(data={task: endless(own) for task, own in batches().items()}, steps=6)
    assert torch.equal(fit.trajectory, fitted(steps=6).trajectory)


def loaders(size=4):
    return {
        task: DataLoader(TensorDataset(images(k, 18), torch.arange(18) % classes), batch_size=size, shuffle=True)
        for k, (task, classes) in enumerate(TASKS.items())
    }


def test_a_killed_run_with_shuffled_loaders_resumes_bit_for_bit(tmp_path):
    class Killed(Exception):
        pass

    def kill(done, used):
        if done == 7:
            raise Killed

    options = {"statistics": "batch", "steps": 12, "batches": 2}
    whole = fitted(data=loaders(), **options)
    path = tmp_path / "run.safetensors"
    fitted(data=loaders(), checkpoint=path, **{**options, "steps": 5})
    with pytest.raises(Killed):
        fitted(data=loaders(), checkpoint=path, callback=kill, **options)
    resumed = fitted(data=loaders(), checkpoint=path, **options)
    assert torch.equal(resumed.trajectory, whole.trajectory) and resumed.history.equals(whole.history)
    assert not torch.equal(fitted(data=loaders(), seed=1, **options).trajectory, whole.trajectory)
    with pytest.raises(ValueError, match='statistics: "batch" there, "none" here'):
        fitted(data=loaders(), checkpoint=path, **{**options, "statistics": "none"})


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    numbers=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    again=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_batches_are_those_of_all_passes_laid_end_to_end(sizes, numbers, again):
    own = [torch.full((size, 1), float(i)) for i, size in enumerate(sizes)]
    stream = Batches(own if again else (b for b in own * 20), "t", count=14)
    for number in numbers:
        assert torch.equal(stream.batch(number), own[number % len(own)])
    assert len(list(stream.one_pass())) == (len(own) if again else 14)
    assert [len(b) for b in stream.one_pass(2)] == [len(b) for b in (own * 2 if not again else own)[:2]]


@given(order=st.permutations(range(16)), cuts=st.sets(st.integers(1, 15)), pad=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_halves_depend_on_the_inputs_alone(order, cuts, pad):
    tokens = torch.arange(16 * 5).view(16, 5)
    mask = (torch.arange(5) < 2 + torch.arange(16)[:, None] % 4).long()
    whole = held_out({"input_ids": tokens, "attention_mask": mask})
    places = [*sorted(cuts), 16]
    for first, last in zip([0, *places], places, strict=False):
        some = torch.tensor(order[first:last])
        part = {
            "input_ids": F.pad(tokens[some] * mask[some], (0, pad), value=7 if pad else 0),
            "attention_mask": F.pad(mask[some], (0, pad)),
        }
        assert torch.equal(held_out(part), whole[some])
    assert 0 < whole.sum() < 16


def test_inductive_fits_never_see_the_other_half():
    data = loaders(size=5)
    fit = fitted(data=data, setting="inductive")
    blind = {}
    for task, loader in data.items():
        given = loader.dataset.tensors[0].clone()
        given[held_out(given)] = 1e6
        blind[task] = DataLoader(_Same(loader.dataset, given), batch_size=5, shuffle=True)
    table = am.evaluate(fit, data)
    assert set(table["split"]) == {"held_out"} and 0 < table["n"].max() < 18
    with pytest.raises(ValueError, match="'all' holds the adaptation images"):
        am.evaluate(fit, data, split="all")
    halves = [rows(b, ~held_out(b)) for b in data["pets"].dataset.tensors[0].split(5)]
    stream = Batches(data["pets"].dataset.tensors[0].split(5), "pets", inductive=True)
    assert [length(b) for b in stream.one_pass()] == [len(b) for b in halves if len(b)]


class _Same(TensorDataset):
    def __init__(self, like, given):
        super().__init__(given, *like.tensors[1:])


# Saved, loaded, measured, explained


def test_saved_and_loaded(tmp_path):
    fit = fitted(statistics="batch")
    folder = fit.save(tmp_path / "merged")
    assert sorted(p.name for p in folder.rglob("*")) == [
        "adapted.json", "coefficients.json", "food.safetensors", "pets.safetensors", "private", "shared.safetensors",
        "trajectory.safetensors",
    ]  # fmt: skip
    again = am.load_adapted(folder, Net(7))
    assert again.hyper == fit.hyper and again.history.equals(fit.history)
    assert torch.equal(again.trajectory, fit.trajectory) and str(again.explain()) == str(fit.explain())
    for task, classes in TASKS.items():
        assert_equal(again.state_dict(task), fit.state_dict(task))
        model = again.model(task)
        x = images(9)
        expected = functional_call(Net().eval(), fit.state_dict(task), (x,))
        torch.testing.assert_close(model(x), expected)
        assert model.head.out_features == classes and model.two.weight is model.one.weight
        assert_equal(dict(model.state_dict()), fit.state_dict(task))
    assert am.evaluate(again, labelled()).equals(am.evaluate(fit, labelled()))
    with pytest.raises(ValueError, match="merged exists: name another folder, or replace it with force=True"):
        fit.save(folder)
    fit.save(folder, force=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine is nothing that this wrote, and is never replaced"):
        fit.save(tmp_path / "mine", force=True)
    with pytest.raises(files.CheckpointError, match="of another model: bias, bn.bias"):
        am.load_adapted(folder, nn.Linear(2, 2))
    with pytest.raises(files.CheckpointError, match="mine holds no adapted model"):
        am.load_adapted(tmp_path / "mine", Net())
    (folder / "adapted.json").write_text(json.dumps({"kind": "x", "schema": 1}))
    with pytest.raises(files.CheckpointError, match="merged holds no adapted model"):
        am.load_adapted(folder, Net())


def labelled():
    return {
        task: [(b, torch.arange(len(b)) % classes) for b in own]
        for (task, own), classes in zip(batches().items(), TASKS.values(), strict=True)
    }


def test_measured_on_labels():
    fit = fitted()
    table = am.evaluate(fit, labelled(), outcomes=True).set_index("task")
    for task in TASKS:
        scores = fit.model(task)(torch.cat(batches()[task])).detach()
        labels = torch.cat([y for _, y in labelled()[task]])
        assert table.loc[task, "accuracy"] == pytest.approx(100 * float((scores.argmax(-1) == labels).float().mean()))
        assert table.loc[task, "loss"] == pytest.approx(float(F.cross_entropy(scores, labels)), rel=1e-5)
        assert (table.loc[task, "right"] == (scores.argmax(-1) == labels).numpy()).all()
    named = {task: [{"x": x, "labels": y} for x, y in own] for task, own in labelled().items()}
    assert am.evaluate(fit, named, outcomes=False).equals(am.evaluate(fit, labelled()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"cars": []}, "task 'cars' is unknown"),
        ({"pets": [images(0)]}, r"batch 0 of data\['pets'\] has no labels: give \(inputs, labels\)"),
        ({"pets": []}, r"data\['pets'\] has no input to measure on"),
        ({"pets": [(images(0), torch.zeros(3).long())]}, "has 24 inputs and 3 labels"),
        ({"pets": [(images(0), torch.full((24,), 3))]}, r"labels of data\['pets'\] go from 3 to 3, .* 3 classes"),
        ({"pets": [(images(0), torch.zeros(24))]}, "are torch.float32: give whole numbers"),
        ({}, "give labelled batches by task"),
    ],
)
def test_labels_that_are_none(data, message):
    with pytest.raises(ValueError, match=message):
        am.evaluate(fitted(steps=1), data)


def test_explained_in_words():
    fit = fitted(steps=30)
    told = fit.explain()
    words = str(told)
    assert "10 coefficients of 2 tasks (tensor: 5 per task), 30 steps" in words
    gains = [t for t, seen in fit.confidence.items() if seen["after"] < seen["before"]]
    line = next((line for line in words.splitlines() if line.startswith("These gain confidence")), "")
    assert [task for task in TASKS if task in line] == gains and gains
    assert told.table.loc["pets", "coefficient"] == pytest.approx(float(fit.coefficients.values[0].mean()))
    assert len(told.figure().axes) == 2
    assert "gain confidence" not in str(fitted(steps=0, statistics="none", recalibrate="none").explain())


def test_logits_of_ones_own_are_asked_for_again(tmp_path):
    fit = fitted(logits=lambda task, output: 2 * output)
    folder = fit.save(tmp_path / "merged")
    with pytest.raises(ValueError, match="was adapted with logits= of its own: give the same function"):
        am.load_adapted(folder, Net())
    again = am.load_adapted(folder, Net(), logits=fit.logits)
    assert am.evaluate(again, labelled()).equals(am.evaluate(fit, labelled()))


def test_batches_of_one_input_are_left_out_where_statistics_need_two():
    """A loader whose last batch has one input; in evaluation it counts."""
    uneven = {task: [*own, own[0][:1]] for task, own in batches().items()}
    for mode in ("none", "batch"):
        plain, fit = (fitted(data=d, statistics=mode, steps=9) for d in (batches(), uneven))
        assert torch.equal(fit.trajectory, plain.trajectory)
        assert_equal(fit.state_dict("pets"), plain.state_dict("pets"))


def test_wrappers_are_looked_through():
    class Compiled(nn.Module):
        def __init__(self):
            super().__init__()
            self._orig_mod = Net()

    base, experts = states()
    for model in (nn.DataParallel(Net()), Compiled()):
        fit = adapt(model, base, experts, data=batches(), private="head.*", **SHORT)
        assert torch.equal(fit.trajectory, fitted().trajectory)
    with pytest.raises(ValueError, match="the model is a type: give a torch.nn.Module"):
        adapt(Net, base, experts, data=batches(), **SHORT)


# Errors before the first step


class Frozen(Net):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


class Hidden(nn.Module):
    """Runs weights that it does not declare."""

    def __init__(self):
        super().__init__()
        self.inner, self.hidden = Net(), [Net()]

    def forward(self, x):
        return self.hidden[0](x)


def _nan(batch):
    batch = batch.clone()
    batch[0, 0, 0, 0] = torch.nan
    return batch


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": {"pets": batches()["pets"]}}, "data has no batches of food: give some"),
        ({"data": {**batches(), "cars": []}}, "data names 'cars', which is not an expert's task: pets, food"),
        ({"data": {**batches(), "food": []}}, r"data\['food'\] is empty: give at least one batch"),
        (
            {"data": {**batches(), "food": iter(batches()["food"][:3])}},
            "iterator that ended after 3 batches, .* takes 4",
        ),
        ({"data": {**batches(), "food": [images(0)[:1]]}}, r"food'\] has no batch of 2 inputs, which BatchNorm needs"),
        ({"data": {**batches(), "food": images(0)}}, r"is one tensor: give batches, such as .split\(16\)"),
        ({"data": {**batches(), "food": {"x": images(0)}}}, "is one dict: give batches, or a list with this one"),
        ({"data": {**batches(), "food": "images/"}}, "is a text: give batches"),
        ({"data": {**batches(), "food": 3}}, "is a int, which cannot be iterated over"),
        (
            {"data": {**batches(), "food": TensorDataset(images(0))}},
            "a data set of single examples: give a .*DataLoader",
        ),
        (
            {"data": {**batches(), "food": ["a cat"]}},
            r"batch 0 of data\['food'\] is a str: give batches that are tensors",
        ),
        (
            {"data": {**batches(), "food": [{"x": images(0), "text": ["a"]}]}},
            "'text' of batch 0 .* is a list: make it a",
        ),
        (
            {"data": {**batches(), "food": [images(0)[:, [0, 1, 1]]]}},
            r"cannot take a batch of task 'food', \[24, 3, 5, 5\] float32",
        ),
        ({"data": {**batches(), "food": [*batches()["food"], images(0)[..., :2]]}}, r"'food', \[24, 2, 5, 2\] float32"),
        (
            {"data": {**batches(), "food": [{"image": images(0)}]}},
            "'food', {image: .* unexpected keyword argument 'image'",
        ),
        ({"data": {**batches(), "food": [_nan(images(0))]}}, r"data\['food'\] holds NaN or Inf"),
        ({"data": batches()["pets"]}, "data is a list: give a dict"),
        (
            {"model": Frozen()},
            "'pets' depend on none of the merged tensors: the model's forward runs without gradients",
        ),
        ({"logits": lambda task, output: output / 0}, "logits of task 'pets' are NaN or Inf at the start"),
        ({"logits": lambda task, output: output[:, 0]}, r"of shape \[6\]: they should be \[inputs, classes\]"),
        (
            {"logits": lambda task, output: output[:, :1]},
            "'pets' has one output, which has no entropy: take objective=",
        ),
        (
            {"private": ()},
            r"'head.weight' is \[5, 4\] in pretrained, \[3, 4\] in pets, \[4, 4\] in food; .* private='head.\*'",
        ),
        (
            {"private": "head.weight"},
            r"'head.weight' is private and 'head.bias' would be merged: give private='head.\*'",
        ),
        ({"private": "classifier.*"}, "no tensor's name fits 'classifier.*'"),
        ({"private": ["head.*", "two.*"]}, "'two.weight' and 'one.weight' are one tensor of the model"),
        ({"private": "*"}, "leaves no tensor to merge"),
        ({"statistics": "train"}, "statistics 'train' is unknown"),
        ({"recalibrate": True}, "recalibrate True is unknown"),
        ({"objective": "labels"}, "objective 'labels' is unknown"),
        ({"objective": 3}, "objective=3 is unknown"),
        ({"objective": {"diverse": 1}}, "objective has no 'diverse'"),
        ({"passes": 3}, "passes=3 is more than one per task"),
        ({"steps": -1}, "steps=-1"),
        ({"setting": "both"}, "setting 'both' is unknown"),
        ({"granularity": "layer"}, "granularity 'layer' is unknown"),
    ],
)
def test_errors_before_the_first_step(changed, message):
    def never(done, used):
        raise AssertionError("a step was made")

    base, experts = states()
    given = {"model": Net(), "data": batches(), "private": "head.*", **SHORT, "callback": never, **changed}
    with pytest.raises(ValueError, match=message):
        adapt(given.pop("model"), base, experts, **given)


def _without(state, *names):
    return {key: t for key, t in state.items() if key not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b, e: (b, {"pets": e["pets"], "food": {f"module.{k}": t for k, t in e["food"].items()}}),
            "expert 'food' lacks .*conv.*; its names begin with 'module.'",
        ),
        (lambda b, e: (b, {**e, "food": _without(e["food"], "conv.bias")}), "'food' lacks conv.bias"),
        (
            lambda b, e: (b, {**e, "food": {**e["food"], "extra.weight": b["conv.bias"]}}),
            "'food' has extra.weight, which",
        ),
        (
            lambda b, e: (_without(b, "conv.weight", "conv.bias"), e),
            r"pretrained lacks conv.bias, conv.weight, .* private=\['conv.\*'\]",
        ),
        (
            lambda b, e: ({**b, "conv.weight": b["conv.weight"][:, :1]}, e),
            r"'conv.weight' is \[4, 1, 3, 3\] in pretrained",
        ),
        (
            lambda b, e: (b, {**e, "food": {**e["food"], "one.weight": e["food"]["one.weight"] + 1}}),
            "has two different",
        ),
        (lambda b, e: (b, {**e, "food": {**e["food"], "head.bias": e["food"]["head.bias"] * torch.nan}}), "NaN or Inf"),
        (
            lambda b, e: (b, {**e, "food": {**e["food"], "bn.running_mean": b["bn.running_mean"] * torch.nan}}),
            "NaN or Inf",
        ),
        (
            lambda b, e: (b, {**e, "food": {**e["food"], "bn.bias": b["bn.bias"].half()}}),
            "'bn.bias' is torch.float16 in food and torch.float32 in pretrained: cast",
        ),
        (lambda b, e: (b, {}), "no experts to merge"),
        (lambda b, e: (b, {"../pets": e["pets"]}), "task name '../pets' should be letters"),
        (lambda b, e: (b, {**e, "food": Net()}), "a Net is a module, not a state dict"),
        (lambda b, e: (b, {**e, "food": 3}), "a int is not a checkpoint"),
    ],
)
def test_checkpoints_that_do_not_fit(change, message):
    base, experts = change(*states())
    data = {task: batches()["pets"] for task in experts}
    with pytest.raises(ValueError, match=message):
        adapt(Net(), base, experts, data=data, private="head.*", **SHORT)


def test_weights_that_are_not_declared():
    base, experts = states()
    inner = [{f"inner.{key}": t for key, t in own.items()} for own in (base, *experts.values())]
    with pytest.raises(ValueError, match="depend on none of the merged tensors"):
        adapt(
            Hidden(),
            inner[0],
            dict(zip(TASKS, inner[1:], strict=True)),
            data=batches(),
            private="inner.head.*",
            **SHORT,
        )


def test_checkpoints_of_another_size_than_the_model():
    base, experts = states()
    model = Net()
    model.conv = nn.Conv2d(2, 8, 3)
    with pytest.raises(
        ValueError, match=r"'conv.weight' is \[4, 2, 3, 3\] in the checkpoints and \[8, 2, 3, 3\] in the"
    ):
        adapt(model, base, experts, data=batches(), private="head.*", **SHORT)


def test_whole_numbers_that_differ_are_private_or_refused():
    base, experts = states()
    experts["food"]["table"] = torch.tensor([1, 2])
    for own in (base, experts["pets"]):
        own["table"] = torch.tensor([2, 1])
    model = Net()
    model.register_buffer("table", torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="'table' of expert 'food' holds torch.int64 .* give private='table' too"):
        adapt(model, base, experts, data=batches(), private="head.*", **SHORT)
    fit = adapt(model, base, experts, data=batches(), private=["head.*", "table"], **SHORT)
    assert fit.model("food").table.tolist() == [1, 2]
