# `make demo` and `make test` do all their set-up: a virtual environment with pinned packages.
VENV ?= .venv
PYTHON ?= python3
READY = $(VENV)/.ready

.PHONY: demo test check bench faults fuzz clean

demo: $(READY)
	$(VENV)/bin/grevy demo --out demo

test: $(READY)
	PATH="$(abspath $(VENV))/bin:$$PATH" scripts/check

check:
	scripts/check

bench: $(READY)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[oracle]'
	$(VENV)/bin/python benchmarks/speed.py --device cpu --json build/speed-cpu.json
	$(VENV)/bin/pytest -q -m slow

faults: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/faults.py --kills 50

fuzz: $(READY)
	$(VENV)/bin/python tests/fuzz.py --cases 10000 --seed "$$(date +%Y%j)" --keep build/fuzz

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo
