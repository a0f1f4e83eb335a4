# Two commands do all on a fresh machine: make demo, make test.
PYTHON ?= python3
BACKBONE ?= mini
BIN := .venv/bin
LOWEST := .venv-lowest/bin

# Threads of torch that wait for each other sleep instead of spinning, also where torch is imported
# before the package, which else sees to it (docs/parallel.md, "On a busy machine").
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help demo test test-lowest wheel test-wheel lint docs docs-test clean

help:
	@echo "make demo                     transfer learning on scikit-learn's digits, with a table and a figure"
	@echo "make demo DATA=folder         the same on folder/<class>/<image>"
	@echo "make demo BACKBONE=resnet18   the same with another backbone"
	@echo "make test                     the test suite"
	@echo "make test-lowest              the same with the lowest supported version of everything"
	@echo "make wheel                    the sdist and the wheel in dist/, checked, their contents listed"
	@echo "make test-wheel               the test suite against the wheel, in a virtual environment of its own"
	@echo "make lint                     ruff and mypy, as pre-commit runs them"
	@echo "make docs                     the site, in build/docs/html"
	@echo "make docs-test                that site in a browser: links, console, widths, search"

demo: .venv/installed-demo
	$(BIN)/python examples/demo.py --backbone "$(BACKBONE)" $(if $(DATA),--data "$(DATA)")

# A worker for each core, up to four: each holds a copy of torch. The tests of one file share what
# they set up, and stay together.
test: .venv/installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

test-lowest: .venv-lowest/installed
	$(LOWEST)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

# The wheel is built from the sdist, as whoever gets the sdist builds it.
wheel: .venv/installed-dev
	rm -rf dist build/wheel
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	@$(BIN)/python -m zipfile --list dist/sktransfer-*.whl
	@du -h dist/*

# The suite is that of the sdist, without the package beside it: what is tested is the wheel.
test-wheel: wheel
	rm -rf .venv-wheel build/sdist && mkdir -p build/sdist
	tar -xzf dist/sktransfer-*.tar.gz -C build/sdist --strip-components=1
	rm -rf build/sdist/sktransfer build/sdist/*.egg-info
	$(PYTHON) -m venv .venv-wheel
	@echo "installing the wheel and what its tests need; torch is large, this takes a few minutes"
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check "$$(echo dist/sktransfer-*.whl)[test]"
	cd build/sdist && ../../.venv-wheel/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

# mypy reads the types of the libraries that the test extra installs.
lint: .venv/installed-test .venv/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Without a network, and a warning is an error. Examples that did not change are not run again, and what
# they store is in build/docs: DOCS_ARGS="-D plot_gallery=0" runs none, DOCS_ARGS=-E reads every page anew.
docs: .venv/installed-docs
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going \
	  --doctree-dir build/docs/doctrees $(DOCS_ARGS) docs build/docs/html
	@echo "site: build/docs/html/index.html"

# Fails, and says why, where there is no site or no browser.
docs-test: .venv/installed-docs
	$(BIN)/python -m pytest docs/tests $(PYTEST_ARGS)

clean:
	rm -rf .venv .venv-lowest .venv-wheel out build dist docs/api docs/gallery *.egg-info

.venv/bin/python .venv-lowest/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "sktransfer needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(@:/bin/python=) \
	  || { rm -rf $(@:/bin/python=); echo "this Python can't make virtual environments (on Debian: apt install python3-venv)"; exit 1; }

# An extra a stamp: what is installed is not installed again until pyproject.toml changes.
.venv/installed-%: pyproject.toml | .venv/bin/python
	@echo "installing sktransfer[$*]; torch is large, this takes a few minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

# The file names what the suite needs as well, so that no extra is asked for: pip could not
# leave out the one package whose lowest version does not go with the others.
.venv-lowest/installed: pyproject.toml tests/lowest.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "the lowest versions need the lowest Python; name it: make test-lowest PYTHON=python3.11"; exit 1; }
	@$(MAKE) --no-print-directory .venv-lowest/bin/python
	@echo "installing the lowest versions; torch is large, this takes a few minutes the first time"
	@$(LOWEST)/python -m pip install --quiet --disable-pip-version-check --requirement tests/lowest.txt --editable .
	@touch $@
