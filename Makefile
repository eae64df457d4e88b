# make demo    set everything up and see an agent remember
# make test    set everything up and run every check
.DEFAULT_GOAL := help
SHELL := /bin/bash

export PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What the tests pool with, measure with and are watched by.
PACKAGES := npm pgbouncer prometheus prometheus-alertmanager prometheus-postgres-exporter \
	prometheus-pgbouncer-exporter
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider -n logical --dist loadfile

.PHONY: help setup demo test check format generate bench chaos conformance clean

help: ## Show what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: ## Make the virtual environment with everything in it
	@tools/system_packages.sh python3-venv
	@$(MAKE) --no-print-directory $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' --group dev
	touch $@

demo: setup ## Play a planning agent with a memory, on a real PostgreSQL started here
	$(BIN)/pgrecall demo

test: setup check ## Run every check and test; the integration tests a second time through PgBouncer
	@tools/system_packages.sh $(PACKAGES)
	$(PYTEST)
	PGRECALL_TEST_POOLER=1 $(PYTEST) tests/integration
	PGRECALL_TEST_CHAOS=1 $(BIN)/python -m pytest -p no:cacheprovider tests/chaos/test_chaos.py \
		tests/chaos/test_switching.py tests/chaos/test_bulk.py

check: setup ## Style, types, and the generated files against their sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/unasync.py --check
	$(BIN)/python tools/cli_reference.py --check
	$(BIN)/python tools/python_reference.py --check
	$(BIN)/python tools/metrics_reference.py --check
	$(BIN)/python tools/openapi.py --check
	$(BIN)/python tools/dashboards.py --check
	$(BIN)/python tools/chart.py --check

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: setup ## Make the files that are made from others
	$(BIN)/python tools/unasync.py
	$(BIN)/python tools/cli_reference.py
	$(BIN)/python tools/python_reference.py
	$(BIN)/python tools/metrics_reference.py
	$(BIN)/python tools/openapi.py
	$(BIN)/python tools/dashboards.py
	$(BIN)/python tools/chart.py

bench: setup ## Measure recall, against the floor (the same SQL on a raw connection), and what observing and backups cost
	$(BIN)/python -m venv --without-pip $(VENV)/peers
	$(BIN)/python -m pip --python $(VENV)/peers/bin/python install --quiet --disable-pip-version-check --group bench
	$(BIN)/python -m benchmarks.floor
	$(BIN)/python -m benchmarks.observing
	$(BIN)/python -m benchmarks.backing_up
	$(BIN)/python -m benchmarks.bulk
	$(BIN)/python -m benchmarks.bursting
	$(BIN)/python -m benchmarks.recall
	$(BIN)/python -m benchmarks.recording
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.retrieval
	$(BIN)/python -m benchmarks.stores

chaos: setup ## Break servers, connections, disks and runs half-way, and count what was lost
	@tools/system_packages.sh $(PACKAGES)
	$(BIN)/python -m tests.chaos --rounds 3
	$(BIN)/python -m tests.chaos.switching
	$(BIN)/python -m tests.chaos.bulk

conformance: setup ## Ask the HTTP interface thousands of generated questions; the suites of others' interfaces
	@tools/system_packages.sh $(PACKAGES)
	PGRECALL_CONFORMANCE_EXAMPLES=200 $(BIN)/python -m pytest -p no:cacheprovider -s tests/conformance

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
