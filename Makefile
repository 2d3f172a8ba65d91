# The usual tasks. Everything that a target needs beyond Rust is installed by compose/install-servers (as root; else it
# says what to run).

CARGO ?= cargo
FLAVOR ?= mariadb
STATEMENTS ?= 100000
SEED ?= 2
SEEDS ?= 20000
RUNS ?= 20

.PHONY: build demo test compat bench soak soak-failover simulate fuzz fmt lint doc

build:
	$(CARGO) build --release

demo:
	compose/install-servers $(FLAVOR)
	$(CARGO) run --quiet -- demo --flavor $(FLAVOR)

test:
	compose/install-servers --tests
	$(CARGO) test --workspace --no-fail-fast

compat:
	compose/install-servers --compat
	$(CARGO) build
	tests/compat/run

bench:
	compose/install-servers --bench --tests
	$(CARGO) build --release
	$(CARGO) bench --workspace --bench tracker --bench classify
	python3 benches/compare
	python3 benches/soak --only cost,many,connect

soak:
	compose/install-servers --tests
	compose/install-servers --soak
	DBPROXY_EXACT=$(STATEMENTS) DBPROXY_EXACT_SEED=$(SEED) $(CARGO) test --test exact -- --test-threads=1
	$(CARGO) build --release
	python3 benches/soak

# Each run kills, stops or switches a primary under load. RUNS=500 takes hours.
soak-failover:
	compose/install-servers --tests
	$(CARGO) bench --bench failover -- both all $(RUNS)

# Optimised, on top of the tests' own crates.
simulate:
	CARGO_PROFILE_DEV_OPT_LEVEL=2 SIMULATE_SEEDS=$(SEEDS) $(CARGO) test --test simulation -- --nocapture

fuzz:
	fuzz/smoke

fmt:
	$(CARGO) fmt --all

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps
