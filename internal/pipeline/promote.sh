# Signs an image that was built, and moves the moving tag to it.
#
# Exit codes: 0 promoted, or nothing to do; 2 a name, a setting or the key is
# wrong, and nothing was done; 3 the registry refuses; 4 the signature cannot be
# judged; 5 signing failed; 6 a server failed temporarily, and the job is
# retried. The result is in hubrelay.env, too, for the jobs that report.
#
# The verbs of each way to sign: guard refuses what cannot work and leaves in
# $why the reason; signed returns 0, or 10 if there is no signature; sign
# signs TAG of IMAGE, which is DIGEST; times prints when an image was pushed.
# shellcheck shell=sh

outcome() {
	# One line of plain text, and not so much that GitLab refuses the file.
	text=$(printf '%s' "$2${note:+. $note}" | tr -c ' -~' '?' | cut -c 1-1000)
	# The pipeline's id: where build folders stay, a file may be another's.
	printf 'HUBRELAY_PIPELINE=%s\nHUBRELAY_STATUS=%s\nHUBRELAY_MESSAGE=%s\n%s' "${CI_PIPELINE_ID-}" "$1" "$text" \
		"${DIGEST:+HUBRELAY_DIGEST=$DIGEST
}" > hubrelay.env
	said=yes
	say "$1: $text"
}

stop() {
	outcome failure "$2"
	exit "$1"
}

finish() {
	outcome "$1" "$2"
	exit 0
}

# refuse WHY is for functions that others call: it leaves the reason in $why.
refuse() {
	why=$1
	return 1
}

# failed CODE DOING stops for a registry that has refused or failed.
failed() {
	[ "$1" -eq 6 ] || stop 3 "$2"
	stop 6 "$2"
}

# left runs at the end, in every case.
# shellcheck disable=SC2317 # the trap calls it
left() {
	code=$?
	rm -rf "$work"
	[ -n "$said" ] || outcome failure "the script ended with $code: see the log of the job"
	exit "$code"
}

# signing VERB [ARGUMENT]
signing() {
	case $HUBRELAY_INPUT_SIGNING:$1 in
	content-trust:guard) content_trust_guard ;;
	content-trust:signed) content_trust_signed || content_trust_passes $? ;;
	content-trust:sign) content_trust_sign || content_trust_passes $? ;;
	content-trust:times) content_trust_times "$2" || content_trust_passes $? ;;
	*:guard) cosign_guard ;;
	*:signed) cosign_signed ;;
	*:sign) cosign_sign ;;
	*:times) cosign_times "$2" ;;
	esac
}

# still_there ends the script if the tag has moved, or is gone: a newer push has
# its own pipeline.
still_there() {
	now=$(digest_of "$IMAGE:$TAG") && code=0 || code=$?
	case $code in
	0) ;;
	4)
		[ -z "$DIGEST" ] || finish superseded "$TAG is gone; it was $DIGEST"
		stop 3 "the registry has no $repository:$TAG"
		;;
	*) failed "$code" "the registry did not say what $repository:$TAG is" ;;
	esac
	[ "$now" = "${DIGEST:-$now}" ] || finish superseded "$TAG is another image now: $now"
}

# newest prints the latest of the times in RFC 3339 on standard input, the first
# of equal ones. Invalid times are ignored.
newest() {
	awk '
		!/^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][Tt][0-9][0-9]:[0-9][0-9]:[0-9][0-9](\.[0-9]+)?([Zz]|[+-][0-9][0-9]:[0-9][0-9])$/ { next }
		{
			y = substr($0, 1, 4) + 0; m = substr($0, 6, 2) + 0
			if (m < 3) { y--; m += 12 }
			seconds = (365 * y + int(y / 4) - int(y / 100) + int(y / 400) + int((153 * m - 457) / 5) + substr($0, 9, 2)) * 86400
			seconds += substr($0, 12, 2) * 3600 + substr($0, 15, 2) * 60 + substr($0, 18, 2)
			zone = substr($0, length($0) - 5)
			if (zone ~ /^[+-]/) seconds -= (substr(zone, 1, 1) "1") * (substr(zone, 2, 2) * 3600 + substr(zone, 5, 2) * 60)
			fraction = ""
			if (match($0, /\.[0-9]+/)) fraction = substr($0, RSTART + 1, RLENGTH - 1)
			while (length(fraction) < 9) fraction = fraction "0"
			key = sprintf("%015.0f", seconds) substr(fraction, 1, 9)
			if ((key "") > (top "")) { top = key; time = $0 }
		}
		END { if (time != "") print time }'
}

