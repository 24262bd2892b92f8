"""AdaMerging: exact gradients, the published recipe, streams, and runs that can be killed."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
import toy
from strategies import assert_close, assert_equal, copy
from torch.func import functional_call
from torch.nn import functional as F

import adamerging_lib as am
from adamerging_lib.learning.model import suite_source
from adamerging_lib.learning.objective import Objective
from adamerging_lib.learning.streams import Stream
from adamerging_lib.methods import adamerging
from adamerging_lib.methods.adamerging import RECIPES
from adamerging_lib.task_vectors import GRANULARITIES
from adamerging_lib.vectors.components import tsv_split

SHORT = {"steps": 6, "lr": 0.05, "batch_size": 4, "batches": 2, "progress": False}


@pytest.fixture(scope="module")
def exact_suite():
    return toy.suite(seed=1, dtype=torch.float64)


def objective_of(suite, granularity, vectors, clamp):
    tv = suite.task_vectors()
    tv = am.ties_split(tv, 0.3) if vectors == "ties" else tv
    return Objective.of(suite_source(suite), tv, tv.rows(granularity), clamp=clamp, device=torch.device("cpu"))


def through_the_merge(suite, objective, raw, images, batches):
    """The objective written out: one graph through clamp, merge, encoder, head and entropy."""
    tv, total = objective.tv, 0.0
    raw = raw.clone().requires_grad_()
    used = torch.clamp(raw, 0, 1) if objective.clamp else raw
    state = dict(tv.pretrained)
    for key, t in tv.vectors.items():
        lam = used[:, objective.rows.index[key]]
        state[key] = tv.pretrained[key] + sum(lam[k] * t[k] for k in range(len(tv.tasks)))
    for part, task in zip(images.split(len(images) // len(tv.tasks)), tv.tasks, strict=True):
        for batch in part.split(len(part) // batches):
            feature = functional_call(suite.encoder, state, (suite.normalise(batch).double(),))
            p = (feature / feature.norm(dim=-1, keepdim=True) @ suite.heads[task].t()).softmax(-1)
            total = total - (p * p.log()).sum(-1).mean()
    return total, torch.autograd.grad(total, raw)[0]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("vectors", ["plain", "ties"])
@pytest.mark.parametrize("clamp", [True, False])
def test_gradient_equals_autograd_through_the_merge(exact_suite, granularity, vectors, clamp):
    objective = objective_of(exact_suite, granularity, vectors, clamp)
    generator = torch.Generator().manual_seed(3)
    shape = len(exact_suite.tasks), len(objective.rows.names)
    raw = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 0.5  # about half outside [0, 1]
    raw[0, 0], raw[1, -1] = 0.0, 1.0  # on the bounds the gradient passes
    images = torch.cat([exact_suite.test[task].images[:8] for task in exact_suite.tasks])
    losses, gradient = objective.losses_and_gradient(raw, images, batches=2)
    total, expected = through_the_merge(exact_suite, objective, raw, images, batches=2)
    torch.testing.assert_close(losses.sum(), total, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)
    assert gradient.abs().max() > 1e-3
    outside = (raw < 0) | (raw > 1)
    assert bool((gradient[outside] == 0).all()) == clamp
    # Trimming may empty a small tensor of one task, so "ties" has a few true zeros inside the bounds.
    assert (gradient[~outside] != 0).double().mean() > (0.9 if vectors == "ties" else 0.999)


def test_descent_equals_the_published_loop_written_out(exact_suite):
    """Clamp in the forward, sum of mean entropies, Adam: the whole descent against autograd and torch's Adam."""
    fit = am.adamerge(exact_suite, **SHORT)
    objective = objective_of(exact_suite, "tensor", "plain", True)
    raw = torch.full((3, len(objective.rows.names)), 0.3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([raw], lr=0.05, betas=(0.9, 0.999))
    streams = [Stream(exact_suite.test[t].images, size=4, task=t, seed=0) for t in exact_suite.tasks]
    for step in range(SHORT["steps"]):
        images = torch.cat([s.batch(2 * step + b) for s in streams for b in range(2)])
        total, raw.grad = through_the_merge(exact_suite, objective, raw.detach(), images, 2)
        assert fit.history["loss"][step] == pytest.approx(total.item(), rel=1e-9)
        adam.step()
    torch.testing.assert_close(fit.coefficients.values, raw.detach().clamp(0, 1), rtol=1e-8, atol=1e-10)


def test_published_recipe_is_the_default():
    assert RECIPES["paper"] == {"steps": 500, "lr": 1e-3, "batch_size": 16, "batches": 2}


def test_defaults_are_recorded(suite):
    fit = am.adamerge(suite, steps=0, progress=False)
    assert fit.hyper == {
        "granularity": "tensor", "vectors": "plain", **RECIPES["paper"], "steps": 0, "init": 0.3, "clamp": True,
        "seed": 0, "setting": "transductive",
    }  # fmt: skip


def test_zero_steps_are_task_arithmetic_and_ties(suite):
    plain = am.adamerge(suite, steps=0, progress=False)
    assert_close(plain.state_dict(), am.run_method("task_arithmetic", suite, scaling=0.3).state_dict())
    ties = am.adamerge(suite, steps=0, vectors="ties", keep=0.3, progress=False)
    assert_close(ties.state_dict(), am.run_method("ties", suite, keep=0.3, scaling=0.3).state_dict())
    assert len(plain.history) == 0 and plain.trajectory.shape == (1, 3, len(plain.coefficients.rows))


@pytest.mark.parametrize(("granularity", "vectors"), [("tensor", "plain"), ("block", "ties"), ("task", "plain")])
def test_entropy_goes_down(suite, granularity, vectors):
    fit = am.adamerge(suite, granularity=granularity, vectors=vectors, recipe="mini", steps=60, progress=False)
    before = am.evaluate(suite, am.adamerge(suite, granularity=granularity, vectors=vectors, steps=0, progress=False))
    assert am.evaluate(suite, fit)["entropy"].sum() < 0.95 * before["entropy"].sum()


def test_fit_describes_itself(suite):
    fit = am.adamerge(suite, granularity="block", **SHORT)
    rows = suite.task_vectors().rows("block").names
    assert fit.coefficients.rows == rows and fit.coefficients.tasks == suite.tasks
    assert fit.trajectory.shape == (7, 3, len(rows)) and torch.equal(fit.trajectory[-1], fit.coefficients.values)
    assert torch.equal(fit.trajectory[0], torch.full((3, len(rows)), 0.3))
    assert_equal(fit.state_dict(), suite.task_vectors().merge(fit.coefficients.values, "block"))
    history = fit.history
    assert list(history.columns) == ["step", "loss", "lambda_min", "lambda_mean", "lambda_max", *suite.tasks]
    assert list(history["step"]) == list(range(6))
    # Mean entropies per task; the loss sums two batches of each.
    assert history["loss"].to_numpy() == pytest.approx(2 * history[list(suite.tasks)].sum(axis=1).to_numpy())
    for step in range(6):
        used = fit.trajectory[step]
        expected = [used.min().item(), used.mean().item(), used.max().item()]
        assert history.loc[step, ["lambda_min", "lambda_mean", "lambda_max"]].tolist() == pytest.approx(expected)
    assert fit.method == "block_adamerging"


def test_clamped_coefficients_stay_in_bounds_and_unclamped_leave_them(suite):
    hyper = {**SHORT, "steps": 20, "lr": 0.2}
    clamped, free = am.adamerge(suite, **hyper), am.adamerge(suite, clamp=False, **hyper)
    assert clamped.trajectory.min() == 0 and clamped.trajectory.max() <= 1
    assert free.trajectory.min() < 0


def test_same_seed_same_fit_and_other_seed_another(suite):
    one, two, other = (am.adamerge(suite, seed=seed, **SHORT) for seed in (0, 0, 1))
    assert_equal(one.state_dict(), two.state_dict())
    assert one.history.equals(two.history)
    assert not torch.equal(one.coefficients.values, other.coefficients.values)


def test_global_random_state_is_neither_read_nor_moved(suite):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = am.adamerge(suite, **SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert_equal(am.adamerge(suite, **SHORT).state_dict(), one.state_dict())


def test_threads_do_not_change_the_fit(suite):
    threads, fits = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            fits.append(am.adamerge(suite, **SHORT))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(fits[0].trajectory, fits[1].trajectory, rtol=1e-3, atol=1e-4)


def test_inputs_are_not_mutated(suite):
    encoder = copy(suite.encoder.state_dict())
    before = copy(dict(suite.pretrained)), {t: copy(dict(e)) for t, e in suite.experts.items()}, copy(dict(suite.heads))
    init = torch.full((3, 1), 0.2)
    am.adamerge(suite, granularity="task", init=init, **SHORT)
    assert torch.equal(init, torch.full((3, 1), 0.2))
    assert_equal(dict(suite.pretrained), before[0])
    for task in suite.tasks:
        assert_equal(dict(suite.experts[task]), before[1][task])
    assert_equal(dict(suite.heads), before[2])
    assert_equal(dict(suite.encoder.state_dict()), encoder)


def test_encoder_in_training_mode_is_used_in_evaluation_mode_and_left_as_it_is(suite):
    class Dropping(toy.ToyViT):
        def forward(self, images):
            return super().forward(F.dropout(images, 0.5, self.training))

    training = dataclasses.replace(suite, encoder=Dropping().train())
    assert_equal(am.adamerge(training, **SHORT).state_dict(), am.adamerge(suite, **SHORT).state_dict())
    assert training.encoder.training


def test_labels_are_never_read(suite):
    blind = {t: dataclasses.replace(d, labels=torch.full_like(d.labels, -1)) for t, d in suite.test.items()}
    fit = am.adamerge(dataclasses.replace(suite, test=blind), **SHORT)
    assert_equal(fit.state_dict(), am.adamerge(suite, **SHORT).state_dict())


def test_half_precision_checkpoints_are_fitted_in_float32(suite):
    def halve(state):
        return {key: t.half() if t.is_floating_point() else t for key, t in state.items()}

    half = dataclasses.replace(
        suite, pretrained=halve(suite.pretrained), experts={t: halve(e) for t, e in suite.experts.items()}
    )
    fit = am.adamerge(half, **SHORT)
    assert fit.trajectory.dtype == torch.float32
    assert fit.state_dict()["proj"].dtype == torch.float16
    torch.testing.assert_close(fit.trajectory, am.adamerge(suite, **SHORT).trajectory, atol=0.05, rtol=0)


def test_tensors_that_the_encoder_does_not_use_keep_their_coefficient(suite):
    class WithText(toy.ToyViT):
        def __init__(self):
            super().__init__()
            self.text_projection = torch.nn.Parameter(torch.zeros(2))

    def widen(state, value):
        return {**state, "text_projection": torch.full((2,), value)}

    wide = dataclasses.replace(
        suite,
        encoder=WithText().eval(),
        pretrained=widen(suite.pretrained, 0.0),
        experts={t: widen(e, 1.0) for t, e in suite.experts.items()},
    )
    fit = am.adamerge(wide, **SHORT)
    row = fit.coefficients.rows.index("text_projection")
    assert torch.equal(fit.trajectory[:, :, row], torch.full((7, 3), 0.3))
    assert not bool((fit.coefficients.values[:, :row] == 0.3).all())


def test_init_from_number_tensor_and_coefficients(suite):
    start = am.adamerge(suite, granularity="block", **SHORT).coefficients
    by_number = am.adamerge(suite, granularity="block", init=0.1, **SHORT)
    assert torch.equal(by_number.trajectory[0], torch.full((3, 4), 0.1))
    by_tensor = am.adamerge(suite, granularity="block", init=start.values, **SHORT)
    turned = am.Coefficients(start.values.flip(0, 1), start.tasks[::-1], start.rows[::-1], "block")
    by_name = am.adamerge(suite, granularity="block", init=turned, **SHORT)
    assert torch.equal(by_tensor.trajectory[0], start.values)
    assert torch.equal(by_tensor.trajectory, by_name.trajectory)


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"recipe": "papre"}, "recipe 'papre' is unknown"),
        ({"granularity": "layer"}, "granularity 'layer' is unknown"),
        ({"vectors": "trimmed"}, "vectors 'trimmed' is unknown"),
        ({"setting": "online"}, "setting 'online' is unknown"),
        ({"steps": -1}, "steps=-1 must be a whole number of at least 0"),
        ({"steps": 1.5}, "steps=1.5 must be a whole number"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ({"batches": True}, "batches=True must be"),
        ({"lr": 0.0}, "lr=0.0 must be a positive number"),
        ({"lr": float("nan")}, "lr=nan must be a positive number"),
        ({"keep": 20, "vectors": "ties"}, "keep=20 is not a share"),
        ({"init": torch.zeros(2, 2)}, r"must be a tensor \[3, 32\]"),
        ({"init": float("inf")}, "NaN or Inf"),
        ({"device": "gpu"}, "device 'gpu' is unknown"),
    ],
)
def test_bad_arguments(suite, hyper, message):
    with pytest.raises(ValueError, match=message):
        am.adamerge(suite, progress=False, **hyper)


