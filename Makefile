# Every target installs what it needs first; an install that is already right costs a blink.
.DEFAULT_GOAL := help
.PHONY: help install demo serve test fuzz chaos load multihost soak test-clients lint proto protolint dashboards format lock clean

QUESTION ?=
CHECKPOINT ?=
ARGS ?=
BIN := .venv/bin
export PYTHON

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## make .venv and everything in it (PYTHON=python3.12 chooses the interpreter)
	@scripts/install.sh

demo: install ## ask a spoken question, get reply.wav (QUESTION=my.wav CHECKPOINT=FlashLabs/Chroma-4B)
	@$(BIN)/chroma demo $(if $(QUESTION),--question "$(QUESTION)") $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") $(ARGS)

serve: install ## start the server on the loopback, without API keys, and leave it running (CHECKPOINT=...)
	@$(BIN)/chroma serve --no-auth $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") $(ARGS)

test: install ## run all tests (ARGS="-k backbone -x")
	@$(BIN)/pytest $(ARGS)

chaos: install ## kill replicas while people listen, and compare what they heard (ARGS="--seed 1,2,3 --streams 20")
	@$(BIN)/python -m tests.chaos $(ARGS)

multihost: install ## an overlay's own manifests on hosts of their own; a worker is drained, one killed (ARGS="--streams 8")
	@$(BIN)/python -m tests.multihost $(ARGS)

soak: install ## a steady mixed load for half an hour: does anything grow? (ARGS="--minutes 1440 --plot soak.png")
	@$(BIN)/python -m tests.soak $(ARGS)

load: install ## raise the load on the tiny graph until its promise breaks, and compare with the planner (ARGS="--html load.html")
	@$(BIN)/python -m loadtest.capacity $(ARGS)

fuzz: install ## 100,000 cases at everything that reads what others wrote (ARGS="--cases 5000 audio")
	@$(BIN)/python -m tests.fuzz $(ARGS)

test-clients: install ## hold a conversation through each public client, in environments of their own (ARGS="pipecat-ai")
	@$(BIN)/python -m tests.clients $(ARGS)

lint: install ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

proto: install ## make the stubs of proto/ again
	@BIN=$(BIN) scripts/stubs.sh

protolint: install ## buf lint (needs npm)
	@BIN=$(BIN) scripts/lint_proto.sh

dashboards: install ## write Grafana's dashboards of k8s/monitoring again
	@$(BIN)/python -m scripts.dashboards

format: install ## let ruff put imports and layout in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: install ## resolve requirements/*.lock again (LOCK_ARGS=--upgrade moves the pins)
	@LOCK_ARGS="$(LOCK_ARGS)" scripts/lock.sh

clean: ## remove .venv, caches and reply.wav (checkpoints stay: they may have been long to download)
	@rm -rf .venv build reply.wav *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
