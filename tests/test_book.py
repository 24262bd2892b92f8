"""Notebooks as files, programs and pages: normalising, parameters, variants, the reader, the offline check."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import madeup
import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from adamerging_lib import records
from adamerging_lib.runtime import values
from adamerging_lib.worlds.profiles import PROFILES
from adamerging_study import claims
from adamerging_study.book import alts, build, contents, notebooks, rerun
from adamerging_study.book import sphinx as book

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = sorted(ROOT.glob("notebooks/*.ipynb")) + sorted(ROOT.glob("book/runs/*/*.ipynb"))
PARAMETERS = """\
steps: int = 500  # Adam steps
lr: float = 1e-3
recipe: str = "λ#1"  # or "mini"
clamp: bool = True
tasks: list = [
    "digits",
    "signs",
]  # which
init: float | None = None  # 0.3 if None
"""


def notebook(run=None) -> nbformat.NotebookNode:
    """A notebook as papermill leaves it, with everything that changes from run to run."""
    cells = [
        new_markdown_cell(
            "# Performance\n\n(sec-table)=\n## Table\n\n{numref}`fig-gap`, {ref}`the table <sec-table>`."
        ),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code_cell(
            "print(1)",
            metadata={"tags": [], "mystnb": {"figure": {"name": "fig-gap", "caption": "Gap"}}},
            outputs=[new_output("stream", name="stdout", text="1"), new_output("stream", name="stdout", text="2\n")],
            execution_count=2,
        ),
        new_markdown_cell("$$a = b$$ (eq-a)\n\nBy {eq}`eq-a` and [figure](#fig-gap); the word fig-gap stays."),
    ]
    if run:
        cells.insert(2, new_code_cell("steps = 1000", metadata={"tags": ["injected-parameters"]}))
    made = new_notebook(cells=cells)
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.metadata.language_info = {"name": "python", "version": "3.11.7"}
    made.metadata.papermill = {"duration": 3.2, "start_time": "now", "parameters": {"steps": 1000} if run else {}}
    for cell in made.cells:
        cell.metadata.papermill = {"duration": 0.1, "status": "completed"}
    return made


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with one notebook, an empty runs.yml and a table of contents; the current folder of the test."""
    (tmp_path / "notebooks").mkdir()
    notebooks.write(tmp_path / "notebooks/performance.ipynb", notebook())
    (tmp_path / "runs.yml").write_text("# a comment\nruns: {}\n")
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_normalise_drops_what_the_clock_decides_and_keeps_the_rest():
    once = notebooks.normalise(notebook(run="long"))
    text = nbformat.writes(once)
    assert "duration" not in text and "start_time" not in text and "3.11.7" not in text
    assert once.metadata.papermill.parameters == {"steps": 1000}
    assert [output.text for output in once.cells[3].outputs] == ["12\n"]
    assert once.cells[2].id == "injected-parameters"
    assert "tags" not in once.cells[3].metadata and once.cells[1].metadata.tags == ["parameters"]


def test_normalise_twice_changes_nothing_and_leaves_its_input_alone():
    given = notebook(run="long")
    before = nbformat.writes(given)
    once = notebooks.normalise(given)
    assert nbformat.writes(given) == before
    assert nbformat.writes(notebooks.normalise(once)) == nbformat.writes(once)


def test_source_digest_sees_sources_and_tags_but_no_outputs(tmp_path):
    def digest(made):
        notebooks.write(tmp_path / "x.ipynb", made)
        return notebooks.source_digest(tmp_path / "x.ipynb")

    first = notebook()
    same, other, tagged = (notebooks.normalise(first) for _ in range(3))
    same.cells[2].outputs = []
    assert digest(same) == digest(first)
    other.cells[2].source = "print(2)"
    assert digest(other) != digest(first)
    tagged.cells[2].metadata["tags"] = ["hide-input"]
    assert digest(tagged) != digest(first)


def test_parameters_are_listed_with_type_default_and_comment(checkout):
    known = notebooks.parameters("notebooks/performance.ipynb")
    assert list(known) == ["steps", "lr", "recipe", "clamp", "tasks", "init"]
    assert known["steps"] == values.Parameter("int", 500, "Adam steps")
    assert known["recipe"] == values.Parameter("str", "λ#1", 'or "mini"')
    assert known["tasks"] == values.Parameter("list", ["digits", "signs"], "which")
    assert known["init"] == values.Parameter("float | None", None, "0.3 if None")
    assert "  steps: int = 500  # Adam steps" in rerun.listing("performance").splitlines()


