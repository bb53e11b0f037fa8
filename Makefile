# The commands of this repository. `make run` and `make test` are all that a newcomer needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from
PYTEST_ARGS ?= -n auto --dist loadgroup
DEMO_ROOT := var/demo

.PHONY: help setup lock run test check format bench docs clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

# The environment is made anew only when what it is made from has changed: the interpreter, the
# place, the pins or the project's own metadata (what stands before the settings of the tools).
setup: ## the virtual environment, with every dependency at its pinned hash
	@key=$$({ $(PYTHON) -VV; pwd; cat requirements/dev.txt; sed '/^\[tool.ruff/q' pyproject.toml; } | sha256sum); \
	[ "$$(cat $(STAMP) 2>/dev/null)" = "$$key" ] && exit 0; \
	set -e; \
	[ "$$($(BIN)/python -VV 2>/dev/null)" = "$$($(PYTHON) -VV)" ] || $(PYTHON) -m venv --clear $(VENV); \
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt; \
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .; \
	echo "$$key" > $(STAMP); \
	echo "$(VENV) is ready"

lock: ## resolve requirements/dev.in anew into dev.txt (needs uv)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  requirements/dev.in -o requirements/dev.txt
	{ echo '# Made from dev.in by `make lock`; works for Python 3.11 to 3.13.'; cat requirements/dev.txt; } \
	  > requirements/dev.txt.new && mv requirements/dev.txt.new requirements/dev.txt

run: setup ## atlasd with the demo shop; Ctrl-C stops it
	@mkdir -p $(DEMO_ROOT)
	@ATLASD_BANNER=1 exec $(BIN)/atlasd run --root $(DEMO_ROOT) --config etc/demo/atlasd.toml

test: setup ## everything: lint, types, then every test
	@requirements/install-debian
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: setup ## lint, layout, types and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	cd etc/demo && ../../$(BIN)/mypy --config-file ../../pyproject.toml *.py
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: setup ## lay the code out
	$(BIN)/ruff format

bench: setup ## atlasd beside its peers, in one run
	$(BIN)/python -m benchmarks

docs: setup ## the documentation as HTML, any warning is an error
	$(BIN)/python -m docs.generate
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## remove what the other commands made
	rm -rf $(VENV) docs/_build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis
	find atlasd plugins tests docs etc benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	@[ ! -e var ] || echo "var/ is kept: it may belong to a running atlasd"
