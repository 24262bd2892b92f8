"""Tasks spread over processes: two of them, on one machine, give what one gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import toy
from strategies import assert_close

import adamerging_lib as am
from adamerging_lib import state
from adamerging_lib.cli import main
from adamerging_lib.command import adapt
from adamerging_lib.learning.adaptation import Adaptation
from adamerging_lib.learning.descent import initial, learn
from adamerging_lib.learning.model import suite_source
from adamerging_lib.learning.objective import entropy_loss
from adamerging_lib.runtime import distributed

ROOT = Path(__file__).resolve().parents[1]
SHORT = {"steps": 6, "lr": 0.02, "batch_size": 4, "batches": 2, "progress": False}
# Three tasks on two ranks: one has one, the other two. All terms of the objective, whether or not they couple tasks.
CASES = {
    "plain": {},
    "pp_blocks": {"granularity": "block", "vectors": "ties", "keep": 0.3},
    "passes": {"passes": 2, "clamp": "tanh"},
    "terms": {"objective": {"filter": 0.9, "diversity": 1.0, "pull": 0.02, "weights": {"alpha": 2.0, "gamma": 0.5}}},
    "prior": {"objective": {"diversity": 1.0, "prior": "experts"}},
    "pcgrad": {"combine": "pcgrad"},
    "nash": {"combine": "nash_mtl"},
    "guard": {"guard": True, "objective": {"diversity": 1.0}, "clamp": False, "lr": 0.3},
    "wpcgrad": {"combine": "wpcgrad", "objective": {"weights": {"beta": 3.0}}},
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def fits(suite) -> dict[str, am.Fit]:
    found = {name: am.adamerge(suite, **{**SHORT, **options}) for name, options in CASES.items()}
    assert (found["guard"].guard["lead"] != 0).any()  # else it compares nothing
    found["supermerge"] = am.run_method("supermerge", suite, images=8, **SHORT)
    found["losses"] = with_a_loss_per_task(suite)
    return found


def with_a_loss_per_task(suite) -> am.Fit:
    """Each task's own loss stays its own on whichever rank the task is."""
    run, tv = Adaptation({name: SHORT[name] for name in ("steps", "lr", "batch_size", "batches")}), suite.task_vectors()
    losses = tuple(entropy_loss(diversity=float(k)) for k in range(len(suite.tasks)))
    return learn(
        suite_source(suite), tv, run.streams(suite), initial(0.3, tv, tv.rows("tensor"))[0], run=run, method="losses",
        hyper={}, granularity="tensor", terms={"loss": losses},
    )  # fmt: skip


def work(rank: int, folder: str) -> None:
    """One rank: all fits, a run that is cut and resumed, and what must be refused."""
    torch.set_num_threads(1)
    folder = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    kept = {}
    for name, kind in DTYPES.items():
        for case, fit in fits(toy.suite(seed=1, dtype=kind)).items():
            kept |= {f"{name}|{case}|trajectory": fit.trajectory, f"{name}|{case}|proj": fit.state["proj"]}
            kept[f"{name}|{case}|loss"] = torch.tensor(fit.history["loss"].to_numpy())
            if getattr(fit, "guard", None) is not None:
                kept[f"{name}|{case}|guard"] = torch.tensor(fit.guard.to_numpy(float))
    suite, path = toy.suite(seed=1), folder / "run.safetensors"
    am.adamerge(suite, checkpoint=path, **{**SHORT, "steps": 3})
    dist.barrier()
    kept["resumed"] = am.adamerge(suite, checkpoint=path, **SHORT).trajectory
    for name, call in {
        "different": lambda: am.adamerge(suite, checkpoint=folder / f"only-{rank}.safetensors", **SHORT),
        "few": lambda: am.adamerge(toy.suite(tasks=("alpha",)), **SHORT),
    }.items():
        if name == "different" and rank == 0:
            state.save(folder / "only-0.safetensors", *checkpoint(path))
        try:
            call()
        except ValueError as error:
            (folder / f"{name}-{rank}.txt").write_text(str(error))
    cached = list(Path(os.environ["ADAMERGING_CACHE"]).glob("*.safetensors"))
    kept |= {"own": torch.tensor(list(distributed.own(3))), "cached": torch.tensor(len(cached))}
    state.save(folder / f"rank-{rank}.safetensors", kept)
    dist.destroy_process_group()


def checkpoint(path):
    return state.load(path), state.load_metadata(path)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "ADAMERGING_CACHE": str(folder / "cache"), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    code = "import sys, test_distributed; test_distributed.work(int(sys.argv[1]), sys.argv[2])"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(rank), str(folder)], env=environment) for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    return folder, [state.load(folder / f"rank-{rank}.safetensors") for rank in range(2)]


