# Every command works in the active environment; `make PYTHON=path/to/python test` takes another.
PYTHON ?= python

# What the tests marked "pulled" need: small models and data sets of the catalogue.
PULLED ?= qwen2.5-coder-0.5b smollm2-135m gemma-3-270m bge-small-en-v1.5 potion-base-4m rampart banking77 clinc150 hwu64 stackoverflow trec dbpedia yahoo 20newsgroups sst2 imdb sms-spam

# Tests at a time, each worker a process; WORKERS=0 runs them all in this one, for a debugger. More than four
# gain little: each worker starts a PostgreSQL server and fits what tests of one file share.
WORKERS ?= logical
AT_ONCE = -n $(WORKERS) --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install test test-pulled test-clients test-torch lint format docs bench

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: ## Install this checkout, editable, with all that tests and lint need
	$(PYTHON) -m pip install --editable '.[test]'

test: ## Run the tests and doctests; no downloads, no network (ARGS="tests/loop -x")
	$(PYTHON) -m pytest $(AT_ONCE) $(ARGS)

test-pulled: ## Pull small models, then run the tests that use them
	$(PYTHON) -m pilotfish.cli.main pull $(PULLED)
	$(PYTHON) -m pytest -m pulled -rs $(ARGS)

# Clients and LiteLLM want different releases of openai, so they are not installed together.
test-clients: ## Install other people's clients, then run them against the gateway
	$(PYTHON) -m pip install --editable '.[test,clients]'
	PILOTFISH_TEST_CLIENTS=require $(PYTHON) -m pytest tests/gateway/clients \
		-k 'not litellm' -rs $(ARGS)

# Files most of which runs without torch, and whose rest needs it.
TORCH_TOO = test_draft or test_batching or test_real_rows or test_scoring or test_self_knowledge
# litellm's background workers outlive their event loop, and are found dead in whichever test comes next.
test-torch: ## Install the torch, litellm and scale extras, then run the tests that need them
	$(PYTHON) -m pip install --editable '.[test,torch,litellm,scale]'
	$(PYTHON) -m pilotfish.cli.main pull all-MiniLM-L6-v2 smollm2-135m
	PILOTFISH_TEST_CLIENTS=require $(PYTHON) -m pytest tests -m 'pulled or not pulled' \
		-k 'transformer or litellm or test_ray or $(TORCH_TOO)' -rs \
		-W default::pytest.PytestUnraisableExceptionWarning $(ARGS)

lint: ## Check style, docstrings, types and generated pages
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) docs/build.py --check

format: ## Format and mend what can be mended
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: ## Write docs/cli.md, docs/settings.md and docs/registry.md from the code
	$(PYTHON) docs/build.py

bench: ## List the benchmarks, or run one: make bench B=certify ARGS="--draws 500"
ifdef B
	$(PYTHON) benchmarks/$(B).py $(ARGS)
else
	@$(PYTHON) docs/build.py --benchmarks
endif
