# Signing by Docker Content Trust, with the notary client: it signs what is in
# the registry, needs no Docker engine and pulls nothing. The signature belongs
# to the tag, and is on a Notary server.
#
# IMAGE, TAG, DIGEST and SIZE say what is signed, CI_PIPELINE_URL by whom. $work
# is a private directory that the caller creates and removes.
# shellcheck shell=sh disable=SC2154 # $work is the caller's

# trust_say prints a text, and leaves it in $why.
trust_say() {
	why="content trust: $1"
	printf 'hubrelay: %s\n' "$why" >&2
}

trust_server() { printf '%s' "${DOCKER_CONTENT_TRUST_SERVER:-https://notary.docker.io}"; }

# trust_notary ARGUMENT...: the output is in $work/notary.out. HOME is not the
# user's, because notary reads settings from there.
trust_notary() {
	[ -z "${NOTARY_CA_FILE-}" ] || set -- --tlscacert "$NOTARY_CA_FILE" "$@"
	HOME=$work/notary notary -d "$work/notary" -s "$(trust_server)" "$@" < /dev/null > "$work/notary.out" 2>&1
}

# trust_fresh deletes notary's cache, from which notary answers if the server
# does not. It returns 1 for invalid names.
trust_fresh() {
	case $IMAGE in '' | [./-]* | *..* | *[!A-Za-z0-9._:/-]*) trust_say "IMAGE is not a repository" && return 1 ;; esac
	case $TAG in '' | [.-]* | *[!A-Za-z0-9._-]*) trust_say "TAG is not a tag" && return 1 ;; esac
	case $DIGEST in *:*[!0-9a-f]*) trust_say "DIGEST is not a digest" && return 1 ;; esac
	case ${#DIGEST}$DIGEST in 71sha256:*) ;; *) trust_say "DIGEST is not a digest" && return 1 ;; esac
	case $SIZE in '' | *[!0-9]*) trust_say "SIZE is not a number" && return 1 ;; esac
	case ${CI_PIPELINE_URL-} in *[!A-Za-z0-9:/._~%-]*) trust_say "CI_PIPELINE_URL is not a URL" && return 1 ;; esac
	case ${pushed_at-} in *[!0-9TtZz:.+-]*) trust_say "image_pushed_at is not a time" && return 1 ;; esac
	rm -rf "$work/notary" && mkdir -m 700 "$work/notary"
}

# trust_statement prints what is signed in addition to the digest, as canonical
# JSON.
trust_statement() {
	printf '{"digest":"%s",%s"pipeline":"%s","tag":"%s"}' "$DIGEST" \
		"${pushed_at:+\"image_pushed_at\":\"$pushed_at\",}" "${CI_PIPELINE_URL-}" "$TAG"
}

# trust_docker_signs: the docker on the PATH, if any, signs what it pushes.
trust_docker_signs() {
	command -v docker > /dev/null || return 0
	version=$(docker --version 2> /dev/null) || return 1
	version=${version#Docker version }
	version=${version%%.*}
	case $version in '' | *[!0-9]*) return 1 ;; esac
	[ "$version" -lt 29 ]
}

content_trust_guard() {
	case ${DOCKER_CONTENT_TRUST-} in
	'' | 0 | f | F | false | False | FALSE) ;;
	*)
		if ! trust_docker_signs; then
			trust_say "DOCKER_CONTENT_TRUST is set, but this docker is not one of version 28 or older: it would silently push without a signature. Unset it, or use an older docker"
			return 1
		fi
		;;
	esac

	host=$(trust_server)
	case $host in
	https://*) ;;
	*) trust_say "DOCKER_CONTENT_TRUST_SERVER must be a URL that begins with https://" && return 1 ;;
	esac
	case $host in
	*@*) trust_say "DOCKER_CONTENT_TRUST_SERVER must not contain a user or a password: they go into NOTARY_AUTH" && return 1 ;;
	esac
	host=${host#https://}
	host=${host%%[/:?#]*}
	case $(printf '%s' "$host" | tr '[:upper:]' '[:lower:]') in
	notary.docker.io | notary.docker.io.)
		today=$(date -u +%Y%m%d)
		case $today in '' | *[!0-9]*) trust_say "the clock cannot be read" && return 1 ;; esac
		if [ "$today" -ge 20261208 ]; then
			trust_say "notary.docker.io was shut down on 2026-12-08: set DOCKER_CONTENT_TRUST_SERVER to a Notary server of your own, or sign with cosign"
			return 1
		fi
		trust_say "notary.docker.io shuts down on 2026-12-08: from then on this job will fail"
		note=$why why="" # people read it in Slack
		;;
	esac

	if ! command -v notary > /dev/null; then
		trust_say "the notary client is missing: use an image that has it"
		return 1
	fi
	if [ -n "${NOTARY_CA_FILE-}" ] && [ ! -f "$NOTARY_CA_FILE" ]; then
		trust_say "NOTARY_CA_FILE is not a file: the variable must be of type File"
		return 1
	fi
	if [ -z "${NOTARY_KEY_FILE-}" ]; then
		trust_say "there is no key: set the variable NOTARY_KEY_FILE, of type File. A protected variable is there on protected branches only"
		return 1
	fi
	if [ ! -f "$NOTARY_KEY_FILE" ]; then
		trust_say "the key is not a file: the variable NOTARY_KEY_FILE must be of type File"
		return 1
	fi
	if grep -Eq '^role: *root[[:space:]]*$' "$NOTARY_KEY_FILE"; then
		trust_say "NOTARY_KEY_FILE holds a root key, which must never be in CI: export the targets key alone"
		return 1
	fi
	if [ -z "${NOTARY_TARGETS_PASSPHRASE-}" ]; then
		trust_say "NOTARY_TARGETS_PASSPHRASE is missing. A protected variable is there on protected branches only"
		return 1
	fi
	if grep -Eq '^role: *snapshot[[:space:]]*$' "$NOTARY_KEY_FILE" && [ -z "${NOTARY_SNAPSHOT_PASSPHRASE-}" ]; then
		trust_say "NOTARY_KEY_FILE holds a snapshot key, but NOTARY_SNAPSHOT_PASSPHRASE is missing"
		return 1
	fi
}