def test_parameters_are_parsed_to_the_type_of_the_default(checkout):
    pairs = ["steps=1000", "lr=1e-2", "recipe=12", "clamp=False", "tasks=digits,signs", "init=0.2"]
    assert values.parse("performance", notebooks.parameters("notebooks/performance.ipynb"), pairs) == {
        "steps": 1000,
        "lr": 0.01,
        "recipe": "12",
        "clamp": False,
        "tasks": ["digits", "signs"],
        "init": 0.2,
    }


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        ("step=3", "Did you mean 'steps'?"),
        ("zzz=3", "Known parameters:\n  steps: int = 500"),
        ("steps=many", "should be of type int"),
        ("steps=True", "should be of type int"),
        ("clamp=1", "should be of type bool"),
        ("steps", "should read name=value"),
    ],
)
def test_unusable_parameters_are_refused_with_the_mend(checkout, pair, told):
    with pytest.raises(ValueError, match="steps") as error:
        rerun.add("performance", "long", [pair])
    assert told in str(error.value)
    assert (checkout / "runs.yml").read_text() == "# a comment\nruns: {}\n"


def test_unknown_parameter_is_refused_before_anything_runs(checkout):
    with pytest.raises(ValueError, match="no parameter 'seed'"):
        notebooks.execute("notebooks/performance.ipynb", "out.ipynb", {"seed": 1}, log="log.ipynb")
    assert not Path("log.ipynb").exists()


@pytest.mark.parametrize(
    "line", ["import os", "steps = 5 * 100", "a, b = 1, 2", "a = b = 1", "a: int", "a += 1", "del a", "f()"]
)
def test_parameters_that_are_no_plain_values_are_refused(checkout, line):
    made = notebook()
    made.cells[1].source = line
    notebooks.write("notebooks/performance.ipynb", made)
    with pytest.raises(ValueError, match="should be a name with a plain value"):
        notebooks.parameters("notebooks/performance.ipynb")


def put(change, path="notebooks/performance.ipynb"):
    """The notebook, its text changed, in the place of the one that is there."""
    told = json.loads(nbformat.writes(notebook()))
    changed = change(told)
    Path(path).write_text(json.dumps(told) if changed is None else changed, encoding="utf-8")
    return Path(path)


def test_lists_and_dictionaries_need_no_quotes(checkout):
    """As `make` hands them over; what does not fit leaves no entry."""
    source = 'tasks: list[str] = ["a"]\nlrs: list[float] = [0.1]\nw: dict = {"a": 1}'
    put(lambda told: told["cells"][1].update(source=source))
    given = 'tasks=["digits", "signs"] lrs=1,0.5 w={"a b": 1, c: 2}'
    assert rerun.main(["try", "performance", "long", "--given", given, "--by", f"{sys.executable} -c pass"]) == 0
    entry = {"tasks": ["digits", "signs"], "lrs": [1, 0.5], "w": {"a b": 1, "c": 2}}
    assert yaml.safe_load(Path("runs.yml").read_text()) == {"runs": {"long": {"performance": entry}}}
    assert rerun.add("performance", "long", ["tasks=[digits,", "signs]"]) == {"tasks": ["digits", "signs"]}
    before = Path("runs.yml").read_text()
    for pair in ("tasks=[1,2]", "tasks=[a", "tasks=", "lrs=a,b", "w=abc", "w=[1]", "w={a:1"):
        with pytest.raises(ValueError, match=r"should be of type .*, such as '?(tasks=a|lrs=0.1|w={a:1})'?\. Known"):
            rerun.add("performance", "long", [pair])
    assert Path("runs.yml").read_text() == before


def test_what_is_given_twice_is_refused(checkout, capsys):
    """In runs.yml, and as JSON: each would be taken by its last value alone."""
    command = ["execute", "performance", "out.ipynb", "--results", "out", "--parameters"]
    assert rerun.main([*command, '{"lr": 1, "lr": 2}']) == 2
    assert "'lr' is given twice: give it once" in capsys.readouterr().err
    Path("runs.yml").write_text("runs:\n  long:\n    performance:\n      steps: 1\n      steps: 2\n")
    with pytest.raises(ValueError, match="runs.yml, line 5: 'steps' is given twice"):
        rerun.add("performance", "other", ["steps=3"])
    Path("runs.yml").write_text("runs: [")
    with pytest.raises(ValueError, match="runs.yml, line 1: "):
        rerun.add("performance", "other", ["steps=3"])
    assert Path("runs.yml").read_text() == "runs: ["


def magic(told):
    told["cells"][1]["source"] = f"%matplotlib inline\n!true\n{PARAMETERS}%matplotlib inline\n"


def cell_magic(told):
    told["cells"][1]["source"] = f"%%time\n{PARAMETERS}"


@pytest.mark.parametrize("change", [magic, cell_magic])
def test_magics_in_the_parameters_cell_are_passed_over(checkout, change):
    plain = notebooks.parameters("notebooks/performance.ipynb")
    path = put(change)
    assert notebooks.parameters(path) == plain
    assert rerun.add("performance", "long", ["tasks=a,b"]) == {"tasks": ["a", "b"]}


