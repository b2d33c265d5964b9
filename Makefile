PYTHON ?= python3
PIP = -m pip --disable-pip-version-check --quiet
DEMO = .venv/demo
DEV = .venv/dev
OPTIMUM = .venv/optimum
LOWEST = .venv/lowest
LOWEST_TESTS = tests/test_checkpoint.py tests/test_models.py tests/test_agreement.py \
	tests/test_witness.py::test_the_embedded_model tests/test_screening.py tests/test_pictures.py
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test check format embedded-model bench clean

demo: $(DEMO)/installed ## screen the embedded prompts, without torch
	$(DEMO)/bin/mnemoscope demo --output out/demo

test: check $(OPTIMUM)/installed $(LOWEST)/installed ## lint, types and tests
	$(DEV)/bin/python -m pytest -n auto --dist worksteal
	$(LOWEST)/bin/python -m pytest -q -o cache_dir=$(LOWEST)/.pytest_cache $(LOWEST_TESTS) \
		-k "not v_prediction"

check: $(DEV)/installed ## lint, types, import layers
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/python -m pytest -q tests/test_layers.py

format: $(DEV)/installed
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

embedded-model: $(DEV)/installed ## train the embedded model from registry data (hours on a CPU)
	$(DEV)/bin/python -m recipes.embedded out/training \
		--out sdk/mnemoscope/embedded --pictures docs/images

bench: $(DEV)/installed ## latency and detection on the embedded bundle
	$(DEV)/bin/python -m benchmarks.latency --output out/bench
	$(DEV)/bin/python -m benchmarks.detection --output out/bench

$(DEMO)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(PIP) install -c constraints.txt -e '.[onnxruntime,plot]'
	touch $@

$(DEV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP) install -c constraints.txt -e '.[dev]'
	touch $@

$(OPTIMUM)/installed: pyproject.toml constraints-optimum.txt ## another diffusers than ours
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/python $(PIP) install -c constraints-optimum.txt -e '.[from-onnx]' \
		optimum-onnx diffusers accelerate torch
	touch $@

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt ## the lowest versions that the metadata allows
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python $(PIP) install -c constraints-lowest.txt \
		-e '.[bench,calibrate,export,from-onnx,openvino,parquet]' filelock hypothesis pytest pytest-timeout
	touch $@

clean:
	rm -rf .venv out dist .mypy_cache .pytest_cache .ruff_cache