def test_bad_suites_are_named(suite):
    with pytest.raises(ValueError, match="no test images or no head for beta"):
        am.adamerge(dataclasses.replace(suite, heads={t: h for t, h in suite.heads.items() if t != "beta"}), **SHORT)
    small = dataclasses.replace(suite.test["beta"], images=suite.test["beta"].images[:, :, :4])
    with pytest.raises(ValueError, match="images differ in size"):
        am.adamerge(dataclasses.replace(suite, test={**suite.test, "beta": small}), **SHORT)
    with pytest.raises(ValueError, match=r"does not fit the encoder: missing .*resblocks\.2"):
        am.adamerge(dataclasses.replace(suite, encoder=toy.ToyViT(blocks=3)), **SHORT)
    broken = {**suite.heads, "beta": suite.heads["beta"] * float("nan")}
    with pytest.raises(ValueError, match="entropy of beta is NaN at step 0"):
        am.adamerge(dataclasses.replace(suite, heads=broken), **SHORT)


def test_progress_goes_to_stderr_or_nowhere(suite, capsys):
    am.adamerge(suite, **{**SHORT, "progress": True})
    out, err = capsys.readouterr()
    assert out == "" and "layer_wise_adamerging" in err and "loss=" in err and "λ=" in err and "6/6" in err
    am.adamerge(suite, **SHORT)
    assert capsys.readouterr() == ("", "")


