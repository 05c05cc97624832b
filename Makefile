# What there is to do with this repository; `make help` lists it. Nothing but
# Go is needed: every other tool is fetched and run by `go run NAME@VERSION`, or
# built into .tools, where the tests of the GitLab template find it.
.DEFAULT_GOAL := help

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
GORELEASER := github.com/goreleaser/goreleaser/v2@v2.15.1
BENCHSTAT := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
CRANE := v0.22.1
COSIGN := v3.1.3
NOTARY := v0.7.0
CYCLONEDX := v1.10.0
FUZZTIME ?= 20s
WEBHOOKS ?= 10000
# The race detector needs cgo; CI always has it.
RACE := $(if $(CI),-race)

.PHONY: help run test lint fmt chaos simulate mutants fuzz cover bench tools template screenshots release release-check

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: ## run the whole system on this machine, with fakes (FLAGS="-language ja -fast")
	@go run ./cmd/hubrelay local $(FLAGS)

test: tools ## run every test, and list those that were skipped
	@scripts/test.sh $(RACE) -timeout 30m

lint: ## run the linters
	@scripts/lint.sh $(STATICCHECK) $(GOVULNCHECK) $(ACTIONLINT)

template: ## make templates/promote.yml from internal/pipeline
	go test ./internal/pipeline -run TestTemplateIsMadeOfItsSources -update

tools: .tools/crane@$(CRANE) .tools/cosign@$(COSIGN) .tools/notary@$(NOTARY) .tools/notary-server@$(NOTARY) ## build the tools that the tests of the template and the console need (some minutes, once)

	@scripts/gitlab-ci-local.sh || test -z "$(CI)"
	@scripts/browser.sh || test -z "$(CI)"

# Each is a file beside the tool that says which version it is.
.tools/crane@$(CRANE): PACKAGE := github.com/google/go-containerregistry/cmd/crane
.tools/cosign@$(COSIGN): PACKAGE := github.com/sigstore/cosign/v3/cmd/cosign
.tools/notary@$(NOTARY): PACKAGE := github.com/theupdateframework/notary/cmd/notary
.tools/notary-server@$(NOTARY): PACKAGE := github.com/theupdateframework/notary/cmd/notary-server
.tools/cyclonedx-gomod@$(CYCLONEDX): PACKAGE := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
.tools/%:
	GOBIN=$(CURDIR)/.tools go install $(PACKAGE)@$(lastword $(subst @, ,$*))
	@touch $@

release-check: .tools/cosign@$(COSIGN) .tools/cyclonedx-gomod@$(CYCLONEDX) ## make a release without publishing it, and check it (TARGETS=all)
	@scripts/release-check.sh $(GORELEASER)

release: .tools/cosign@$(COSIGN) .tools/cyclonedx-gomod@$(CYCLONEDX) ## publish the tag that is checked out; CI does it
	@scripts/release.sh $(GORELEASER)

screenshots: ## walk through the console in a browser, and save screenshots in screenshots/
	@scripts/browser.sh
	SCREENSHOTS=$(CURDIR)/screenshots go test ./internal/console -run TestInABrowser -count=1

fmt: ## format everything
	gofmt -w .
	@! command -v terraform > /dev/null || terraform fmt -recursive terraform

chaos: ## send WEBHOOKS (10000) webhooks while everything fails, and account for each
	go test ./internal/e2e -run TestChaos -count=1 -v -timeout 60m -args -webhooks $(WEBHOOKS)

simulate: ## run the whole system with one seed after another, until one breaks a promise
	go test ./internal/simulation -run TestSimulate -count=1 -timeout 0 -v -args -forever

mutants: ## show that the simulation finds a list of known faults (half an hour)
	go test ./internal/simulation -run TestMutants -count=1 -timeout 0 -v -args -mutants

fuzz: ## fuzz each decoder for FUZZTIME
	@scripts/fuzz.sh $(FUZZTIME)

cover: ## run the tests, and show the coverage
	@go test -coverpkg=./... -coverprofile=cover.out ./... > /dev/null
	@go tool cover -func=cover.out | tail -1
	@echo "go tool cover -html=cover.out shows the lines"

bench: ## run the benchmarks, side by side with bare handlers (some minutes)
	@scripts/bench.sh $(BENCHSTAT)
