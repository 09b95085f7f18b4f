# Two commands set everything up on a machine that has Python and pip:
#   make demo   builds every dataset from dummy_data/ and prints it
#   make test   runs the whole test suite
# PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-slow test-lowest lint benchmark clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of extras, so that nothing is installed twice.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	touch $@

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python dummy_data/demo.py

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

# The suite with the oldest versions that pyproject.toml allows.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
	    --resolution lowest-direct -e ".[test]"
	.venv-lowest/bin/python -m pytest -m "not slow"

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

benchmark: $(VENV)/.installed-benchmark
	$(BIN)/python benchmarks/laion400m_images.py

clean:
	rm -rf $(VENV) .venv-lowest build
