# What people and CI both call. Every target sets up its own virtual environment in .venv the first time.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := requirements-lock.txt
PIP    := python -m pip --disable-pip-version-check install --quiet
# Where torch for CPUs comes from on Linux without an NVIDIA GPU; empty: PyPI's build, with CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# The lowest versions that pyproject.toml allows, in an environment of their own.
FLOORS       := .venv-floors
FLOOR_EXTRAS := demo,hf,api,clip,onnx
FLOOR_TESTS  := tests/encoding/test_text_encoders.py tests/encoding/test_encode.py tests/evaluating/test_evaluate.py \
                tests/deploying/test_loading.py tests/deploying/test_export.py tests/deploying/test_predict.py

.PHONY: help demo test fuzz check floors lock sbom docs screenshots site format bench clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# $(VENV)/.installed-EXTRA: what the targets need of an extra is installed, in the locked versions.
# With hashes, pip refuses the editable install of this package, which so comes second and brings only torch.
$(VENV)/.installed-%: pyproject.toml $(LOCK) .ci/locked.py .ci/torch_build.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}; try: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python .ci/torch_build.py "$(TORCH_INDEX)" > $(VENV)/torch-options.txt
	$(PYTHON) .ci/locked.py $* > $(VENV)/locked-$*.txt
	$(BIN)/$(PIP) --require-hashes --no-deps --only-binary :all: -r $(VENV)/locked-$*.txt
	$(BIN)/$(PIP) --no-build-isolation $$(cat $(VENV)/torch-options.txt) -e '.[$*]'
	@touch $@

demo: $(VENV)/.installed-demo  ## run the whole pipeline on packaged pictures, offline; writes demo-out/report.html
	$(BIN)/gpt4image demo --out demo-out

test: $(VENV)/.installed-test  ## run all tests, fast ones first
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 3 --dist load --maxschedchunk 1 --durations 15

fuzz: $(VENV)/.installed-test  ## try 100,000 damaged inputs on every parser; FUZZ="coco voc --count 5000" tries fewer
	OMP_NUM_THREADS=1 $(BIN)/python tests/test_fuzz.py $(FUZZ)

check: $(VENV)/.installed-dev  ## formatting, lint, types, layers, pages and packages: no model is trained
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright
	$(BIN)/python docs/scripts/generate.py --check
	$(BIN)/python -m pytest -q checks

floors: $(FLOORS)/.installed  ## try the lowest versions that pyproject.toml allows
	$(FLOORS)/bin/python .ci/floors.py imports $(FLOOR_EXTRAS)
	OMP_NUM_THREADS=1 $(FLOORS)/bin/python -m pytest -q -m "not slow" -W default -n 2 --dist worksteal $(FLOOR_TESTS)

$(FLOORS)/.installed: pyproject.toml .ci/floors.py
	$(PYTHON) -m venv --clear $(FLOORS)
	$(FLOORS)/bin/python .ci/floors.py constraints $(FLOOR_EXTRAS) > $(FLOORS)/constraints.txt
	@tail -1 $(FLOORS)/constraints.txt
	$(FLOORS)/bin/$(PIP) -c $(FLOORS)/constraints.txt -e '.[$(FLOOR_EXTRAS)]' \
		pytest pytest-timeout pytest-xdist hypothesis
	@touch $@

lock:  ## renew the exact versions and hashes that make installs; what fits stays
	$(PYTHON) -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/$(PIP) 'uv>=0.13'
	$(if $(UPGRADE),true,cp $(LOCK) $(VENV)-lock/lock.txt)
	$(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11.5 --fork-strategy fewest --extra dev \
		--only-binary :all: --generate-hashes --no-header -o $(VENV)-lock/lock.txt pyproject.toml
	$(PYTHON) .ci/locked.py --lock $(VENV)-lock/lock.txt > $(VENV)-lock/new.txt
	mv $(VENV)-lock/new.txt $(LOCK) && rm -rf $(VENV)-lock

sbom: $(VENV)/.installed-dev  ## write sbom.json: all locked packages with versions, hashes and licences (CycloneDX)
	$(BIN)/python docs/scripts/licences.py > sbom.json

docs: $(VENV)/.installed-dev  ## renew the generated pages and parts of pages
	$(BIN)/python docs/scripts/generate.py

screenshots: demo  ## take the picture of the label page in docs/images again, with Chromium
	$(BIN)/python docs/scripts/screenshots.py demo-out

site: $(VENV)/.installed-docs  ## build the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(VENV)/.installed-check  ## mend formatting and lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-bench  ## measure speed as ratios to the physical limit; see benchmarks/README.md
	$(BIN)/python benchmarks/run.py

clean:  ## remove the environment and what demo, bench, fuzz and site wrote
	rm -rf $(VENV) $(VENV)-demo $(FLOORS) demo-out bench-out fuzz-out site sbom.json
