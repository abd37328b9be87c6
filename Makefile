# Everything runs in a virtual environment of its own; a machine needs Python 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
# Newer Pythons get newer versions of jax. A name on the path may be one of pyenv's that does not run.
NEWEST_PYTHON ?= $(shell for p in python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python3.13) \
	python3.12 $(PYTHON); do $$p -c "" 2>/dev/null && echo $$p && break; done)
NEWEST := .venv-newest

# Its published posteriors alone; what it depends on is large and not looked at.
POSTERIORS := sbibm==1.1.0

.PHONY: reproduce test test-slow test-all test-newest lint docs clean

reproduce: $(VENV)/.installed  ## Train the mixture at two weights; print the table, draw the figures.
	$(RUN) scripts/reproduce.py --preset quick --resume

# Three quarters of a short test is its compilation. This code is compiled fast and runs slowly, which
# the long tests do not stand; they see what a user's compiler makes.
QUICK := XLA_FLAGS="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false \
	--xla_cpu_parallel_codegen_split_count=1"

test: $(VENV)/.installed-dev  ## Run the tests, but for the long ones.
	$(QUICK) $(RUN) -m pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist worksteal

test-slow: $(VENV)/.installed-dev  ## Run the long tests.
	$(RUN) -m pytest -m slow --numprocesses auto --maxprocesses 4 --dist worksteal

# With PyTorch and sbi, several gigabytes, for the tests that are skipped without them.
test-all: $(VENV)/.installed-bench test test-slow  ## Run all tests, also those of torch and sbi.

test-newest:  ## Run the tests with the newest versions of everything, in an environment of their own.
	$(NEWEST_PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --no-compile --upgrade --upgrade-strategy eager -e ".[dev]"
	$(NEWEST)/bin/python -m pip install --quiet --no-compile --no-deps $(POSTERIORS)
	$(NEWEST)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(VENV)/.installed-dev  ## Check style and types.
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

docs: $(VENV)/.installed-dev  ## Build the pages into site/.
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "fpflow needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)

# Compiling bytecode of every dependency takes longer than the few modules that are imported.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --no-compile -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --no-compile -c constraints.txt -e ".[dev]"
	$(RUN) -m pip install --quiet --no-compile --no-deps $(POSTERIORS)
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml constraints.txt | $(VENV)/.installed-dev
	$(RUN) -m pip install --quiet --no-compile -c constraints.txt -e ".[dev,bench]"
	touch $@

clean:
	rm -rf $(VENV) $(NEWEST) results