def test_code_cells_are_python_whatever_magics_they_hold(checkout):
    sources = ["%%time\nimport os", "x = !ls\n%pwd", "%%bash\nif true; then echo; fi", "print(1)"]
    path = put(lambda told: told.update(cells=[new_code_cell(source) for source in sources]))
    first, second, third, last = notebooks.code_cells(path)
    assert first.strip() == "import os" and "get_ipython" in second and "get_ipython" in third and last == "print(1)"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _: "<<<<<<< HEAD\n{}", "is not a notebook: it does not hold JSON"),
        (lambda _: "", "is not a notebook: it does not hold JSON"),
        (lambda _: "[]", "is not a notebook: it lacks nbformat"),
        (lambda _: '{"cells": []}', "is not a notebook: it lacks nbformat"),
        (lambda _: '{"nbformat": 9, "nbformat_minor": 0, "metadata": {}, "cells": []}', "is not a valid notebook"),
        (lambda _: '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [1]}', "is not a valid notebook"),
        (lambda _: '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "is not a valid notebook"),
        (lambda told: told["cells"][1].pop("source") and None, "is not a valid notebook"),
        (lambda told: told["cells"][1].update(source="steps = = 1"), "a cell is not Python"),
        (lambda told: told["cells"][1].update(source="%%bash\nif true; then echo; fi"), "has no parameter 'steps'"),
        (lambda told: told["cells"][1].update(source="steps = 1\nsteps: int = 2"), "'steps' is set twice"),
        (lambda told: told["cells"].append(told["cells"][1] | {"id": "x"}), "2 cells are tagged 'parameters'"),
        (lambda told: told.update(metadata={"kernelspec": {"name": "ir", "display_name": "R"}}), "is a notebook of ir"),
        (lambda told: told["metadata"].update(language_info={"name": "julia"}), "is a notebook of julia"),
    ],
)
def test_what_is_no_notebook_of_ours_is_refused_by_its_name(checkout, change, told):
    path = put(change)
    with pytest.raises(ValueError, match=f"notebooks/performance.ipynb.*{re.escape(told)}"):
        notebooks.execute(path, "out.ipynb", {"steps": 1}, log="log.ipynb")
    assert not Path("out.ipynb").exists() and not Path("log.ipynb").exists()


def test_bytes_that_are_no_text_are_refused_by_the_files_name(checkout):
    Path("notebooks/performance.ipynb").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match="performance.ipynb is not a notebook, which is text in UTF-8"):
        notebooks.parameters("notebooks/performance.ipynb")


def test_ids_follow_from_places_where_a_notebook_lacks_them(checkout):
    def older(told):
        told["nbformat_minor"] = 4
        for cell in told["cells"]:
            del cell["id"]

    def repeated(told):
        told["cells"][0]["id"] = told["cells"][1]["id"] = "cell-1"
        told["cells"][2]["id"] = "no id!"
        del told["cells"][3]["id"]

    assert [cell.id for cell in notebooks.read(put(older)).cells] == ["cell-0", "cell-1", "cell-2", "cell-3"]
    assert [cell.id for cell in notebooks.read(put(repeated)).cells] == ["cell-1", "cell-1-x", "cell-2", "cell-3"]
    assert notebooks.read(put(older)).nbformat_minor == 5
    kept = [cell.id for cell in notebook().cells]
    assert len(set(kept)) == 4
    made = put(lambda told: [cell.update(id=f"mine{n}") for n, cell in enumerate(told["cells"])] and None)
    assert [cell.id for cell in notebooks.read(made).cells] == ["mine0", "mine1", "mine2", "mine3"]


@pytest.mark.parametrize("values", [{}, {"steps": 3, "init": 0.5}])
def test_bare_metadata_older_formats_and_magics_run(checkout, caplog, values):
    """Twice the same bytes, no word about parameters that papermill alone does not know, a folder with odd letters."""

    def change(told):
        magic(told)
        told.update(metadata={}, nbformat_minor=4)
        for cell in told["cells"]:
            cell.pop("id")

    Path("my {clone}'s").mkdir()
    path = put(change, "my {clone}'s/any.ipynb")
    for name in ("one", "two"):
        notebooks.execute(path, f"my {{clone}}'s/{name}.ipynb", values, log=f"my {{clone}}'s/{name}.log.ipynb")
    one, two = (Path(f"my {{clone}}'s/{name}.ipynb").read_bytes() for name in ("one", "two"))
    assert one == two and "unknown parameter" not in caplog.text
    made = notebooks.read("my {clone}'s/one.ipynb")
    assert made.metadata.get("papermill", {}).get("parameters", {}) == values
    assert [cell.id for cell in made.cells if "injected" not in cell.id] == ["cell-0", "cell-1", "cell-2", "cell-3"]
    assert made.cells[2 + bool(values)].outputs[0].text == "1\n"


