PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# One process more than the machine has processors (some tests wait), one thread in each; how tests are shared out is in tests/conftest.py.
PARALLEL := -n $(shell $(PYTHON) -c "import os; print(min(8, (os.cpu_count() or 1) + 1))") --dist loadgroup --no-loadscope-reorder

# What is compiled once, tests with rewritten asserts too, is not compiled again by every process of every run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-faults test-kinds test-kernels test-lowest test-browser lint types wheel docs speed goldens clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

demo: $(STAMP)
	$(BIN)/ttd demo --out out/demo

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow and not browser'

test-slow: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m 'slow and not kinds and not browser'

# Every documented command with every kind of model: minutes of a processor's time, not part of .ci/run.
test-kinds: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m kinds

# Seeded damage to every kind of file that is read: FUZZ cases in all, SEED=N for others.
test-faults: $(STAMP)
	FUZZ=$(or $(FUZZ),10000) SEED=$(or $(SEED),0) $(BIN)/python -m pytest -m slow tests/faults

# Two combinations of older kernels and threads; ALL=1 runs every one.
test-kernels: $(STAMP)
	$(BIN)/python tools/test_kernels.py $(if $(ALL),--all)

# The fast tests with the lowest version that pyproject.toml allows of everything but torch, in a set-up of its own.
LOWEST := .venv-lowest

$(LOWEST)/.installed: $(STAMP) tools/lowest_versions.py
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(BIN)/python tools/lowest_versions.py pyproject.toml dev siglip nouns scenes tensorboard > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -e . -r $(LOWEST)/lowest.txt -c constraints.txt
	touch $@

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest $(PARALLEL) -m 'not slow and not browser'

test-browser: $(STAMP)
	tools/install_chromium.sh
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[browser]' -c constraints.txt
	$(BIN)/python -m pytest -m browser tests/app

lint: $(STAMP)
	$(BIN)/ruff check src tests experiments speed tools
	$(BIN)/ruff format --check src tests experiments speed tools
	$(BIN)/vermin --target=3.10- --no-tips --quiet --violations --exclude long --exclude str.decode src experiments

types: $(STAMP)
	$(BIN)/mypy

wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation .

# The site in out/site; a broken link, a page that no menu has or a name that is gone ends it.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' -c constraints.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

speed: $(STAMP)
	$(BIN)/python -m speed

# BASE=COMMIT: what this tree gives otherwise than that commit; ONLY="NAME ..." for some of the goldens.
goldens: $(STAMP)
	$(BIN)/python -m tools.goldens $(BASE) $(addprefix --only ,$(ONLY))

clean:
	rm -rf $(VENV) $(LOWEST) dist build out
