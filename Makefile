PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
NAME := quickstart-$(shell date +%Y%m%d-%H%M%S)

.PHONY: train test serve chaos check-deploy lint format clean

train: .venv/installed  ## get sample CT, simulate low-dose scans, train, evaluate, show where the pictures are
	$(BIN)/python -m fbp_ray.train --run.name $(NAME)
	$(BIN)/python -m fbp_ray.evaluate --checkpoint runs/$(NAME)

test: .venv/installed lint  ## style, types and tests
	$(BIN)/python -m pytest

serve: .venv/installed  ## answer reconstructions and run jobs over HTTP, on http://127.0.0.1:8000
	$(BIN)/python -m service --log text

chaos: .venv/installed  ## kill workers, drivers and machines in the middle of runs (minutes; best as root)
	$(BIN)/python -m pytest -m chaos

check-deploy: .venv/installed  ## docker/: linters, schemas, and what the images run, run on four hosts of this machine
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,deploy]'
	$(BIN)/python -m tests.deploy
	$(BIN)/python -m pytest tests/deploy/test_deploy.py
	$(BIN)/python -m tests.deploy.replay $(REPLAY)

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed  ## put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv: .venv/installed  ## the environment, with the pinned versions

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fbp-ray needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say which one to use: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:  ## remove the environment and the caches, not the runs and the data
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