# content_trust_signed returns 0 if TAG is signed for DIGEST, 10 if it is not
# signed or signed for something else, and 1 if that is not known. $own is yes if
# this pipeline signed it.
# shellcheck disable=SC2034 # own is the caller's
content_trust_signed() {
	own=""
	trust_fresh || return 1
	if trust_notary lookup -- "$IMAGE" "$TAG"; then
		trust_no_delegations || return 1
		found=$(cat "$work/notary.out")
		case $found in
		"$TAG $DIGEST $SIZE")
			if [ -n "${CI_PIPELINE_URL-}" ] && grep -Fq "\"custom\":$(trust_statement)" "$work/notary/tuf/$IMAGE/metadata/targets.json"; then
				own=yes
			fi
			return 0
			;;
		"$TAG sha256:"*) return 10 ;;
		esac
	elif grep -Fxq "* fatal: No valid trust data for $TAG" "$work/notary.out"; then
		trust_no_delegations || return 1
		return 10
	elif grep -Fq "does not have trust data for $IMAGE" "$work/notary.out"; then
		trust_say "$IMAGE was never initialised, or may not be read. The owner of the root key does this once: notary -s $(trust_server) init -p $IMAGE"
		return 1
	fi
	cat "$work/notary.out" >&2
	trust_say "it is not known whether $IMAGE:$TAG is signed"
	return 1
}

# content_trust_times DIGEST prints when it was pushed, by the signed statements:
# a tag, a tab and a time for each.
content_trust_times() {
	trust_fresh || return 1
	if ! trust_notary lookup -- "$IMAGE" "$LATEST" && ! grep -Fxq "* fatal: No valid trust data for $LATEST" "$work/notary.out"; then
		cat "$work/notary.out" >&2
		trust_say "it is not known what is signed"
		return 1
	fi
	flat < "$work/notary/tuf/$IMAGE/metadata/targets.json" | WANT=$1 awk -F '\t' '
		{ split($1, p, "/"); tag = p[3] }
		$1 == "signed/targets/" tag "/custom/digest" && $2 == ENVIRON["WANT"] { of[tag] = 1 }
		$1 == "signed/targets/" tag "/custom/image_pushed_at" { time[tag] = $2 }
		END { for (tag in of) print tag "\t" time[tag] }'
}

# content_trust_passes CODE returns 6 if notary's failure may be temporary, and
# otherwise CODE.
content_trust_passes() {
	[ "$1" -ne 1 ] || ! grep -Eiqs 'could not reach|client is offline|time(d )?out|connection (refused|reset)|no such host|(returned|status|code:?) (429|5[0-9][0-9])' "$work/notary.out" || return 6
	return "$1"
}

# Docker prefers targets/releases to the targets key, so a signature by the
# latter could have no effect.
trust_no_delegations() {
	[ ! -d "$work/notary/tuf/$IMAGE/metadata/targets" ] && return
	trust_say "$IMAGE has delegations (docker trust signer), which are not supported: sign with the targets key alone, or with cosign"
	return 1
}

content_trust_sign() {
	for seconds in 1 2 3 4 0; do
		trust_fresh || return 1
		trust_statement > "$work/notary/statement.json" || return 1
		if trust_notary key import --role targets --gun "$IMAGE" -- "$NOTARY_KEY_FILE" &&
			trust_notary addhash -p --sha256 "${DIGEST#sha256:}" --custom "$work/notary/statement.json" -- "$IMAGE" "$TAG" "$SIZE"; then
			return 0
		fi
		# So it says, too, where another tag of IMAGE is signed at the same time.
		grep -Fxq '* fatal: trust server rejected operation.' "$work/notary.out" || break
		sleep "$seconds"
	done
	cat "$work/notary.out" >&2
	trust_say "$IMAGE:$TAG could not be signed"
	return 1
}
