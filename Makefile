# What people and CI both call. Every target sets up its own virtual environment in .venv the first time.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help demo test check docs site format bench clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## run the whole pipeline on packaged pictures, offline; writes demo-out/report.html
	$(BIN)/gpt4image demo --out demo-out

test: $(STAMP)  ## run all tests, fast ones first
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal --durations 15

check: $(STAMP)  ## formatting, lint, types, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python docs/generate.py --check

docs: $(STAMP)  ## renew the generated parts of README.md and docs/results.md
	$(BIN)/python docs/generate.py

site: $(STAMP)  ## build the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP)  ## mend formatting and lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## measure speed as ratios to the physical limit; see benchmarks/README.md
	$(BIN)/python benchmarks/run.py

clean:  ## remove the environment and what demo, bench and site wrote
	rm -rf $(VENV) demo-out bench-out site
