# Two commands: `make run` shows it, `make test` proves it.

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --no-header --python-version 3.11
# What the commands of the service need to start; they touch no database.
NOWHERE := SECRET_KEY=no-secret-is-signed DATABASE_URL=sqlite://

.PHONY: run test soak check lint openapi lock clean

run: .venv/service
	@$(BIN)/python -m app.demo --port $(PORT)

test: .venv/dev
	$(BIN)/python -m pytest

# The long runs of the tests, which show their progress.
soak: .venv/dev
	$(BIN)/python -m pytest -m soak -v -s

check: lint
	@$(MAKE) --no-print-directory test

# In CI the formatter only compares.
lint: .venv/dev
	$(BIN)/ruff format $(if $(CI),--check)
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(NOWHERE) $(BIN)/flask --app app openapi print | cmp - openapi/openapi.json \
		|| { echo "openapi/openapi.json is not current: run make openapi"; exit 1; }

openapi: .venv/dev
	$(NOWHERE) $(BIN)/flask --app app openapi print > openapi/openapi.json

# Renews the lock files from pyproject.toml: every package pinned with its hashes.
lock: .venv/dev
	$(COMPILE) pyproject.toml --extra service -o requirements.txt
	$(COMPILE) pyproject.toml --extra service --group dev -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf .venv instance .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The stamp is written last: a virtual environment whose making was interrupted, or whose lock changed, is completed.
.venv/service: requirements.txt
	@$(call install,requirements.txt)

.venv/dev: requirements.txt requirements-dev.txt
	@$(call install,requirements-dev.txt)

define install
command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON); install Python 3.11 or newer, or say make PYTHON=…"; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "make: Python 3.11 or newer is needed, and $(PYTHON) is %d.%d; say make PYTHON=..." % sys.version_info[:2])' || exit 1; \
mkdir -p .venv 2>/dev/null && touch .venv/writable 2>/dev/null && rm .venv/writable || { echo "make: cannot write into this folder; copy it to where you may write"; exit 1; }; \
echo "Installing $(1) into .venv …"; \
$(PYTHON) -m venv .venv || { echo "make: $(PYTHON) has no venv; install its package (on Debian: python3-venv)"; exit 1; }; \
$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1) || exit 1; \
touch $@
endef
