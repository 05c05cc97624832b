#!/bin/sh
# Says loudly which tests could not run here, and why. In CI that is a failure.
set -eu
missing=""
command -v gcloud > /dev/null || missing="Nothing was tested with Google's own emulators of Pub/Sub and Firestore, for gcloud is not
installed: install the Google Cloud SDK with its components beta, pubsub-emulator and cloud-firestore-emulator."
command -v busybox > /dev/null || missing="${missing:+$missing
}The scripts of the pipeline were not tested in the shell of Alpine: install busybox."
[ -n "$missing" ] || exit 0
printf '\n*** NOT RUN ***\n%s\n' "$missing" >&2
[ -z "${CI:-}" ]
