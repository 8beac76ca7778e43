# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
RATE ?= 10
NODES ?= 1
HTTP ?= 127.0.0.1:7070
TARGET ?= events
MINUTES ?= 5

.PHONY: help demo test fmt lint unit api-fuzz build dashboard dashboard-test dashboard-e2e deny fuzz fuzz-merge setup oracle flights-year chaos chaos-figures clean-demo sim planted

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: ## Install what a fresh Debian machine with Rust lacks (compiler, rustfmt, clippy)
	@ops/setup.sh

# Cargo compiles the node again when the dashboard inside it has changed.
dashboard: setup ## Build the dashboard (dashboard/dist), which goes into the binary
	ops/dashboard.sh build
export TALLYMESH_DASHBOARD = $(shell cat dashboard/dist/.sources 2>/dev/null)

demo: dashboard ## Build, start a node (NODES=3: a fleet) with live sample traffic, print the dashboard's URL
	cargo build --release --locked --package tallymesh-node
	$(CARGO_TARGET_DIR)/release/tallymesh demo --nodes $(or $(NODES),1) --rate $(RATE) --http $(HTTP)

test: setup fmt dashboard lint dashboard-test unit planted dashboard-e2e ## Format check, lints with warnings denied, every test

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

dashboard-test: dashboard
	ops/dashboard.sh check
	ops/dashboard.sh test

dashboard-e2e: dashboard ## The dashboard in a browser, against a node of the debug build
	@ops/setup.sh --browser
	cargo build --workspace --locked
	ops/dashboard.sh e2e

# A test that needs promtool fails where this names none.
unit: export TALLYMESH_PROMTOOL = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tallymesh-promtool/promtool
unit: dashboard
	@ops/setup.sh --promtool
	cargo build --workspace --locked
	cargo test --workspace --locked

deny: ## Licences, duplicate and banned crates, sources (installs cargo-deny when it is missing)
	command -v cargo-deny >/dev/null || cargo install cargo-deny --version 0.20.2 --locked
	cargo deny --all-features check bans licenses sources

api-fuzz: ## Requests made from /openapi.json against a node: no fault, no undocumented answer (needs PyPI the first time)
	@ops/api-fuzz/run.sh

oracle: ## Random nodes against a plain count: make oracle WORLDS=1000 (SEED=7 WORLDS=1 repeats one)
	TALLYMESH_ORACLE_WORLDS=$(or $(WORLDS),200) $(if $(SEED),TALLYMESH_ORACLE_SEED=$(SEED)) \
		cargo test --locked --package tallymesh-node --test it answers_of_a_whole_node -- --nocapture

chaos: build ## A fleet under faults for minutes, then the machine's own faults as root: make chaos MINUTES=30 SEED=7 NODES=3
	@ops/setup.sh --chaos
	$(CARGO_TARGET_DIR)/release/tallymesh chaos --minutes $(MINUTES) --nodes $(or $(NODES),3) $(if $(SEED),--seed $(SEED))
	TALLYMESH_BIN=$(CARGO_TARGET_DIR)/release/tallymesh \
		cargo test --locked --package tallymesh-chaos-tests --test machine -- --ignored --nocapture --test-threads=1

chaos-figures: build ## Failover figures; the machine must do nothing else: make chaos-figures TIMES=60
	TALLYMESH_BIN=$(CARGO_TARGET_DIR)/release/tallymesh $(if $(TIMES),TALLYMESH_CHAOS_TIMES=$(TIMES)) \
		cargo test --locked --package tallymesh-chaos-tests --test fleet figures -- --ignored --nocapture --test-threads=1

sim: ## Seeds of the simulated fleet on all cores: make sim SEEDS=5000 FROM=0 (SEEDS=1 FROM=7 TRACE=1 tells one in full)
	TALLYMESH_SIM_SEEDS=$(or $(SEEDS),2000) TALLYMESH_SIM_FROM=$(or $(FROM),0) TALLYMESH_SIM_TRACE=$(or $(TRACE),0) \
		CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_TEST_OPT_LEVEL=1 \
		cargo test --locked --package tallymesh-chaos-tests --test sim nothing_is_lost -- --nocapture

planted: ## The simulation catches every bug that is planted on purpose: make planted (BUG=VoteNotPersisted for one)
	$(if $(BUG),TALLYMESH_SIM_BUG=$(BUG)) cargo test --locked --package tallymesh-chaos-tests --features planted-bugs --test sim planted -- --nocapture

fuzz: ## One fuzz target for minutes of CPU time: make fuzz TARGET=events|queries|batches|segments|wire MINUTES=5
	ops/fuzz/run.sh $(TARGET) $(MINUTES)

fuzz-merge: ## Keep the least of what a run found that covers as much: make fuzz-merge TARGET=events
	ops/fuzz/merge.sh $(TARGET)

flights-year: ## The flights test over the whole year: make flights-year FILE=flights.ndjson.gz
	cargo build --workspace --locked
	TALLYMESH_FLIGHTS=$(abspath $(FILE)) cargo test --locked --package tallymesh-chaos-tests --test flights -- --nocapture

build: dashboard ## Release binary
	cargo build --release --locked --package tallymesh-node

clean-demo: ## Forget the demo's data
	rm -rf ./tallymesh-data/demo
