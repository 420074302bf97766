.DEFAULT_GOAL := help
.PHONY: help demo test race faults fuzz generate lint check up bench

# Given on the command line: make demo ARGS=--once, make test TESTFLAGS='-run Append', make fuzz FUZZTIME=5m, make faults FAULTS=200 KILL=KillOneOfTwoWorkers
ARGS ?=
TESTFLAGS ?=
FUZZTIME ?= 30s
FAULTS ?= 50
KILL ?= Kill

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the whole story on this machine, PostgreSQL included: from firing to delivery and its audit trail
	@.ci/need postgresql
	go run ./cmd/dispatch-ledger demo $(ARGS)

test: ## all tests, on a real PostgreSQL and in a real browser
	@.ci/need postgresql
	@.ci/need chromium
	-@.ci/need pgbouncer
	go test $(TESTFLAGS) ./...

race: ## all tests under the race detector
	@.ci/need cc
	@$(MAKE) --no-print-directory test TESTFLAGS='-race $(TESTFLAGS)'

faults: ## the fault tests that kill processes and PostgreSQL under load, FAULTS (50) times each; KILL names one of them
	@.ci/need postgresql
	go test ./cmd/dispatch-ledger -run '$(KILL)' -count=1 -v -timeout 2h -faults $(FAULTS)

fuzz: ## each fuzz test for FUZZTIME (30s)
	@.ci/need postgresql
	@go test -list '^Fuzz' ./... | awk '/^Fuzz/ { names[++n] = $$1 } /^ok/ { while (n) print $$2, names[n--] }' | \
	while read -r package name; do \
		echo "== $$package $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; \
	done

generate: ## everything that is written by programs: docs/events.md, docs/cli.md and the like
	go generate ./...

lint: ## the house rules
	.ci/run lint

check: ## the whole gate: what has to hold before a commit is taken
	.ci/run

up: ## the service, its PostgreSQL and Prometheus in containers
	docker compose up --build

bench: ## the ledger's speed on this machine
	@.ci/need postgresql
	go run ./cmd/dispatch-ledger bench $(ARGS)
