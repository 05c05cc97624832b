# Signing by cosign. The signature belongs to the digest, and is in the
# registry. The signed statement names the tag, the pipeline, and when the image
# was pushed.
# shellcheck shell=sh disable=SC2154 # the caller's

cosign_guard() {
	need cosign || refuse "cosign is missing" || return
	need curl || refuse "curl is missing" || return
	# A key counts from here on; every other COSIGN_… of the project would be an
	# option of cosign (COSIGN_REPOSITORY, COSIGN_NEW_BUNDLE_FORMAT and so on).
	key=${HUBRELAY_INPUT_KEY:-${COSIGN_KEY-}} more_keys=${COSIGN_PUBLIC_KEYS-}
	for name in $(env | sed -n 's/^\(COSIGN_[A-Z0-9_]*\)=.*$/\1/p'); do
		case $name in COSIGN_PASSWORD | COSIGN_PKCS11_*) ;; *) unset "$name" ;; esac
	done
	COSIGN_PASSWORD=${COSIGN_PASSWORD-} # unset, cosign would ask
	export COSIGN_PASSWORD
	signatures=$repository
	if [ -n "${HUBRELAY_INPUT_SIGNATURE_REPOSITORY-}" ]; then
		is_repository "$HUBRELAY_INPUT_SIGNATURE_REPOSITORY" || refuse "signature_repository is not a repository, such as acme/api-signatures" || return
		# 3.0 signs there, but does not look there (sigstore/cosign#4591).
		if cosign version 2> /dev/null | grep -Eq 'GitVersion: +v?3\.0\.'; then
			refuse "signature_repository needs cosign 3.1 or later: use an image that has it (input image)" || return
		fi
		signatures=$HUBRELAY_INPUT_SIGNATURE_REPOSITORY
		COSIGN_REPOSITORY=$HUBRELAY_INPUT_REGISTRY/$signatures
		export COSIGN_REPOSITORY
	fi
	mkdir "$work/keys"
	if [ "$HUBRELAY_INPUT_SIGNING" = cosign-keyless ]; then
		[ -n "${SIGSTORE_ID_TOKEN-}" ] || refuse "SIGSTORE_ID_TOKEN is missing: keyless signing needs an id token that the project's own .gitlab-ci.yml declares"
		return
	fi
	case $key in
	'') refuse "there is no key: set the variable COSIGN_KEY, of type File, or the input key. A protected variable is there on protected branches only" || return ;;
	*://*) ;;
	*) [ -f "$key" ] || refuse "the key is not a file: the variable COSIGN_KEY must be of type File" || return ;;
	esac
	# Without a service in them, nothing goes to a public log, and nobody is asked.
	if ! cosign signing-config create --out "$work/signing.json" || ! cosign trusted-root create --out "$work/root.json"; then
		refuse "cosign is too old: version 3 is needed" || return
	fi
	if ! cosign public-key --key "$key" > "$work/keys/0.pub" 2> "$work/errors"; then
		cat "$work/errors" >&2
		case $key in
		*://*) refuse "the key cannot be read from its service: does the job have credentials for it, and does it exist? See the log of the job" ;;
		*) cosign_key_error ;;
		esac
		return
	fi
	if [ -n "$more_keys" ]; then
		[ -f "$more_keys" ] || refuse "COSIGN_PUBLIC_KEYS is not a file: the variable must be of type File" || return
		KEYS=$work/keys awk '
			/^-----BEGIN PUBLIC KEY-----/ { out = ENVIRON["KEYS"] "/" (++n) ".pub" }
			out != "" { print > out }
			/^-----END PUBLIC KEY-----/ { close(out); out = "" }' "$more_keys"
		[ -f "$work/keys/1.pub" ] || refuse "COSIGN_PUBLIC_KEYS has no public key (-----BEGIN PUBLIC KEY-----)" || return
	fi
}

# cosign_key_error says why a key in a file cannot be read.
cosign_key_error() {
	if grep -q 'decryption failed' "$work/errors"; then
		refuse "the key cannot be read: COSIGN_PASSWORD is not its password"
	elif grep -Eq 'BEGIN (ENCRYPTED )?(SIGSTORE|COSIGN) PRIVATE KEY' "$key"; then
		refuse "the key cannot be read: COSIGN_KEY is truncated or changed; it must be the complete cosign.key"
	elif grep -q 'BEGIN PUBLIC KEY' "$key"; then
		refuse "the key cannot be read: COSIGN_KEY is the public key; it must be cosign.key"
	else
		refuse "the key cannot be read: COSIGN_KEY is not a key of cosign (cosign generate-key-pair, or import-key-pair)"
	fi
}