def test_unknown_notebook_and_bad_run_name_are_refused(checkout):
    with pytest.raises(ValueError, match="did you mean 'performance'"):
        rerun.add("perfromance", "long", ["steps=3"])
    with pytest.raises(ValueError, match="lower-case"):
        rerun.add("performance", "../evil", ["steps=3"])


def test_execute_writes_normalised_output_with_the_parameters_injected(checkout):
    source = Path("notebooks/performance.ipynb")
    before = source.read_bytes()
    for name in ("one", "two"):
        notebooks.execute(source, f"{name}.ipynb", {"steps": 7}, log=f"{name}.log.ipynb")
    assert Path("one.ipynb").read_bytes() == Path("two.ipynb").read_bytes()
    assert source.read_bytes() == before
    made = notebooks.read("one.ipynb")
    assert made.metadata.papermill.parameters == {"steps": 7}
    assert "steps = 7" in made.cells[2].source


def test_variant_is_entered_published_and_removed_again(checkout):
    toc, runs = Path("_toc.yml").read_text(), Path("runs.yml").read_text()
    rerun.add("performance", "other", ["steps=1000"])
    assert yaml.safe_load(Path("runs.yml").read_text()) == {"runs": {"other": {"performance": {"steps": 1000}}}}
    assert Path("runs.yml").read_text().startswith("# a comment\n")
    with pytest.raises(ValueError, match="is not there"):
        rerun.publish("performance", "other")
    notebooks.write(rerun.page("performance", "other"), notebook(run="other"))
    rerun.publish("performance", "other")
    Path("_toc.yml").write_text(Path("_toc.yml").read_text().replace("The drawn world, run other", "An older title"))
    rerun.publish("performance", "other")
    parts = yaml.safe_load(Path("_toc.yml").read_text())["parts"]
    (chapter,) = [c for part in parts for c in part["chapters"] if c["file"] == "notebooks/performance"]
    entry = {"file": "book/runs/other/performance", "title": "The drawn world, run other"}
    assert [section for section in chapter["sections"] if section["file"] == entry["file"]] == [entry]
    rerun.remove("performance", "other")
    assert (Path("_toc.yml").read_text(), Path("runs.yml").read_text()) == (toc, runs)
    assert not Path("book/runs/other").exists()


def making(text: str, code: int = 0) -> list[str]:
    """A command that writes a page and the record beside it, and ends with a code."""
    script = (
        "import pathlib, sys; page = pathlib.Path(sys.argv[1])\n"
        "record = page.with_suffix('') / 'mini/performance.json'\n"
        f"record.parent.mkdir(parents=True, exist_ok=True); page.write_text({text!r}); record.write_text({text!r})\n"
        f"sys.exit({code})"
    )
    return [sys.executable, "-c", script]


def test_a_variant_that_fails_leaves_nothing(checkout):
    before = Path("runs.yml").read_text()
    with pytest.raises(ValueError, match="did not run"):
        rerun.attempt("performance", "long", ["steps=3"], making("half", code=1))
    assert Path("runs.yml").read_text() == before
    assert not Path("book/runs").exists() or not list(Path("book/runs").rglob("*"))


def test_a_variant_that_fails_gives_back_the_one_before(checkout):
    rerun.attempt("performance", "long", ["steps=3"], making("whole"))
    rerun.add("performance", "other", ["steps=5"])
    before = Path("runs.yml").read_text()
    with pytest.raises(ValueError, match="as before"):
        rerun.attempt("performance", "long", ["steps=4", "lr=0.1"], making("half", code=1))
    assert Path("runs.yml").read_text() == before
    assert rerun.page("performance", "long").read_text() == "whole"
    assert Path("book/runs/long/performance/mini/performance.json").read_text() == "whole"


