#!/bin/sh
# Looks for mistakes in the GitLab template: shellcheck reads its scripts as
# they are joined there, and GitLab's own schema of CI files checks the YAML.
set -eu
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
if ! scripts/gitlab-ci-local.sh; then
	not_run "the schema is not there"
else
	examples=$(mktemp -d)
	trap 'rm -rf "$examples"' EXIT
	# The examples of docs/gitlab.md, except for the manifest of the Slack app.
	awk -v dir="$examples" '
		/^ *```yaml$/ { indent = index($0, "`") - 1; file = dir "/docs-gitlab-" (++n) ".yml"; next }
		/^ *```$/ { file = "" }
		file != "" { print substr($0, indent + 1) > file }' docs/gitlab.md
	grep -l '^oauth_config:' "$examples"/* | xargs rm -f
	node scripts/gitlab-schema.mjs .tools templates/promote.yml .gitlab-ci.yml "$examples"/* || failed=1
fi
exit $failed
