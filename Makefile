# Everything runs in .venv, which is made from pyproject.toml the first time it is needed.

PYTHON ?= python3
BIN := .venv/bin
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
TORCH_CPU := https://download.pytorch.org/whl/cpu

.PHONY: help demo test bench lab data tools clean

help:
	@echo "make demo    convert, prove and export the shipped model into out/demo"
	@echo "make test    style, types and every test"
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
	$(BIN)/pytest -q

bench: .venv/.installed
	$(BIN)/python tests/benchmarks/run.py

lab: .venv/.installed
	$(BIN)/workbench lab

data: .venv/.installed
	$(BIN)/python -m data.draw
	$(BIN)/python -m data.train

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find workbench tests data notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

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

# Real Darknet and a browser, as Debian packages. Without them the rest still works, so nothing here stops make.
tools:
	@for tool in darknet chromium; do \
	  command -v $$tool >/dev/null && continue; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Debian's $$tool"; \
	    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $$tool; } >/dev/null \
	      || echo "$$tool could not be installed"; \
	  fi; \
	  command -v $$tool >/dev/null && continue; \
	  case $$tool in \
	    darknet) echo "darknet is missing: comparisons with real Darknet are left out (Debian: apt install darknet)";; \
	    chromium) echo "chromium is missing: browser tests are left out (Debian: apt install chromium)";; \
	  esac; \
	done