def test_an_interrupted_variant_leaves_what_others_entered_meanwhile(checkout, monkeypatch):
    def interrupted(command):
        rerun.add("performance", "meanwhile", ["steps=5"])
        raise KeyboardInterrupt

    monkeypatch.setattr(rerun.subprocess, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rerun.attempt("performance", "long", ["steps=3"], [])
    assert yaml.safe_load(Path("runs.yml").read_text()) == {"runs": {"meanwhile": {"performance": {"steps": 5}}}}


def test_the_command_tries_a_variant(checkout, capsys):
    succeeds, fails = f"{sys.executable} -c pass", f"{sys.executable} -c 'raise SystemExit(1)'"
    assert rerun.main(["try", "performance", "long", "steps=3", "lr=0.5", "--by", succeeds]) == 0
    assert rerun.main(["try", "performance", "other", "steps=4", "--by", fails]) == 2
    assert "did not run" in capsys.readouterr().err
    entries = {"long": {"performance": {"steps": 3, "lr": 0.5}}}
    assert yaml.safe_load(Path("runs.yml").read_text()) == {"runs": entries}


def test_page_of_a_default_run_links_notebook_and_parameters():
    given = notebook()
    before = nbformat.writes(given)
    page = book.present(given, "notebooks/performance")
    assert nbformat.writes(given) == before
    assert "{download}`performance.ipynb <performance.ipynb>`" in page.cells[0].source
    assert "(#parameters-of-performance)" in page.cells[0].source
    _, introduction, worlds, target, parameters, *_ = page.cells
    assert introduction.source.startswith("(sec-table)=") and worlds.source == "```{worlds} performance\n```"
    assert target.source.startswith("(parameters-of-performance)=")
    assert "hide-input" not in parameters.metadata.tags


def test_page_of_a_variant_has_banner_own_labels_and_folded_parameters(checkout):
    page = book.present(notebook(run="long"), "book/runs/long/performance")
    head, introduction, target, defaults, injected, figure, text, beside = page.cells
    assert beside.source == "```{run-comparison} performance long\n```"
    assert head.source.startswith("# Performance: the drawn world, run long\n")
    assert "`steps = 1000`" in introduction.source
    assert "{doc}`the drawn world </notebooks/performance>`" in head.source
    assert "(sec-table-long)=" in introduction.source and "{numref}`fig-gap-long`" in introduction.source
    assert "{ref}`the table <sec-table-long>`" in introduction.source
    assert target.source.startswith("(parameters-of-performance-long)=")
    assert "hide-input" in defaults.metadata.tags and "hide-input" in injected.metadata.tags
    assert injected.metadata.mystnb.code_prompt_show == "Show this run's parameters"
    assert figure.metadata.mystnb.figure.name == "fig-gap-long"
    assert figure.metadata.mystnb.figure.caption == "Gap"
    assert "$$a = b$$ (eq-a-long)" in text.source and "{eq}`eq-a-long`" in text.source
    assert "(#fig-gap-long)" in text.source and "the word fig-gap stays" in text.source


def experiment(run=None) -> nbformat.NotebookNode:
    """A notebook with a take-away, a lead, verdicts and the lines of a check."""
    made = notebook(run)
    if run:
        made.metadata.papermill.parameters = {"profile": run}
    take_away = "Up {number}`+mini/performance: gain` ({interval}`mini/performance: gain`), {published}`1:X:Average`."
    made.cells.insert(1, new_markdown_cell(take_away, metadata={"tags": ["take-away"]}))
    made.cells[-2].metadata.tags = ["lead"]
    made.cells += [
        new_code_cell("show(published)", metadata={"tags": ["hide-output"]}),
        new_code_cell("Table(judge.to_frame(claims.verdicts_of(record)))"),
        new_code_cell('print(*run.finish(record), sep="\\n")'),
    ]
    if not run:
        finding = new_markdown_cell("It is up.", id="finding", metadata={"tags": ["default-only"]})
        made.cells.insert(made.cells.index(next(c for c in made.cells if c.source == "print(1)")) + 1, finding)
    return made


def folded(cell) -> list[str]:
    return [tag for tag in cell.metadata.get("tags", []) if tag.startswith("hide-")]


def test_page_of_an_experiment_begins_with_its_result():
    title, box, lead, finding, introduction, target, parameters, *rest = book.present(
        experiment(), "notebooks/performance"
    ).cells
    assert title.source.startswith("# Performance\n") and ":class: take-away" in box.source
    assert lead.source == "print(1)" and folded(lead) == ["hide-input"] and finding.source == "It is up."
    assert introduction.source.startswith("## The experiment\n\n(sec-table)=")
    assert target.source.startswith("(parameters-of-performance)=") and folded(parameters) == ["hide-input"]
    text, published, verdicts, check = rest
    assert "$$a = b$$" in text.source and folded(published) == ["hide-cell"]
    assert verdicts.source == "```{worlds} performance\n```" and folded(check) == ["hide-cell"]


@pytest.mark.parametrize(
    ("run", "source", "told", "untold"),
    [
        (None, "figures.gaps(frame)", "from `results/mini/performance.json`. Drawn again without", "--run"),
        ("tiny", "figures.gaps(frame)", "redraw performance --run tiny`", "results/mini"),
        (None, "show(suite.images)", "shows the data themselves", "redraw"),
    ],
)
def test_figures_and_tables_say_what_made_them(checkout, run, source, told, untold):
    made = experiment(run)
    lead = next(cell for cell in made.cells if "lead" in cell.metadata.get("tags", []))
    lead.source, lead.outputs = source, [nbformat.v4.new_output("display_data", {"image/png": "x"})]
    made.cells[-2].outputs = [nbformat.v4.new_output("display_data", {"text/html": "<table>"})]  # folded with its code
    cells = book.present(made, f"book/runs/{run}/performance" if run else "notebooks/performance").cells
    notes = [cell for cell in cells if ":class-container: made-by" in cell.source]
    (note,) = notes
    assert cells[cells.index(note) - 1].id == lead.id
    assert f"Cell `[{lead.execution_count}]` of" in note.source and told in note.source and untold not in note.source


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("A: {number}`mini/x: a` percent, B: {number}`+mini/x: b`.", "A: 59.9 percent, B: −0.25."),
        ("{number}`mini/x: best` gains {number}`+mini/x: a:.0f`.", "Layer-wise gains +60."),
        ("A: {number}`mini/x: a`, C: {number}`mini/x: none`.", None),
    ],
)
def test_a_finding_has_the_numbers_of_a_record_or_is_left_out(sentence, told):
    known = {"a": 59.91, "b": -0.254, "none": float("nan"), "best": "Layer-wise"}
    assert alts.said(sentence, "mini/x", known) == told


