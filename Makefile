# The project's verbs. `make` alone prints them.

# Everything that is not the clone's own lives here: Python environment, base images, build cache.
NULLSPACE_STATE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nullspace-build
CARGO_TARGET_DIR ?= $(NULLSPACE_STATE)/target
export NULLSPACE_STATE CARGO_TARGET_DIR

# release or dev: how `make build`, `run` and `demo` compile the service.
PROFILE ?= release
# Where `make run` listens and keeps its data.
PORT ?= 3000
DATA ?= target/run
export PROFILE PORT DATA

# Passed on to `cargo test` by `make test`: ARGS='-p tests --test real'.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup build agent run demo test bench fmt lint

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian packages, the Python client, base images
	@scripts/setup

build: ## compile the service (PROFILE=release or dev)
	cargo build --locked --profile $(PROFILE) -p api

# Static, for it is the first process of every machine; the flags reach only this binary.
agent: ## compile the guest agent
	cargo rustc --locked -p guest --profile agent --bin nullspace-guest -- \
	  -C target-feature=+crt-static -C relocation-model=static

run: setup agent build ## start registry and service in the foreground (PORT=3000 DATA=target/run)
	@exec scripts/run

demo: setup agent build ## build a template, restore it, build it again
	@exec scripts/demo

test: setup agent ## every suite, on real parts
	@exec scripts/test $(ARGS)

bench: ## measure what followers cost a build, and how far behind it they are (PROFILE=release or dev)
	cargo bench --locked --profile $(PROFILE) -p api --bench followers

fmt: ## format the code
	cargo fmt --all

lint: ## formatting, clippy and shellcheck, as CI runs them
	@exec scripts/lint
