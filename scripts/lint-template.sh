#!/bin/sh
# Looks for mistakes in the GitLab template: shellcheck reads its scripts as
# they are joined there, and GitLab's own schema of CI files the YAML. The
# schema comes with gitlab-ci-local, of which this is the last version to have
# it as a file of its own.
set -eu
schema=gitlab-ci-local@4.64.1
failed=0
not_run() {
	echo "*** NOT RUN *** $1" >&2
	[ -z "${CI:-}" ] || failed=1
}

echo "== shellcheck of the template"
if command -v shellcheck > /dev/null; then
	grep '# inline: ' internal/pipeline/template.yml | while read -r _ _ files; do
		# shellcheck disable=SC2086 # a list
		(cd internal/pipeline && cat $files) | shellcheck --shell=sh - || exit 1
	done || failed=1
else
	not_run "shellcheck is not installed"
fi

echo "== GitLab's schema of CI files"
if ! command -v npm > /dev/null; then
	not_run "npm is not installed"
elif [ ! -d .tools/node_modules/gitlab-ci-local ] &&
	! npm install --prefix .tools --no-audit --no-fund --loglevel=error "$schema" > /dev/null; then
	not_run "$schema cannot be had from here"
else
	node scripts/gitlab-schema.mjs .tools templates/promote.yml .gitlab-ci.yml || failed=1
fi
exit $failed
