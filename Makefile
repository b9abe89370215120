# One command a chore; CI runs these same commands. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
# An environment has absolute paths: in a clone that was moved or copied it is made again.
ifneq ($(wildcard $(VENV)/pyvenv.cfg),)
ifeq ($(shell grep -F " $(abspath $(VENV))" $(VENV)/pyvenv.cfg),)
MOVED := --clear
.PHONY: $(READY) $(DEV)
endif
endif
# What `make repro` and production need; tests and checks need all.
EXTRAS := pipeline,train,serve,kaggle
ALL := $(EXTRAS),pretrained,postgres,sweep,dev
INSTALL := -m pip install --quiet --disable-pip-version-check
# pip resolves neither for the oldest versions nor for other Pythons, and finds no build of torch for the CPU.
UV_BIN := $(shell command -v uv)
UV = $(or $(UV_BIN),.cgan/uv/bin/uv) pip install --quiet $(if $(TORCH),--torch-backend $(TORCH)) --python $(BIN)/python
PIP = $(if $(UV_BIN),$(UV),$(BIN)/python $(INSTALL) --no-compile)
WITH = $(if $(TORCH),$(UV) torch && )$(PIP) -c constraints.txt
# pip compiles on one core, and tests that nobody runs too. Files for other Pythons fail, and are no matter.
COMPILE = $(BIN)/python -m compileall -q -j 0 -x '/tests/' $(VENV)/lib > /dev/null 2>&1 || true
# What Python compiled is kept, or every process of the tests compiles it anew.
unexport PYTHONDONTWRITEBYTECODE
# Everything stays at home: no tool reports its use.
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export MLFLOW_DISABLE_TELEMETRY = true
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help env draw repro test test-all test-lowest test-newest constraints check types lint audit sbom docs bench bench-all bench-gpu test-gpu format ui up deploy down clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

env: $(READY) ## Make the environment (.venv) if it is missing or pyproject.toml or constraints.txt changed

$(READY) $(DEV): pyproject.toml constraints.txt $(if $(TORCH),.cgan/uv/.ready)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cgan needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Making the environment in $(VENV), once: $(if $(EXTRAS),two to five minutes,a minute or two), mostly downloads."
	@command -v nvidia-smi > /dev/null || [ "$(TORCH)" ] || \
	  echo "pip takes torch with CUDA on Linux, 4.4 GB more. No NVIDIA driver is here. Without: make $(or $(GOAL),$(MAKECMDGOALS),env) TORCH=cpu"
	$(PYTHON) -m venv $(MOVED) $(VENV)
	$(WITH) -e '.$(if $(EXTRAS),[$(if $(filter $@,$(DEV)),$(ALL),$(EXTRAS))])'
	@$(COMPILE)
	@touch $(READY) $@

draw: ## Draw 2024 with the embedded generator, in an environment of six packages (.cgan/draw)
	@$(MAKE) --silent --no-print-directory env VENV=.cgan/draw EXTRAS= COMPILE=: GOAL=draw
	@.cgan/draw/bin/cgan draw $(or $(TEXT),2024)

repro: $(READY) ## Run the stages that are stale; print the metrics, and where to find pictures and runs
	dvc repro
	@cgan report

# More processes than two cores have, for tests wait a quarter of their time: for a server, a lock or a signal. A file
# stays in one process, so that what its tests share is made once; and files start in the order of tests/conftest.py,
# for by default those with few tests come last, and the longest are among them.
PROCESSES ?= 3
PYTEST = $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder --durations 15 --durations-min 1
test: $(DEV) ## Run the quick tests
	$(PYTEST) $(LEFT_OUT)

test-gpu: $(DEV) ## Run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

test-all: $(DEV) ## Run the checks and all tests, also with oldest and newest versions (half an hour on two cores); writes .cgan/test-all.json
	@mkdir -p .cgan; passed=false; began=$$(date +%s); commit="$$(git rev-parse HEAD)$$(git diff --quiet HEAD || echo ', changed')"; \
	$(MAKE) --no-print-directory check test && $(PYTEST) -m 'slow and not gpu' && \
	$(MAKE) --no-print-directory test-lowest test-newest && passed=true; \
	printf '{"commit": "%s", "passed": %s, "date": "%s", "seconds": %s}\n' "$$commit" $$passed "$$(date -u +%FT%TZ)" \
	  $$(($$(date +%s) - began)) \
	  > .cgan/test-all.json; cat .cgan/test-all.json; $$passed

check: $(DEV) ## Check format, lint, types, import contracts, declared dependencies and security
	@$(MAKE) --no-print-directory -j2 --output-sync types lint

types: $(DEV)
	mypy

