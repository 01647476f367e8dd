# Everything runs from .venv, which any target makes; Python and make are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests that run side by side; most of their time is waiting.
TESTS ?= 7

# EPICS on loopback only: nothing here ever sends to another address.
export EPICS_PVA_ADDR_LIST := 127.0.0.1
export EPICS_PVA_AUTO_ADDR_LIST := NO
export EPICS_PVAS_INTF_ADDR_LIST := 127.0.0.1
export EPICS_PVAS_BEACON_ADDR_LIST := 127.0.0.1
export EPICS_PVAS_AUTO_BEACON_ADDR_LIST := NO
export EPICS_CA_ADDR_LIST := 127.0.0.1
export EPICS_CA_AUTO_ADDR_LIST := NO
export EPICS_CAS_INTF_ADDR_LIST := 127.0.0.1
export EPICS_CAS_BEACON_ADDR_LIST := 127.0.0.1
export EPICS_CAS_AUTO_BEACON_ADDR_LIST := NO

# The tests start hundreds of programs: each would compile all of its modules anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-failed test-more test-published foreign check bench lowest soak chaos docs format clean

demo: $(READY)
	$(BIN)/pvapy-stream demo

# A program that imports numpy starts the threads of its linear algebra: half of the time to start.
test test-failed: export OPENBLAS_NUM_THREADS := 1

test: $(READY)
	$(BIN)/python -m pytest --numprocesses $(TESTS) --dist worksteal

# What failed in the last run, once more and alone.
test-failed: $(READY)
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none

# Many more damaged messages, clients, servers and kills than in each run of the tests.
test-more: $(READY)
	PVAPY_ROUNDS=20 $(BIN)/python -m pytest tests/pva tests/transport \
		tests/accounting/test_idset.py tests/bsread/test_codec.py tests/bsread/test_file.py \
		tests/daq/test_rest.py tests/dectris/test_programs.py tests/files/test_witness.py \
		tests/hpc/test_shown.py tests/integration/test_acknowledged_puts.py \
		tests/integration/test_name_servers.py tests/integration/test_refused.py \
		tests/integration/test_remote_modes.py tests/mirror/test_shown.py \
		tests/cli/test_display.py tests/cli/test_write_verify.py tests/crypto \
		tests/chaos/test_campaign.py tests/integration/test_chains.py \
		tests/integration/test_distribution.py tests/integration/test_stopping.py \
		tests/mirror/test_mirror_server.py

# All published examples of PvaPy's streaming framework, with its programs and with ours; ten minutes.
# `make test` runs those with ours that are soon done.
test-published: $(READY)
	PVAPY_PUBLISHED=1 $(BIN)/python -m pytest tests/incumbent

# Bluesky, Tiled and validators of NeXus from the package index, in environments of their own,
# which are kept.
foreign: $(READY)
	$(BIN)/python -m pytest -m foreign tests/areadetector tests/dectris tests/files \
		tests/processors

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks

# The first hour of a user who installs nothing but the package, in the lowest versions it allows.
LOWEST := $(VENV)/lowest
lowest: $(READY)
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/python -m tools.lowest > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c $(LOWEST)/constraints.txt .
	$(LOWEST)/bin/python -m pip check
	tools/first_hour.sh $(LOWEST)/bin --remove

# Ten minutes of the chain over shared memory; loses nothing, and memory is flat.
soak: $(READY)
	$(BIN)/python -m benchmarks.soak

# The fault campaign: minutes; RUNS and SEED choose.
RUNS ?= 100
SEED ?= 1
chaos: $(READY)
	$(BIN)/python -m chaos --runs $(RUNS) --seed $(SEED)

docs: $(READY)
	$(BIN)/sphinx-build -W -b html docs docs/_build

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' \
		--config-settings editable_mode=compat
	touch $(READY)
