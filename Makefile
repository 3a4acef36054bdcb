# The two commands of the README are `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= quickstart-out
# Commands are started hundreds of times by tests: their modules are compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-slow bench lint clean

quickstart: .venv/package
	$(BIN)/otoscope quickstart $(OUT)

test: .venv/dev lint
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: .venv/triton
	$(BIN)/pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder

bench: .venv/dev
	$(BIN)/python -m benchmarks

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/vocabulary.py

.venv/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/package: .venv/pip pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

.venv/dev: .venv/package
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

.venv/triton: .venv/dev
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[triton]'
	touch $@

clean:
	rm -rf .venv build dist $(OUT)
