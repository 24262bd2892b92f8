"""Kept fits made anew: which, by which jobs, where they go; and who else writes among committed records."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from adamerging_lib.runtime import places
from adamerging_study import fits, refit
from adamerging_study.book import rerun

ROOT = Path(__file__).resolve().parents[1]
KEPT = fits.Kept(
    method="layer_wise_adamerging", hyper={"seed": 0}, tasks=("a", "b"), rows=("x", "y", "z"), granularity="tensor",
    data={}, steps=(0, 1), path=torch.zeros(2, 2, 3),
)  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "experiment", "told"),
    [
        ("mini", "perfromance", "no experiment 'perfromance'; there are .*performance"),
        ("mimi", "performance", "did you mean 'mini'"),
        ("mini", "leaderboard", "leaderboard keeps no fits"),
    ],
)
@pytest.mark.parametrize("command", [refit._names, refit._check])
def test_what_is_not_known_is_refused(command, profile, experiment, told):
    if command is refit._check and profile == "mimi":
        experiment, told = None, "no fits are kept in .*mimi"
    with pytest.raises(ValueError, match=told):
        command(profile, experiment)


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """Committed records of the test's own, and a folder with new fits."""
    monkeypatch.setattr(places, "committed", lambda: tmp_path / "results")
    wanted = {"performance": ["one", "two"], "reasons": ["three"]}
    monkeypatch.setattr(refit, "wanted", lambda profile, room: {f"{room}-{name}": 0 for name in wanted.get(room, [])})
    (tmp_path / "new").mkdir()
    return tmp_path / "results/mini/fits", tmp_path / "new"


def test_new_fits_replace_the_kept_ones_and_say_how_far_they_moved(committed, capsys):
    kept, new = committed
    kept.mkdir(parents=True)
    fits.write(KEPT, kept / "performance-one.safetensors")
    moved = dataclasses.replace(KEPT, path=torch.full((2, 2, 3), 0.25))
    for name in ("performance-one", "performance-two", "reasons-three", "performance-unasked"):
        fits.write(moved, new / f"{name}.safetensors")
    refit._install("mini", new, "performance")
    assert capsys.readouterr().out.splitlines() == [
        "performance-one: the last coefficients moved by 2.5e-01 at most",
        "performance-two: new",
    ]
    assert sorted(path.stem for path in kept.iterdir()) == ["performance-one", "performance-two"]
    assert torch.equal(fits.read(kept / "performance-one.safetensors").path, moved.path)
    assert sorted(path.stem for path in new.iterdir()) == ["performance-unasked", "reasons-three"]


def test_nothing_to_install_is_said(committed):
    with pytest.raises(ValueError, match="holds none of these fits"):
        refit._install("mini", committed[1])


def test_check_is_red_where_one_fit_leads_elsewhere(committed, capsys, monkeypatch):
    kept, _ = committed
    for name in ("performance-one", "performance-two", "reasons-three"):
        fits.write(KEPT, kept / f"{name}.safetensors")

    def replay(path):
        if path.stem == "performance-two":
            raise ValueError(f"{path.name}: 2.0e-05 away")

    monkeypatch.setattr(refit, "replay", replay)
    assert refit._check("mini") == 1
    assert capsys.readouterr().out.splitlines() == [
        "2 of 3 kept fits lead along their path",
        "performance-two.safetensors: 2.0e-05 away",
    ]
    assert refit._check("mini", "reasons") == 0


