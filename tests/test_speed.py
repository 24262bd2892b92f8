"""The step on an accelerator: lower precision, several passes, compiled code, no waiting, and too little memory."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy
from strategies import assert_equal

import adamerging_lib as am
from adamerging_lib import forward
from adamerging_lib.learning.combine import combiner
from adamerging_lib.learning.model import EncoderWithHeads, suite_source
from adamerging_lib.learning.objective import Objective
from adamerging_lib.learning.streams import task_streams
from adamerging_lib.runtime.devices import advice_on_memory, sent
from adamerging_lib.suite import split_indices

ROOT = Path(__file__).resolve().parents[1]
SHORT = {"steps": 8, "lr": 0.02, "batch_size": 8, "batches": 2, "progress": False}
CPU = torch.device("cpu")


def objective_of(suite, device=CPU, **terms) -> Objective:
    tv = suite.task_vectors()
    return Objective.of(suite_source(suite), tv, tv.rows("tensor"), clamp=True, device=device, **terms)


def images_of(suite, count=8):
    return torch.cat([suite.test[task].images[:count] for task in suite.tasks])


# Lower precision


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        # Adam moves every λ by lr = 0.02 per step whatever the size of its gradient, so that the few whose gradient is
        # about zero may go the other way: most must stay closer by far.
        ({"autocast": "bfloat16"}, 0.0005),
        ({"vectors_dtype": "bfloat16"}, 0.0002),
        ({"autocast": "bfloat16", "vectors_dtype": "bfloat16"}, 0.0005),
    ],
)
def test_lower_precision_moves_coefficients_little(suite, options, tolerance):
    plain, narrow = am.adamerge(suite, **SHORT), am.adamerge(suite, **SHORT, **options)
    assert narrow.trajectory.dtype == torch.float32 and narrow.hyper == {**plain.hyper, **options}
    moved = (plain.trajectory[-1] - plain.trajectory[0]).abs().mean()
    apart = (narrow.trajectory - plain.trajectory).abs()
    assert 0 < apart.mean() < tolerance < moved / 200
    assert apart.flatten(1).quantile(0.9, dim=1).max() < 2 * tolerance
    assert narrow.history["loss"].to_numpy() == pytest.approx(plain.history["loss"].to_numpy(), rel=0.01)


def test_result_is_merged_from_vectors_that_are_not_rounded(suite):
    fit = am.adamerge(suite, vectors_dtype="bfloat16", **SHORT)
    assert_equal(fit.state_dict(), suite.task_vectors().merge(fit.coefficients.values, "tensor"))


def test_narrow_vectors_take_half_the_memory_and_are_summed_wide(suite):
    wide, narrow = objective_of(suite), objective_of(suite, vectors_dtype=torch.bfloat16)
    size = [sum(t.nbytes for t in o.tv.vectors.values()) for o in (wide, narrow)]
    assert size[0] == 2 * size[1]
    used = torch.full((3, len(wide.rows.names)), 0.3)
    used[0] += 1e-3  # one step of the published descent, less than bfloat16 can tell from 0.3
    merged = narrow.tv._merge(used, narrow.rows)
    rounded = wide.tv.replace({key: t.bfloat16().float() for key, t in wide.tv.vectors.items()})._merge(used, wide.rows)
    assert_equal(merged, rounded)
    assert merged["proj"].dtype == torch.float32
    gradient = narrow.losses_and_gradient(used, images_of(suite), 2)[1]
    assert gradient.dtype == torch.float32


def test_encoder_computes_in_the_narrow_type_and_scores_in_the_wide(suite):
    seen = []

    def loss(scores, labels, batches):
        seen.append(scores.dtype)
        return scores.sum()

    def features(encoder, state, images):
        found = forward.raw_features(encoder, state, images)
        seen.append(found.dtype)
        return found

    raw = torch.full((3, len(suite.task_vectors().vectors)), 0.3)
    objective_of(suite, autocast=torch.bfloat16, features=features, loss=loss).losses_and_gradient(
        raw, images_of(suite), 2
    )
    assert seen == [torch.bfloat16, *[torch.float32] * 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"autocast": "float16"}, "autocast='float16' is unknown"),
        ({"vectors_dtype": torch.bfloat16}, "vectors_dtype=torch.bfloat16 is unknown"),
        ({"passes": 4}, "passes=4 is more than one per task: give at most 3"),
        ({"passes": 0}, "passes=0 must be a whole number"),
    ],
)
def test_options_that_are_refused(suite, options, message):
    with pytest.raises(ValueError, match=message):
        am.adamerge(suite, **SHORT, **options)


def test_float64_models_are_not_rounded_in_silence():
    with pytest.raises(ValueError, match="autocast and vectors_dtype are for float32 models"):
        am.adamerge(toy.suite(dtype=torch.float64), autocast="bfloat16", vectors_dtype="bfloat16", **SHORT)


# Passes


@pytest.mark.parametrize("terms", ["plain", "weights", "pull", "combine"])
@pytest.mark.parametrize("passes", [2, 3])
def test_passes_give_the_same_gradient(terms, passes):
    suite = toy.suite(seed=2, dtype=torch.float64)
    raw = torch.full((3, len(suite.task_vectors().vectors)), 0.3, dtype=torch.float64)
    options = {
        "plain": {},
        "weights": {"weights": torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)},
        "pull": {"pull": 0.5, "start": raw + 0.1},
        "combine": {"combine": combiner("pcgrad", suite.tasks)},
    }[terms]
    one, more = (
        objective_of(suite, passes=p, **options).losses_and_gradient(raw, images_of(suite), 2) for p in (1, passes)
    )
    torch.testing.assert_close(more, one, rtol=1e-10, atol=1e-12)


def test_passes_hold_the_activations_of_some_tasks_only(suite):
    sizes = []

    def features(encoder, state, images):
        sizes.append(len(images))
        return forward.raw_features(encoder, state, images)

    raw = torch.full((3, len(suite.task_vectors().vectors)), 0.3)
    for passes in (1, 2, 3):
        objective_of(suite, passes=passes, features=features).losses_and_gradient(raw, images_of(suite), 2)
    assert sizes == [24, 8, 16, 8, 8, 8]


def test_passes_are_recorded(suite):
    fit = am.adamerge(suite, passes=3, **SHORT)
    assert fit.hyper["passes"] == 3
    torch.testing.assert_close(fit.trajectory, am.adamerge(suite, **SHORT).trajectory, rtol=1e-3, atol=1e-4)


# Nothing waits


@pytest.mark.parametrize("clamp", [True, False, "tanh"])
@pytest.mark.parametrize("options", [{}, {"passes": 2}, {"vectors_dtype": torch.bfloat16}])
def test_a_step_reads_no_number_back(suite, clamp, options):
    """Tensors without data stand for a GPU's: whatever looks at a number of theirs fails."""
    meta = torch.device("meta")
    tv = suite.task_vectors()
    objective = Objective.of(suite_source(suite), tv, tv.rows("tensor"), clamp=clamp, device=meta, **options)
    raw = torch.nn.Parameter(torch.full((3, len(objective.rows.names)), 0.3, device=meta))
    adam = torch.optim.Adam([raw])
    for step in range(2):
        values, raw.grad = objective.losses_and_gradient(raw, images_of(suite).to(meta), 2, step=step)
        adam.step()
    assert values.shape == (3,) and objective.used(raw).shape == raw.shape
    with pytest.raises(RuntimeError):
        values.sum().item()  # what the test relies on


