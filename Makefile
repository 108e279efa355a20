# Thin: every target is one command that also works by hand.
SHELL := /bin/bash
UV := .tools/uv/bin/uv
RUN := .venv/bin/python -X dev
VALIDATORS ?= 1

.PHONY: setup system engine demo test test-long alarms check bench bench-memory clean
setup: .venv/.installed

# uv lives in a virtual environment of its own, so that `uv sync` never removes it.
$(UV):
	@echo "setup: a virtual environment for uv in .tools/uv"
	@python3 -m venv .tools/uv && .tools/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<0.14'

.venv/.installed: $(UV) uv.lock pyproject.toml
	@echo "setup: Python packages of uv.lock into .venv"
	@$(UV) sync --frozen --quiet
	@touch $@

# Debian's packages for nodes (containers, images, networks). Asks apt only for what is missing.
system: setup
	@scripts/install-system.sh

# The engine of many validators: CometBFT at one pinned version, built once from source and kept in the user's cache.
engine: setup
	@.venv/bin/freehold ledger install

demo: system $(if $(filter-out 1,$(VALIDATORS)),engine)
	@.venv/bin/freehold-demo --validators $(VALIDATORS)

test: system engine
	@.venv/bin/python -m pytest -m "not long"

test-long: system engine
	@scripts/install-system.sh --all
	@scripts/install-prometheus.sh
	@HYPOTHESIS_PROFILE=ci .venv/bin/python -m pytest --timeout 3600

# What Prometheus' own checker says of the operators' alarms.
alarms: setup
	@scripts/install-prometheus.sh
	@.tools/prometheus/promtool check rules docs/alarms.yml
	@.tools/prometheus/promtool test rules tests/vectors/alarms.test.yml

# Coverage-guided, each reader of outside bytes for SECONDS; findings go to tests/fuzz/findings.
SECONDS_EACH ?= 60
fuzz: setup
	@UV_PROJECT_ENVIRONMENT=.tools/fuzz $(UV) sync --frozen --quiet --group fuzz
	@.tools/fuzz/bin/python tests/fuzz --seconds $(SECONDS_EACH)

check: setup
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports && .venv/bin/deptry src && .venv/bin/vulture

bench: system engine
	@.venv/bin/python -m benchmarks

bench-memory: system engine
	@.venv/bin/python -m benchmarks comet.memory.million

clean:
	@rm -rf .venv .tools .cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