# later ONE OTHER: whether ONE is the later of two times.
later() { [ -n "$1" ] && [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$2" "$1" | newest)" = "$1" ]; }

# is_release TAG: a full stable version. A year in front makes it a date.
is_release() {
	matches "$1" 128 'v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)' &&
		! matches "$1" 128 'v?(19|20)[0-9][0-9]\..*'
}

# higher TAG prints the releases in the list on standard input that are higher
# than TAG, the highest first. Numbers are compared as text, because they may
# have any length.
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
		!/^v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$/ || /^v?(19|20)[0-9][0-9]\./ { next }
		above($0, ENVIRON["HIGHER_THAN"]) {
			for (i = n++; i > 0 && above($0, list[i - 1]); i--) list[i] = list[i - 1]
			list[i] = $0
		}
		END { for (i = 0; i < n; i++) print list[i] }'
}

# counting prints the latest time of the signatures in the list on standard input
# whose tags move the moving tag.
counting() {
	while IFS='	' read -r signed_tag signed_time; do
		if [ "$HUBRELAY_INPUT_POLICY" = always ] || [ "$signed_tag" = "$LATEST" ] || is_release "$signed_tag"; then
			printf '%s\n' "$signed_time"
		fi
	done | newest
}

# pushed DIGEST prints when that image was pushed, by its signatures.
pushed() {
	signing times "$1" > "$work/times" || return
	counting < "$work/times"
}

# may_move returns 1 if the moving tag stays, and leaves the reason in $moved.
#
# auto promises the highest version; semver and always, and auto among tags of
# one version (1.2.3, v1.2.3), the one that was pushed last. So neither an old
# pipeline that runs again nor one that overtook another moves it back.
may_move() {
	case $HUBRELAY_INPUT_POLICY in
	never) moved="$LATEST stays" && return 1 ;;
	semver | auto)
		if ! is_release "$TAG"; then
			moved="$LATEST stays, for $TAG is not a stable version"
			return 1
		fi
		;;
	esac
	still_there
	in_order=yes
	if [ "$HUBRELAY_INPUT_POLICY" = auto ]; then
		again crane -v ls "$IMAGE" && code=0 || code=$?
		[ "$code" -eq 0 ] || failed "$code" "${did}the registry did not list the tags"
		mv "$work/out" "$work/tags"
		looked=0
		for other in $(higher "$TAG" < "$work/tags"); do
			looked=$((looked + 1))
			if [ "$looked" -gt 50 ]; then
				moved="$LATEST stays, for more than 50 tags that are no images are higher"
				return 1
			fi
			if is_an_image "$other"; then
				moved="$LATEST stays, for $other is higher"
				return 1
			fi
		done
		in_order=no
		if grep -Fx -e "v$TAG" -e "${TAG#v}" "$work/tags" | grep -Fvxq -e "$TAG"; then in_order=yes; fi
	fi
	before=$(digest_of "$IMAGE:$LATEST") && code=0 || code=$?
	[ "$code" -eq 0 ] || [ "$code" -eq 4 ] || failed "$code" "${did}the registry did not say what $LATEST is"
	[ "$code" -eq 0 ] || before=""
	if [ -n "$before" ] && [ "$before" != "$DIGEST" ] && [ "$in_order" = yes ]; then
		time=$(pushed "$before") && code=0 || code=$?
		case $code in
		0 | 4) ;; # what others signed has no place in our order
		*) failed "$code" "${did}the registry did not say when $LATEST was pushed" ;;
		esac
		if later "$time" "$pushed_at"; then
			moved="$LATEST stays, because it was pushed later ($time)"
			return 1
		fi
	fi
}

