# The one entry for what people and CI run.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := embedded,onnx,torch,export,parquet,s3,web,dev
# Tests that run at once: they wait for processes more than they compute.
JOBS   ?= 2

.PHONY: help setup model demo web lint format test test-page test-slow test-brokers compose-test chaos fuzz bench bench-peers clean
.DEFAULT_GOAL := help

help:            ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+: +##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: $(STAMP)  ## make .venv and install the project into it

$(STAMP): pyproject.toml constraints.txt $(wildcard worker/*.c worker/*.h)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

model: setup     ## make the default model (once; it stays in the user's cache folder)
	@$(BIN)/labelmill-worker prepare efficientnet-lite0

demo: model      ## classify examples/photos with a real model through Redis and Celery
	env -u LABELMILL_BROKER_URL -u LABELMILL_MODEL \
	    $(BIN)/labelmill classify examples/photos --table --output build/demo/results.jsonl

web: model       ## serve over HTTP, with a page, on http://127.0.0.1:8000; Ctrl-C ends it
	$(BIN)/labelmill gateway --open

lint: setup      ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup    ## put the source into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: model      ## every test that needs nothing but Python
	$(BIN)/python -m pytest -m 'not slow and not debian and not browser' --numprocesses $(JOBS) --dist loadfile

test-page: model ## the page in a real Chromium (Debian's packages chromium and chromium-driver)
	$(BIN)/python -m pytest -m browser

test-slow: model ## the tests that take minutes, and download CIFAR-10 once
	$(BIN)/python -m pytest -m slow --timeout 1800

chaos: setup     ## kill, stop and poison everything, about 10 minutes; CHAOS_SECONDS=3600 for longer, CHAOS="--seed 7" for the same again
	$(BIN)/python -m tests.chaos $(CHAOS)

fuzz: setup      ## 24,000 damaged images through decoding; FUZZ="--seed 7 --files 200000" for others
	$(BIN)/python -m tests.fuzz $(FUZZ)

test-brokers: model ## RabbitMQ, Redis Sentinel and nginx, with the real servers of Debian's packages
	$(BIN)/python -m pytest -m debian

bench: model     ## the table of speeds beside the bare loop and plain Celery (minutes; PARTS="photo tiny" for some)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/labelmill-worker prepare cifar10-cnn
	$(BIN)/python -m benchmarks $(PARTS)

bench-peers: model ## the same work by RQ, Dramatiq, Mosec, LitServe, BentoML, Ray and plain Celery (10 to 25 minutes; PEERS="rq ray" for some)
	$(BIN)/labelmill-worker prepare cifar10-cnn
	$(BIN)/python -m benchmarks.peers --kill $(PEERS)

compose-test: model ## docker-compose.yml for real, in a Docker engine of its own (root; it says which of Debian's packages are missing)
	$(BIN)/python -m tests.compose

clean:           ## remove what setup and runs made
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
