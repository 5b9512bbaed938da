# skep: `make` lists what there is.

# The machine's own target, named in static builds: without --target, static linking would reach build scripts and
# procedural macros too, and break them.
TARGET = $(shell rustc -vV | sed -n 's/^host: //p')
# Where cargo builds, whichever way that was configured.
TARGET_DIR = $(shell cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
STATIC = RUSTFLAGS="$$RUSTFLAGS -C target-feature=+crt-static" cargo build --locked --target $(TARGET)
# Does something with each Rust sample, $$sample; $$crate tells cargo which. They stand outside the workspace, as a user's would.
each_sample = for sample in markdown shout; do \
  crate="--manifest-path sample-functions/$$sample/Cargo.toml --target-dir $(TARGET_DIR)/samples"; $(1) || exit 1; done
# Copies only what differs, so that make, cargo and Docker see unchanged files as unchanged.
COPY = install -C -D

# What lets libFuzzer see which code a case reaches, in flags that the stable compiler knows. No sanitizer: nothing is unsafe.
FUZZ_FLAGS = --cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ = $(TARGET_DIR)/fuzz
# How long each target is fuzzed.
FUZZ_SECONDS ?= 600

# Bytes that the watchdog may have (docs/decisions/).
WATCHDOG_LIMIT = 2000000

# The stack that up and down mean, and the file that run starts.
STACK ?= faas
FILE ?= sample-functions/stack.yml

.DEFAULT_GOAL := help
# Cargo uses all processors already.
.NOTPARALLEL:
.PHONY: help run check api-check test test-setup prepare lint build skep fwatchdog fwatchdog-musl samples samples-local images up down bench soak fuzz size clean

help: ## this list
	@awk -F ':.*## ' '/^## /{print ""; sub(/^## /, ""); print} /^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' Makefile

## Every day

run: samples-local ## gateway with the samples as local processes, no Docker (ARGS="..." passes more, FILE=other.yml)
	cargo run --release -- local $(FILE) $(ARGS)

check: lint test ## what CI runs

test: test-setup ## all tests, on a real Swarm where one is there (T=name runs those whose name has it)
	$(call each_sample,cargo test --locked $$crate $(T))
	cargo test --locked -p fwatchdog $(T)
	cargo test --locked -p skep $(T)

lint: ## formatting, clippy, documentation, shell scripts, forbidden words
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(call each_sample,cargo fmt --check --manifest-path sample-functions/$$sample/Cargo.toml)
	$(call each_sample,cargo clippy --locked $$crate --all-targets -- -D warnings)
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	.ci/lint-files

api-check: ## asks a gateway everything that docs/openapi.json allows, at length (schemathesis, from PyPI, into target/)
	.ci/api-check

## Programs and images

build: skep fwatchdog samples ## static programs: dist/skep, dist/fwatchdog, dist/samples/*

images: build ## images of all of them: skep/gateway, skep/fwatchdog, skep/prometheus, skep/<sample>
	images/build.sh

fwatchdog-musl: ## the watchdog with musl, dist/fwatchdog-musl: half the memory; fetches what it needs from Debian
	watchdog/build-musl.sh

size: fwatchdog ## the watchdog's bytes; fails above its limit
	@bytes=$$(stat -c %s dist/fwatchdog); echo "fwatchdog: $$bytes bytes of $(WATCHDOG_LIMIT)"; [ $$bytes -le $(WATCHDOG_LIMIT) ]

clean: ## removes what was built here; images stay
	cargo clean
	rm -rf dist sample-functions/*/bin sample-functions/*/target

## On a Swarm

up: images ## deploys the stack and waits until all of it runs (STACK=name, GATEWAY_PORT=..., see docker-compose.yml)
	images/stack.sh up $(STACK)

down: ## takes the stack down and waits until it is gone
	images/stack.sh down $(STACK)

## Long ones

bench: images ## every measurement the documents quote, one after the other (overlay and discovery need a Swarm)
	for script in watchdog bodies http-mode prefork gateway overlay idle discovery discovery-many; do echo "== $$script"; bench/$$script.sh || exit 1; done

soak: fwatchdog ## the long tests; docs/reliability.md has their last results
	@.ci/python-tools install
	cargo test --locked -p fwatchdog --test soak --test container --test survivors -- --ignored --nocapture
	PROPERTY_CASES=1000000 cargo test --locked --release -p fwatchdog --lib properties
	PROPERTY_CASES=1000000 cargo test --locked -p skep --test properties
	cargo test --locked -p skep --test local --test swarm --test nodes -- --ignored --nocapture --test-threads 1
	$(MAKE) fuzz

# With the workspace's versions of everything, to which cargo adds libFuzzer's.
fuzz: ## cases that break gateway/tests/properties, looked for by coverage (FUZZ_SECONDS=... for each target; needs a C++ compiler)
	cp Cargo.lock fuzz/
	RUSTFLAGS="$$RUSTFLAGS $(FUZZ_FLAGS)" cargo build --release --manifest-path fuzz/Cargo.toml --target $(TARGET) --target-dir $(FUZZ)
	for target in router headers proxy_protocol requests; do \
	  mkdir -p $(FUZZ)/corpus/$$target; \
	  $(FUZZ)/$(TARGET)/release/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=4400 -print_final_stats=1 \
	    -artifact_prefix=$(FUZZ)/$$target- $(FUZZ)/corpus/$$target || exit 1; \
	done

# Parts of the above. Cargo decides what is up to date, so they always ask it.

prepare:
	@.ci/prepare

test-setup: prepare build samples-local
	@.ci/python-tools install
	@if docker info >/dev/null 2>&1; then images/build.sh; \
	else echo "no Docker engine answers: the tests that need a Swarm will not run"; [ "$$CI" != true ]; fi

skep:
	$(STATIC) -p skep --release
	@$(COPY) $(TARGET_DIR)/$(TARGET)/release/skep dist/skep

# Not position-independent: relocating itself would cost each watchdog the pages it writes (docs/decisions/0008). Without
# tables for unwinding and their index, which a program that aborts does not read (docs/decisions/0018).
fwatchdog:
	RUSTFLAGS="$$RUSTFLAGS -C relocation-model=static -C link-arg=-Wl,--no-eh-frame-hdr,-T,$(CURDIR)/watchdog/no-unwinding.ld"; \
	  export RUSTFLAGS; $(STATIC) -p fwatchdog --profile watchdog
	@$(COPY) $(TARGET_DIR)/$(TARGET)/watchdog/fwatchdog dist/fwatchdog

samples:
	$(call each_sample,$(STATIC) --release $$crate)
	@$(call each_sample,$(COPY) $(TARGET_DIR)/samples/$(TARGET)/release/$$sample dist/samples/$$sample)

samples-local: samples # their programs, put where stack.yml looks for them
	@$(call each_sample,$(COPY) dist/samples/$$sample sample-functions/$$sample/bin/$$sample)
