# Every command that a developer of statekeep needs. `make help` lists them.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# The Python that makes the environments: the first here that is new enough, or PYTHON=/path/to/it.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && { echo "$$python"; break; }; done)

# Two environments: the second holds the code generator, which needs older libraries (decision 0005).
# A third is made for `make bench`, `soak` and `dashboard-picture`: it has the rivals and what draws.
VENV := .venv
TOOLS := .venv-tools
BENCH := .venv-bench
PIP := -m pip --disable-pip-version-check --no-input --quiet
BIN := $(VENV)/bin

# How many processes test; more arguments for pytest, for example ARGS="-k cache -x".
JOBS ?= 2
ARGS ?=

.PHONY: help setup demo serve dashboards dashboard-picture generate configuration format lint type test test-quick check mutants replay bench soak load lock deploy-tools lint-deploy clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.installed $(TOOLS)/.installed ## Make the environments, again only after a lock changed

demo: $(VENV)/.installed ## Watch an agent survive a crash while half of its saves cost nothing
	@$(BIN)/statekeep demo

serve: $(VENV)/.installed ## Start a server on the embedded database
	@$(BIN)/statekeep serve

dashboards: $(VENV)/.installed ## Write Grafana's dashboards and the tables of their panels
	@$(BIN)/python -m tools.dashboards

# Four minutes; with AGAIN=1 what was recorded then is drawn again, in seconds.
AGAIN ?=
dashboard-picture: $(BENCH)/.installed ## Draw dashboards of a loaded server for the docs (AGAIN=1)
	@$(BENCH)/bin/python -m tools.dashboards.picture --recording build/dashboards.json \
	  $(if $(AGAIN),--again)

generate: setup ## Write the generated code again: the stubs and the synchronous client
	@$(TOOLS)/bin/python tools/generate.py
	@$(BIN)/python tools/unasync.py

configuration: $(VENV)/.installed ## Write docs/configuration.md and the tables of docs/telemetry.md again
	@$(BIN)/python tools/configuration.py
	@$(BIN)/python tools/telemetry_tables.py

# Go programs, each pinned by a module of its own, built once into build/tools.
GO_PLUGINS := build/tools/protoc-gen-go build/tools/protoc-gen-go-grpc
GO_AGENT := build/tools/go-agent
.PHONY: generate-go
generate-go: $(TOOLS)/.installed $(GO_PLUGINS) ## Write the stubs for Go again
	@$(TOOLS)/bin/python tools/generate_go.py

$(GO_PLUGINS) &: tools/protoc-go/go.mod tools/protoc-go/go.sum
	@command -v go >/dev/null || { echo "make generate-go needs Go 1.24 or newer, to build protoc-gen-go" >&2; exit 3; }
	@go -C tools/protoc-go build -trimpath -o "$(CURDIR)/build/tools/" \
	  google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	@touch $(GO_PLUGINS)

# With ONCE=1 it exits when all is shown. Building Jaeger takes some minutes, once.
HAVE_GO := $(shell command -v go 2>/dev/null)
JAEGER := build/tools/jaeger
ONCE ?=
.PHONY: observe
observe: $(VENV)/.installed $(if $(HAVE_GO),$(JAEGER) $(GO_AGENT)) ## See a save's trace, KPIs and metrics with Jaeger and Prometheus (ONCE=1)
	@$(BIN)/python -m tools.observe $(if $(HAVE_GO),--jaeger $(JAEGER) --go-agent $(GO_AGENT)) \
	  $(if $(ONCE),--once)

$(JAEGER): tools/jaeger/go.mod tools/jaeger/go.sum
	@command -v go >/dev/null || { echo "Jaeger is built with Go 1.24 or newer" >&2; exit 3; }
	@echo "Building Jaeger, in some minutes ..."
	@go -C tools/jaeger build -trimpath -o "$(CURDIR)/$@" github.com/jaegertracing/jaeger/cmd/jaeger
	@touch $@

