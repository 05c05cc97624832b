# Tells Notify how the promotion goes. HUBRELAY_REPORT says who
# reports: the job that runs first (running), last after success (done) or
# failure (failed), or the end of the promotion itself (canceled).
# shellcheck shell=sh

report() {
	delivery_id=${PROMOTE_DELIVERY_ID:-${DELIVERY_ID-}}
	message=""
	case $HUBRELAY_REPORT in
	running) status=running ;;
	canceled)
		# After a cancellation no later job runs.
		[ "${CI_JOB_STATUS-}" = canceled ] || return 0
		status=failure message="the job was canceled"
		;;
	*)
		status=${HUBRELAY_STATUS-} message=${HUBRELAY_MESSAGE-}
		case $HUBRELAY_REPORT:$status in
		done:success | done:skipped) ;;
		# Another job of the pipeline failed, after the promotion.
		failed:success | failed:skipped) ;;
		failed:*) status=failure message=${message:-"the promotion did not start, ran out of time, or lost its runner: see the pipeline"} ;;
		*)
			say "the promotion left no word of how it went (hubrelay.env)"
			return 1
			;;
		esac
		;;
	esac
	need curl || return 1

	# A name that Notify would refuse is left out: the report still counts.
	set -- --data-urlencode "status=$status"
	is_repository "$repository" && set -- "$@" --data-urlencode "repository=$repository"
	is_tag "$tag" && set -- "$@" --data-urlencode "tag=$tag"
	digest=${HUBRELAY_DIGEST:-$digest}
	is_digest "$digest" && set -- "$@" --data-urlencode "digest=$digest"
	matches "$delivery_id" 128 '[A-Za-z0-9._-]+' && set -- "$@" --data-urlencode "delivery_id=$delivery_id"
	[ -z "$message" ] || set -- "$@" --data-urlencode "message=$message"
	[ -z "${CI_PIPELINE_URL-}" ] || set -- "$@" --data-urlencode "pipeline_url=$CI_PIPELINE_URL"

	# The token goes through a pipe, for a command line can be seen. curl waits
	# as long as Retry-After says, and comes back for every 429 and 5xx.
	printf 'Authorization: Bearer %s\n' "$NOTIFY_ID_TOKEN" |
		curl --silent --show-error --fail-with-body --proto =https,http --max-time 60 \
			--retry 8 --retry-connrefused --retry-max-time 300 \
			--header @- "$@" --url "$PROMOTE_NOTIFY_URL"
	echo
}

report
