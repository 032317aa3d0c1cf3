.DEFAULT_GOAL := help
.PHONY: help demo test clients coverage test-long prove-rolling prove-limits prove-audit prove-calls prove-start prove-image prove-chart prove-fuzz drill bench bench-guard load chart chart-files lint fix lock sbom clean
PYTHON := .venv/bin/python

help: ## List the targets.
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Run everything on this machine and open http://127.0.0.1:8080/demo (no key needed).
	@scripts/setup demo
	@exec .venv/bin/switchboard dev $(ARGS)

test: ## Run every check and every test but the proofs.
	@scripts/setup test
	@scripts/test

clients: ## Every client of docs/clients.md before the service, as a table; a minute.
	@scripts/setup test
	@$(PYTHON) -m pytest -q tests/e2e -m client --clients

coverage: ## Which lines no test reaches; fails under 95 %. Five minutes.
	@scripts/setup test
	@scripts/test coverage

test-long: ## Run the proofs in small, two minutes.
	@scripts/setup test
	@$(PYTHON) -m pytest -m long

prove-limits: ## Measure what docs/limits.md promises and write docs/proof/limits.md; some minutes.
	@scripts/setup test
	@$(PYTHON) -m tests.prove.limits --full --write

prove-audit: ## Measure what docs/audit.md promises and write docs/proof/audit.md; a quarter of an hour.
	@scripts/setup test
	@$(PYTHON) -m tests.prove.audit --full --write

prove-calls: ## Measure how calls end, whatever is killed or off, and write docs/proof/calls.md; ten minutes.
	@scripts/setup test
	@$(PYTHON) -m tests.prove.calls --full --write

prove-rolling: ## Replace all pods of the chart behind nginx under load and write docs/proof/rolling.md; a minute.
	@scripts/setup test
	@$(PYTHON) -m tests.prove.rolling --write

prove-start: ## Measure `make demo` in a fresh clone and write docs/proof/start.md; a minute.
	@scripts/setup test
	@$(PYTHON) -m tests.prove.start --write

prove-image: ## Build the image, run it, write docs/proof/image.md; as root, five minutes.
	@scripts/setup proof
	@PATH="$$PWD/.venv/bin:$$PATH" $(PYTHON) -m tests.prove.image --write

prove-chart: ## Hold the chart against a real API server, write docs/proof/chart.md; a quarter of an hour at first.
	@scripts/setup proof
	@PATH="$$PWD/.venv/bin:$$PATH" $(PYTHON) -m tests.prove.chart --write

prove-fuzz: ## A million inputs and the whole contract from fuzzers, and write docs/proof/fuzz.md; five minutes.
	@scripts/setup fuzz
	@$(PYTHON) -m tests.prove.fuzz --full --write

drill: ## Break one thing after the other under load, judge every answer, write docs/proof/drill.md; eight minutes.
	@scripts/setup test
	@$(PYTHON) -m tests.prove.drill --full --write

bench: ## Measure how fast it is, beside others, and write docs/proof/bench.md; half an hour on a machine that does nothing else.
	@scripts/setup bench
	@.venv/deployed/bin/python -m tests.bench --write $(ARGS)

bench-guard: ## Has our speed, to that of bare Starlette, fallen by more than 15 %? A few minutes.
	@scripts/setup bench
	@.venv/deployed/bin/python -m tests.bench --guard $(ARGS)

load: ## Users as they behave, by Locust, against the service with the emulator; writes build/load.html. Two minutes.
	@scripts/setup load
	@$(PYTHON) -m tests.load $(ARGS)

chart: ## Every test of the chart.
	@scripts/setup test
	@$(PYTHON) -m pytest -q tests/helm

chart-files: ## Write what the chart takes from elsewhere: its README, rules, dashboards, the settings that it accepts.
	@scripts/setup test
	@$(PYTHON) scripts/chart.py
	@$(PYTHON) -m tests.helm.upgrade

lint: ## Format, style and types only.
	@scripts/setup test
	@scripts/test lint

fix: ## Let ruff repair what it can.
	@scripts/setup test
	@$(PYTHON) -m ruff check --fix --quiet . ; $(PYTHON) -m ruff format --quiet .

lock: ## Write every lock anew: locks/*.txt and that of the npm packages (UPGRADE=1 takes newer versions).
	@scripts/setup test
	@scripts/lock

sbom: ## Write what is in the product, with versions and hashes, as CycloneDX: build/sbom.
	@scripts/setup test
	@scripts/sbom

clean: ## Remove everything that was made here.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .coverage* build dist tests/bench/express/node_modules tests/e2e/clients/node_modules tests/helm/tools/node_modules
