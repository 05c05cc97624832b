#!/bin/sh
# Puts gitlab-ci-local into .tools, once: it runs the GitLab template as a whole,
# and has GitLab's schema of CI files, of which this is the last version to have
# it as a separate file. Says so if that fails.
set -eu
version=4.64.1
[ ! -x .tools/node_modules/.bin/gitlab-ci-local ] || exit 0
if ! command -v npm > /dev/null; then
	echo "*** NOT RUN *** npm is not installed: the GitLab template cannot be run as a whole" >&2
	exit 1
fi
if ! npm install --prefix .tools --no-audit --no-fund --loglevel=error "gitlab-ci-local@$version" > /dev/null; then
	echo "*** NOT RUN *** gitlab-ci-local cannot be had from here: the GitLab template cannot be run as a whole" >&2
	exit 1
fi
