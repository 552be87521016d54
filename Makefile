# Two commands: `make run` shows it, `make test` proves it.

PYTHON ?= python3
PORT ?= 8000
# Another Python's goes beside it: make test PYTHON=python3.13 VENV=.venv-3.13
VENV ?= .venv
BIN := $(VENV)/bin
OLDER := $(VENV)-sqlalchemy-2.0
# Generators of clients and schemathesis, which need other releases of packages than the service.
CONTRACT := $(VENV)-contract
# What the library is compared with by measuring, and what draws the chart.
BENCH := $(VENV)-bench
# What the library is compared with by what it does.
COMPARISON := $(VENV)-comparison
# What builds the pages of docs/.
DOCS := $(VENV)-docs
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --no-header --python-version 3.11
# The tests take twice as long in one process; each has a database server of its own.
PARALLEL := --numprocesses 2
# What the commands of the service need to start; they touch no database.
NOWHERE := SECRET_KEY=no-secret-is-signed DATABASE_URL=sqlite://

# What builds the image, and its name.
BUILD ?= docker build
IMAGE ?= chrononaut

# Where `make openapi` writes the document.
OPENAPI ?= openapi/openapi.json
# The models that the tests bring, whose document is linted as well.
OTHERS := CHRONONAUT_MODELS=tests.service.own_models CHRONONAUT_DB=tests.service.own_models:db
# Installed by npm from openapi/package-lock.json; neither linter reports anything to its makers.
NODE_TOOLS := openapi/node_modules/installed
QUIETLY := REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true SCARF_ANALYTICS=false DO_NOT_TRACK=1

.PHONY: run test test-pgbouncer test-sqlalchemy-2.0 client-tools test-clients test-contract test-comparison soak soak-contract soak-deploy bench test-bench bench-reading bench-http image test-image check lint openapi lint-openapi docs lock clean

run: $(VENV)/service
	@$(BIN)/python -m app.demo --port $(PORT)

test: $(VENV)/dev
	$(BIN)/python -m pytest $(PARALLEL)

# The same on the older SQLAlchemy that is supported as well, in an environment of its own.
test-sqlalchemy-2.0: $(OLDER)/test
	$(OLDER)/bin/python -m pytest $(PARALLEL)

# What generates typed clients: the commands of openapi/README.md take it. Takes Node 20.
client-tools: $(CONTRACT)/tools $(NODE_TOOLS)

# Generates the typed clients that openapi/README.md shows, compiles them and uses them; follows docs/own-models.md and the pages of
# the library with all that they install. Takes Node 20 and Java 17, and a package registry.
test-clients: $(VENV)/dev client-tools
	$(BIN)/python -m pytest tests/contract/test_clients.py tests/test_guides.py -m contract -v -s

# Requests made from the OpenAPI document: all checks and phases of schemathesis, with a token and without.
test-contract: $(VENV)/dev $(CONTRACT)/tools
	CONTRACT_TOOLS=$(abspath $(CONTRACT)/bin) $(BIN)/python -m tests.contract.fuzz

# The same until it has made 20,000 requests.
soak-contract: $(VENV)/dev $(CONTRACT)/tools
	CONTRACT_TOOLS=$(abspath $(CONTRACT)/bin) $(BIN)/python -m tests.contract.fuzz --cases 20000

# The service through PgBouncer in transaction mode. Takes pgbouncer (on Debian: apt-get install pgbouncer).
test-pgbouncer: $(VENV)/dev
	$(BIN)/python -m pytest -m pgbouncer

# The long runs of the tests, which show their progress.
soak: $(VENV)/dev
	$(BIN)/python -m pytest -m soak -v -s

# What writing history costs, on both databases: a table and a chart in benchmarks/results; takes a quarter of an hour.
bench: $(BENCH)/tools
	$(BENCH)/bin/python -m benchmarks.writing

# That what it compares with keeps history, and that the chart is drawn.
test-bench: $(BENCH)/tools
	$(BENCH)/bin/python -m pytest tests/test_writing.py -m bench

# That what docs/comparison.md says of other tools is so: each claim is tried on the tool itself.
test-comparison: $(COMPARISON)/tools
	$(COMPARISON)/bin/python -m pytest tests/test_comparison.py -m comparison

# Long histories against short ones, on both databases; takes some ten minutes.
bench-reading: $(VENV)/dev
	$(BIN)/python -m benchmarks.reading

# The service under gunicorn against views that do less, on both databases; takes some six minutes, and wrk.
bench-http: $(VENV)/dev
	$(BIN)/python -m benchmarks.serving

# The service while its database and its processes end and begin, and 200,000 requests or SOAK_REQUESTS.
soak-deploy: $(VENV)/dev
	$(BIN)/python -m pytest tests/service/test_chaos.py -m soak -v -s

