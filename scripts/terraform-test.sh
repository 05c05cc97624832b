#!/bin/sh
# Runs Terraform's own tests of terraform/. They only plan, with mocked
# providers, and need no account. Every secret in them contains the word canary,
# and no plan may contain it.
set -eu
not_run() {
	printf '\n*** NOT RUN *** The tests of terraform/: %s\n' "$1" >&2
	[ -z "${CI:-}" ] || exit 1
	exit 0
}
command -v terraform > /dev/null || not_run "terraform is not installed"
cd terraform
TF_DATA_DIR=$(mktemp -d)
export TF_DATA_DIR
# A lock file is only for deployments: these tests leave none behind.
if [ -e .terraform.lock.hcl ]; then
	trap 'rm -rf "$TF_DATA_DIR"' EXIT
else
	trap 'rm -rf "$TF_DATA_DIR" .terraform.lock.hcl' EXIT
fi
if ! out=$(terraform init -backend=false -input=false -no-color 2>&1); then
	echo "$out" >&2
	not_run "its providers could not be had"
fi
terraform validate -no-color
plans=$TF_DATA_DIR/plans.json
if ! terraform test -json -verbose > "$plans"; then
	terraform test -no-color
	exit 1
fi
grep -o '"@message":"Success![^"]*"' "$plans" | cut -d'"' -f4
if grep -q '"type":"test_plan"' "$plans" && ! grep '"type":"test_plan"' "$plans" | grep -q canary; then
	echo "No plan holds a secret."
else
	echo "A secret stands in a plan, or there were no plans to look at." >&2
	exit 1
fi