# cosign_sign signs DIGEST for TAG. It returns 6 for a temporary failure.
cosign_sign() {
	set -- --yes -a "tag=$TAG" -a "pipeline=$CI_PIPELINE_URL"
	[ -z "$pushed_at" ] || set -- "$@" -a "image_pushed_at=$pushed_at"
	[ "$HUBRELAY_INPUT_SIGNING" = cosign-keyless ] || set -- "$@" --key "$key"
	if legacy; then
		set -- "$@" --new-bundle-format=false --use-signing-config=false
		public_log || set -- "$@" --tlog-upload=false
	elif ! public_log; then
		set -- "$@" --signing-config "$work/signing.json" --trusted-root "$work/root.json"
	fi
	again cosign --verbose sign "$@" "$IMAGE@$DIGEST" && code=0 || code=$?
	case $code:$HUBRELAY_INPUT_SIGNING:$key in
	0:* | 6:*) return "$code" ;;
	*:cosign-keyless:* | *:*://*) return 6 ;; # the service of the key, or of the log
	*) public_log && return 6 ;;
	esac
	return 5
}

# cosign_signed returns 0 if one of our keys has signed DIGEST for TAG, 10 if
# none has, 4 if only others have signed it, and 3 or 6 if the registry refuses
# or fails. $own is yes if this pipeline signed it.
# shellcheck disable=SC2034 # own is the caller's
cosign_signed() {
	own=""
	cosign_statements "$DIGEST" || return
	if URL=$CI_PIPELINE_URL WANT=$TAG awk -F '\t' \
		'$2 == ENVIRON["URL"] && $1 == ENVIRON["WANT"] { found = 1 } END { exit !found }' "$work/statements"; then
		own=yes
	fi
	# An image that was signed under other tags only (1.4.0-rc1, say) is to be
	# signed under this one. A signature that names no tag is for all.
	if WANT=$TAG awk -F '\t' '$1 == ENVIRON["WANT"] || $1 == "" { found = 1 } END { exit !found }' "$work/statements"; then
		return 0
	fi
	[ -s "$work/statements" ] || [ -z "$foreign" ] || return 4
	return 10
}

# cosign_times prints when DIGEST was pushed, as our signatures say: a tag, a
# tab and a time for each.
cosign_times() {
	cosign_statements "$1" || return
	cut -f 1,3 "$work/statements"
}

# cosign_statements DIGEST writes a line of tag, pipeline and time for each
# signature of it by one of our keys. $foreign is yes if there are others, and
# $api is no if the list of signatures is kept under a tag.
#
# It does not use `cosign verify` for this, which takes an attestation for a
# signature, and a failing registry for one without signatures.
cosign_statements() {
	: > "$work/statements"
	rm -f "$work/header"
	foreign="" api=yes hex=${1#sha256:}
	if legacy; then
		api=no
	else
		ask "$signatures" "referrers/$1" application/vnd.oci.image.index.v1+json && code=0 || code=$?
		if [ "$code" -eq 4 ]; then
			api=no
			ask "$signatures" "manifests/sha256-$hex" application/vnd.oci.image.index.v1+json && code=0 || code=$?
		fi
		case $code in
		0)
			flat < "$work/answer" > "$work/list"
			# A proxy's page is no list of nothing.
			[ "$(field "$work/list" schemaVersion)" = 2 ] || return 6
			awk -F '\t' '
				{ split($1, p, "/"); i = p[2] }
				$1 == "manifests/" i "/digest" { digest[i] = $2; if (i + 0 >= n) n = i + 1 }
				$1 == "manifests/" i "/artifactType" && $2 !~ /^application\/vnd\.(dev\.sigstore\.bundle|oci\.empty)/ { other[i] = 1 }
				$1 == "manifests/" i "/annotations/dev.sigstore.bundle.predicateType" && $2 != "https://sigstore.dev/cosign/sign/v1" { other[i] = 1 }
				END { for (i = 0; i < n; i++) if (!other[i]) print digest[i] }' "$work/list" > "$work/referrers"
			if [ "$(wc -l < "$work/referrers")" -gt 100 ]; then
				why="it has more than 100 signatures"
				return 4
			fi
			while read -r referrer; do
				cosign_bundle "$referrer" < /dev/null || return
			done < "$work/referrers"
			;;
		4) ;;
		*) return "$code" ;;
		esac
	fi
	ask "$signatures" "manifests/sha256-$hex.sig" 'application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json' && code=0 || code=$?
	case $code in
	0) cosign_old "$1" ;;
	4) ;;
	*) return "$code" ;;
	esac
}

