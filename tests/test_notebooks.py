"""What the committed notebooks show is what the committed records hold, to the last digit.

nbval runs the notebooks anew, so it must forgive digits that move from machine to machine. Here the measuring calls
give back the committed rows instead, everything else runs as it is, and every text, table and glued value must be
equal: a number altered by hand, in a notebook or in a record, has nowhere to hide.
"""

import copy
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]

# Run before the notebook's own cells: loading gives next to nothing, measuring the rows of the committed record.
BEFORE = """
import types
import torch
import adamerging_lib as am
from adamerging_lib import records
from adamerging_lib.runtime import places
from adamerging_study import experiments
from adamerging_lib.worlds.mini.tasks import TASKS
kept = records.read(places.committed() / "mini/{name}.json")
blank = types.SimpleNamespace(images=torch.zeros(10, 3, 32, 32, dtype=torch.uint8))
test = dict.fromkeys(TASKS, blank)
suite = types.SimpleNamespace(assets=kept["assets"], tasks=tuple(TASKS), test=test)
suite.some_images = lambda *_: suite


def load_suite(profile, tasks=None):
    suite.tasks = tuple(tasks or TASKS)
    return suite


am.load_suite = load_suite
"""
PATCH = {
    "performance": """
clean = lambda row: row["condition"] == "clean"
experiments.measure = lambda suite, method, **_: [r for r in kept["rows"] if r["method"] == method and clean(r)]
experiments.sweep = lambda suite, method, *_, **__: [r for r in kept["rows"] if r["method"] == method and not clean(r)]
""",
    "mini_suite": """
from adamerging_lib import geometry
from adamerging_lib.suite import TaskData
from adamerging_lib.worlds.mini.tasks import SIZES
labels = torch.zeros(SIZES["test"], dtype=torch.int64)
suite.test = {name: TaskData(blank.images, labels, task.classes) for name, task in TASKS.items()}
geometry.measure_experts = lambda *_, **__: kept["rows"]
""",
    "coefficients": """
from adamerging_study.experiments import coefficients
coefficients.coefficients = lambda *_, **__: kept["rows"]
""",
    "entropy_loss": """
import adamerging_study.experiments.entropy_loss
adamerging_study.experiments.entropy_loss.entropy_loss = lambda *_, **__: kept["rows"]
""",
    "similarity": """
import adamerging_study.experiments.similarity
adamerging_study.experiments.similarity.similarity = lambda *_, **__: kept["rows"]
""",
    "budget": """
import adamerging_study.experiments.budget
adamerging_study.experiments.budget.budget = lambda *_, **__: kept["rows"]
""",
    "reasons": """
import adamerging_study.experiments.reasons
adamerging_study.experiments.reasons.reasons = lambda *_, **__: kept["rows"]
""",
    "robustness": """
from adamerging_study.experiments import robustness
from adamerging_lib.worlds import corruptions
robustness.robustness = lambda *_, **__: [row for row in kept["rows"] if "step" not in row]
robustness.failure = lambda *_, **__: [row for row in kept["rows"] if "step" in row]
corruptions.corrupt = lambda suite, *_, **__: suite
""",
    "generalisation": """
from adamerging_study.experiments import generalisation
generalisation.generalisation = lambda *_, **__: kept["rows"]
""",
    "leaderboard": """
from adamerging_study.experiments import leaderboard
leaderboard.leaderboard = lambda *_, **__: kept["rows"]
""",
    "tinting": """
import adamerging_study.experiments.tinting
adamerging_study.experiments.tinting.tinting = lambda *_, **__: kept["rows"]
adamerging_study.experiments.tinting.pilot_layers = lambda suite: ["head"]
""",
}
# Notebooks that measure nothing and so have no record.
NO_RECORD = {"merge_your_own"}


def shown(cell):
    """What a cell shows, without pictures and execution counts."""
    found = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            found.append((output.name, output.text))
        elif output.output_type == "error":
            found.append(("error", output.ename, output.evalue))
        else:
            found += [(kind, value) for kind, value in sorted(output.data.items()) if not kind.startswith("image/")]
    return found


def replayed(notebook, patch):
    """A copy of the notebook, run from its committed record."""
    again = copy.deepcopy(notebook)
    again.cells.insert(0, nbformat.v4.new_code_cell(patch))
    where = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(again, timeout=300, kernel_name="python3", resources=where).execute()
    del again.cells[0]
    return again


def differences(stored, again):
    """Ids of the cells that show something else than they did."""
    return [a.id for a, b in zip(stored.cells, again.cells, strict=True) if shown(a) != shown(b)]


@pytest.fixture(scope="module", params=PATCH)
def pair(request, tmp_path_factory):
    stored = nbformat.read(ROOT / "notebooks" / f"{request.param}.ipynb", as_version=4)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ADAMERGING_RESULTS", str(tmp_path_factory.mktemp("results")))
        environment.setenv("PYTHONPATH", str(ROOT))
        return stored, replayed(stored, BEFORE.format(name=request.param) + PATCH[request.param])


def test_every_notebook_is_replayed():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} <= PATCH.keys() | NO_RECORD


def test_notebook_shows_its_record(pair):
    stored, again = pair
    assert differences(stored, again) == []


def test_an_altered_digit_is_found(pair):
    stored, again = pair
    for place, cell in enumerate(stored.cells):
        for kind, text in (item for item in shown(cell) if len(item) == 2 and any(c.isdigit() for c in item[1])):
            altered = copy.deepcopy(stored)
            digit = next(c for c in reversed(text) if c.isdigit())
            other = "8" if digit != "8" else "3"
            for output in altered.cells[place].outputs:
                if output.get("text") == text:
                    output.text = other.join(text.rsplit(digit, 1))
                elif output.get("data", {}).get(kind) == text:
                    output.data[kind] = other.join(text.rsplit(digit, 1))
            assert differences(altered, again) == [cell.id]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_is_fit_to_be_committed(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    # Between title and parameters only what is said of the default run alone, how long it takes, may stand.
    rest = [cell for cell in notebook.cells[1:3] if cell.metadata.get("tags") != ["default-only"]]
    assert rest[0].cell_type == "code" and rest[0].metadata["tags"] == ["parameters"]
    assert notebook.metadata.kernelspec.name == "python3"
    # A variant's page lies elsewhere: only links from the root of the book hold on both.
    assert not re.search(r"\{doc\}`(?!/|[^`<]*</)", "".join(cell.source for cell in notebook.cells))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        assert cell.execution_count is not None or not cell.source, f"cell {cell.id} was not executed"
        for kind, *text in shown(cell):
            assert kind not in ("stderr", "error"), f"cell {cell.id}: {text}"
            assert not any(place in str(text) for place in ("/work/", "/tmp/", "/home/", "/root/", "C:\\\\")), cell.id
    for cell in code:
        if any(kind == "image/png" for output in cell.outputs for kind in output.get("data", ())):
            told = cell.metadata["mystnb"]
            assert told["figure"]["name"].startswith("fig-") and len(told["figure"]["caption"]) > 40, cell.id
            assert len(told["image"]["alt"]) > 40, cell.id
