# Everything that is done with this repository by hand. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where rustup puts cargo, for shells that have not read its environment.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Arguments of `rialto serve`, such as ARGS="--data DIR --tcp 127.0.0.1:0", or of `rialto-peers`.
ARGS ?=
# A log in the form that `loadgen replay` reads, and how often the broker is killed while it is played.
CORPUS ?=
KILLS ?= 20
# Which fault campaigns, or `all`, and their flags, such as FAULT_ARGS="--rounds 20 --seed 7".
CAMPAIGN ?= all
FAULT_ARGS ?=
# How long the soak test lasts: 10m, 1h and the like.
DURATION ?= 1h
# Seconds that each fuzz target runs.
FUZZ_S ?= 60

# $(call needs,PROGRAMS,PACKAGES): where one of the programs is missing, root gets it from Debian's packages, and everybody else is
# told how. Packages that start a service have it stopped: it would be measured with the rest.
define needs
	@missing=""; for program in $(1); do command -v "$$program" > /dev/null || missing="$$missing $$program"; done; \
	test -n "$$missing" || exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get > /dev/null; then \
		echo "make:$$missing is missing: installing $(2)" >&2; \
		apt-get update > /dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(2) > /dev/null || { \
			echo "make: $(2) cannot be installed by apt-get: install$$missing, then run make again" >&2; exit 1; }; \
		for service in $(3); do service "$$service" stop > /dev/null 2>&1 || true; done; \
	else \
		echo "make:$$missing is missing. On Debian and Ubuntu:" >&2; \
		echo "  sudo apt-get install $(2)" >&2; exit 1; \
	fi
endef

# What is built to be run is looked for there, wherever else cargo is told to build.
run replay faults faults-planted soak peers: export CARGO_TARGET_DIR := $(CURDIR)/target

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: toolchain ## build and start a broker (ARGS="--data DIR …")
	@cargo build --release -p rialto-server
	@exec target/release/rialto serve $(ARGS)

test: toolchain ## run every test, with a summary at the end
	$(call needs,setpriv,util-linux)
	@mkdir -p target; \
	status=0; \
	cargo test --workspace --no-fail-fast 2>&1 | tee target/test.log || status=$$?; \
	awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
	     /^test .*FAILED$$/ { print "failed: " $$2 } \
	     /^error(\[|:)/ { print } \
	     match($$0, /NOT TESTED, .*/) { untested[substr($$0, RSTART)] } \
	     END { for (line in untested) print line; \
	            printf "\n%d passed, %d failed, %d ignored; the whole output is in target/test.log\n", passed, failed, ignored }' target/test.log; \
	exit $$status

replay: toolchain ## replay a log with kills, over every transport (CORPUS=FILE, KILLS=20)
	@test -n "$(CORPUS)" || { echo "make: say which log: make replay CORPUS=FILE.jsonl.gz" >&2; exit 1; }
	$(call needs,curl,curl)
	@cargo build --release
	@loadgen/acceptance.sh "$(CORPUS)" "$(KILLS)"

faults: toolchain ## break the real broker in every way and judge it (CAMPAIGN=kill, FAULT_ARGS="--rounds 20"); root for power cuts
	$(call needs,setpriv $(if $(filter 0,$(shell id -u)),mount mkfs.ext4),util-linux mount e2fsprogs)
	@cargo build --release -p rialto-server -p rialto-faults
	@target/release/faults $(CAMPAIGN) --report target/faults.json $(FAULT_ARGS)

faults-planted: toolchain ## show that the fault campaigns find mistakes that are planted into a broker of their own
	@cargo build --release -p rialto-server -p rialto-faults
	@cargo build --release -p rialto-server --features planted --bin rialto-planted
	@faults/planted.sh target/release/rialto-planted

soak: toolchain ## an hour at half load, or what the disk has room for, in which nothing may be lost or grow (DURATION=1h)
	@cargo build --release
	@loadgen/soak.sh "$(DURATION)"

lint: toolchain ## formatting, clippy and rustdoc, with no warning allowed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --all-targets --features rialto-server/planted -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

fmt: toolchain ## format the source
	cargo fmt --all

docs: toolchain ## write the parts of the documentation that are made from code, then build rustdoc
	TIDY_WRITE_DOCS=1 cargo test -q -p rialto-tidy --test docs
	cargo doc --no-deps --workspace

bench: toolchain ## run the benchmarks
	cargo bench -p rialto-benches

peers: toolchain ## run Rialto and its peers in turn and compare them (ARGS="--only durable --repeats 3", ARGS=--help)
	$(if $(filter --peers% --list --help,$(ARGS)),,$(call needs,redis-server redis-benchmark redis-cli,redis-server redis-tools,redis-server))
	@cargo build --release -p rialto-server -p rialto-loadgen -p rialto-peers
	@target/release/rialto-peers $(ARGS)

fuzz: toolchain ## run each fuzz target for a minute (FUZZ_S=…); needs nightly Rust and cargo-fuzz
	@command -v cargo-fuzz > /dev/null || { echo "make: cargo-fuzz is missing: cargo install --locked cargo-fuzz" >&2; exit 1; }
	@cargo +nightly --version > /dev/null 2>&1 || { echo "make: nightly Rust is missing: rustup toolchain install nightly" >&2; exit 1; }
	@cd protocol; for target in $$(cargo +nightly fuzz list); do \
		echo "== $$target"; cargo +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_S) -rss_limit_mb=2048; done

toolchain:
	@command -v cargo > /dev/null || { \
		echo "make: Rust is missing. Install it as https://rustup.rs says:" >&2; \
		echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal" >&2; \
		echo "then run make again, as the same user (sudo has another home: sudo target/release/faults runs what is built)." >&2; exit 1; }
	@command -v cc > /dev/null || { \
		echo "make: a C compiler is missing (ring and zstd are built with it). On Debian and Ubuntu:" >&2; \
		echo "  sudo apt-get install build-essential" >&2; exit 1; }
	@wanted=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml); \
	found=$$(rustc --version | awk '{ print $$2 }'); \
	if [ "$$(printf '%s\n' "$$wanted" "$$found" | sort -V | head -n 1)" != "$$wanted" ]; then \
		echo "make: Rust $$found is too old, $$wanted is needed: rustup update stable, or install it as https://rustup.rs says" >&2; exit 1; fi

.PHONY: help run test replay faults faults-planted soak lint fmt docs bench peers fuzz toolchain
