PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
NAME := quickstart-$(shell date +%Y%m%d-%H%M%S)

# Packages and modules of fbp_ray. The first warning that `make docs` lets pass is about NamedTuples, whose annotations pdoc shows as
# they are written; Ray warns of its own settings when it is imported.
DOCUMENTED := $(subst /,.,$(patsubst %.py,%,$(filter-out %/__init__.py,$(wildcard fbp_ray/*.py))) $(patsubst %/__init__.py,%,$(wildcard fbp_ray/*/__init__.py)))

PAGE := $(addprefix service/page/,build.js index.html icon.svg style.css tsconfig.json) $(shell find service/page/src -type f)

.PHONY: help train test serve page page-if-node page-types test-page page-pictures weights docs figures chaos check-deploy lint format constraints clean

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-14s %s\n' "$$name" "$$text"; done

train: .venv/installed  ## get sample CT, simulate low-dose scans, train, evaluate, show where the report is
	$(BIN)/python -m fbp_ray.train --run.name $(NAME)
	$(BIN)/python -m fbp_ray.evaluate --checkpoint runs/$(NAME)

test: .venv/installed lint  ## style, types and tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup

serve: .venv/installed page-if-node  ## answer reconstructions and run jobs over HTTP, on http://127.0.0.1:8000
	$(BIN)/python -m service --log text

page: service/page/dist/manifest.json  ## build the service's page, which `make serve`, wheels and images contain (Node 20)

page-if-node:  # a service without its page answers as ever
	@if ! command -v npm >/dev/null; then echo 'no Node here: the service runs without its page'; \
		elif ! $(MAKE) --no-print-directory page; then echo 'the page could not be built: the service runs without it'; fi

service/page/dist/manifest.json: $(PAGE) service/page/node_modules/installed
	cd service/page && npm run --silent build

service/page/node_modules/installed: service/page/package-lock.json
	cd service/page && npm ci --silent --no-audit --no-fund
	touch $@

page-types: .venv/installed service/page/node_modules/installed  ## the page's types of requests and answers, anew
	cd service/page && node types.js $(abspath $(BIN))/python

test-page: .venv/installed page  ## drive the page in Chromium, as users do (two minutes at most)
	cd service/page && PYTHON=$(abspath $(BIN))/python npm test --silent

page-pictures: .venv/installed page  ## the pictures of docs/page.md, anew, by Chromium
	cd service/page && PYTHON=$(abspath $(BIN))/python node test/pictures.js $(abspath docs/page)

weights: .venv/installed  ## train the model that comes with the package, on the sample CT, anew (some minutes)
	$(BIN)/python -m benchmarks.weights

docs: .venv/installed  ## the API reference from the docstrings, in build/docs
	PDOC_ALLOW_EXEC=1 $(BIN)/python -W error -W 'ignore:Error parsing type annotation' -W 'ignore::DeprecationWarning:ray' \
		-m pdoc --docformat google --output-directory build/docs fbp_ray $(DOCUMENTED)
	@echo 'open build/docs/index.html'

figures: .venv/installed  ## the size of the code, the private names, the words of the README; where the other figures come from
	$(BIN)/python -m benchmarks.house

chaos: .venv/installed  ## kill workers, drivers and machines in the middle of runs (a quarter of an hour; best as root)
	$(BIN)/python -m pytest -m chaos

check-deploy: .venv/installed  ## docker/: linters, schemas, and what the images run, run on four hosts of this machine
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,deploy]'
	$(BIN)/python -m tests.deploy
	$(BIN)/python -m pytest tests/deploy/test_deploy.py
	$(BIN)/python -m tests.deploy.replay $(REPLAY)

lint: .venv/installed  ## style and types alone
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed  ## put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints:  ## resolve every dependency anew in an empty environment, and write constraints.txt
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet --upgrade pip
	build/constraints/bin/python -m pip install --quiet '.[dev,deploy,bench]'
	(echo '# The versions that everything was tested with; pyproject.toml has the ranges that should work. Made by `make constraints`.' && \
		build/constraints/bin/python -m pip freeze --exclude fbp-ray) > constraints.txt

.venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fbp-ray needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say which one to use: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:  ## remove the environment and the caches, not the runs and the data
	rm -rf service/page/dist service/page/node_modules .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build