@pytest.mark.parametrize(
    ("sentence", "error"),
    [
        ("{number}`mini/x: a` and {number}`mini/x: b`", KeyError),
        ("no number", ValueError),
        ("{number}`mini/y: a`", ValueError),
        ("{number}`tiny/x: a`", ValueError),
        ("{number}`mini/x a`", ValueError),
        ("{number}`mini/x: a` {interval}`mini/x: a`", ValueError),
    ],
)
def test_a_finding_with_a_typo_is_refused(sentence, error):
    with pytest.raises(error):
        alts.said(sentence, "mini/x", {"a": 1.0})


def with_finding(run, name):
    """A page's notebook whose figure has a finding, and the number of a run that it should tell."""
    made = experiment(run)
    lead = next(cell for cell in made.cells if "lead" in cell.metadata.get("tags", []))
    finding = f"AdaMerging: {{number}}`mini/performance: {name}` percent."
    lead.metadata.mystnb = {"image": {"alt": "Bars.", "finding": finding}}
    return made


def image(page):
    (found,) = [cell.metadata.mystnb.image for cell in page.cells if "image" in cell.metadata.get("mystnb", {})]
    return found


def test_a_page_says_in_alternative_texts_what_its_own_run_found(checkout):
    record = ROOT / "book/runs/tiny/performance/tiny/performance.json"
    at = [claims.numbers_at(path)["lw_average"][0] for path in (claims.record_of("performance", "mini"), record)]
    given = with_finding(None, "lw_average")
    assert image(book.present(given, "notebooks/performance")) == {"alt": f"Bars. AdaMerging: {at[0]:.1f} percent."}
    assert "finding" in image(given)
    told = image(book.present(with_finding("tiny", "lw_average"), "book/runs/tiny/performance"))
    assert told == {"alt": f"Bars. AdaMerging: {at[1]:.1f} percent."} and at[0] != at[1]


def test_a_number_that_only_a_variant_lacks_costs_it_the_finding(checkout):
    for run in ("tiny", "tiny-128"):  # a record without the number, and none
        page = book.present(with_finding(run, "lw_averge"), f"book/runs/{run}/performance")
        assert image(page) == {"alt": "Bars."}
    with pytest.raises(ValueError, match="mini/performance has no number 'lw_averge'"):
        book.present(with_finding(None, "lw_averge"), "notebooks/performance")


def test_page_of_a_world_takes_away_its_own_numbers(checkout):
    _, box, lead, introduction, *rest = book.present(experiment("tiny"), "book/runs/tiny/performance").cells
    assert "Up {number}`+tiny/performance: gain` ({interval}`tiny/performance: gain`), {published}`1:X:" in box.source
    assert lead.source == "print(1)" and introduction.source.startswith("## The experiment\n\n:::{admonition} Run tiny")
    verdicts = next(cell for cell in rest if "verdicts_of" in cell.source)
    assert folded(verdicts) == ["hide-cell"]


def test_page_of_a_run_that_is_no_world_takes_nothing_away(checkout):
    made = experiment("tiny")
    page = book.present(made, "book/runs/long/performance")
    assert not [cell for cell in page.cells if "take-away" in cell.source] and page.cells[1].source == "print(1)"


def test_title_of_a_variant_says_its_world(checkout):
    made = notebook(run="tiny")
    made.metadata.papermill.parameters = {"profile": "tiny"}
    made.cells[0].source = "# When does it work?\n\nA question."
    head = book.present(made, "book/runs/tiny/reasons").cells[0].source
    assert head.startswith("# When does it work? Photographs\n")


