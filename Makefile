# make demo   everything from nothing: environment, data, training, reconstruction of made faces and a real photo
# make test   the same environment, then the whole test suite but for what takes long
# make test-fast   the tests that take less than a second or two, for working
# make test-long   the tests that `make test` leaves out, since they take long (docs/testing.md)
# make coverage    `make test`, and which lines it ran
# make mutations   every formula of tests/mutations/table.py broken once, and the test that noticed
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python

.PHONY: demo test test-fast test-long coverage mutations lint

$(VENV)/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo: $(VENV)/installed
	$(PY) create_bin.py
	$(PY) main.py --mode train
	$(PY) main.py --mode test --output results/demo-portraits
	$(PY) -c "import os, skimage.io, skimage.data as d; os.makedirs('data/demo/photos', exist_ok=True); skimage.io.imsave('data/demo/photos/astronaut.png', d.astronaut())"
	$(PY) main.py --mode test --input data/demo/photos --output results/demo-photo
	@echo "Look at results/demo-portraits/overview.png and results/demo-photo/overview.png"

test: $(VENV)/installed
	$(PY) -m ruff check .
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

test-fast: $(VENV)/installed
	$(PY) -m pytest -n 2 --dist loadfile -m "not slow and not long"

test-long: $(VENV)/installed
	$(PY) -m pytest -m long --durations=0

coverage: $(VENV)/installed
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"
	$(PY) -m coverage combine
	$(PY) -m coverage report

mutations: $(VENV)/installed
	$(PY) -m tests.mutations

lint: $(VENV)/installed
	$(PY) -m ruff check .
