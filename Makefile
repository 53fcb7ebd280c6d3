# `make demo` and `make test` do all their set-up: a virtual environment with pinned packages.
VENV ?= .venv
PYTHON ?= python3
READY = $(VENV)/.ready

.PHONY: demo test check bench faults fuzz reliability audit licences wheel clean

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
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/faults.py --kills 50 \
		--json "benchmarks/results/faults-$$(date +%F).json"

fuzz: $(READY)
	$(VENV)/bin/python tests/fuzz.py --cases 10000 --seed "$$(date +%Y%j)" --keep build/fuzz \
		--json "benchmarks/results/fuzz-$$(date +%F).json"

reliability: $(READY)
	OMP_NUM_THREADS=1 PATH="$(abspath $(VENV))/bin:$$PATH" \
		$(VENV)/bin/python benchmarks/reliability.py

audit: $(READY)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check pip-audit
	$(VENV)/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt

licences: $(READY)
	$(VENV)/bin/python scripts/write-licences

wheel: $(READY)
	scripts/try-wheel $(PYTHON)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo
