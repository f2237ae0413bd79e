# Everything is installed into .venv, on first use; tests/install.sh says how.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test test-all bench lint format schema clean

help: ## list what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## start the sidecar in front of a built-in provider, and print lines to try
	@tests/install.sh demo
	@$(BIN)/sse-sidecar demo $(ARGS)

test: ## run the tests, all but the long ones
	@tests/install.sh test
	$(BIN)/python -m pytest -m "not long" --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

test-all: ## run all tests: soaks, gigabytes and corpora take many minutes
	@tests/install.sh test-all
	$(BIN)/python -m pytest $(ARGS)

bench: ## measure what an event costs, here and through other proxies: forty minutes, or ARGS=--quick
	@tests/install.sh bench $(ARGS)
	$(BIN)/python -m bench $(ARGS)

lint: ## check style, types and the direction of imports
	@tests/install.sh test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: ## put the code into shape
	@tests/install.sh test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: ## write config/schema.json anew, from the settings in proxy/config
	@tests/install.sh demo
	$(BIN)/sse-sidecar schema > config/schema.json.new
	mv config/schema.json.new config/schema.json

clean: ## remove everything that was made, the installed packages too
	rm -rf bench/.venv-litellm bench/native/build bench/results/dev bench/contestants/resumable-stream/node_modules
	rm -rf tests/conformance/.autobahn tests/nginx/.current tests/peers/node/node_modules tests/web/node/node_modules
	rm -rf tests/sdks/node/node_modules tests/emit/node/node_modules tests/react/node_modules
	rm -rf .venv build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
