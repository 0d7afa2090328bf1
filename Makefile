# Everything runs in .venv, which is made from pyproject.toml the first time it is needed.

PYTHON ?= python3
BIN := .venv/bin
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
TORCH_CPU := https://download.pytorch.org/whl/cpu

.PHONY: help demo test corpus bench lab data tools clean

help:
	@echo "make demo    convert, prove and export the shipped model into out/demo"
	@echo "make test    style, types and every test"
	@echo "make corpus  every public cfg against its golden values; the table goes to out/corpus.md (an hour)"
	@echo "make lab     open the notebooks"
	@echo "make bench   measure time and memory"
	@echo "make data    draw the pictures and train the shipped models again"
	@echo "make clean   remove what the others made, except .venv"

demo: .venv/.installed
	$(BIN)/workbench demo --out out/demo

test: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile --durations=15

corpus: .venv/.installed
	$(BIN)/python tests/corpus.py --out out

bench: .venv/.installed
	$(BIN)/python tests/benchmarks/run.py

lab: .venv/.installed
	$(BIN)/workbench lab

data: .venv/.installed
	$(BIN)/python -m data.draw
	$(BIN)/python -m data.train

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -print | xargs rm -rf

# The plain wheel of torch brings CUDA to Linux, some gigabytes; without an NVIDIA GPU the CPU wheel is enough.
.venv/.installed: pyproject.toml | tools
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	  if $(BIN)/python -c 'import urllib.request as r; r.urlopen("$(TORCH_CPU)/torch/", timeout=5)' 2>/dev/null; then \
	    $(BIN)/pip install --quiet --index-url $(TORCH_CPU) "$(TORCH)"; \
	  else \
	    echo "$(TORCH_CPU) does not answer: $(TORCH) comes from PyPI"; \
	  fi; \
	fi
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@

# What comes as Debian packages: installed where make may, else named. Nothing here stops make.
tools:
	@need() { \
	  eval "$$2" >/dev/null 2>&1 && return; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Debian's $$1"; \
	    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $$1; } >/dev/null; \
	  fi; \
	  eval "$$2" >/dev/null 2>&1 || echo "$$1 is missing: $$3 (Debian: apt install $$1)"; \
	}; \
	need python3-venv '$(PYTHON) -c "import ensurepip"' 'no .venv can be made'; \
	need darknet 'command -v darknet' 'comparisons with real Darknet are left out'; \
	need chromium 'command -v chromium' 'browser tests are left out'
