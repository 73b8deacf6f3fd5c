# Everything that one does with this repository. `make` alone lists the targets.
# Works with GNU make 3.81 and newer, as root and as an ordinary user.

CARGO ?= cargo
# Where cargo puts what it builds.
TARGET = $(or $(CARGO_TARGET_DIR),target)
# Arguments for the program of `make run`, `make demo`, `make bench`: make run ARGS="--data-dir /tmp/q"
ARGS ?=
# Schedules that `make simulate` runs: make simulate SEEDS=0..1000000, or one seed to replay it.
SEEDS ?= 0..100000
# How long `make fuzz` fuzzes each target.
FUZZ_SECONDS ?= 60
# Arguments for the test binaries of `make test`: make test TEST_ARGS="--test-threads=1"
TEST_ARGS ?=

# One recipe after another even with -j: cargo uses all processors itself, and the tests' summary
# comes last.
.NOTPARALLEL:
.PHONY: help setup build run demo test verify fmt lint proto policy docs bench simulate mutate fuzz clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Check the toolchain; install PostgreSQL's server binaries where they are missing
	@./scripts/setup.sh

build: setup ## Build the server and its command line, `quittance`
	$(CARGO) build --package quittance-server --bin quittance

run: build ## Run the service in development mode: own database, sandbox provider, own certificate
	$(TARGET)/debug/quittance dev $(ARGS)

demo: build ## Show the service at work, from nothing, with a throw-away database
	$(TARGET)/debug/quittance demo $(ARGS)

# Not `cargo run`: the environment that it sets would make the cargo inside build ring again. Nor a build of that package alone:
# its dependencies would be built twice, with fewer features. The tests' build makes the program too.
test: setup ## Run all tests against one throw-away PostgreSQL (or against DATABASE_URL)
	$(CARGO) test --workspace --no-run
	$(TARGET)/debug/embedded-postgres run -- \
		$(CARGO) test --workspace --no-fail-fast $(if $(TEST_ARGS),-- $(TEST_ARGS))

simulate: ## Run many random schedules of the whole engine (release build): make simulate SEEDS=0..1000000
	SEEDS=$(SEEDS) $(CARGO) test --release --package quittance-simulation --test simulate -- --nocapture

mutate: setup ## Break each invariant on purpose, on a scratch copy, and demand that the tests notice
	$(CARGO) build --package quittance-embedded-postgres --bin embedded-postgres
	$(CARGO) build --package quittance-simulation --example mutate
	$(TARGET)/debug/embedded-postgres run -- $(TARGET)/debug/examples/mutate $(ARGS)

fuzz: ## Fuzz every parser of the evidence for FUZZ_SECONDS each
	./scripts/fuzz.sh $(FUZZ_SECONDS)

verify: fmt lint proto policy docs test ## Everything that CI checks; needs Node.js (for buf)

fmt: ## Check the formatting
	$(CARGO) fmt --all -- --check

lint: ## Check with clippy; warnings are errors
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

proto: ## Check the contract with buf: style, and compatibility with the last release
	./scripts/buf.sh

policy: ## Check licences, bans and sources of the dependencies with cargo-deny
	./scripts/deny.sh

docs: ## Build the documentation of the crates; warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

bench: setup ## Measure payments per second beside a pgbench baseline (release build)
	$(CARGO) build --release --package quittance-server --package quittance-bench --bins
	$(TARGET)/release/quittance-bench $(ARGS)

clean: ## Remove everything that was built (not the data of `make run`, in .quittance)
	$(CARGO) clean