# ------------------------------------------------------------------------------------------------ the jobs of Snakemake


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The real Snakefile, an experiment's notebook, and two kept fits."""
    for name in ("Snakefile", "budgets.yml", "notebooks/performance.ipynb", "adamerging_study/performance/claims.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / "runs.yml").write_text(yaml.safe_dump({"runs": {"other": {"performance": {"profile": "tiny"}}}}))
    for world in ("mini", "tiny"):
        fits.write(KEPT, tmp_path / f"results/{world}/fits/performance-one.safetensors")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snakemake(*words):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def made(*paths):
    """Let Snakemake believe that these are fresh."""
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("{}")
    snakemake("--touch", *paths)


def test_a_run_reads_the_fits_of_its_experiment_and_of_the_main_comparison_in_its_own_world(checkout):
    for name in ("mini/fits/performance-b", "mini/fits/reasons-a", "mini/fits/tinting-a", "tiny/fits/reasons-b"):
        path = Path(f"results/{name}.safetensors")
        fits.write(KEPT, path)
    found = [str(path) for path in rerun.kept_fits("reasons", {"seed": 1})]
    ours = ["performance-b", "performance-one", "reasons-a"]
    assert found == [f"results/mini/fits/{name}.safetensors" for name in ours]
    found = [path.stem for path in rerun.kept_fits("reasons", {"profile": "tiny"})]
    assert found == ["performance-one", "reasons-b"]


def test_a_notebook_runs_again_when_a_kept_fit_of_its_world_changed(checkout):
    pages = ["_build/executed/performance.ipynb", "book/runs/other/performance.ipynb"]
    made(*pages)
    assert "Nothing to be done" in snakemake("-n", *pages)
    changed = dataclasses.replace(KEPT, path=torch.ones(2, 2, 3))
    fits.write(changed, Path("results/mini/fits/performance-one.safetensors"))
    told = snakemake("-n", *pages)
    assert "reason: Updated input files: results/mini/fits/performance-one.safetensors" in told
    outputs = re.findall(r"^\s*output: (\S+)", told, flags=re.M)
    assert outputs == [pages[0]]


def test_every_fit_is_a_job_and_finished_ones_stay(checkout):
    asked = ["--config", "world=mini", "experiment=performance", "device=cuda"]
    names = refit.names("mini", "performance")
    told = snakemake("-n", "-p", "fits", *asked)
    jobs = re.findall(r"refit fit mini (\S+) (\S+) --device cuda", told)
    assert sorted(jobs) == sorted((name, f"_build/fits/mini/{name}.safetensors") for name in names)
    made(*[out for _, out in jobs[1:]])
    again = re.findall(r"refit fit mini (\S+)", snakemake("-n", "-p", "fits", *asked[:3]))
    assert again == [jobs[0][0]]


# ---------------------------------------------------------------------------------- who writes among committed records

WRITES = {"write", "write_text", "write_bytes", "copy", "copy2", "copytree", "move", "replace", "rename", "save",
          "savefig", "to_csv", "dump", "atomic", "unlink", "rmtree"}  # fmt: skip


def committers(path: Path) -> set[str]:
    """Functions of a module that name committed records and call something that writes."""
    found = set()
    for function in [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]:
        nodes = [node for statement in function.body for node in ast.walk(statement)]
        called = {getattr(n.func, "attr", getattr(n.func, "id", "")) for n in nodes if isinstance(n, ast.Call)}
        named = {n.value.partition("/")[0] for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        kept = any(ast.unparse(n) in ("fits.folder", "folder(profile)") for n in nodes if isinstance(n, ast.expr))
        if WRITES & called and ("results" in named or "committed" in called or kept):
            found.add(f"{path.parent.name}/{path.stem}.{function.name}")
    return found


def test_only_accept_and_refit_write_among_committed_records():
    """Of variants, `make rerun` and `make unrun` change the words in verdicts.csv. A new name here is to be judged."""
    modules = [path for package in ("adamerging_lib", "adamerging_study") for path in (ROOT / package).rglob("*.py")]
    assert set().union(*map(committers, modules)) == {
        "book/build.accept",
        "book/changes.note",  # a version's words, copied from those committed
        "book/redraw._redraw",  # a page; it only reads the record
        "adamerging_study/claims.write_words",  # words, for `accept` and for variants
        "adamerging_study/refit._install",
        "adamerging_study/measuring.finish",  # below `places.results`; the committed record is compared
    }


def test_a_function_that_writes_a_committed_record_is_found(tmp_path):
    module = tmp_path / "evil.py"
    module.write_text("def evil(record):\n    records.write(record, places.committed() / 'mini/performance.json')\n")
    assert committers(module) == {f"{tmp_path.name}/evil.evil"}


def test_only_two_targets_call_what_writes_there():
    recipes = re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {name for name, recipe in recipes if re.search("build accept|refit install", recipe)} == {"accept", "refit"}