# is_an_image TAG: whether there is an image under it.
is_an_image() {
	other_digest=$(digest_of "$IMAGE:$1") && code=0 || code=$?
	[ "$code" -ne 4 ] || return 1
	[ "$code" -eq 0 ] || failed "$code" "${did}the registry did not say what $1 is"
	is_image "$other_digest" 1 && code=0 || code=$?
	case $code in
	0) return 0 ;;
	1) return 1 ;;
	*) failed "$code" "${did}the registry did not say what $1 is" ;;
	esac
}

# move_latest moves the moving tag as the policy says, and leaves in $moved what
# it did.
move_latest() {
	may_move || return 0
	moved="$LATEST is this image already"
	if [ "$before" != "$DIGEST" ]; then
		# What was signed at its first push is moved by a later one: the statement
		# has to say when, or an older pipeline could take it back.
		if [ "$in_order" = yes ] && [ "$HUBRELAY_INPUT_SIGNING" != content-trust ]; then
			time=$(pushed "$DIGEST") || failed "$?" "${did}the registry did not say when $TAG was signed"
			if later "$pushed_at" "$time"; then sign; fi
		fi
		still_there
		again crane -v tag "$IMAGE@$DIGEST" "$LATEST" && code=0 || code=$?
		[ "$code" -eq 0 ] || failed "$code" "${did}$LATEST could not be moved"
		after=$(digest_of "$IMAGE:$LATEST") && code=0 || code=$?
		[ "$code" -eq 0 ] || failed "$code" "${did}the registry did not say what $LATEST is"
		case $after in
		"$DIGEST") moved="$LATEST moved to it" done_now=yes ;;
		"$before") stop 3 "${did}$LATEST did not move" ;;
		*) moved="$LATEST was moved by another promotion in the same moment" && return ;;
		esac
	fi
	# Under content trust every tag has a signature of its own.
	[ "$HUBRELAY_INPUT_SIGNING" != content-trust ] || sign_latest
}

# sign_latest signs the moving tag, as long as it is this image.
sign_latest() {
	of=$TAG
	TAG=$LATEST
	signing signed && code=0 || code=$?
	case $code in
	0) ;;
	10)
		now=$(digest_of "$IMAGE:$LATEST") || failed "$?" "${did}the registry did not say what $LATEST is"
		if [ "$now" != "$DIGEST" ]; then
			moved="$LATEST was moved by another promotion in the same moment"
		else
			signing sign || stop 5 "${did}$LATEST could not be signed"
			now=$(digest_of "$IMAGE:$LATEST") || failed "$?" "${did}the registry did not say what $LATEST is"
			[ "$now" = "$DIGEST" ] ||
				stop 5 "${did}$LATEST was moved by another promotion while it was signed: retry the job of that image, whose signature this one may have replaced"
			done_now=yes
		fi
		;;
	6) stop 6 "${did}it is not known whether $LATEST is signed" ;;
	*) stop 4 "${did}it is not known whether $LATEST is signed" ;;
	esac
	TAG=$of
}

# sign signs, and checks that the signature stays. A registry may show it late,
# and if the list of signatures is a tag, another writer at the same moment
# removes it.
sign() {
	done_now=yes did="signed, but "
	for round in 1 2 3; do
		signing sign && code=0 || code=$?
		case $code in 0) ;; 6) stop 6 "it could not be signed at the moment: see the log of the job" ;; *) stop 5 "it could not be signed: see the log of the job" ;; esac
		for seconds in 0 2 5 10; do
			[ "$seconds" -eq 0 ] || sleep "$seconds"
			signing signed && code=0 || code=$?
			[ "$code" -ne 0 ] || break
		done
		[ "$code" -eq 0 ] || break
		[ "${api-}" = no ] || return 0
		sleep 3
		signing signed && code=0 || code=$?
		[ "$code" -ne 0 ] || return 0
		say "the signature is gone again: something else signs this image at the same time (round $round)"
	done
	case $code in
	3 | 6) failed "$code" "the signature that was just made cannot be verified, because the registry fails" ;;
	*) stop 4 "the signature that was just made cannot be verified" ;;
	esac
}

