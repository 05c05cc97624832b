#!/usr/bin/env bash
# Usage: release-check.sh GORELEASER@VERSION
# Makes the release that CONTRIBUTING.md describes, in a clone of what is
# committed, and checks the result: everything but the upload and the images. It
# builds for this machine's processor, for Linux and for Windows, which has the
# least in common with it; with TARGETS=all, for all platforms.
set -euo pipefail
goreleaser=$1
tools=$PWD/.tools
export PATH="$tools:$PATH"
not_run() {
	echo "*** NOT RUN *** $1" >&2
	[ -z "${CI:-}" ] || failed=1
}
failed=0
fail() {
	echo "release-check: $1" >&2
	exit 1
}
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
[ -z "$(git status --porcelain)" ] || echo "release-check: what is not committed is left out" >&2

echo "== the release commit"
git clone --quiet --no-tags . "$work/clone"
cd "$work/clone"
git remote set-url origin https://github.com/getto-systems/hubrelay
number=$(sed -n 's/^const Number = "\(.*\)"$/\1/p' internal/version/version.go)
version=${number%-dev}
if [ "$version" != "$number" ]; then
	sed -i "s/^const Number = .*/const Number = \"$version\"/" internal/version/version.go
	sed -i "s/^## $version - unreleased\$/## $version - $(date +%F)/" CHANGELOG.md
	make --silent template
	git -c user.name=hubrelay -c user.email=hubrelay@localhost commit --quiet --all --message "Release $version"
fi
go test ./internal/version
git tag "v$version"
commit=$(git rev-parse HEAD)

echo "== goreleaser, and a signature by a key of the moment"
config=$work/goreleaser.yaml
if [ "${TARGETS:-}" = all ]; then
	cp .goreleaser.yaml "$config"
else
	sed -e 's/^    goos: \[.*/    goos: [linux, windows]/' -e "s/^    goarch: \[.*/    goarch: [$(go env GOHOSTARCH)]/" .goreleaser.yaml > "$config"
	! cmp -s .goreleaser.yaml "$config" || fail ".goreleaser.yaml has no platforms to leave out"
fi
(
	cd "$work"
	export COSIGN_PASSWORD=
	cosign generate-key-pair 2> /dev/null
	cosign signing-config create --out signing.json
	cosign trusted-root create --out root.json
)
make_release() {
	COSIGN_PASSWORD='' COSIGN_KEY="$work/cosign.key" COSIGN_SIGNING_CONFIG="$work/signing.json" IMAGES='' \
		scripts/release.sh "$goreleaser" --config "$config" --skip=publish,docker 2> "$work/log" || {
		cat "$work/log" >&2
		fail "goreleaser fails"
	}
}
# download copies what goreleaser would upload into a folder, under the names of
# the upload.
download() {
	local built target
	mkdir "$work/download"
	cp dist/*.cdx.json dist/checksums.txt* "$work/download"
	for built in dist/*/hubrelay dist/*/hubrelay.exe; do
		[ -e "$built" ] || continue
		target=${built#dist/}
		target=${target%/*}
		cp "$built" "$work/download/hubrelay_${version}_$(cut -d _ -f 2,3 <<< "$target")$(grep -o '[.]exe$' <<< "$built" || true)"
	done
}
go run "$goreleaser" check "$config" 2> "$work/log" || {
	cat "$work/log" >&2
	fail ".goreleaser.yaml is refused"
}
make_release

echo "== what is in it"
download dist
cd "$work/download"
sha256sum --check --quiet checksums.txt
verify() { cosign verify-blob --key "$work/cosign.pub" --trusted-root "$work/root.json" --insecure-ignore-tlog --bundle checksums.txt.sigstore.json "$1" > "$work/log" 2>&1; }
verify checksums.txt || {
	cat "$work/log" >&2
	fail "the bundle does not verify"
}
{ cat checksums.txt; echo; } > "$work/other.txt"
! verify "$work/other.txt" || fail "the bundle verifies what was not signed"
host=
for binary in hubrelay_"${version}"_*; do
	case $binary in *.cdx.json) continue ;; esac
	built=$(go version -m "$binary")
	for setting in CGO_ENABLED=0 -trimpath=true "vcs.revision=$commit" vcs.modified=false; do
		grep -Eq "^[[:space:]]build[[:space:]]$setting\$" <<< "$built" || fail "$binary was not built with $setting"
	done
	! grep -aFq -e "$work" -e "$(go env GOMODCACHE)" "$binary" || fail "$binary holds a path of this machine"
	case $binary in
	*_linux_*)
		if command -v readelf > /dev/null; then
			! readelf --program-headers --wide "$binary" | grep -q INTERP || fail "$binary is not static"
		else
			not_run "readelf is not installed: whether $binary is static"
		fi
		;;
	esac
	for module in "github.com/getto-systems/hubrelay@v$version" cloud.google.com/go/firestore@ std@; do
		grep -Fq "\"purl\": \"pkg:golang/$module" "$binary.cdx.json" || fail "$binary.cdx.json does not name $module"
	done
	if [ "$binary" = "hubrelay_${version}_$(go env GOHOSTOS)_$(go env GOHOSTARCH)" ]; then
		host=$binary
		./"$binary" version | grep -Fq "hubrelay $version (commit ${commit:0:12}, " || fail "$binary says $(./"$binary" version)"
	fi
	echo "$binary: $(sha256sum "$binary" | cut -d ' ' -f 1)"
done
[ -n "$host" ] || fail "there is no binary for this machine"

echo "== the same bytes: by goreleaser again elsewhere, and by go build from nothing"
git clone --quiet "$work/clone" "$work/somewhere/else"
cd "$work/somewhere/else"
git remote set-url origin https://github.com/getto-systems/hubrelay
make_release
diff "$work/download/checksums.txt" dist/checksums.txt || fail "a second release has other bytes"
CGO_ENABLED=0 GOCACHE="$work/cache" go build -trimpath -buildvcs=true -ldflags='-s -w' -o "$work/by-hand" ./cmd/hubrelay
cmp "$work/by-hand" "$work/download/$host" || fail "go build makes other bytes"

echo "== go install github.com/getto-systems/hubrelay/cmd/hubrelay@v$version"
# git is told that GitHub has the clone; everything else is as for anybody. The
# module cache is separate, because nobody else may keep this version.
GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$work/clone/.git.insteadOf" GIT_CONFIG_VALUE_0=https://github.com/getto-systems/hubrelay \
	GOPROXY="file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" GONOPROXY=github.com/getto-systems/hubrelay GOSUMDB=off \
	GOMODCACHE="$work/modules" GOBIN="$work/bin" CGO_ENABLED=0 \
	go install -trimpath "github.com/getto-systems/hubrelay/cmd/hubrelay@v$version" 2> "$work/log" || {
	cat "$work/log" >&2
	fail "go install fails"
}
"$work/bin/hubrelay" version | grep -F "hubrelay $version (go" || fail "it says $("$work/bin/hubrelay" version)"

echo "*** not tried: the upload, keyless signing and the images; they need GitHub, Sigstore and docker buildx" >&2
exit $failed