$(GO_AGENT): $(wildcard examples/go-agent/*.* client/go/go.* client/go/statekeep/v1/*.go)
	@command -v go >/dev/null || { echo "the Go agent needs Go 1.24 or newer" >&2; exit 3; }
	@echo "Building the Go agent ..."
	@go -C examples/go-agent build -trimpath -o "$(CURDIR)/$@"
	@touch $@

format: setup ## Format the Python code and the protos
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format
	@$(TOOLS)/bin/buf format --write

lint: setup ## Lint the Python code, the protos and the direction of imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo
	@$(TOOLS)/bin/buf lint
	@$(TOOLS)/bin/buf format --diff --exit-code

type: $(VENV)/.installed ## Check the types, strictly
	@$(BIN)/mypy

# Measured are the tests that decide what the coverage gate asks for; the others and their servers
# would take several times as long.
MEASURED := tests/conformance tests/property tests/integration/test_flag_stores.py \
  $(addprefix tests/unit/,batching cache domain service storage telemetry test_flags.py transport)
PARALLEL := --numprocesses $(JOBS) --dist worksteal
# How pytest says that ARGS chose no test.
NONE_CHOSEN := 5
test: setup ## Run everything that must hold, PostgreSQL and coverage included: what CI runs
	@$(BIN)/coverage erase
	@$(BIN)/pytest $(PARALLEL) --cov --cov-report= $(MEASURED) $(ARGS) || test $$? -eq $(NONE_CHOSEN)
	@$(BIN)/pytest $(PARALLEL) $(addprefix --ignore=,$(MEASURED)) $(ARGS) || test $$? -eq $(NONE_CHOSEN)
	@$(BIN)/python tools/coverage_gate.py

test-quick: $(VENV)/.installed ## Run the unit and property tests: no server, no PostgreSQL
	@$(BIN)/pytest tests/unit tests/property $(ARGS)

check: setup ## Run the house rules: format, lint, types, imports, contract, generated code, docs
	@$(BIN)/pytest tests/test_tidy.py tests/api/test_contract.py $(ARGS)

mutants: $(VENV)/.installed ## Put known faults back, one at a time, and see a test catch each (minutes)
	@$(BIN)/python tools/mutants.py

# A recording of the demo's agent, or FILE=… in the same format.
FILE ?= build/recording.jsonl.gz
replay: $(VENV)/.installed ## Replay recorded agent work on both paths and compare (FILE=… for your own)
	@mkdir -p build
	@test -f "$(FILE)" || $(BIN)/statekeep bench record "$(FILE)"
	@$(BIN)/statekeep bench replay "$(FILE)"

# QUICK=1 is a first look in seven minutes, PROFILE=1 adds where the time goes; more in BENCH_ARGS.
QUICK ?=
PROFILE ?=
BENCH_ARGS ?=
bench: $(BENCH)/.installed ## Measure everything beside its rivals (QUICK=1, PROFILE=1, RIVALS=…, FILE=…)
	@$(BENCH)/bin/python -m benchmarks --recording "$(FILE)" --rivals "$(RIVALS)" \
	  $(if $(QUICK),--quick) $(if $(PROFILE),--profile) $(BENCH_ARGS)

SAVES ?= 1000000
RUNS ?= 100000
soak: $(BENCH)/.installed ## Save a million states and watch the memory (SAVES=…, RUNS=…)
	@$(BENCH)/bin/python -m benchmarks.soak --recording "$(FILE)" --saves $(SAVES) --runs $(RUNS)

# Go programs, each pinned by a module of its own, built once: ghz in about a minute, and the Dapr
# sidecar in about five, only for RIVALS=dapr.
GHZ := build/tools/ghz
DAPRD := build/tools/daprd
RIVALS ?=
BASELINE ?=
LOAD_PLAN ?= load/plan.toml
DAPR_WANTED := $(if $(findstring dapr,$(RIVALS)),$(DAPRD))
load: $(GHZ) $(DAPR_WANTED) $(VENV)/.installed ## Load a server with ghz (RIVALS=dapr, BASELINE=…, FILE=…, LOAD_PLAN=…)
	@test -f "$(FILE)" || $(BIN)/statekeep bench record "$(FILE)"
	@$(BIN)/python -m load --ghz $(GHZ) $(if $(DAPR_WANTED),--daprd $(DAPRD)) --file "$(FILE)" \
	  --plan "$(LOAD_PLAN)" $(if $(BASELINE),--baseline "$(BASELINE)") \
	  --results benchmarks/results/load.json

$(GHZ): tools/ghz/go.mod tools/ghz/go.sum
	@command -v go >/dev/null || { echo "make load needs Go 1.24 or newer, to build ghz" >&2; exit 3; }
	@echo "Building ghz ..."
	@go -C tools/ghz build -trimpath -o "$(CURDIR)/$@" github.com/bojand/ghz/cmd/ghz
	@touch $@

$(DAPRD): tools/dapr/go.mod tools/dapr/go.sum
	@command -v go >/dev/null || { echo "RIVALS=dapr needs Go 1.24 or newer, to build daprd" >&2; exit 3; }
	@echo "Building daprd ..."
	@go -C tools/dapr build -trimpath -tags stablecomponents -o "$(CURDIR)/$@" github.com/dapr/dapr/cmd/daprd
	@touch $@

# Only this command needs uv; what it pins is installed by pip.
UV := uv==0.13.9
lock: ## Pin the newest versions that fit, with hashes, in all lock files
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python $(PIP) install $(UV)
	@rm -f uv.lock
	@build/lock/bin/uv export --quiet --python "$(PYTHON)" --all-packages --all-groups --all-extras \
	  --no-emit-workspace --no-header --format requirements-txt --output-file requirements.lock
	@rm -f uv.lock
	@build/lock/bin/uv pip compile --quiet --python "$(PYTHON)" --universal --generate-hashes --upgrade \
	  --no-header --output-file tools/generate.lock tools/generate.in
	@build/lock/bin/uv pip compile --quiet --python "$(PYTHON)" --universal --generate-hashes --upgrade \
	  --no-header --override benchmarks/overrides.in --output-file benchmarks/requirements.lock \
	  benchmarks/requirements.in
	@build/lock/bin/uv pip compile --quiet --python "$(PYTHON)" --universal --generate-hashes --upgrade \
	  --no-header --output-file tools/deploy/requirements.lock tools/deploy/requirements.in

# Linters of what is under deploy/. Helm and the reader of compose files are Go programs, each pinned
# by a module of its own and built once: a minute and, for Helm, about five.
DEPLOY := .venv-deploy
deploy-tools: $(DEPLOY)/.installed build/tools/compose-go build/tools/helm ## Get the linters of deploy/ (needs Go)

$(DEPLOY)/.installed: tools/deploy/requirements.lock
	@$(PYTHON) -m venv $(DEPLOY)
	@$(DEPLOY)/bin/python $(PIP) install --no-deps --require-hashes -r tools/deploy/requirements.lock
	@touch $@

build/tools/compose-go: tools/compose/go.mod tools/compose/go.sum
	@command -v go >/dev/null || { echo "make deploy-tools needs Go 1.24 or newer, for compose-go" >&2; exit 3; }
	@go -C tools/compose build -trimpath -o "$(CURDIR)/$@" github.com/compose-spec/compose-go/v2/cmd
	@touch $@

build/tools/helm: tools/helm/go.mod tools/helm/go.sum
	@command -v go >/dev/null || { echo "make deploy-tools needs Go 1.26 or newer, for Helm" >&2; exit 3; }
	@go -C tools/helm build -trimpath -o "$(CURDIR)/$@" helm.sh/helm/v4/cmd/helm
	@touch $@

lint-deploy: deploy-tools $(VENV)/.installed ## Lint the Dockerfile, the compose file, the chart and the unit
	@$(BIN)/pytest tests/deploy $(ARGS)

clean: ## Remove the environments and everything that was built or cached
	@rm -rf $(VENV) $(TOOLS) $(BENCH) $(DEPLOY) build dist .coverage .coverage.* .hypothesis \
	  .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp is written last: an installation that was cut short is done again.

$(VENV)/.locked: requirements.lock
	@test -n "$(PYTHON)" || { echo "statekeep needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing what requirements.lock names into $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) install --no-deps --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.locked client/python/pyproject.toml server/pyproject.toml
	@$(BIN)/python $(PIP) install --no-deps --no-build-isolation -e client/python -e server
	@touch $@

$(TOOLS)/.installed: tools/generate.lock
	@test -n "$(PYTHON)" || { echo "statekeep needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing what tools/generate.lock names into $(TOOLS) ..."
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python $(PIP) install --no-deps --require-hashes -r tools/generate.lock
	@touch $@

# Without dependencies: the lock is whole, and holds one that a rival would not choose.
$(BENCH)/.installed: benchmarks/requirements.lock client/python/pyproject.toml server/pyproject.toml
	@test -n "$(PYTHON)" || { echo "statekeep needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing what benchmarks/requirements.lock names into $(BENCH) ..."
	@$(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python $(PIP) install --no-deps --require-hashes -r benchmarks/requirements.lock
	@$(BENCH)/bin/python $(PIP) install --no-deps --no-build-isolation -e client/python -e server
	@touch $@
