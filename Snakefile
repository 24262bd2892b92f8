# Which notebook runs when. `snakemake` executes the default runs into _build/executed, `snakemake variants` the runs of
# runs.yml into book/runs, `snakemake fits` the kept fits into _build/fits. The same file serves a laptop and a cluster
# (--workflow-profile profiles/slurm).
# A notebook runs again when its cells, its parameters, the library or the zoo changed, and only then: outputs that were
# accepted into notebooks/ do not count, because a run depends on the notebook through the digest of its sources.
import json
import os
import shlex
import sys
from pathlib import Path

from adamerging_lib.runtime.sources import notebook_files
from adamerging_study.book.notebooks import code_cells, parameters, source_digest
from adamerging_study.book.rerun import filled, kept_fits
from adamerging_study.rooms import face, rooms

configfile: "runs.yml"

PAGES = sorted(path.stem for path in Path("notebooks").glob("*.ipynb"))
VARIANTS = [f"book/runs/{run}/{page}.ipynb" for run, pages in config["runs"].items() for page in pages]


def seconds(page):
    """What the default run took when its record was accepted."""
    record = Path("results", face(page).world if page in rooms() else "mini", f"{page}.json")
    return json.loads(record.read_text(encoding="utf-8"))["seconds"] if record.is_file() else 0


LONGEST = sorted(PAGES, key=seconds)[-3:]
OTHERS = [page for page in PAGES if page not in LONGEST]

# Trained weights count through the zoo's manifest.
DATA = sorted(str(path) for pattern in ("published/*.csv", "doctor/*.csv", "worlds/*/zoo/manifest.json") for path in Path("adamerging_lib").glob(pattern))


def dependencies(wildcards):
    """The modules that a notebook reaches, transitively, and kept fits; not what prints, builds and trains."""
    page, cells = wildcards.page, code_cells(f"notebooks/{wildcards.page}.ipynb")
    if page in rooms():  # which a run imports by its name
        cells += [f"import adamerging_study.{page}.measure, adamerging_study.{page}.numbers"]
        cells += [f"import adamerging_study.{page}.show"]
    claims = [f"adamerging_study/{page}/claims.yml"] if page in rooms() else []
    given = config["runs"][wildcards.run][page] if "run" in wildcards.keys() else {}
    fits = [str(file) for file in kept_fits(page, given)] if page in rooms() else []
    return [os.path.relpath(file) for file in notebook_files(cells)] + claims + fits + DATA


def values(wildcards):
    """The parameters of a variant, with what its profile takes."""
    given, known = config["runs"][wildcards.run][wildcards.page], parameters(f"notebooks/{wildcards.page}.ipynb")
    return filled(wildcards.page, given, known)


# Snakemake fills in what stands in braces.
PYTHON = shlex.quote(sys.executable).replace("{", "{{").replace("}", "}}")
EXECUTE = PYTHON + " -m adamerging_study.book.rerun execute {wildcards.page:q} {output:q} --log {log.notebook:q}"


wildcard_constraints:
    page="|".join(PAGES),
    run="[a-z0-9][a-z0-9_-]*",


rule default:
    input: expand("_build/executed/{page}.ipynb", page=PAGES)


rule variants:
    input: VARIANTS


# One thread per notebook: side by side they use the cores better than one that shares its small matrices out.
rule page:
    wildcard_constraints: page="|".join(OTHERS) or "none"
    input: dependencies
    output: "_build/executed/{page}.ipynb"
    log: notebook="_build/logs/{page}.ipynb"
    params: source=lambda w: source_digest(f"notebooks/{w.page}.ipynb")
    threads: 1
    resources: mem_mb=4000, runtime=60
    shell: EXECUTE + " --results _build/results"


# Begun first, so that no core idles at the end while another is busy with one of them.
use rule page as long_page with:
    wildcard_constraints: page="|".join(LONGEST) or "none"
    priority: 1


rule variant:
    input: dependencies
    output: "book/runs/{run}/{page}.ipynb"
    log: notebook="_build/logs/{run}/{page}.ipynb"
    params:
        source=lambda w: source_digest(f"notebooks/{w.page}.ipynb"),
        values=lambda w: json.dumps(values(w), sort_keys=True),
    threads: 1
    resources: mem_mb=4000, runtime=60
    shell: EXECUTE + " --results book/runs/{wildcards.run}/{wildcards.page:q} --parameters {params.values:q}"


# Kept fits made anew, `make refit`: `snakemake fits --config world=mini experiment=performance device=cuda`.
DEVICE = config.get("device", "cpu")


def wanted_fits(wildcards):
    """The fits that are asked for, as files."""
    from adamerging_study.refit import names  # brings torch, which no other target needs

    world = config.get("world", "mini")
    return [f"_build/fits/{world}/{name}.safetensors" for name in names(world, config.get("experiment"))]


def fit_dependencies(wildcards):
    """The modules that the experiment of a fit reaches."""
    experiment = wildcards.fit.partition("-")[0]
    files = notebook_files([f"import adamerging_study.{experiment}.measure, adamerging_study.refit"])
    return [os.path.relpath(file) for file in files] + ["budgets.yml"] + DATA


rule fits:
    input: wanted_fits


# Finished ones stay until `refit install` moves them, so that an interrupted `make refit` goes on where it was.
rule fit:
    wildcard_constraints: fit="[a-z_]+-[^/]+"
    input: fit_dependencies
    output: "_build/fits/{world}/{fit}.safetensors"
    params: source=lambda w: source_digest(f"notebooks/{w.fit.partition('-')[0]}.ipynb")
    threads: 1
    resources: mem_mb=4000, runtime=240, gpu=int(DEVICE != "cpu")
    shell: PYTHON + " -m adamerging_study.refit fit {wildcards.world:q} {wildcards.fit:q} {output:q} --device {DEVICE}"
