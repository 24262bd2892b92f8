# Two commands do all the set-up: `make book` and `make test`. Nothing here changes a tracked file, except for
# `make accept`, `make refit`, `make rerun`, `make unrun`, `make lock` and `make zoo ZOO=--install`, whose purpose it is.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
CORES ?= 2
WORLD ?= mini
DEVICE ?= cpu
FITS := $(WORLD) $(if $(EXPERIMENT),--experiment $(EXPERIMENT))
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
SNAKEMAKE := $(PY) -m snakemake --quiet all --cores $(CORES)
# Warnings are errors (-W), but all of them are shown (--keep-going); -n also checks every cross-reference.
BUILD := $(VENV)/bin/jupyter-book build --all -W --keep-going -n
HTML := _build/html
PDF ?= _build/book.pdf

export PYTHONUTF8 := 1
# Recipes read these as "$$P" and not as $(P): a shell would take quotes, spaces and brackets of a value apart.
NOTEBOOK ?=
RUN ?=
P ?=
export NOTEBOOK RUN P PDF

.PHONY: help book html pdf archive look test test-assets gpu lint check-offline check-book check-fits grid check-grid zoo rerun unrun parameters accept refit lock clean distclean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

$(STAMP): requirements.lock pyproject.toml
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.12")'
	@echo "Installing the environment into $(VENV); once, some minutes"
	"$(PYTHON)" -m venv $(VENV)
	$(PY) -m pip install --quiet -r requirements.lock
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

book: $(STAMP) ## run the notebooks that are new or changed, then build the book from these fresh runs
	$(SNAKEMAKE)
	$(PY) -m adamerging_study.book.build stage _build/stage
	ADAMERGING_RESULTS="$$PWD/_build/results" $(BUILD) _build/stage --path-output .
	@echo "The book: $(HTML)/index.html"

html: $(STAMP) ## build the book from the committed runs, without running anything
	$(BUILD) .
	@echo "The book: $(HTML)/index.html"

pdf: $(STAMP) ## print the whole book into one PDF, with a headless Chromium or Chrome: _build/book.pdf
	$(VENV)/bin/jupyter-book build --all --builder singlehtml .
	$(PY) -m adamerging_study.book.build pdf _build/singlehtml "$$PDF"

archive: html ## one file with checksums, to deposit: sources, records, kept fits, built pages: _build/archive
	$(PY) -m adamerging_study.book.archive $(HTML) _build/archive

test: $(STAMP) ## run the unit tests, and every notebook again, compared with its committed outputs
	$(PY) -m pytest -n $(CORES) --dist loadfile \
		--nbval --nbval-current-env --nbval-cell-timeout 1800 --nbval-sanitize-with tests/sanitize.cfg

gpu: $(STAMP) ## on a machine with a CUDA GPU: run the tests for it and measure a step, into benchmarks/results
	@$(PY) -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "make gpu: torch sees no CUDA GPU here, so nothing was run; all other targets do without.")'
	$(PY) -m pytest -m gpu tests
	$(PY) benchmarks/gpu.py

look: $(STAMP) ## the built pages in a headless Chromium, wide and narrow, light and dark: contrast, alt texts, keyboard
	$(PY) -m pytest -q -rs -n $(CORES) -m slow tests/test_look.py

test-assets: $(STAMP) ## run the tests on real images and their experts, where ADAMERGING_ASSETS names a folder with them
	$(PY) -m pytest -q -rs -m assets tests

lint: $(STAMP) ## run ruff, notebooks included; check the workflows too where actionlint is installed
	$(PY) -m ruff check .
	@if command -v actionlint >/dev/null; then actionlint; else echo "actionlint is not installed: workflows not linted"; fi

check-offline: $(STAMP) ## check that the built pages load nothing from the network
	$(PY) -m adamerging_study.book.build check-offline $(HTML)

check-book: $(STAMP) ## check every number shown: tables and figures from records, prose by look-up, claims as stated
	$(PY) -m adamerging_study.book.build check-prose
	$(PY) -m pytest -q tests/test_notebooks.py tests/test_claims.py