# cosign_bundle REFERRER adds the statement of a bundle, if it is a signature.
cosign_bundle() {
	is_digest "$1" || return 0
	ask "$signatures" "manifests/$1" application/vnd.oci.image.manifest.v1+json && code=0 || code=$?
	[ "$code" -ne 4 ] || return 0 # it was deleted, and is still listed
	[ "$code" -eq 0 ] || return "$code"
	flat < "$work/answer" > "$work/bundle"
	predicate=$(field "$work/bundle" annotations/dev.sigstore.bundle.predicateType)
	case $predicate in '' | https://sigstore.dev/cosign/sign/v1) ;; *) return 0 ;; esac
	case $(field "$work/bundle" layers/0/mediaType) in application/vnd.dev.sigstore.bundle*) ;; *) return 0 ;; esac
	blob=$(field "$work/bundle" layers/0/digest)
	is_digest "$blob" || return 0
	# A signature takes a few thousand bytes; what is larger is an SBOM.
	[ "$(field "$work/bundle" layers/0/size)" -le 200000 ] 2> /dev/null || return 0
	ask "$signatures" "blobs/$blob" && code=0 || code=$?
	[ "$code" -ne 4 ] || return 0
	[ "$code" -eq 0 ] || return "$code"
	mv "$work/answer" "$work/bundle.json"
	flat < "$work/bundle.json" > "$work/bundle"
	field "$work/bundle" dsseEnvelope/payload | base64 -d 2> /dev/null | flat > "$work/statement" || :
	[ "$(field "$work/statement" predicateType)" = https://sigstore.dev/cosign/sign/v1 ] || return 0
	set -- verify-blob-attestation --bundle "$work/bundle.json" --type https://sigstore.dev/cosign/sign/v1 --digest "$hex" --digestAlg sha256
	cosign_by_us "$@" && code=0 || code=$?
	[ "$code" -ne 6 ] || return 6
	if [ "$code" -eq 0 ]; then
		HEX=$hex awk -F '\t' '
			{ split($1, p, "/"); i = p[2] }
			$1 == "subject/" i "/digest/sha256" && $2 == ENVIRON["HEX"] { at = i }
			{ sub("^subject/" i "/annotations/", ""); if ($1 ~ /^(tag|pipeline|image_pushed_at)$/) said[i, $1] = $2 }
			END { print said[at, "tag"] "\t" said[at, "pipeline"] "\t" said[at, "image_pushed_at"] }' "$work/statement" >> "$work/statements"
	else
		foreign=yes
	fi
}

# cosign_old DIGEST adds the statements of signatures in the format of cosign 2.
# That format has no attestations, so `cosign verify` can be used.
cosign_old() {
	cosign_by_us --verbose verify --new-bundle-format=false --output json "$IMAGE@$1" && code=0 || code=$?
	[ "$code" -ne 6 ] || return 6
	if [ "$code" -eq 0 ]; then
		flat < "$work/verified" | awk -F '\t' '
			{ split($1, p, "/"); i = p[1]; if (i + 0 >= n) n = i + 1 }
			$1 == i "/optional/tag" { tag[i] = $2 }
			$1 == i "/optional/pipeline" { pipeline[i] = $2 }
			$1 == i "/optional/image_pushed_at" { time[i] = $2 }
			END { for (i = 0; i < n; i++) print tag[i] "\t" pipeline[i] "\t" time[i] }' >> "$work/statements"
	else
		foreign=yes
	fi
}

# cosign_by_us VERIFY…: whether it succeeds with one of our keys, or our
# identity: 1 if not, 6 if the registry failed in the meantime. Only the key
# decides whose a signature is: it may have been made without the public log that
# is set now.
cosign_by_us() {
	if [ "$HUBRELAY_INPUT_SIGNING" = cosign-keyless ]; then
		cosign "$@" --certificate-oidc-issuer "$CI_SERVER_URL" \
			--certificate-identity "$CI_PROJECT_URL//$CI_CONFIG_PATH@refs/heads/$CI_COMMIT_REF_NAME" \
			> "$work/verified" 2> "$work/errors" && return
		cosign_failed
		return
	fi
	for public_key in "$work"/keys/*.pub; do
		cosign "$@" --key "$public_key" --insecure-ignore-tlog=true --trusted-root "$work/root.json" \
			> "$work/verified" 2> "$work/errors" && return
		cosign_failed || [ $? -ne 6 ] || return 6
	done
	return 1
}

cosign_failed() {
	grep -q ' <-- ' "$work/errors" || return 1
	judge || [ $? -ne 6 ] || return 6
	return 1
}

public_log() { [ "$HUBRELAY_INPUT_SIGNING" = cosign-keyless ] || [ "${HUBRELAY_INPUT_PUBLIC_LOG-}" = true ]; }
legacy() { [ "${HUBRELAY_INPUT_SIGNATURE_FORMAT-}" = legacy ]; }