@pytest.mark.parametrize(
    ("page", "around"),
    [
        ("method", [None, "notebooks/a"]),
        ("notebooks/a", ["method", "notebooks/b"]),
        ("book/runs/x/a", ["notebooks/a", "notebooks/b"]),
        ("book/runs/y/a", ["notebooks/a", "notebooks/b"]),
        ("notebooks/b", ["notebooks/a", None]),
        ("book/runs/x/b", ["notebooks/b", None]),
        ("search", [None, None]),
    ],
)
def test_previous_and_next_pass_over_variants(page, around):
    order = ["method", "notebooks/a", "book/runs/x/a", "book/runs/y/a", "notebooks/b", "book/runs/x/b"]
    relations = dict(zip(order, zip([None] * 6, [None, *order], [*order[1:], None], strict=False), strict=True))
    assert contents.neighbours(page, relations) == around


def test_page_without_title_or_parameters_is_refused():
    untitled, untagged = notebook(), notebook()
    untitled.cells[0].source = "No title"
    del untagged.cells[1].metadata["tags"]
    with pytest.raises(ValueError, match="begin with '# '"):
        book.present(untitled, "notebooks/performance")
    with pytest.raises(ValueError, match="tagged 'parameters'"):
        book.present(untagged, "notebooks/performance")


def test_accept_copies_fresh_runs_and_refuses_edited_notebooks(checkout):
    with pytest.raises(ValueError, match="holds no executed notebook"):
        build.accept()
    fresh = notebooks.normalise(notebook())
    notebooks.write(build.EXECUTED / "performance.ipynb", fresh)
    rows = [{"method": "ties", "condition": "clean", "task": "Average", "accuracy": 60.0}]
    record = records.new("performance", "mini", {}, None, rows, [0], "2026-01-01T00:00:00", 1.0)
    records.write(record, build.FRESH_RESULTS / "mini/performance.json")
    build.accept()
    assert Path("notebooks/performance.ipynb").read_bytes() == (build.EXECUTED / "performance.ipynb").read_bytes()
    assert records.read("results/mini/performance.json") == record
    assert "results/mini/performance.json,ties-over-ta,not run" in Path("results/verdicts.csv").read_text().splitlines()
    fresh.cells[2].source = "print('edited')"
    notebooks.write("notebooks/performance.ipynb", fresh)
    with pytest.raises(ValueError, match="was edited after its last run"):
        build.accept()


@pytest.mark.parametrize(
    ("page", "count"),
    [
        ('<script src="https://cdn.example/x.js"></script><img src="//example/x.png">', 2),
        ('<link rel="stylesheet" href="http://example/x.css"><iframe src="https://example"></iframe>', 2),
        ('<a href="https://example">read</a><link rel="canonical" href="https://example"><img src="x.png">', 0),
    ],
)
def test_offline_check_finds_loads_but_allows_links(tmp_path, page, count):
    (tmp_path / "index.html").write_text(f"<html>{page}</html>")
    (tmp_path / "x.css").write_text("@font-face { src: url('font.woff2') }")
    assert len(build.network_loads(tmp_path)) == count
    (tmp_path / "x.css").write_text("@import 'https://example/y.css'; a { background: url(//example/z.png) }")
    assert len(build.network_loads(tmp_path)) == count + 2


