# What there is to do with this repository; `make help` lists it. Nothing but
# Go is needed: every other tool is fetched and run by `go run NAME@VERSION`.
.DEFAULT_GOAL := help

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
FUZZTIME ?= 20s
# The race detector needs cgo; CI always has it.
RACE := $(if $(CI),-race)

.PHONY: help run test lint fmt fuzz cover bench

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

# The client and the server of Docker Content Trust, as its tests run them.
NOTARY := v0.7.0
.PHONY: tools
tools: .tools/notary@$(NOTARY) .tools/notary-server@$(NOTARY)

.tools/notary@$(NOTARY) .tools/notary-server@$(NOTARY): .tools/%@$(NOTARY):
	GOBIN=$(CURDIR)/.tools go install github.com/theupdateframework/notary/cmd/$*@$(NOTARY)
	@touch $@