# Streams


@pytest.mark.parametrize(("n", "size"), [(10, 4), (4, 10), (7, 7), (1, 3)])
def test_a_pass_shows_every_image_once(n, size):
    stream = Stream(torch.zeros(n, 3, 2, 2, dtype=torch.uint8), size=size, task="a", seed=0)
    places = list(itertools.chain.from_iterable(stream.indices(b).tolist() for b in range(3 * n)))
    assert all(len(stream.indices(b)) == size for b in range(3))
    for number in range(3):
        assert sorted(places[number * n : (number + 1) * n]) == list(range(n))
    assert n == 1 or n == 4 or places[:n] != places[n : 2 * n]


def test_batches_do_not_depend_on_what_was_drawn_before():
    images = torch.zeros(9, 3, 2, 2, dtype=torch.uint8)
    forwards, backwards = (Stream(images, size=4, task="a", seed=2) for _ in range(2))
    drawn = [forwards.indices(b) for b in range(12)]
    assert all(torch.equal(backwards.indices(b), drawn[b]) for b in reversed(range(12)))
    for other in (Stream(images, size=4, task="b", seed=2), Stream(images, size=4, task="a", seed=3)):
        assert not torch.equal(other.indices(0), drawn[0])


def test_stream_needs_images():
    with pytest.raises(ValueError, match="stream of task 'a' has 0 images"):
        Stream(torch.zeros(0, 3, 2, 2, dtype=torch.uint8), size=4, task="a", seed=0)


