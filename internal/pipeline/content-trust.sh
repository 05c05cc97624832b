# Signing by Docker Content Trust.
# shellcheck shell=sh

content_trust_guard() { stop 2 "content trust is not there yet: use cosign"; }
content_trust_sign() { say "not signed: $IMAGE:$TAG, $DIGEST of $SIZE bytes" && return 1; }
content_trust_signed() { return 1; }
