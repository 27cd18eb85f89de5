# Everything a newcomer needs: `make demo`, `make test`. Both set themselves up in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
WORKERS ?= 3

.PHONY: help setup demo demo-small test quick kernels-proof lint types clean

help:
	@echo "make demo    set up, then the main job for real: films -> shards -> training -> reports -> scores -> a page"
	@echo "make test    set up, then all tests, in three processes at a time, for many wait (WORKERS=8 on a larger machine)"
	@echo "make quick   the tests that need no second process, browser, cluster or pretrained weights"
	@echo "make kernels-proof   compile every kernel for sm_80 and sm_90: registers, spills, shared memory"
	@echo "make lint    ruff, types, shellcheck"
	@echo "make clean   remove what make made (not your runs)"

setup: $(STAMP)

$(STAMP): setup.py constraints.txt tools/setup.sh
	PYTHON=$(PYTHON) tools/setup.sh $(VENV)
	@touch $@

demo: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" tools/demo.sh

demo-small: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" RRG_DEMO=small tools/demo.sh

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

quick: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not multiprocess and not slow and not embedded and not browser and not slurm"

kernels-proof: $(STAMP)
	$(BIN)/python -m rrg_kernels.proof

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck -x tools/*.sh slurm/*.sh .ci/run

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
