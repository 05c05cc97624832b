# Signs an image that was built, and moves the moving tag to it.
#
# Exit codes: 0 promoted, or nothing to do (signed already, superseded);
# 2 a name, a setting or the key is wrong, and nothing was done; 3 the registry
# refuses or fails; 4 the signature cannot be judged; 5 signing failed.
# How it went is in hubrelay.env, too, for the jobs that report.
#
# The three verbs of each way to sign: guard refuses what cannot work, signed
# returns 0, or 10 where there is no signature, and sign signs TAG of IMAGE,
# which is DIGEST.
# shellcheck shell=sh

outcome() {
	{
		printf 'HUBRELAY_STATUS=%s\n' "$1"
		printf 'HUBRELAY_MESSAGE=%s\n' "$2"
		[ -z "${DIGEST-}" ] || printf 'HUBRELAY_DIGEST=%s\n' "$DIGEST"
	} > hubrelay.env
	said=yes
	say "$1: $2"
}

stop() {
	outcome failure "$2"
	exit "$1"
}

finish() {
	outcome "$1" "$2"
	exit 0
}

# left runs at the end, however it came.
# shellcheck disable=SC2317 # the trap calls it
left() {
	code=$?
	rm -rf "$work"
	[ -n "$said" ] || outcome failure "the script ended with $code: see the log of the job"
	exit "$code"
}

signing() {
	case $PROMOTE_SIGNING:$1 in
	content-trust:guard) content_trust_guard ;;
	content-trust:signed) content_trust_signed ;;
	content-trust:sign) content_trust_sign ;;
	*:guard) cosign_guard ;;
	*:signed) cosign_signed ;;
	*:sign) cosign_sign ;;
	esac
}

# digest_of REFERENCE prints its digest. It returns 4 if there is none.
digest_of() {
	if crane digest "$1" 2> "$work/errors"; then
		return 0
	fi
	# The answer to the last request counts: a HEAD that failed stands above it.
	if grep '^Error:' "$work/errors" | grep -Eq 'MANIFEST_UNKNOWN|NAME_UNKNOWN|NOT_FOUND|404 Not Found'; then
		return 4
	fi
	cat "$work/errors" >&2
	return 3
}

# still_there ends the script if the tag has moved on: a newer push has a
# pipeline of its own.
still_there() {
	code=0
	now=$(digest_of "$IMAGE:$TAG") || code=$?
	case $code in
	0) ;;
	4) stop 3 "the registry has no $repository:$TAG" ;;
	*) stop 3 "the registry did not tell what $repository:$TAG is" ;;
	esac
	[ "$now" = "${DIGEST:-$now}" ] || finish skipped "superseded: $TAG is another image by now"
}

# is_release TAG: a full stable version. A year in front makes it a date.
is_release() {
	matches "$1" 128 'v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)' &&
		! matches "$1" 128 'v?(19|20)[0-9][0-9]\..*'
}

# higher TAG prints the highest release in the list on standard input, if it is
# higher than TAG. Numbers are compared as text, for they may have any length.
higher() {
	HIGHER_THAN=$1 awk '
		function more(a, b) { return length(a) != length(b) ? length(a) > length(b) : (a "") > (b "") }
		function above(x, y,  a, b, i) {
			sub(/^v/, "", x); sub(/^v/, "", y)
			split(x, a, "."); split(y, b, ".")
			for (i = 1; i <= 3; i++)
				if (a[i] "" != b[i] "") return more(a[i] "", b[i] "")
			return 0
		}
		BEGIN { top = ENVIRON["HIGHER_THAN"] }
		!/^v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$/ || /^v?(19|20)[0-9][0-9]\./ { next }
		above($0, top) { top = $0; found = 1 }
		END { if (found) print top }'
}

