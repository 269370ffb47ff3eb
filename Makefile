# Needs python3 (3.11 or newer) with venv, and make. Everything else comes into .venv, by hash.
# Paths are relative and tools run as `python -m`, so the checkout may stand anywhere, below a path with spaces, too.

PYTHON ?= python3
PY := .venv/bin/python
CODE := src tests examples bench migrations
EACH_CORE := -n auto --dist loadgroup
LOCK := uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: .venv/installed ## Make .venv with everything the project needs, each package checked against its hash

.venv/installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it: make PYTHON=python3.11 ...")'
	@test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: demo
demo: venv ## Run the whole gateway with sample partners (ARGS="--help" shows what it can do)
	.venv/bin/webhook-gateway demo $(ARGS)

.PHONY: test
test: venv ## Run the tests on all cores, against a PostgreSQL of their own or DATABASE_URL (ARGS="tests/rules -k retry" runs some)
	$(if $(ARGS),,@echo "All tests but those of query plans on large tables, which make test-plans runs.")
	$(PY) -m pytest $(or $(ARGS),$(EACH_CORE) -m "not plans")

.PHONY: test-quick
test-quick: venv ## Run the tests that start no programs: rules, walls, documentation, store, delivery, API
	@echo "The tests that start no programs; make test runs the command line, whole gateways, samples and faults, too."
	$(PY) -m pytest $(EACH_CORE) -m "not plans and not slow" $(addprefix --ignore=tests/,cli end_to_end examples faults) $(ARGS)

.PHONY: test-plans
test-plans: venv ## Run the tests of query plans on large tables
	@echo "Tests of query plans: loads a million deliveries once, then asks for the plans of the hot statements."
	$(PY) -m pytest -m plans $(ARGS)

.PHONY: mutate
mutate: venv ## See whether tests/rules notice each change of an operator or a number in the rules (a few minutes)
	$(PY) -m tests.mutate src/webhook_gateway/rules tests/rules --at-least 0.95 $(ARGS)

.PHONY: check
check: venv ## Check format, lint, types, the import contracts, the walls, and the documents against the code
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m ruff check $(CODE)
	$(PY) -m mypy $(CODE)
	$(PY) -c 'from importlinter.cli import lint_imports_command as check; check()'
	$(PY) -m pytest -q tests/test_walls.py tests/test_docs.py

.PHONY: format
format: venv ## Format the code and repair what ruff can repair
	$(PY) -m ruff check --fix-only --quiet $(CODE)
	$(PY) -m ruff format $(CODE)

.PHONY: bench
bench: venv ## Measure throughput, latency and what an event costs (ARGS="--help" shows what it can do)
	$(PY) -m bench.run $(ARGS)

.PHONY: bench-isolation
bench-isolation: venv ## Measure what bad partners cost the good ones
	$(PY) -m bench.isolation $(ARGS)

.PHONY: bench-console
bench-console: venv ## Measure each page of the console on ten million deliveries, and what its viewers cost
	$(PY) -m bench.console $(ARGS)

.PHONY: screenshots
screenshots: venv ## Take the documentation's pictures of the console, from the demo (needs Chromium)
	$(PY) -m tests.screenshots

.PHONY: faults
faults: venv ## Kill processes, database and network under load, and account for every event
	$(PY) -m tests.faults.run $(ARGS)

.PHONY: lock
lock: ## Lock the newest dependencies that pyproject.toml allows (needs uv; ARGS="--upgrade" renews all)
	$(LOCK) $(ARGS) pyproject.toml --extra server --extra mail -o requirements/runtime.txt
	$(LOCK) $(ARGS) pyproject.toml --all-extras --group dev -c requirements/runtime.txt -o requirements/dev.txt
	echo hatchling | $(LOCK) - -c requirements/dev.txt -o requirements/build.txt

.PHONY: audit
audit: ## Ask the public advisories about every locked package; fails if one could not be asked about
	$(call once,pip-audit,bin/pip-audit --strict --disable-pip --require-hashes -r requirements/dev.txt)

.PHONY: sbom
sbom: wheel ## Write dist/sbom.cdx.json: the wheel with all that it installs, their licences, and who needs whom (CycloneDX)
	@$(PYTHON) -m venv --clear dist/shipped
	@dist/shipped/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	@dist/shipped/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index dist/hms_webhook_gateway-*.whl
	@dist/shipped/bin/python -m pip uninstall --quiet --yes pip setuptools
	$(call once,cyclonedx-bom,bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible -o dist/sbom.cdx.json dist/shipped/bin/python)
	@rm -rf dist/shipped

.PHONY: wheel
wheel: venv ## Build dist/*.whl
	$(PY) -m hatchling build -t wheel

.PHONY: secrets
secrets: venv ## Make the passwords and keys that compose.yaml reads, in secrets/ (never overwrites one)
	@umask 077 && mkdir -p secrets
	@umask 077 && test -s secrets/postgres_password || $(PY) -I -c 'import secrets; print(secrets.token_hex(32))' > secrets/postgres_password
	@umask 077 && test -s secrets/pgpass || echo "postgres:5432:gateway:gateway:$$(cat secrets/postgres_password)" > secrets/pgpass
	@umask 077 && test -s secrets/master.key || .venv/bin/webhook-gateway keys master > secrets/master.key
	@if [ "$$(id -u)" = 0 ]; then chown 10001:10001 secrets/*; \
	else test -e .env || printf 'GATEWAY_UID=%s\nGATEWAY_GID=%s\n' "$$(id -u)" "$$(id -g)" > .env; fi
	@echo "Keep a copy of secrets/master.key elsewhere: without it no stored body can ever be read again."

.PHONY: clean
clean: ## Remove caches and what was built; .venv and the demo's data stay
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call once,PACKAGE,COMMAND): a tool that is not ours to depend on, in a virtual environment that is thrown away.
define once
@place=$$(mktemp -d) && trap 'rm -rf "$$place"' EXIT && $(PYTHON) -m venv "$$place" \
	&& "$$place/bin/python" -m pip install --quiet --disable-pip-version-check $(1) && "$$place"/$(2)
endef