def test_inductive_adapts_on_its_half_only(suite):
    adapt = {t: am.split_indices(len(d))[0] for t, d in suite.test.items()}

    def spoil(task, data):
        images = torch.zeros_like(data.images)
        images[adapt[task]] = data.images[adapt[task]]
        return dataclasses.replace(data, images=images)

    blind = dataclasses.replace(suite, test={t: spoil(t, d) for t, d in suite.test.items()})
    hyper = {**SHORT, "steps": 15, "setting": "inductive"}
    fit = am.adamerge(suite, **hyper)
    assert_equal(am.adamerge(blind, **hyper).state_dict(), fit.state_dict())
    assert fit.hyper["setting"] == "inductive"
    transductive = am.adamerge(suite, **{**hyper, "setting": "transductive"})
    assert not torch.equal(transductive.coefficients.values, fit.coefficients.values)


# Resuming


class Killed(Exception):
    pass


def kill_at(step):
    def callback(done, coefficients):
        if done == step:
            raise Killed

    return callback


LONG = {"steps": 14, "lr": 0.02, "batch_size": 4, "batches": 1, "progress": False}


@pytest.mark.parametrize("vectors", ["plain", "ties"])
def test_killed_run_resumes_to_the_same_result_bit_for_bit(suite, tmp_path, monkeypatch, vectors):
    monkeypatch.setattr(adamerging, "CHECKPOINT_EVERY", 5)
    whole = am.adamerge(suite, vectors=vectors, **LONG)
    path = tmp_path / "fit.safetensors"
    for step in (8, 11):  # after the checkpoint at 5, and again after the one at 10
        with pytest.raises(Killed):
            am.adamerge(suite, vectors=vectors, checkpoint=path, callback=kill_at(step), **LONG)
    steps = []
    resumed = am.adamerge(suite, vectors=vectors, checkpoint=path, callback=lambda s, c: steps.append(s), **LONG)
    assert steps == list(range(11, 15))
    assert_equal(resumed.state_dict(), whole.state_dict())
    assert torch.equal(resumed.trajectory, whole.trajectory) and resumed.history.equals(whole.history)
    assert [p.name for p in tmp_path.iterdir()] == ["fit.safetensors"]


