#!/bin/sh
# Usage: release.sh GORELEASER@VERSION [FLAG OF GORELEASER RELEASE …]
# Releases the commit that is checked out, if it has the tag of its version. The
# notes are that version's section of CHANGELOG.md.
set -eu
goreleaser=$1
shift
version=$(sed -n 's/^const Number = "\(.*\)"$/\1/p' internal/version/version.go)
if ! git tag --points-at HEAD | grep -Fqx "v$version"; then
	echo "the version is $version, and this commit has no tag v$version" >&2
	exit 1
fi
notes=$(mktemp)
trap 'rm -f "$notes"' EXIT
awk -v heading="## $version - " '/^## / { on = index($0, heading) == 1; next } on' CHANGELOG.md > "$notes"
if [ ! -s "$notes" ]; then
	echo "CHANGELOG.md has no section for $version" >&2
	exit 1
fi
PATH="$PWD/.tools:$PATH" GORELEASER_CURRENT_TAG="v$version" \
	go run "$goreleaser" release --clean --release-notes "$notes" "$@"
