# What there is to do with this repository; `make help` lists it. Nothing but
# Go is needed: every other tool is fetched and run by `go run NAME@VERSION`, or
# built into .tools, where the tests of the GitLab template find it.
.DEFAULT_GOAL := help

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
CRANE := v0.22.1
COSIGN := v3.1.3
FUZZTIME ?= 20s
# The race detector needs cgo; CI always has it.
RACE := $(if $(CI),-race)

.PHONY: help run test lint fmt fuzz cover bench tools template

help: ## show this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

run: ## run the whole system on this machine, with fakes (FLAGS="-language ja -fast")
	@go run ./cmd/hubrelay local $(FLAGS)

test: tools ## run every test
	go test $(RACE) ./...
	@scripts/terraform-test.sh
	@scripts/not-run.sh

lint: ## look for mistakes without running anything
	@scripts/lint.sh $(STATICCHECK) $(GOVULNCHECK)

template: ## make templates/promote.yml from internal/pipeline
	go test ./internal/pipeline -run TestTemplateIsMadeOfItsSources -update

tools: .tools/crane@$(CRANE) .tools/cosign@$(COSIGN) ## build crane and cosign (some minutes, once)

.tools/crane@$(CRANE):
	GOBIN=$(CURDIR)/.tools go install github.com/google/go-containerregistry/cmd/crane@$(CRANE)
	@touch $@

.tools/cosign@$(COSIGN):
	GOBIN=$(CURDIR)/.tools go install github.com/sigstore/cosign/v3/cmd/cosign@$(COSIGN)
	@touch $@

fmt: ## format everything
	gofmt -w .
	@! command -v terraform > /dev/null || terraform fmt -recursive terraform

fuzz: ## fuzz each decoder for FUZZTIME
	@scripts/fuzz.sh $(FUZZTIME)

cover: ## test, and say what is covered
	@go test -coverpkg=./... -coverprofile=cover.out ./... > /dev/null
	@go tool cover -func=cover.out | tail -1
	@echo "go tool cover -html=cover.out shows the lines"

bench: ## measure, side by side with a bare handler
	go test -run '^$$' -bench . -benchmem ./...