promote() {
	rm -f hubrelay.env # may be another job's
	said="" own="" note="" why="" did="" done_now="" DIGEST="" work=$(mktemp -d)
	trap left EXIT
	trap 'exit 1' HUP INT TERM
	say "version ${HUBRELAY_VERSION-unknown}"

	# What is wrong is not repeated: it may be anything.
	is_repository "$repository" || stop 2 "image_repository is not a repository, such as acme/api"
	is_tag "$tag" || stop 2 "image_tag is not a tag"
	[ -z "$digest" ] || is_digest "$digest" || stop 2 "image_digest is not a digest: sha256: and 64 hex digits"
	# A pipeline that a person started was asked for then.
	pushed_at=${pushed_at:-${CI_PIPELINE_CREATED_AT-}}
	if [ "${#pushed_at}" -gt 40 ] || [ "$pushed_at" != "$(printf '%s\n' "$pushed_at" | newest)" ]; then
		stop 2 "image_pushed_at is not a time, such as 2026-11-25T21:15:00Z"
	fi
	matches "$HUBRELAY_INPUT_REGISTRY" 255 '[A-Za-z0-9.-]+(:[0-9]+)?' || stop 2 "registry is not a host, such as docker.io"
	is_tag "$HUBRELAY_INPUT_LATEST" || stop 2 "latest is not a tag"
	case $HUBRELAY_INPUT_POLICY in auto | always | semver | never) ;; *) stop 2 "latest_policy must be auto, always, semver or never" ;; esac
	case $HUBRELAY_INPUT_SIGNING in cosign | cosign-keyless | content-trust) ;; *) stop 2 "signing must be cosign, cosign-keyless or content-trust" ;; esac
	case ${HUBRELAY_INPUT_SIGNATURE_FORMAT:-bundle} in bundle | legacy) ;; *) stop 2 "signature_format must be bundle or legacy" ;; esac
	IMAGE=$HUBRELAY_INPUT_REGISTRY/$repository TAG=$tag DIGEST=$digest LATEST=$HUBRELAY_INPUT_LATEST
	[ "$tag" != "$LATEST" ] || finish skipped "$tag is the tag that moves: it is not promoted itself"
	case ${DOCKERHUB_USERNAME:+user}${DOCKERHUB_TOKEN:+token} in
	usertoken) ;;
	*) stop 2 "DOCKERHUB_USERNAME or DOCKERHUB_TOKEN is missing; a protected variable is there on protected branches only" ;;
	esac

	need crane || stop 2 "crane is missing"
	DOCKER_CONFIG=$work/docker # not the one of whoever shares this machine
	export DOCKER_CONFIG
	mkdir -m 700 "$DOCKER_CONFIG"
	printf '%s' "$DOCKERHUB_TOKEN" |
		crane auth login "$HUBRELAY_INPUT_REGISTRY" --username="$DOCKERHUB_USERNAME" --password-stdin 2> "$work/errors" || {
		cat "$work/errors" >&2
		stop 3 "the registry login failed"
	}
	signing guard || stop 2 "${why:-this way to sign cannot work here: see the log of the job}"

	still_there
	DIGEST=$now
	is_image "$DIGEST" && code=0 || code=$?
	case $code in
	0) ;;
	1) finish skipped "$TAG is not an image, but $kind: neither signed nor moved to" ;;
	*) failed "$code" "the registry did not give the image" ;;
	esac
	if [ "${HUBRELAY_INPUT_VALIDATE-}" = true ]; then
		whole "$DIGEST" || failed "$?" "the image is not complete"
	fi

	signing signed && code=0 || code=$?
	case $code in
	0) state="signed already" ;;
	10)
		sign
		state=signed
		;;
	3 | 6) failed "$code" "it is not known whether it is signed, because a server refuses or fails: nothing was done" ;;
	*) stop 4 "it is not known whether it is signed, so nothing was done: ${why:-it has a signature by another key. If that key was yours, put its public key into COSIGN_PUBLIC_KEYS}" ;;
	esac
	[ -z "$own" ] || state=signed done_now=yes

	if [ "${HUBRELAY_INPUT_PUSH_AGAIN-}" = true ]; then
		still_there
		again crane -v tag "$IMAGE@$DIGEST" "$TAG" && code=0 || code=$?
		[ "$code" -eq 0 ] || failed "$code" "${did}$TAG could not be pushed again"
		done_now=yes
	fi
	move_latest
	[ -n "$done_now" ] || finish skipped "$state; $moved"
	finish success "$state; $moved"
}

promote
