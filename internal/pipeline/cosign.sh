# Signing by cosign. The signature belongs to the digest, and lies in the
# registry. The signed statement names the tag and the pipeline.
# shellcheck shell=sh

cosign_guard() {
	need cosign || stop 2 "cosign is missing"
	COSIGN_PASSWORD=${COSIGN_PASSWORD-} # unset, cosign would ask
	export COSIGN_PASSWORD
	if [ -n "${PROMOTE_SIGNATURE_REPOSITORY-}" ]; then
		is_repository "$PROMOTE_SIGNATURE_REPOSITORY" || stop 2 "signature_repository is not a repository, such as acme/api-signatures"
		# 3.0 signs there, but does not look there (sigstore/cosign#4591).
		if cosign version 2> /dev/null | grep -Eq 'GitVersion: +v?3\.0\.'; then
			stop 2 "signature_repository needs cosign 3.1 or later: use an image that has it (input image)"
		fi
		COSIGN_REPOSITORY=$PROMOTE_REGISTRY/$PROMOTE_SIGNATURE_REPOSITORY
		export COSIGN_REPOSITORY
	fi
	if [ "$PROMOTE_SIGNING" = cosign-keyless ]; then
		[ -n "${SIGSTORE_ID_TOKEN-}" ] || stop 2 "SIGSTORE_ID_TOKEN is missing: keyless signing needs an id token that the project's own .gitlab-ci.yml declares"
		return
	fi
	key=${PROMOTE_KEY:-${COSIGN_KEY-}}
	case $key in
	'') stop 2 "there is no key: set the variable COSIGN_KEY, of type File, or the input key. A protected variable is there on protected branches only" ;;
	*://*) ;;
	*) [ -f "$key" ] || stop 2 "the key is not a file: the variable COSIGN_KEY must be of type File" ;;
	esac
	# Without a service in it, nothing goes to a public log.
	cosign signing-config create --out "$work/signing.json" || stop 2 "cosign is too old: version 3 is needed"
	cosign public-key --key "$key" > "$work/cosign.pub" || stop 2 "the key cannot be read; is COSIGN_PASSWORD right?"
}

cosign_sign() {
	set -- --yes -a "tag=$TAG" -a "pipeline=$CI_PIPELINE_URL"
	[ "$PROMOTE_SIGNING" = cosign-keyless ] || set -- "$@" --key "$key"
	public_log || set -- "$@" --signing-config "$work/signing.json"
	cosign sign "$@" "$IMAGE@$DIGEST"
}

cosign_signed() {
	own=""
	set -- --output json
	if [ "$PROMOTE_SIGNING" = cosign-keyless ]; then
		set -- "$@" --certificate-oidc-issuer "$CI_SERVER_URL" \
			--certificate-identity "$CI_PROJECT_URL//$CI_CONFIG_PATH@refs/heads/$CI_COMMIT_REF_NAME"
	else
		set -- "$@" --key "$work/cosign.pub"
	fi
	public_log || set -- "$@" --insecure-ignore-tlog=true
	cosign verify "$@" "$IMAGE@$DIGEST" > "$work/signatures" 2> "$work/errors" || {
		code=$?
		[ "$code" -eq 10 ] || cat "$work/errors" >&2
		return "$code"
	}
	if grep -Fq "\"pipeline\":\"$CI_PIPELINE_URL\"" "$work/signatures"; then
		own=yes
		return 0
	fi
	# An image that was signed under other tags only (1.4.0-rc1, say) is to be
	# signed under this one. A signature that names no tag is for all.
	if grep -Fq '"tag":"' "$work/signatures" && ! grep -Fq "\"tag\":\"$TAG\"" "$work/signatures"; then
		return 10
	fi
}

public_log() { [ "$PROMOTE_SIGNING" = cosign-keyless ] || [ "${PROMOTE_PUBLIC_LOG-}" = true ]; }
