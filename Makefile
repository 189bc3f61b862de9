# Two commands are all a newcomer needs: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
export CI = true
export ORT_DISABLE_TELEMETRY = 1

.PHONY: help demo test fast lint types imports check bench bench-large nightly clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

$(VENV)/.made: pyproject.toml constraints.txt scripts/make_environment.sh
	@PYTHON="$(PYTHON)" bash scripts/make_environment.sh $(VENV)
	@touch $@

$(VENV)/.plugins: $(VENV)/.made $(wildcard plugins/*/pyproject.toml)
	@echo "installing the plugins with their runtimes (TVM, OpenVINO)"
	@$(BIN)/pip install --quiet --constraint constraints.txt $(patsubst %,--editable %,$(wildcard plugins/ondevice-*))
	@touch $@

demo: $(VENV)/.made  ## summarise a document with a real model that cannot reach the network
	@$(BIN)/python scripts/demo.py

test: $(VENV)/.plugins  ## all tests, with the real model
	@$(BIN)/ondevice models pull smollm2-135m-instruct
	@$(BIN)/python -m pytest

fast: $(VENV)/.plugins  ## the tests that take under two minutes together
	@$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.plugins
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.plugins
	@$(BIN)/mypy

imports: $(VENV)/.plugins
	@$(BIN)/lint-imports

check: lint types imports  ## lint, types, import contracts

bench: $(VENV)/.plugins  ## what things cost here, SmolLM2: hours on a quiet machine; QUICK=--quick for a first look
	@$(BIN)/ondevice models pull smollm2-135m-instruct
	@$(BIN)/python scripts/bench_import.py
	@$(BIN)/python scripts/bench_seal.py
	@$(BIN)/python scripts/bench_cache.py
	@$(BIN)/python scripts/bench_start.py $(QUICK)
	@$(BIN)/python scripts/bench_engine.py $(QUICK)
	@$(BIN)/python scripts/bench_speculation.py $(QUICK)
	@$(BIN)/python scripts/bench_latency.py $(QUICK)
	@$(BIN)/python scripts/bench_prefix.py $(QUICK)
	@$(BIN)/python scripts/bench_prefix.py --disk $(QUICK)
	@$(BIN)/python scripts/bench_peers.py $(PEERS) $(QUICK)
	@$(BIN)/ondevice bench smollm2-135m-instruct $(QUICK)
	@$(BIN)/python scripts/check_predictions.py
	@$(BIN)/python scripts/check_selection.py
	@$(BIN)/ondevice mlc compile smollm2-135m-instruct:int4 --to int4 && $(BIN)/ondevice mlc compile smollm2-135m-instruct:int4 --to int8
	@$(BIN)/python plugins/ondevice-mlc/scripts/bench_mlc.py
	@$(BIN)/python plugins/ondevice-mlc/scripts/bench_mlc.py --to int8
	@$(BIN)/python plugins/ondevice-mlc/scripts/bench_many.py

LARGE := random:llama-3.2-1b:Q4_0

bench-large: $(VENV)/.made  ## the same for files in the shape of a model of a billion parameters (made once, 3.3 GB)
	@$(BIN)/python scripts/bench_engine.py $(LARGE) random:llama-3.2-1b:BF16 --pairs 20 $(QUICK)
	@$(BIN)/python scripts/bench_engine.py --memory $(LARGE) random:llama-3.2-1b:BF16 --pairs 10 $(QUICK)
	@$(BIN)/python scripts/bench_start.py $(LARGE) $(QUICK)
	@$(BIN)/python scripts/bench_latency.py $(LARGE) $(QUICK)
	@$(BIN)/python scripts/bench_prefix.py $(LARGE) $(QUICK)
	@$(BIN)/python scripts/bench_prefix.py --disk $(LARGE) $(QUICK)
	@$(BIN)/python scripts/bench_peers.py $(LARGE) --documents 8 $(PEERS) $(QUICK)
	@$(BIN)/ondevice bench --compare bf16,int8,int4 --model random:llama-3.2-1b $(QUICK)
	@$(BIN)/ondevice bench --compare bf16,int8,int4 --model random:llama-3.2-1b --context 8192 $(QUICK)
	@$(BIN)/python scripts/bench_quantise_run.py random:qwen3-0.6b:BF16

nightly: $(VENV)/.made  ## the long ones: 20,000 mutated models, the seal as four users, quality (ONDEVICE_EVAL_DATA)
	@$(BIN)/ondevice models pull smollm2-135m-instruct
	@$(BIN)/python -m pytest tests/fuzzing --fuzz-files 20000 --timeout 3600
	@$(BIN)/python scripts/prove_seal.py
	@if [ -n "$$ONDEVICE_EVAL_DATA" ]; then $(BIN)/ondevice evaluate --markdown && $(BIN)/python scripts/bench_quantise.py --data "$$ONDEVICE_EVAL_DATA"; else echo "quality left out: ONDEVICE_EVAL_DATA is not set"; fi

clean:  ## remove the environment
	rm -rf $(VENV)