# move_latest moves the moving tag as the policy says, and leaves in $moved what
# it did.
move_latest() {
	moved="$LATEST stays"
	case $PROMOTE_POLICY in
	never) return ;;
	semver | auto)
		if ! is_release "$TAG"; then
			moved="$LATEST stays, for $TAG is not a stable version"
			return
		fi
		;;
	esac
	still_there
	if [ "$PROMOTE_POLICY" = auto ]; then
		crane ls "$IMAGE" > "$work/tags" || stop 3 "signed, but the registry did not list the tags"
		above=$(higher "$TAG" < "$work/tags")
		if [ -n "$above" ]; then
			moved="$LATEST stays, for $above is higher"
			return
		fi
	fi
	code=0
	before=$(digest_of "$IMAGE:$LATEST") || code=$?
	[ "$code" -eq 0 ] || [ "$code" -eq 4 ] || stop 3 "signed, but the registry did not tell what $LATEST is"
	moved="$LATEST is this image already"
	if [ "$before" != "$DIGEST" ]; then
		crane tag "$IMAGE@$DIGEST" "$LATEST" || stop 3 "signed, but $LATEST could not be moved"
		after=$(digest_of "$IMAGE:$LATEST") || stop 3 "signed, but the registry did not tell what $LATEST is"
		case $after in
		"$DIGEST") moved="$LATEST moved to it" ;;
		"$before") stop 3 "signed, but $LATEST did not move" ;;
		*) moved="$LATEST was moved on by another in the same moment" ;;
		esac
	fi
	# Under content trust every tag has a signature of its own.
	if [ "$PROMOTE_SIGNING" = content-trust ]; then
		(
			TAG=$LATEST
			code=0
			signing signed || code=$?
			case $code in
			0) ;;
			10) signing sign || exit 5 ;;
			*) exit 4 ;;
			esac
		) || stop $? "$LATEST could not be signed"
	fi
}

promote() {
	said="" own="" work=$(mktemp -d)
	trap left EXIT
	trap 'exit 1' HUP INT TERM

	# What is wrong is not repeated: it may be anything.
	is_repository "$repository" || stop 2 "image_repository is not a repository, such as acme/api"
	is_tag "$tag" || stop 2 "image_tag is not a tag"
	[ -z "$digest" ] || is_digest "$digest" || stop 2 "image_digest is not a digest: sha256: and 64 hex digits"
	matches "$PROMOTE_REGISTRY" 255 '[A-Za-z0-9.-]+(:[0-9]+)?' || stop 2 "registry is not a host, such as docker.io"
	is_tag "$PROMOTE_LATEST" || stop 2 "latest is not a tag"
	case $PROMOTE_POLICY in auto | always | semver | never) ;; *) stop 2 "latest_policy must be auto, always, semver or never" ;; esac
	case $PROMOTE_SIGNING in cosign | cosign-keyless | content-trust) ;; *) stop 2 "signing must be cosign, cosign-keyless or content-trust" ;; esac
	[ "$tag" != "$PROMOTE_LATEST" ] || finish skipped "$tag is the tag that moves: it is not promoted itself"
	case ${DOCKERHUB_USERNAME:+user}${DOCKERHUB_TOKEN:+token} in
	usertoken) ;;
	*) stop 2 "DOCKERHUB_USERNAME or DOCKERHUB_TOKEN is missing; a protected variable is there on protected branches only" ;;
	esac
	IMAGE=$PROMOTE_REGISTRY/$repository TAG=$tag DIGEST=$digest LATEST=$PROMOTE_LATEST

	need crane || stop 2 "crane is missing"
	DOCKER_CONFIG=$work/docker # not the one of whoever shares this machine
	export DOCKER_CONFIG
	mkdir -m 700 "$DOCKER_CONFIG"
	printf '%s' "$DOCKERHUB_TOKEN" |
		crane auth login "$PROMOTE_REGISTRY" --username="$DOCKERHUB_USERNAME" --password-stdin 2> "$work/errors" || {
		cat "$work/errors" >&2
		stop 3 "the registry login failed"
	}
	signing guard || stop 2 "this way to sign cannot work here: see the log of the job"

	still_there
	DIGEST=$now
	crane manifest "$IMAGE@$DIGEST" > "$work/manifest" || stop 3 "the registry did not give the image"
	SIZE=$(($(wc -c < "$work/manifest")))
	if [ "${PROMOTE_VALIDATE-}" = true ]; then
		crane validate --remote "$IMAGE@$DIGEST" || stop 3 "the image is not whole"
	fi

	code=0
	signing signed || code=$?
	case $code in
	0)
		[ -n "$own" ] || finish skipped "signed already"
		say "this pipeline has signed it before: going on from there"
		;;
	10)
		signing sign || stop 5 "it could not be signed"
		signing signed || stop 4 "the signature that was just made cannot be verified"
		;;
	*) stop 4 "whether it is signed cannot be told, so nothing was done: a signature by another key, or a server failed" ;;
	esac

	if [ "${PROMOTE_PUSH_AGAIN-}" = true ]; then
		still_there
		crane tag "$IMAGE@$DIGEST" "$TAG" || stop 3 "signed, but $TAG could not be pushed again"
	fi
	move_latest
	finish success "signed; $moved"
}

promote
