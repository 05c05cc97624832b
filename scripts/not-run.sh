#!/bin/sh
# Says loudly which tests could not run here, and why. In CI that is a failure.
set -eu
missing=""
command -v gcloud > /dev/null || missing="The processes were not tested with Google's own Pub/Sub emulator, for gcloud is not
installed: install the Google Cloud SDK with its components beta and pubsub-emulator."
command -v busybox > /dev/null || missing="${missing:+$missing
}The scripts of the pipeline were not tested in the shell of Alpine: install busybox."
[ -n "$missing" ] || exit 0
printf '\n*** NOT RUN ***\n%s\n' "$missing" >&2
[ -z "${CI:-}" ]