def test_tasks_are_spread(ranks):
    assert [rank["own"].tolist() for rank in ranks[1]] == [[0], [1, 2]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_processes_learn_what_one_learns(ranks, dtype):
    """float64 to 1e-12, and float32 to 1e-6: what is left is the order in which sums are rounded."""
    for case, fit in fits(toy.suite(seed=1, dtype=DTYPES[dtype])).items():
        names = ("trajectory", "proj", "loss")
        first, second = ({key: rank[f"{dtype}|{case}|{key}"] for key in names} for rank in ranks[1])
        # Adam divides a gradient by its own size: where terms cancel to almost nothing, so do its digits.
        # The guard's case makes steps fifteen times as long.
        tolerance = 1e-12 if dtype == "float64" else {"terms": 5e-6, "guard": 2e-5}.get(case, 1e-6)
        assert torch.equal(first["trajectory"], second["trajectory"]), case
        assert (fit.trajectory[-1] - fit.trajectory[0]).abs().max() > 0.05, case
        torch.testing.assert_close(first["trajectory"], fit.trajectory, rtol=0, atol=tolerance, msg=case)
        torch.testing.assert_close(first["proj"], fit.state["proj"], rtol=0, atol=tolerance, msg=case)
        assert first["loss"].numpy() == pytest.approx(fit.history["loss"].to_numpy(), rel=1e-5), case
        if case == "guard":
            for rank in ranks[1]:
                seen = rank[f"{dtype}|guard|guard"].numpy()
                assert seen == pytest.approx(fit.guard.to_numpy(float), abs=tolerance), case


def test_a_run_of_two_processes_resumes(ranks):
    for rank in ranks[1]:
        assert torch.equal(rank["resumed"], rank["float32|plain|trajectory"])


def test_different_checkpoints_and_too_few_tasks_are_refused_on_every_rank(ranks):
    for rank in range(2):
        told = (ranks[0] / f"different-{rank}.txt").read_text()
        assert "see different checkpoints" in told and "[6, 0]" in told
        told = (ranks[0] / f"few-{rank}.txt").read_text()
        assert told == "1 tasks cannot be spread over 2 processes: start at most one per task"


def test_nothing_is_cached_within_a_group(ranks):
    assert [int(rank["cached"]) for rank in ranks[1]] == [0, 0]


def test_alone_nothing_is_exchanged():
    t = torch.arange(6).view(3, 2)
    assert distributed.own(3) == range(3) and distributed.leads() and not distributed.active()
    assert distributed.summed(t) is t and distributed.gathered(t, 3) is t
    distributed.agree(1, "numbers")
    with distributed.group("cpu") as device:
        assert device == "cpu" and not dist.is_initialized()


# The command


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setattr(adapt, "load_suite", lambda profile, tasks: toy.suite(seed=0))


def test_the_command_in_one_process(toys, tmp_path, capsys):
    out = tmp_path / "merged.safetensors"
    pairs = ["steps=3", "lr=0.02", "batch_size=4", "batches=1", "progress=False"]
    words = ["adapt", "--profile", "toy", "--device", "cpu", "--out", str(out), *(f"--set={pair}" for pair in pairs)]
    assert main(words) == 0
    fit = am.adamerge(toy.suite(seed=0), steps=3, lr=0.02, batch_size=4, batches=1, progress=False)
    assert_close(state.load(out), {key: fit.state[key] for key in state.load(out)}, rtol=0, atol=0)
    assert torch.equal(am.Coefficients.load(out.with_suffix(".json")).values, fit.coefficients.values)
    assert "3 steps in" in capsys.readouterr().out
    assert main(words) == 2
    assert "merged.safetensors exists: name another --out" in capsys.readouterr().err
    assert main([*words[:-1], "--set=stesp=3", "--out", str(tmp_path / "b")]) == 2
    assert "Did you mean 'steps'" in capsys.readouterr().err


@pytest.mark.slow
def test_torchrun_on_the_mini_profile(tmp_path):
    """The command as a user starts it, two processes against one."""
    pairs = ["--set=recipe=mini", "--set=steps=2", "--set=batch_size=4"]
    environment = {**os.environ, "ADAMERGING_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    common = ["-m", "adamerging_lib", "adapt", "--profile", "mini", "--device", "cpu", *pairs]
    common += ["--tasks", "digits,signs,textures", "--out"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for prefix, name in ((torchrun, "two"), ([], "one")):
        command = [sys.executable, *prefix, *common, str(tmp_path / f"{name}.safetensors")]
        subprocess.run(command, check=True, env=environment, timeout=600)
    one, two = (am.Coefficients.load(tmp_path / f"{name}.json") for name in ("one", "two"))
    torch.testing.assert_close(two.values, one.values, rtol=0, atol=1e-6)
    assert_close(state.load(tmp_path / "two.safetensors"), state.load(tmp_path / "one.safetensors"), rtol=0, atol=1e-6)