lint: $(DEV)
	ruff format --check .
	ruff check .
	DENO_NO_UPDATE_CHECK=1 deno fmt --check --quiet
	DENO_NO_UPDATE_CHECK=1 deno lint --quiet
	lint-imports
	deptry .
	bandit --quiet --severity-level medium --recursive --configfile pyproject.toml cgan flows

audit: $(DEV) ## Look for known vulnerabilities in the installed packages (asks the package index)
	$(PYTHON) -m venv .cgan/audit
	.cgan/audit/bin/python $(INSTALL) pip-audit
	$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check > .cgan/audit/installed.txt
	.cgan/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement .cgan/audit/installed.txt

sbom: $(DEV) ## List the installed packages and their licenses, as CycloneDX in .cgan/sbom.json
	$(PYTHON) -m venv .cgan/audit
	.cgan/audit/bin/python $(INSTALL) cyclonedx-bom
	.cgan/audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file .cgan/sbom.json $(BIN)/python

# pdoc sees no name that is loaded when it is asked for.
docs: $(DEV) ## Render the docstrings of the Python interface as pages (.cgan/docs)
	@$(BIN)/python -c "import cgan, pathlib, pdoc; vars(cgan).update((name, getattr(cgan, name)) for name in cgan.__all__); \
	  pdoc.pdoc('cgan', output_directory=pathlib.Path('.cgan/docs'))"
	@echo .cgan/docs/cgan.html

bench: $(DEV) ## Measure training, quality, service and page; check what the docs promise (10 minutes)
	python -m benchmarks short

bench-all: $(DEV) ## The same with more rounds and 3 seeds (an hour)
	python -m benchmarks all

bench-gpu: $(DEV) ## Measure training speed and quality on a CUDA device
	python -m benchmarks gpu

# In an environment of its own, which goes afterwards. Left out: to compile what will be imported twice, and what no
# version of a package breaks: the page's own JavaScript in a browser, git, the texts of this repository.
SAME_FOR_ALL = test_play test_git test_code test_dvc_wiring
OTHERS = $(MAKE) --no-print-directory COMPILE=: LEFT_OUT='$(SAME_FOR_ALL:%=--ignore-glob=*/%.py)'
test-lowest: .cgan/uv/.ready ## Run the quick tests with the oldest versions that pyproject.toml allows
	rm -rf .cgan/lowest
	$(OTHERS) test VENV=.cgan/lowest WITH='$$(UV) --resolution lowest-direct'
	rm -rf .cgan/lowest

# The oldest versions on the oldest Python, the newest on the newest that is here, on the PATH or of pyenv: what works
# with both works between.
NEWEST = $(firstword $(foreach version,3.13 3.12 3.11,$(shell for python in python$(version) \
  $(wildcard $(shell pyenv root 2> /dev/null)/versions/$(version).*/bin/python); do \
  $$python -m ensurepip --version > /dev/null 2>&1 && echo $$python && break; done)))
test-newest: .cgan/uv/.ready ## Run the quick tests with the newest versions of everything (NEWEST=python3.12: on that Python)
	rm -rf .cgan/newest
	$(OTHERS) test VENV=.cgan/newest WITH='$$(UV)' PYTHON=$(NEWEST)
	rm -rf .cgan/newest

# What a universal resolution gives, for all systems and Pythons. torch and its CUDA libraries are the user's choice.
constraints: .cgan/uv/.ready ## Write constraints.txt: today's newest versions of everything that `make env` installs
	@{ grep '^#' constraints.txt; echo '.[$(ALL),ssh,s3]' | .cgan/uv/bin/uv pip compile --quiet --universal \
	  --no-header --no-annotate --python-version 3.11 - | grep -vE '^(\.|torch=|triton=|nvidia-|cuda-)'; } \
	  > .cgan/constraints.txt && mv .cgan/constraints.txt constraints.txt

.cgan/uv/.ready:
	$(PYTHON) -m venv .cgan/uv
	.cgan/uv/bin/python $(INSTALL) uv
	@touch $@

format: $(DEV) ## Format the code
	ruff format .
	ruff check --fix .
	DENO_NO_UPDATE_CHECK=1 deno fmt

ui: $(READY) ## Browse the runs in MLflow, http://127.0.0.1:5000
	cgan ui

up: $(READY) ## Start Prefect, its worker and MLflow on loopback (PREFECT_PORT=4200 MLFLOW_PORT=5000)
	@python -m flows.production up

deploy: $(READY) ## Schedule the commit of HEAD, as prefect.yaml says
	@python -m flows.production deploy

down: $(READY) ## Stop what `make up` started; a training saves a checkpoint
	@python -m flows.production down

clean: ## Remove caches and build leftovers; data, models and runs stay
	rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find cgan flows tests -name __pycache__ -type d -exec rm -rf {} +