def test_offline_check_of_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no HTML page"):
        build.network_loads(tmp_path)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_committed_notebooks_are_executed_normalised_and_without_errors(path):
    made = notebooks.read(path)
    assert nbformat.writes(notebooks.normalise(made)).rstrip("\n") + "\n" == path.read_text(encoding="utf-8")
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_extension_builds_a_default_page_and_its_variant_without_a_warning(tmp_path):
    (tmp_path / "conf.py").write_text(
        'extensions = ["myst_nb", "sphinx_design", "adamerging_study.book.sphinx"]\n'
        'myst_enable_extensions = ["dollarmath", "colon_fence"]\nnb_execution_mode = "off"\nnumfig = True\n'
    )
    pages = {"notebooks/performance": None, "book/runs/long/performance": "long"}
    (tmp_path / "runs.yml").write_text(yaml.safe_dump({"runs": {"long": {"performance": {"steps": 1000}}}}))
    for docname, run in pages.items():
        made = notebook(run)
        made.cells[-2].outputs = [new_output("display_data", {"text/plain": "a figure"})]
        notebooks.write(tmp_path / f"{docname}.ipynb", notebooks.normalise(made))
    names = ["{verdict}`mini/performance: wa-lowest`", "{verdict}`mini/performance: ties-over-ta`"]
    names += ["{number}`+mini/performance: ties_over_ta`", "{interval}`mini/performance: ties_over_ta`"]
    roles = ["{published}`1:Task Arithmetic:Average`", *names]
    (tmp_path / "book/rerun.md").write_text("# Rerun\n\n" + "\n".join(roles) + "\n")
    made_up = madeup.performance_rows(ties=60.0).to_dict("records")
    rows = [{key: value for key, value in row.items() if value == value} for row in made_up]  # without NaN
    record = records.new("performance", "mini", {}, None, rows, [0], "2026-01-01T00:00:00", 1.0)
    records.write(record, tmp_path / "results/mini/performance.json")
    environment = {**os.environ, "ADAMERGING_RESULTS": str(tmp_path / "results"), "PYTHONPATH": str(ROOT)}
    (tmp_path / "book/claims.md").write_text("# Claims\n")
    entries = "\n".join(["book/rerun", *pages, "book/claims"])
    (tmp_path / "index.md").write_text(f"# Index\n\n```{{toctree}}\n:numbered:\n{entries}\n```\n")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "-n", "-q", str(tmp_path), str(tmp_path / "html")]
    build_it = partial(subprocess.run, command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    done = build_it()
    assert done.returncode == 0, done.stderr
    default, variant = ((tmp_path / "html" / f"{docname}.html").read_text() for docname in pages)
    assert 'id="fig-gap"' in default and 'id="fig-gap-long"' in variant
    assert "Show the default parameters" in variant and "Show the default parameters" not in default
    assert "Performance: the drawn world, run long" in variant and "the drawn world, run long</span>" in default
    assert "<small>holds at ≥ 0 points</small>" in default and "holds at ≥" not in variant
    after = (tmp_path / "html/book/claims.html").read_text()
    for page in (default, variant):
        assert '<link rel="next" title="4. Claims"' in page
    for page in (variant, after):
        assert '<link rel="prev" title="2. Performance"' in page
    assert "Fig. 2.1" in default and '<span class="section-number">2. ' in default
    assert "Fig. 1" in variant and "Fig. 3" not in variant and '<span class="section-number">3' not in variant
    prose = (tmp_path / "html/book/rerun.html").read_text()
    assert '<span class="published">69.1</span>' in prose
    badge = '<span class="sd-badge sd-bg-danger sd-bg-text-danger">does not hold (point value only)</span>'
    assert prose.count(badge) == 2
    for text in ("−9.0", "no interval"):
        hint = re.search(rf'<abbr[^>]* title="([^"]+)"[^>]*>{text}</abbr>', prose)
        assert "results/mini/performance.json" in hint[1], text

    (tmp_path / "book/rerun.md").write_text("# Rerun\n\n{published}`1:Task Arithmetik:Average`\n")
    done = build_it()
    assert done.returncode != 0 and "0 published numbers fit" in done.stderr
    (tmp_path / "book/rerun.md").write_text("# Rerun\n\n{verdict}`mini/performance: ties-best`\n")
    done = build_it()
    assert done.returncode != 0 and "ties-best" in done.stderr


def test_the_page_of_another_world_leaves_out_what_is_said_of_the_default_one(tmp_path):
    made = notebook()
    made.cells[1].source = 'profile: str = "mini"  # which world'
    made.cells.insert(2, new_code_cell("print(2)", metadata={"tags": ["default-only"]}))
    made.cells.insert(3, new_markdown_cell("A finding.", metadata={"tags": ["default-only"]}))
    notebooks.write(tmp_path / "performance.ipynb", made)
    pages = {}
    for profile in ("mini", "tiny"):
        out = tmp_path / f"{profile}.ipynb"
        notebooks.execute(tmp_path / "performance.ipynb", out, {"profile": profile}, log=tmp_path / "log.ipynb")
        pages[profile] = notebooks.read(out)
    sources = {profile: [cell.source for cell in page.cells] for profile, page in pages.items()}
    assert {"print(2)", "A finding."} <= set(sources["mini"]) and not {"print(2)", "A finding."} & set(sources["tiny"])
    counts = [cell.execution_count for cell in pages["tiny"].cells if cell.cell_type == "code"]
    assert counts == [1, 2, 3]


def test_the_banner_of_a_run_names_the_page_on_its_findings(checkout):
    Path("book").mkdir()
    Path("book/long.md").write_text("# Long\n")
    page = book.present(notebook(run="long"), "book/runs/long/performance")
    assert "What was found: {doc}`/book/long`." in page.cells[1].source


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_what_a_profile_gives_to_notebooks_are_parameters_that_they_have(profile):
    budgets = yaml.safe_load((ROOT / "budgets.yml").read_text(encoding="utf-8"))
    assert profile.name == "mini" or profile.name in budgets
    for name, given in budgets.get(profile.name, {}).items():
        everywhere = name == "all"
        paths = sorted((ROOT / "notebooks").glob("*.ipynb")) if everywhere else [ROOT / f"notebooks/{name}.ipynb"]
        paths = [path for path in paths if "'parameters'" in str(notebooks.read(path).cells)]
        assert given.keys() <= {key for path in paths for key in notebooks.parameters(path)}
        for path in () if everywhere else paths:
            values.check(path, notebooks.parameters(path), given)