def test_finished_run_is_read_and_can_go_on(suite, tmp_path):
    path = tmp_path / "fit.safetensors"
    short = am.adamerge(suite, checkpoint=path, **{**LONG, "steps": 10})
    again = am.adamerge(suite, checkpoint=path, callback=kill_at(1), **{**LONG, "steps": 10})
    assert_equal(again.state_dict(), short.state_dict())
    longer = am.adamerge(suite, checkpoint=path, **{**LONG, "steps": 15})
    assert_equal(longer.state_dict(), am.adamerge(suite, **{**LONG, "steps": 15}).state_dict())
    with pytest.raises(ValueError, match="has done 15 steps, more than steps=10"):
        am.adamerge(suite, checkpoint=path, **{**LONG, "steps": 10})


def test_checkpoint_of_another_run_is_refused(suite, tmp_path):
    path = tmp_path / "fit.safetensors"
    am.adamerge(suite, checkpoint=path, **SHORT)
    other = dataclasses.replace(suite, heads={**suite.heads, "beta": -suite.heads["beta"]})
    for changed, hyper, message in [
        (suite, {"lr": 0.01}, "lr: 0.05 there, 0.01 here"),
        (suite, {"seed": 4}, "seed: 0 there, 4 here"),
        (suite, {"granularity": "task"}, 'granularity: "tensor" there, "task" here'),
        (suite, {"vectors": "ties"}, "keep: null there, 0.2 here; .*vectors"),
        (suite, {"setting": "inductive"}, "setting"),
        (other, {}, "heads: "),
    ]:
        with pytest.raises(ValueError, match=f"checkpoint of another run.*{message}.*delete it"):
            am.adamerge(changed, checkpoint=path, **{**SHORT, **hyper})
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"zzz")
    with pytest.raises(am.CheckpointError, match=r"broken\.safetensors is text that begins 'zzz'"):
        am.adamerge(suite, checkpoint=broken, **SHORT)
    foreign = tmp_path / "foreign.safetensors"
    am.adamerge(suite, steps=0, progress=False).coefficients.save(tmp_path / "c.json")
    from adamerging_lib import state

    state.save(foreign, {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="is not a checkpoint of an AdaMerging run"):
        am.adamerge(suite, checkpoint=foreign, **SHORT)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(suite):
    cpu, gpu = (am.adamerge(suite, device=device, **SHORT) for device in ("cpu", "cuda"))
    torch.testing.assert_close(gpu.trajectory, cpu.trajectory, rtol=1e-2, atol=1e-3)
    assert gpu.state_dict()["proj"].device.type == "cpu"
    frames = [am.evaluate(suite, cpu, device=device) for device in ("cpu", "cuda")]
    assert frames[0]["entropy"].to_numpy() == pytest.approx(frames[1]["entropy"].to_numpy(), rel=1e-3)


# Parts of one's own


def halves(tv: am.TaskVectors) -> am.TaskVectors:
    return tv.replace({key: t / 2 for key, t in tv.vectors.items()})


def test_a_function_takes_task_vectors_apart(suite):
    """Half of each from λ = 0.6 is all of each from 0.3; by default λ starts at 1, free of the clamp."""
    short = {"steps": 0, "progress": False}
    half = am.adamerge(suite, vectors=halves, init=0.6, **short)
    assert_close(half.state_dict(), am.adamerge(suite, init=0.3, **short).state_dict())
    own = am.adamerge(suite, vectors=halves, **short)
    assert own.method == "tensor_adamerging_own" and own.hyper["vectors"] == "halves" and own.hyper["clamp"] is False
    assert torch.equal(own.trajectory, torch.ones_like(own.trajectory))
    assert_close(own.state_dict(), am.run_method("task_arithmetic", suite, scaling=0.5).state_dict())
    named = am.adamerge(suite, vectors="tsv", granularity="component", **SHORT)
    given = am.adamerge(suite, vectors=tsv_split, granularity="component", init=named.trajectory[0], **SHORT)
    assert torch.equal(given.trajectory, named.trajectory)


def test_a_function_may_start_around_another_merger(suite):
    """λ = 0 on plain task vectors, around Iso-C in the place of θ0."""
    merged = am.run_method("iso_c", suite).state_dict()

    def around(tv):
        return dataclasses.replace(tv, pretrained=merged)

    assert_close(am.adamerge(suite, vectors=around, init=0.0, steps=0, progress=False).state_dict(), merged)
    moved = am.adamerge(suite, vectors=around, init=0.0, **SHORT)
    assert moved.trajectory[-1].abs().max() > 0.01


def test_a_function_that_returns_something_else_is_refused(suite):
    with pytest.raises(ValueError, match="returned a dict: let it return TaskVectors"):
        am.adamerge(suite, vectors=lambda tv: dict(tv.vectors), **SHORT)
    with pytest.raises(ValueError, match="other tasks or tensors"):
        am.adamerge(suite, vectors=lambda tv: dataclasses.replace(tv, vectors={}), **SHORT)


def test_the_parts_that_the_docstring_names_are_public(suite):
    """``am.ties_split``: its parts by name are the "++" variant's, from the same start."""
    assert "``am.ties_split``" in am.adamerge.__doc__
    short = {**SHORT, "steps": 2, "init": 0.3, "clamp": True}
    given, named = am.adamerge(suite, vectors=am.ties_split, **short), am.adamerge(suite, vectors="ties", **short)
    assert torch.equal(given.trajectory, named.trajectory)
