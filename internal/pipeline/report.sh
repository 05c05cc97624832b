# Reports the promotion to Notify. HUBRELAY_REPORT says which job
# reports: the job that runs first (running), last after success (done) or
# failure (failed), or the end of the promotion itself (canceled).
# shellcheck shell=sh

report() {
	message="" tries="--max-time 60 --retry 8 --retry-max-time 300"
	# What a job left that was killed before it began is of another pipeline.
	[ "${HUBRELAY_PIPELINE-}" = "${CI_PIPELINE_ID-}" ] || HUBRELAY_STATUS="" HUBRELAY_MESSAGE="" HUBRELAY_DIGEST=""
	case $HUBRELAY_REPORT in
	running)
		status=running
		tries="--max-time 10 --retry 1 --retry-max-time 10" # the promotion waits
		;;
	canceled)
		# After a cancellation no later job runs.
		[ "${CI_JOB_STATUS-}" = canceled ] || return 0
		status=failure message="the job was canceled"
		;;
	*)
		status=${HUBRELAY_STATUS-} message=${HUBRELAY_MESSAGE-}
		case $HUBRELAY_REPORT:$status in
		done:success | done:skipped | done:superseded) ;;
		# Another job of the pipeline failed, after the promotion.
		failed:success | failed:skipped | failed:superseded) ;;
		failed:*) status=failure message=${message:-"the promotion did not start, ran out of time, or lost its runner: see the pipeline"} ;;
		*)
			say "the promotion left no result (hubrelay.env)"
			return 1
			;;
		esac
		;;
	esac
	say "version ${HUBRELAY_VERSION-unknown}"
	need curl || return 1

	# A name that Notify would refuse is left out: the report still counts.
	set -- --data-urlencode "status=$status"
	is_repository "$repository" && set -- "$@" --data-urlencode "repository=$repository"
	is_tag "$tag" && set -- "$@" --data-urlencode "tag=$tag"
	digest=${HUBRELAY_DIGEST:-$digest}
	is_digest "$digest" && set -- "$@" --data-urlencode "digest=$digest"
	matches "$promotion_id" 32 '[0-9a-f]{32}' && set -- "$@" --data-urlencode "promotion_id=$promotion_id"
	[ -z "$message" ] || set -- "$@" --data-urlencode "message=$message"
	[ -z "${CI_PIPELINE_URL-}" ] || set -- "$@" --data-urlencode "pipeline_url=$CI_PIPELINE_URL"

	# The token goes through a pipe, for a command line can be seen. curl waits
	# as long as Retry-After says, and comes back for every 429 and 5xx. A 202
	# says that Notify has taken it, and goes on telling.
	# shellcheck disable=SC2086 # a list
	printf 'Authorization: Bearer %s\n' "$NOTIFY_ID_TOKEN" |
		curl --disable --silent --show-error --fail-with-body --proto =https,http $tries --retry-connrefused \
			--header @- "$@" --url "$HUBRELAY_INPUT_NOTIFY_URL"
	echo
}

report
