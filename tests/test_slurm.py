"""The Slurm profile: what it asks for, and notebooks that really go through it to a submit command and back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

pytest.importorskip("snakemake_executor_plugin_cluster_generic", reason="the extra `slurm` is not installed")
ROOT = Path(__file__).resolve().parents[1]

# A cluster of one machine: a job is its script, run in the background; its state is asked for like Slurm's.
SBATCH = """#!/usr/bin/env bash
set -e
folder={folder}
echo "$@" >>"$folder/submitted"
number=$(wc -l <"$folder/submitted")
script=${{@: -1}}
setsid bash -c 'if bash "$1" >"$2/$3.log" 2>&1; then echo COMPLETED; else echo FAILED; fi >"$2/$3.state"' \\
    - "$script" "$folder" "$number" >/dev/null 2>&1 &
echo "$number"
"""
SACCT = """#!/usr/bin/env bash
[[ "$*" == *"--jobs "* ]] || exit 1
number=${{2}}
[[ -f {folder}/$number.state ]] && cat {folder}/$number.state || echo RUNNING
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The real Snakefile and profile, one small notebook with two variants, and the fake commands of a cluster."""
    folder, bin = tmp_path / "checkout", tmp_path / "bin"
    (folder / "notebooks").mkdir(parents=True)
    shutil.copy2(ROOT / "Snakefile", folder)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    cells = [nbformat.v4.new_code_cell("n = 1"), nbformat.v4.new_code_cell("print(10 // n)")]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "notebooks/tiny.ipynb")
    runs = {"two": {"tiny": {"n": 2}}, "none": {"tiny": {"n": 0}}}
    (folder / "runs.yml").write_text(yaml.safe_dump({"runs": runs}))
    bin.mkdir()
    for name, text in (("sbatch", SBATCH), ("sacct", SACCT), ("scancel", "#!/usr/bin/env bash\n")):
        (bin / name).write_text(text.format(folder=bin))
        (bin / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder, bin


def snakemake(folder, *words, **options):
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, **options)


def test_dry_run_gives_every_variant_one_gpu(checkout):
    folder, bin = checkout
    ran = snakemake(folder, "--dry-run", "default", "variants")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = [line for line in (ran.stdout + ran.stderr).splitlines() if "slurm_partition=" in line]
    on_gpu = [line for line in lines if "gpu=1" in line and "slurm_partition=gpu" in line and "mem_mb=32000" in line]
    on_cpu = [line for line in lines if "gpu=0" in line and "slurm_partition=cpu" in line]
    assert (len(on_gpu), len(on_cpu)) == (2, 3), lines  # the page, and the two targets that ask for others
    assert not (bin / "submitted").exists()


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("COMPLETED", "success"),
        ("FAILED", "failed"),
        ("CANCELLED by 1000", "failed"),
        ("OUT_OF_MEMORY", "failed"),
        ("TIMEOUT", "failed"),
        ("PENDING", "running"),
        ("", "running"),
    ],
)
def test_states_of_jobs(checkout, state, word):
    folder, bin = checkout
    (bin / "7.state").write_text(state)
    ran = subprocess.run(["bash", "profiles/slurm/status.sh", "7"], cwd=folder, capture_output=True, text=True)
    assert ran.stdout == f"{word}\n"


@pytest.mark.slow
def test_notebooks_go_through_the_submit_command(checkout):
    """One variant ends well and one divides by zero: its failure comes back, and the other is done all the same."""
    folder, bin = checkout
    ran = snakemake(folder, "variants", "--latency-wait", "5")
    logs = "".join(path.read_text() for path in bin.glob("*.log"))
    assert ran.returncode == 1, ran.stderr + logs
    submitted = (bin / "submitted").read_text().splitlines()
    assert len(submitted) == 2
    for words in submitted:
        wanted = ["--parsable", "--partition=gpu", "--gres=gpu:1", "--mem=32000", "--time=240", "--job-name=variant"]
        assert set(wanted) <= set(words.split())
    assert sorted(path.read_text().strip() for path in bin.glob("*.state")) == ["COMPLETED", "FAILED"], logs
    done = nbformat.read(folder / "book/runs/two/tiny.ipynb", as_version=4)
    assert done.cells[-1].outputs[0].text == "5\n"
    assert not (folder / "book/runs/none/tiny.ipynb").exists() and "ZeroDivisionError" in logs
    assert (folder / "_build/logs/slurm").is_dir()
