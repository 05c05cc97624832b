#!/bin/sh
# Installs what the console's tests need: Debian's Chromium, and in .tools/browser
# playwright-core, which drives it, and axe, which checks accessibility. Says so if
# that fails.
set -u
failed=0
not_run() {
	echo "*** NOT RUN *** $1: the console cannot be tried in a browser" >&2
	failed=1
}
if ! command -v "${CHROMIUM:-chromium}" > /dev/null && ! command -v chromium-browser > /dev/null && ! command -v google-chrome > /dev/null; then
	if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-noto-color-emoji; } > /dev/null || not_run "Chromium cannot be had from here"
	else
		not_run "there is no Chromium (on Debian: apt-get install chromium; CHROMIUM names another one)"
	fi
fi
playwright=1.65.1
axe=4.14.1
if [ ! -e ".tools/browser/$playwright-$axe" ]; then
	if ! command -v npm > /dev/null; then
		not_run "npm is not installed"
	elif npm install --prefix .tools/browser --no-audit --no-fund --loglevel=error "playwright-core@$playwright" "axe-core@$axe" > /dev/null; then
		touch ".tools/browser/$playwright-$axe"
	else
		not_run "playwright-core and axe-core cannot be had from here"
	fi
fi
exit $failed
