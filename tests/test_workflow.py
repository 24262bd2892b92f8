"""The drawing of Snakemake's graph, and what Makefile and Snakefile hand to a shell."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from adamerging_study.book.workflow import workflow

ROOT = Path(__file__).resolve().parents[1]

DOT = r"""digraph snakemake_dag {
	0[label = "default", color = "0.00 0.6 0.85", style="rounded"];
	1[label = "page\npage: performance", color = "0.17 0.6 0.85", style="rounded"];
	2[label = "variant\nrun: long\npage: performance", color = "0.3 0.6 0.85", style="rounded"];
	3[label = "variants", color = "0.0 0.6 0.85", style="rounded"];
	1 -> 0
	2 -> 3
}"""


def test_every_job_is_a_box_with_its_values():
    (axes,) = workflow(DOT).axes
    assert [t.get_text() for t in axes.texts if t.get_text()] == [
        "performance",
        "long, performance",
        "default",
        "variants",
    ]


def test_nothing_printed():
    with pytest.raises(ValueError, match="snakemake printed no job"):
        workflow("Building DAG of jobs...")


@pytest.fixture
def clone(tmp_path):
    """A folder whose name a shell would take apart, with the Makefile and programs that say how they are called."""
    here = tmp_path / "my clone's {copy} $HOME"
    programs = here / ".venv/bin"
    programs.mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", here)
    for name in ("requirements.lock", "pyproject.toml", ".venv/.installed"):
        (here / name).touch()
    for name in ("python", "jupyter-book"):
        text = f'#!/bin/bash\nprintf "%s|" {name} "$ADAMERGING_RESULTS" "$@"\necho\n'
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return here


def said(clone: Path, *arguments: str) -> list[list[str]]:
    """What the programs were called with, without the name of the module."""
    done = subprocess.run(["make", *arguments], cwd=clone, capture_output=True, text=True, check=True)
    return [line.strip("|").split("|") for line in done.stdout.splitlines() if line.endswith("|")]


def test_make_works_in_a_folder_of_any_name(clone):
    (*_, build) = said(clone, "book")
    assert build[:3] == ["jupyter-book", f"{clone}/_build/results", "build"]
    (*_, printed) = said(clone, "pdf", "PDF=my $$book (1).pdf")
    assert printed[-2:] == ["_build/singlehtml", "my $book (1).pdf"]


@pytest.mark.parametrize("given", ['tasks=["digits", "signs"] n=1', "weights={a:1,b:2} text='it is'", "a=[b-z]*", ""])
def test_make_hands_parameters_over_as_they_are(clone, given):
    tried, *_ = said(clone, "rerun", "NOTEBOOK=performance", "RUN=long", f"P={given}")
    names = tried[2:]
    assert names[names.index("try") :][:5] == ["try", "performance", "long", "--given", given]


def test_snakemake_calls_an_interpreter_in_a_folder_of_any_name():
    """As the Snakefile writes it, filled in as Snakemake fills in, read as a shell reads it."""
    path = "/my clone's {copy} $HOME/.venv/bin/python"
    text = (ROOT / "Snakefile").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("PYTHON = ")]
    found = {"sys": SimpleNamespace(executable=path), "shlex": shlex}
    exec(line, found)
    assert shlex.split(f"{found['PYTHON']} -m".format()) == [path, "-m"]
    commands = [line for line in text.splitlines() if line.startswith("EXECUTE = ") or " shell: " in line]
    assert len(commands) == 4 and all("PYTHON + " in line or "EXECUTE + " in line for line in commands)
    fields = re.findall(r"{(?:output|log|params|wildcards\.(?!run))[^}]*}", "".join(commands))
    assert len(fields) == 8 and all(field.endswith(":q}") for field in fields)