# Where there is no Docker: make image BUILD="podman build --format docker", or "buildah build --format docker --isolation chroot".
image:
	$(BUILD) --tag $(IMAGE) .

# Builds the image and runs it on a PostgreSQL, without an engine and without a registry: takes root, buildah and debootstrap, and
# some five minutes. BASE=python:3.13-slim builds on that, where it can be pulled.
test-image: $(VENV)/dev
	$(BIN)/python -m pytest tests/image -m image -v

check: lint
	@$(MAKE) --no-print-directory test

# In CI the formatter only compares.
lint: $(VENV)/dev
	$(BIN)/ruff format $(if $(CI),--check)
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@$(NOWHERE) $(BIN)/flask --app app openapi print | cmp - openapi/openapi.json \
		|| { echo "openapi/openapi.json is not current: run make openapi"; exit 1; }

# The models are those of the settings: CHRONONAUT_MODELS=inventory.models CHRONONAUT_DB=inventory.models:db make openapi OPENAPI=inventory.json
openapi: $(VENV)/dev
	$(NOWHERE) $(BIN)/flask --app app openapi print > $(OPENAPI)

# Takes Node 20 or newer with npm.
lint-openapi: $(VENV)/dev $(NODE_TOOLS)
	@$(OTHERS) $(NOWHERE) $(BIN)/flask --app app openapi print > openapi/node_modules/others.json
	cd openapi && $(QUIETLY) npm run --silent lint -- openapi.json node_modules/others.json

# The pages of docs/, the references of the library and of the service among them, as HTML; takes no network.
docs: $(DOCS)/tools
	$(DOCS)/bin/python -m sphinx --fresh-env --write-all --fail-on-warning --keep-going --nitpicky --quiet --builder html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Renews the lock files from pyproject.toml: every package pinned with its hashes.
lock: $(VENV)/dev
	$(COMPILE) pyproject.toml --extra service -o requirements.txt
	$(COMPILE) pyproject.toml --extra service --extra telemetry --group dev -c requirements.txt -o requirements-dev.txt
	$(COMPILE) pyproject.toml --extra service --extra telemetry --group sqlalchemy-2-0 -o requirements-sqlalchemy-2.0.txt
	$(COMPILE) pyproject.toml --extra service --group bench -c requirements-dev.txt -o requirements-bench.txt
	$(COMPILE) pyproject.toml --extra service --group comparison -c requirements-dev.txt -o requirements-comparison.txt
	$(COMPILE) pyproject.toml --extra service --group docs -c requirements-dev.txt -o requirements-docs.txt
	$(COMPILE) --group contract -o requirements-contract.txt

clean:
	rm -rf .venv .venv-* docs/_build openapi/generated openapi/node_modules instance .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The stamp is written last: a virtual environment whose making was interrupted, or whose lock changed, is completed.
$(VENV)/service: requirements.txt
	@$(call install,$(VENV),requirements.txt)

$(VENV)/dev: requirements.txt requirements-dev.txt
	@$(call install,$(VENV),requirements-dev.txt)

$(OLDER)/test: requirements-sqlalchemy-2.0.txt
	@$(call install,$(OLDER),requirements-sqlalchemy-2.0.txt)

$(CONTRACT)/tools: requirements-contract.txt
	@$(call install,$(CONTRACT),requirements-contract.txt)

$(BENCH)/tools: requirements-bench.txt
	@$(call install,$(BENCH),requirements-bench.txt)

$(COMPARISON)/tools: requirements-comparison.txt
	@$(call install,$(COMPARISON),requirements-comparison.txt)

$(DOCS)/tools: requirements-docs.txt
	@$(call install,$(DOCS),requirements-docs.txt)

$(NODE_TOOLS): openapi/package.json openapi/package-lock.json openapi/.npmrc
	@command -v npm >/dev/null || { echo "make: there is no npm; install Node 20 or newer"; exit 1; }
	cd openapi && npm ci
	@touch $@

define install
command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON); install Python 3.11 or newer, or say make PYTHON=…"; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "make: Python 3.11 or newer is needed, and $(PYTHON) is %d.%d; say make PYTHON=..." % sys.version_info[:2])' || exit 1; \
mkdir -p $(1) 2>/dev/null && touch $(1)/writable 2>/dev/null && rm $(1)/writable || { echo "make: cannot write into this folder; copy it to where you may write"; exit 1; }; \
echo "Installing $(2) into $(1) …"; \
$(PYTHON) -m venv $(1) || { echo "make: $(PYTHON) has no venv; install its package (on Debian: python3-venv)"; exit 1; }; \
$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(2) || exit 1; \
touch $@
endef
