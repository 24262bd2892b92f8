"""The whole way of a clip profile, from a hub to a page of the book: on small models served from this machine.

The same on the real hub: ``pytest -m network tests/test_clip_end_to_end.py`` fetches the ViT-B/32 models and test
images of MNIST and EuroSAT, about 2 GB, into the folder that ADAMERGING_ASSETS names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mirror import Mirror, put_data, put_models, served

import adamerging_lib as am
from adamerging_lib import records
from adamerging_lib.cli import main
from adamerging_lib.runtime import places
from adamerging_lib.worlds.clip import hub
from adamerging_study import rooms
from adamerging_study.book import notebooks, rerun

ROOT = Path(__file__).resolve().parents[1]
# Budgets for a test: everything else is the notebook's default, or what the profile goes with.
TINY = {
    "performance": ["steps=2", "batch_size=2", "scalings=0.3,0.6"],
    "generalisation": ["steps=2", "batch_size=2", "test_images=8"],
    "robustness": ["steps=2", "batch_size=2", "test_images=8", "corruptions=contrast,impulse_noise", "severities=[3]",
                   "every=1"],
    "coefficients": ["steps=5", "lr=0.05", "batch_size=2", "seeds=0,1"],
    "entropy_loss": ["steps=2", "batch_size=2"],
    "similarity": [],
    "mini_suite": ["alphas=0.0,0.3,1.0", "test_images=8", "columns=2"],  # its table reads α = 0.3
    "reasons": ["steps=2", "batch_size=2", "batches=1", "test_images=8", "scales=[2.0]", "classes=[5]",
                'rules=["min_norm"]'],
    "budget": ["steps=2", "batch_size=2", "steps_shown=0,1", "lrs=[0.01]", "batch_sizes=[4]", "images=8,0",
               "granularities=task,tensor", "ranges=clamp", "starts=[0.3]", "diversities=[1.0]", "seeds=[0]",
               "task_counts=2,8", "test_images=16"],
    "tinting": ["epochs=1", "pilot_epochs=1", "adamerging_steps=2", 'layers=["proj"]'],
    "check": ["seeds=[0]", "sizes=2,3", "methods=ties,wudi", "test_images=8"],
    "harm": ["steps=2", "batch_size=2", "streams=clean,sorted", "experts=untrained", "corruptions=", "seeds=0"],
    "gain": ["steps=2", "batch_size=2", "grains=tensor,component", "images=4", "by_images=imitation",
             "objectives=diverse", "starts=ties,wudi", "from_starts=entropy", "at_images=4", "transductive=[]",
             "seeds=[0]", "methods=zero_shot,individual,task_arithmetic,tsv_m"],
    "leaderboard": ["steps=2", "batch_size=2",
                    "methods=zero_shot,individual,task_arithmetic,ties,tsv_m,fisher,regmean,layer_wise_adamerging"],
}  # fmt: skip


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """Everything of the paper's eight tasks, fetched from a hub on this machine."""
    theirs, root = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("assets")
    put_models(theirs, "clip-b32", hub.EIGHT)
    for task in hub.EIGHT:
        put_data(theirs, task, ("train", "test"))
    with pytest.MonkeyPatch.context() as patch, served(Mirror(theirs)) as address:
        patch.setenv("HF_ENDPOINT", address)
        patch.setenv("ADAMERGING_ASSETS", str(root))
        assert main(["fetch", "--profile", "clip-b32", "--splits", "test,train"]) == 0
    return root


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """One cache for all notebooks, as at home."""
    return tmp_path_factory.mktemp("fits")


@pytest.fixture
def checkout(tmp_path, assets, stores, monkeypatch):
    """What `make rerun` works on, to be changed; the library is this one."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copytree(ROOT / "results", tmp_path / "results")
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    (tmp_path / "runs.yml").write_text("runs: {}\n")
    monkeypatch.chdir(tmp_path)
    for name, value in {"ADAMERGING_ASSETS": assets, "ADAMERGING_CACHE": stores, "PYTHONPATH": ROOT}.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def executed(name, pairs, results) -> dict:
    """The record of a run as `make rerun` makes it."""
    assert rerun.main(["add", name, "b32", "profile=clip-b32", *pairs]) == 0
    values = yaml.safe_load(Path("runs.yml").read_text())["runs"]["b32"][name]
    command = ["--results", str(results), "--parameters", json.dumps(values)]
    assert rerun.main(["execute", name, str(rerun.page(name, "b32")), *command]) == 0
    assert rerun.main(["publish", name, "b32"]) == 0
    return records.read(results / "clip-b32" / f"{name}.json")


def test_no_experiment_is_left_out():
    assert set(TINY) == {room for room in rooms.rooms() if rooms.face(room).world == "mini"}  # the others: own texts


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_every_notebook_of_the_study_runs_on_a_clip_profile(checkout, name):
    record = executed(name, TINY[name], Path("book/runs/b32") / name)
    assert record["profile"] == "clip-b32" and len(record["assets"]) == (5 if name == "robustness" else 9)
    tasks = {row["task"] for row in record["rows"] if row.get("task") not in (None, "Average", "all")}
    assert tasks <= set(hub.EIGHT) and (tasks or name in ("coefficients", "similarity"))
    made = notebooks.read(rerun.page(name, "b32"))
    outputs = [output for cell in made.cells for output in cell.get("outputs", ())]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    if name == "performance":
        page = built(checkout, name)
        assert "run b32" in page and "MNIST" in page and "clip-b32" in page


def built(checkout, name) -> str:
    """The page of a run, as HTML."""
    docname = f"book/runs/b32/{name}"
    (checkout / "conf.py").write_text(
        'extensions = ["myst_nb", "sphinx_design", "sphinxcontrib.bibtex", "adamerging_study.book.sphinx"]\n'
        'myst_enable_extensions = ["dollarmath", "colon_fence"]\nnb_execution_mode = "off"\nnumfig = True\n'
        f"bibtex_bibfiles = {[str(path) for path in (ROOT / 'book').rglob('*.bib')]!r}\n"
        f'include_patterns = ["index.md", "notebooks/{name}.ipynb", "{docname}.ipynb"]\n'
    )
    (checkout / "index.md").write_text(f"# Index\n\n```{{toctree}}\nnotebooks/{name}\n{docname}\n```\n")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", str(checkout), str(checkout / "html")]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return (checkout / "html" / f"{docname}.html").read_text()


@pytest.mark.network
def test_on_the_real_hub(monkeypatch, tmp_path):
    """Zero-shot CLIP and the published experts have the accuracies that everybody finds."""
    tasks = ["EuroSAT", "MNIST"]
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if "ADAMERGING_ASSETS" not in os.environ:
        monkeypatch.setenv("ADAMERGING_ASSETS", str(tmp_path))
    assert main(["fetch", "--profile", "clip-b32", "--tasks", ",".join(tasks)]) == 0
    suite = am.load_suite("clip-b32", tasks=tasks).some_images(1000)
    found = {
        method: am.evaluate(suite, am.run_method(method, suite), device="auto").set_index("task")["accuracy"]
        for method in ("zero_shot", "individual")
    }
    assert found["zero_shot"].to_dict() == pytest.approx({"EuroSAT": 46, "MNIST": 48}, abs=6)
    assert (found["individual"] > 97).all()
    before = am.run_method("task_arithmetic", suite, scaling=0.3)
    fit = am.adamerge(suite, steps=20, lr=0.01, device="auto", progress=False)
    after = am.evaluate(suite, fit, device="auto")["accuracy"].mean()
    assert after > am.evaluate(suite, before, device="auto")["accuracy"].mean() - 1
    assert places.assets().is_dir()
