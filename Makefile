# demo   train, decode and score the small model on the demo corpus
# test   all tests but soak   lint   ruff, mypy            clean   what these made
# soak   10,000 requests of a fuzzer to a server
PYTHON ?= python3
VENV ?= .venv
# A plain "torch" would bring several GB of CUDA packages where a CPU build of this version is at hand.
TORCH ?= torch==2.13.0
DEMO ?=

BIN := $(abspath $(VENV))/bin

.PHONY: demo test soak lint clean

$(VENV)/.ready: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' \
	  || { echo "error: $(PYTHON) is not Python 3.10 to 3.12; run make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(VENV)/.ready
	cd examples/osum && PATH="$(BIN):$$PATH" bash run.sh $(DEMO)

test: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not soak"

soak: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy wenet_osum

clean:
	rm -rf $(VENV) examples/osum/exp examples/osum/data examples/osum/tensorboard build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
