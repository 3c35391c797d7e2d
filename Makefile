# Every target sets up what it needs (tools/setup) and works from a clean clone.

.PHONY: help demo test check bench soak docs docs-commands fuzz clean
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
FUZZ_SECONDS ?= 20
SOAK ?= 200

help:
	@echo "make demo    publish a tree, serve it, mount it, run a program from it, show what it cost"
	@echo "make test    all tests, those with real mounts and servers too"
	@echo "make check   format, lint, types, import rules, quick tests, documentation: before a commit"
	@echo "make bench   the measurements of benchmarks/RESULTS.md (BENCH='options')"
	@echo "make soak    the model test with SOAK ($(SOAK)) other histories of random operations"
	@echo "make docs    the documentation as HTML, in docs/_build/html"
	@echo "make docs-commands  docs/reference/commands.md from the help texts"
	@echo "make fuzz    every parser for FUZZ_SECONDS ($(FUZZ_SECONDS)) seconds"
	@echo "make clean   remove everything made here"

demo:
	@tools/setup demo
	@$(PYTHON) tools/demo.py

test:
	@tools/setup test
	$(PYTHON) -m pytest -n auto --dist worksteal -m "not system" $(PYTEST); quick=$$?; \
	$(PYTHON) -m pytest -m system $(PYTEST) && exit $$quick

check:
	@tools/setup check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m ruff check
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) -m pytest -q -n auto --dist worksteal -m "not system" $(PYTEST)
	$(PYTHON) -m sphinx -q -W --keep-going -b html docs docs/_build/html

bench:
	@tools/setup bench
	$(PYTHON) -m benchmarks $(BENCH)

soak:
	@tools/setup test
	OUTCROP_SOAK=$(SOAK) OUTCROP_SOAK_FROM=$$(date +%s) $(PYTHON) -m pytest -q tests/publisher/test_model.py

docs:
	@tools/setup docs
	$(PYTHON) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

docs-commands:
	@tools/setup docs
	$(PYTHON) -m outcrop.cli.reference > docs/reference/commands.md
	$(PYTHON) -m outcrop.cli.dropin.reference

fuzz:
	@tools/setup fuzz
	$(PYTHON) -m fuzz --seconds $(FUZZ_SECONDS)

clean:
	rm -rf .venv build docs/_build benchmarks/build benchmarks/results src/outcrop.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f src/outcrop/*/*.so
	find src tests tools -name __pycache__ -prune -exec rm -rf {} +
