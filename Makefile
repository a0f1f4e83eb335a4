# Two commands do all on a fresh machine: make demo, make test.
PYTHON ?= python3
BACKBONE ?= mini
BIN := .venv/bin

# Threads of torch that wait for each other sleep instead of spinning. On a machine that does other
# work as well, spinning made training many times slower.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help demo test lint clean

help:
	@echo "make demo                     transfer learning on scikit-learn's digits, with a table and a figure"
	@echo "make demo DATA=folder         the same on folder/<class>/<image>"
	@echo "make demo BACKBONE=resnet18   the same with another backbone"
	@echo "make test                     the test suite"
	@echo "make lint                     ruff, as pre-commit runs it"

demo: .venv/installed-demo
	$(BIN)/python examples/demo.py --backbone "$(BACKBONE)" $(if $(DATA),--data "$(DATA)")

test: .venv/installed-test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf .venv out build *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "sktransfer needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "this Python can't make virtual environments (on Debian: apt install python3-venv)"; exit 1; }

# An extra a stamp: what is installed is not installed again until pyproject.toml changes.
.venv/installed-%: pyproject.toml | .venv/bin/python
	@echo "installing sktransfer[$*]; torch is large, this takes a few minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@
