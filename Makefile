# `make demo` shows it, `make new` makes a project, `make test` tests the template. `make help` lists the rest.

# The first python3 that is new enough; `make PYTHON=/path/to/python3` chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
UV_INSTALL = $(BIN)/uv pip install --quiet --require-hashes --python $(BIN)/python --requirement
export OUT ?= ..
# Images of containers like to set it, and each of the thousands of processes of a test would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo new test faults faults-full lint bench lock clean help

demo: .venv/tools  ## generate a project, run it, kill its worker, count what is lost
	@$(BIN)/python scripts/demo.py

new: .venv/tools  ## ask cookiecutter's questions and write the project beside this folder, or in OUT
	@$(BIN)/python scripts/new.py $(ARGS)

test: .venv/tests  ## test the template and what it generates; ARGS go to pytest
	$(BIN)/python -m pytest $(ARGS)

faults faults-full: .venv/tools  ## kill real processes on both brokers, print what is lost; -full compares, and writes docs/faults.md
	$(BIN)/python scripts/faults.py $@

lint: .venv/tests  ## format and lint, this repository and the template before it is rendered
	$(BIN)/ruff format --check hooks scripts tests
	$(BIN)/ruff check hooks scripts tests
	$(BIN)/ruff check --isolated --no-cache --select E9,F --ignore F811 '{{cookiecutter.project_slug}}'
	$(BIN)/zizmor --offline --pedantic --quiet .github

bench: .venv/tests  ## measure, and write docs/benchmarks.md; ARGS="watching probes" renews these sections alone
	$(BIN)/python -m scripts.bench $(ARGS)

lock: .venv/tools  ## renew the exact versions, this repository's and the template's
	$(BIN)/python scripts/lock.py

clean:  ## remove everything that the other commands made
	@for project in build/*/*/; do test ! -e "$$project/Makefile" || $(MAKE) -C "$$project" clean; done
	rm -rf .venv build .pytest_cache .ruff_cache

help:
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

.venv/uv: requirements/uv.txt
	$(or $(PYTHON),$(error Python 3.11 or newer is needed: make PYTHON=/path/to/python3)) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

.venv/tools .venv/tests: .venv/%: requirements/%.txt .venv/uv
	$(UV_INSTALL) $<
	@touch $@
