# What a newcomer types. Each target does its own set-up; the Python packages go into .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# The suite starts Python hundreds of times, so compiled files are kept even if the environment says otherwise.
unexport PYTHONDONTWRITEBYTECODE
NATIVE := $(shell find src -name '*.pyx' -o -name '*.pxd' -o -name '*.h')

.PHONY: build debug demo test test-all soak fuzz lint wheel bench compare peers clean help
help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

build: $(VENV)/built   ## the native modules, in place, in .venv

# Once, and again when pyproject.toml changes: the environment, with both packages as they are in src/.
$(VENV)/installed: pyproject.toml scripts/system-packages
	scripts/system-packages build
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --upgrade pip
	$(RUN) -m pip install -q numpy 'cython>=3.1,<4' 'setuptools>=77' wheel
	STREAMCORE_NATIVE=0 $(RUN) -m pip install -q --no-build-isolation -e '.[dev,scan,parquet,cards,postgres,packages,serve]'
	@touch $@

# After a native source changed: compile only what depends on it.
$(VENV)/built: $(VENV)/installed setup.py $(NATIVE)
	@if [ -e $(VENV)/debug ]; then rm -rf build $(VENV)/debug; fi
	$(RUN) setup.py -q build_ext --inplace
	$(RUN) -m compileall -q src  # where the environment forbids Python to write these, each start would compile all anew
	@touch $@

debug: $(VENV)/installed ## the native modules with bounds checks on everywhere, until the next make build
	STREAMCORE_DEBUG=1 $(RUN) setup.py -q build_ext --inplace --force
	@touch $(VENV)/debug; rm -f $(VENV)/built

demo: build      ## run the main job on the bundled capture, then again with a market that chooses who runs it
	$(VENV)/bin/streamcore demo
	@echo
	$(VENV)/bin/streamcore demo --market --output demo-output/market

# Two processes more than there are cores, because many tests wait (tests/conftest.py).
SUITE = $(RUN) -m pytest --durations=10 -o tmp_path_retention_policy=failed -n $$(($$(nproc) + 2)) --dist loadfile
test: build      ## the whole suite, with a stated part of the seeds, kills, examples and captures (tests/conftest.py)
	scripts/system-packages test
	$(SUITE)

test-all: build  ## the same with all of them
	scripts/system-packages test
	$(SUITE) --all

soak: build      ## 100,000 markets from seeds, 500 kills; ten minutes of overload under each rule (root; SOAK_S=60 for a minute)
	scripts/system-packages test
	AUCTION_SEEDS=100000 $(RUN) -m pytest -n auto tests/auction/market/test_simulation.py
	STREAMCORE_KILLS=500 $(RUN) -m pytest tests/streamcore/whole/test_kills.py
	$(RUN) -m pytest -s tests/streamcore/whole/soak_*.py

# Built apart, so that the modules in place stay as they are.
build/fuzz/built: $(VENV)/built setup.py $(NATIVE) $(shell find src -name '*.py')
	STREAMCORE_SANITIZE=1 $(RUN) setup.py -q build --build-lib build/fuzz/lib --build-temp build/fuzz/temp
	@touch $@

FUZZ_S ?= 10
fuzz: build/fuzz/built ## mutated packets, captures and messages, under AddressSanitizer, FUZZ_S=10 seconds for each target
	scripts/system-packages test
	$(RUN) -m tests.streamcore.fuzz --sanitized --seconds $(FUZZ_S)

lint: build      ## ruff and mypy
	$(VENV)/bin/ruff check --no-cache .
	$(VENV)/bin/ruff format --no-cache --check .
	$(VENV)/bin/mypy src

wheel: build     ## build the wheel, install it outside the tree, run the demo of that copy
	scripts/check-wheel $(RUN)

bench: build     ## a benchmark for every stage
	$(RUN) -m pytest bench --benchmark-only --benchmark-columns=min,median,rounds

compare: build   ## the benchmarks of this tree beside those of BASE=revision; K=expression for some of them
	@test -n "$(BASE)" || { echo "which revision? make compare BASE=main" >&2; exit 2; }
	$(RUN) bench/compare.py -k "$(K)" -- "$(BASE)"

peers: build     ## the programs and libraries that bench/peers.py measures us beside
	scripts/system-packages peers
	$(RUN) -m pip install -q -r bench/requirements.txt
	@echo "now run: $(RUN) bench/peers.py"

clean:           ## back to a clean clone
	rm -rf $(VENV) build dist src/*.egg-info
	find src -name '*.so' -delete