parameters: $(STAMP) ## list the parameters of a notebook: NOTEBOOK=performance
	@$(PY) -m adamerging_study.book.rerun parameters $(if $(NOTEBOOK),"$$NOTEBOOK")

rerun: $(STAMP) ## run a notebook with your parameters, as a page of its own: NOTEBOOK=performance RUN=long P="steps=1000 seeds=3,4"
	@test -n "$$NOTEBOOK" && test -n "$$RUN" || { echo 'make rerun NOTEBOOK=performance RUN=long P="steps=1000 seeds=3,4"'; exit 2; }
	$(PY) -m adamerging_study.book.rerun try "$$NOTEBOOK" "$$RUN" --given "$$P" --by "$(SNAKEMAKE)"
	$(PY) -m adamerging_study.book.rerun publish "$$NOTEBOOK" "$$RUN"
	$(MAKE) html

unrun: $(STAMP) ## take a variant out of the book: NOTEBOOK=performance RUN=long
	$(PY) -m adamerging_study.book.rerun remove "$$NOTEBOOK" "$$RUN"

accept: $(STAMP) ## make fresh notebooks and records the committed ones; the README's picture and the graph follow
	$(PY) -m adamerging_study.book.build accept
	$(PY) -m adamerging_study.evidence
	$(PY) -m adamerging_study.book.pictures results/mini/performance.json book/_static/readme.png
	$(PY) -m snakemake --quiet all --dag -- default variants | $(PY) -m adamerging_study.book.pictures - book/_static/workflow.png

check-fits: $(STAMP) ## replay the first steps of every kept fit: WORLD=mini EXPERIMENT=performance
	$(PY) -m adamerging_study.refit check $(FITS)

grid: $(STAMP) ## learn what is missing of the outcomes that are kept; resumes: WORLD=mini EXPERIMENT=gain
	$(PY) -m adamerging_study.traces make $(WORLD) $(EXPERIMENT)

check-grid: $(STAMP) ## compute the first losses of every kept outcome anew: WORLD=mini EXPERIMENT=gain
	$(PY) -m adamerging_study.traces check $(WORLD) $(EXPERIMENT)

refit: $(STAMP) ## make kept fits anew, into results/; resumes: WORLD=mini EXPERIMENT=performance DEVICE=cuda
	@$(PY) -m adamerging_study.refit names $(FITS) >/dev/null
	$(PY) -m snakemake fits --quiet rules host --cores $(CORES) \
		--config world=$(WORLD) device=$(DEVICE) $(if $(EXPERIMENT),experiment=$(EXPERIMENT))
	$(PY) -m adamerging_study.refit install $(FITS) _build/fits/$(WORLD)

zoo: $(STAMP) ## train a shipped world's checkpoints anew, into _build/zoo: WORLD=mini-text; ZOO=--install to ship them
	$(PY) -m adamerging_lib zoo --profile $(WORLD) $(if $(filter mini,$(WORLD)),--workers $(CORES)) $(ZOO)

lock: ## pin the versions that a fresh environment with all extras gets today
	rm -rf _build/lock && "$(PYTHON)" -m venv _build/lock
	_build/lock/bin/pip install --quiet -c <(grep -E '^(torch|torchvision|open_clip_torch)==' requirements.lock) -e '.[book,clip,look,slurm,test,text]'
	{ sed '/^#/!d' requirements.lock; _build/lock/bin/pip freeze --all --exclude-editable \
		| grep -vE '^(pip|nvidia-|cuda-|triton)' | sed -E 's/\+cpu$$//'; } > _build/requirements.lock
	mv _build/requirements.lock requirements.lock

clean: ## remove everything built, and the cache of fits
	rm -rf _build .snakemake .cache .pytest_cache .ruff_cache .hypothesis

distclean: clean ## remove the environment too
	rm -rf $(VENV) *.egg-info