def test_normalisation_constants_are_made_once(suite, monkeypatch):
    images = images_of(suite)
    first = suite.normalise(images)
    monkeypatch.setattr("adamerging_lib.suite.torch.tensor", None)
    assert torch.equal(suite.normalise(images), first)


# Compiled


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own
def test_compiled_encoder_gives_the_same_fit(suite):
    plain, compiled = am.adamerge(suite, **SHORT), am.adamerge(suite, compile=True, **SHORT)
    assert compiled.hyper["compile"] is True
    torch.testing.assert_close(compiled.trajectory, plain.trajectory, rtol=1e-3, atol=1e-4)


# Memory that runs out, and devices that are not there


def test_out_of_memory_says_what_helps(suite, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(EncoderWithHeads, "_unit_features", full)
    with pytest.raises(MemoryError) as caught:
        am.adamerge(suite, **SHORT)
    told = str(caught.value)
    order = ("passes=3 (now 1)", 'autocast="bfloat16"', 'vectors_dtype="bfloat16"', "batch_size=4 (now 8)", "batches=1")
    places = [told.index(knob) for knob in order]
    assert places == sorted(places) and "Tried to allocate 2.00 GiB" in told
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    with pytest.raises(MemoryError) as caught:
        am.adamerge(suite, passes=3, autocast="bfloat16", vectors_dtype="bfloat16", **{**SHORT, "batches": 1})
    told = str(caught.value)
    assert "batch_size=4" in told and not any(
        word in told for word in ("passes", "autocast", "vectors_dtype", "batches=")
    )


def test_out_of_memory_on_the_way_to_the_gpu_is_told_too(suite, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(am.TaskVectors, "to", full)
    with pytest.raises(MemoryError, match="3 task vectors take"):
        am.adamerge(suite, **SHORT)


def test_advice_names_only_what_the_method_takes(suite, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(EncoderWithHeads, "_unit_features", full)
    with pytest.raises(
        MemoryError, match="best first: batch_size=4 .*; batches=1 .*; a GPU with more memory"
    ) as caught:
        am.run_method("supermerge", suite, images=8, **SHORT)
    assert not any(word in str(caught.value) for word in ("passes", "autocast", "vectors_dtype"))


def test_sizes_of_the_paper_in_the_advice():
    with pytest.raises(MemoryError, match=r"8 task vectors take 2\.8 GB, .* gradient 1\.0 GB"):
        with advice_on_memory(87_456_000, 8, {}):
            raise torch.OutOfMemoryError("full")
    with pytest.raises(RuntimeError, match="another"):
        with advice_on_memory(1, 1, {}):
            raise RuntimeError("another")


def test_gpus_that_are_not_there(suite, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' asked for, but torch sees no GPU"):
        am.adamerge(suite, device="cuda", **SHORT)
    assert forward.resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert forward.resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="device 'cuda:2' .* 2 GPUs"):
        forward.resolve_device("cuda:2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here make gpu would begin to measure")
def test_make_gpu_without_a_gpu_says_so_and_runs_nothing(tmp_path):
    command = ["make", "--old-file", ".venv/.installed", "gpu", f"PY={sys.executable}"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode != 0 and ran.stdout == ""
    assert ran.stderr.startswith("make gpu: torch sees no CUDA GPU here, so nothing was run")


def test_the_benchmark_keeps_rows_of_other_sizes(tmp_path, monkeypatch, capsys):
    """Called again on the same device, it adds rows, and replaces only those that it measured again.

    Four images per batch: with one, rounding to bfloat16 alone may move the gradient by more than the check allows.
    """
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import adamerging_step

    monkeypatch.setattr(adamerging_step, "RESULTS", tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["adamerging_step.py", "--case", "mini", "--repeats", "1", *words])
        adamerging_step.main()
        record = am.records.read(tmp_path / "adamerging_step.json")
        return [(row["tasks"], row.get("autocast"), row["quantity"]) for row in record["rows"]]

    first = run("--tasks", "2", "--batch-size", "4")
    both = run("--tasks", "2", "--batch-size", "4", "--autocast", "bfloat16", "--passes", "2")
    assert len(set(both)) == 2 * len(first) and both[: len(first)] == first
    assert sorted(run("--tasks", "2", "--batch-size", "4"), key=str) == sorted(both, key=str)
    assert {quantity.split()[0] for _, _, quantity in both} >= {"step", "forward", "backward", "merge"}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(SystemExit):
            run("--tasks", "2", "--batch-size", "4")
    finally:
        torch.set_num_threads(threads)
    assert "made with other versions or threads" in capsys.readouterr().err


# On a GPU


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("options", [{}, {"passes": 3}, {"autocast": torch.bfloat16, "vectors_dtype": torch.bfloat16}])
def test_gpu_is_never_waited_for(suite, monkeypatch, options, kept):
    """torch itself refuses what makes the CPU wait for the GPU; with images that fit there, and with others."""
    device = torch.device("cuda")
    if not kept:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    streams = task_streams(suite, suite.tasks, size=4, seed=0, setting="transductive", device=device)
    assert all((stream.images.device.type == "cuda") == kept for stream in streams)
    objective = objective_of(suite, device, **options)
    raw = torch.nn.Parameter(torch.full((3, len(objective.rows.names)), 0.3, device=device))
    adam = torch.optim.Adam([raw])
    try:
        for step in range(4):
            images = torch.cat([sent(stream.batch(2 * step + b), device) for stream in streams for b in range(2)])
            _, raw.grad = objective.losses_and_gradient(raw, images, 2, step=step)
            adam.step()
            torch.cuda.set_sync_debug_mode("error")  # the first step sets libraries up
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")  # float32 is meant here
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({}, 1e-3), ({"passes": 3}, 1e-3), ({"compile": True}, 1e-3), ({"autocast": "bfloat16"}, 0.02)],
)
def test_gpu_agrees_with_cpu_whatever_the_option(suite, options, tolerance):
    cpu = am.adamerge(suite, **SHORT)
    gpu = am.adamerge(suite, device="cuda", **options, **SHORT)
    assert (gpu.trajectory - cpu.trajectory).abs().mean() < tolerance


@pytest.mark.gpu
def test_gpu_that_is_too_small(suite, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))  # images stay where they are
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with pytest.raises(MemoryError, match="passes=3"):
            am.adamerge(suite, device="cuda", **SHORT)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
def test_memory_of_a_step_on_a_gpu(monkeypatch):
    """At the peak at most K + 3 encoders and the activations, which a plain forward and backward has too."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from adamerging_step import CASES, build, measure

    case = dataclasses.replace(CASES["ViT-B-32"], batch_size=2, batches=1)
    rows = measure(case, 2, *build(case, 8, torch.device("cuda"), 0))
    ratios = {row["quantity"].partition(" ")[0]: row["ratio"] for row in rows}
    assert ratios["memory"] < 1.02


def test_the_cost_of_the_recipe_is_measured_on_images_that_it_did_not_see(suite, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import recipe_cost

    small = recipe_cost.pool(suite, 4, seed=1)
    for task in suite.tasks:
        half = suite.test[task].images[split_indices(len(suite.test[task]))[0]]
        assert len(small.test[task]) == 4 and small.train[task] is small.test[task]
        assert all(any(torch.equal(image, one) for one in half) for image in small.test[task].images)
        unseen = recipe_cost.others(suite).test[task].images
        assert not any(torch.equal(small.test[task].images[0], one) for one in unseen)
    merged, seconds, steps = recipe_cost.learned("samerging", small, 0, 2)
    assert 0 <= am.evaluate(recipe_cost.others(suite), merged)["accuracy"].mean() <= 100
    assert merged.method == "samerging" and steps == 2 and seconds > 0
    assert recipe_cost.learned(recipe_cost.WEIGHTS, small, 0, 2)[2] == 2
