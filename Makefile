# `make demo` and `make test` are the two commands to know; both first install what they need into .venv.
#
# On Linux, PyPI's torch is the CUDA build (several GB). A machine without a GPU is served faster by the CPU build:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make install
# python3, or another one of the right version.
IS_KNOWN := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c '$(IS_KNOWN)' 2> /dev/null && echo $$python && exit; done; echo python3)
# Exported, so that the shell takes it as it is, with quotes and blanks.
export CLIP ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install -c constraints.txt
# In the order of the files: xdist would begin with those of many tests, and leave the long runs of a few to the end,
# when the other processes have nothing to do any more.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help install demo test test-fast test-slow test-cpus fuzz lint docs serve-docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## install the package and its tools into .venv

demo: $(INSTALLED)  ## make clips, train and test the small network, show the result; CLIP=my.mp4 takes your own video
	$(BIN)/python scripts/demo/run_demo.py $(if $(CLIP),--clip "$$CLIP")

test: lint  ## ruff and mypy, then the test suite without what takes long
	$(PYTEST)

# tests/fast.txt: what neither starts processes nor trains
test-fast: $(INSTALLED)  ## ruff and quick tests, within a minute
	$(BIN)/python -m ruff check .
	$(PYTEST) -m 'not real_clips' @tests/fast.txt

test-slow: $(INSTALLED)  ## the tests that take long, alone
	$(PYTEST) --slow -m slow

# As older CPUs compute, through oneDNN and PyTorch's own kernels, and as this one does.
test-cpus: $(INSTALLED)  ## the numeric tests as three kinds of CPU compute, with one and two threads
	set -e; for threads in 1 2; do \
		for cpu in 'ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default' \
				'ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2' ''; do \
			env $$cpu OMP_NUM_THREADS=$$threads $(PYTEST) -m numeric; \
		done; \
	done

MINUTES ?= 60
fuzz: $(INSTALLED)  ## feed damaged and hostile files to what reads files, for MINUTES=60; print what came of it
	$(BIN)/python -W ignore tests/fuzz/fuzz.py --minutes $(MINUTES)

lint: $(INSTALLED)  ## ruff (style) and mypy (types)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

docs: $(INSTALLED)  ## build the documentation site into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

serve-docs: $(INSTALLED)  ## show the documentation on http://127.0.0.1:8000, anew whenever a page changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

clean:  ## remove .venv, caches and what the demo wrote; your experiments/ and results/ of other runs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info build site demo_output datasets/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `pip install basicsr` fails on Python 3.13 and fetches a second torch; the script corrects that.
$(INSTALLED): setup.py pyproject.toml constraints.txt scripts/install_basicsr.py
	@$(PYTHON) -c '$(IS_KNOWN)' || \
		{ echo 'Python 3.11 to 3.14 is needed, and "$(PYTHON)" is not one; name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)'; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo '$(PYTHON) makes no virtual environment; on Debian: apt-get install python3-venv'; exit 1; }
	$(BIN)/python scripts/install_basicsr.py -c constraints.txt
	$(PIP_INSTALL) -e '.[dev]'
	@$(BIN)/python -c 'import cv2' || \
		{ echo 'OpenCV lacks libraries of the system; on Debian: apt-get install libgl1 libglib2.0-0'; exit 1; }
	touch $@
