# The promotion's requests to the registry, and how it reads the answers. $work
# is a private directory; $IMAGE, $TAG and $DIGEST say what is promoted.
# shellcheck shell=sh disable=SC2154 # they are the caller's

# flat turns the JSON on standard input into lines of a path, a tab and a value,
# such as config/mediaType. It needs only awk, because few images have jq.
flat() {
	awk '
		{ json = json $0 " " }
		END {
			gsub(/"([^"\\]|\\.)*"|[][{}:,]|[^][{}:," \t\r]+/, "&\n", json)
			n = split(json, token, "\n")
			for (i = 1; i <= n; i++) {
				t = token[i]
				gsub(/^[ \t\r]+|[ \t\r]+$/, "", t)
				if (t == "") continue
				if (t == "{" || t == "[") {
					depth++
					kind[depth] = t; key[depth] = 0; naming[depth] = t == "{"
				} else if (t == "}" || t == "]") {
					depth--
				} else if (t == ",") {
					if (kind[depth] == "[") key[depth]++
					else naming[depth] = 1
				} else if (t == ":") {
					naming[depth] = 0
				} else {
					if (t ~ /^"/) t = substr(t, 2, length(t) - 2)
					gsub(/\\\//, "/", t)
					if (naming[depth]) { key[depth] = t; continue }
					path = ""
					for (d = 1; d <= depth; d++) path = path (d > 1 ? "/" : "") key[d]
					print path "\t" t
				}
			}
		}'
}

# field FILE PATH prints the value there, of a file that flat has made.
field() { FIELD=$2 awk -F '\t' '$1 == ENVIRON["FIELD"] { print $2; exit }' "$1"; }

# again COMMAND…: runs it until it succeeds, three times at most, as long as the
# failure may be temporary. The output is in $work/out. It returns 4 for what does
# not exist, 3 for what the registry refuses, and 6 for a temporary failure.
again() {
	for seconds in 5 20 0; do
		if "$@" > "$work/out" 2> "$work/errors"; then
			return 0
		fi
		judge || result=$?
		if [ "$result" -ne 6 ] || [ "$seconds" -eq 0 ]; then break; fi
		say "that failed, maybe temporarily: trying again in $seconds seconds"
		sleep "$seconds"
	done
	[ "$result" -eq 4 ] || grep '^Error' "$work/errors" >&2 || tail -n 1 "$work/errors" >&2
	return "$result"
}

# judge returns the kind of the last failure, by crane's log (crane -v).
judge() {
	case $(sed -n 's/^.* <-- //p' "$work/errors" | tail -n 1) in
	404\ *) return 4 ;;
	408\ * | 425\ * | 429\ * | 5[0-9][0-9]\ *) return 6 ;;
	[1-5][0-9][0-9]\ *) return 3 ;;
	*x509:*) return 3 ;;
	esac
	return 6
}

# digest_of REFERENCE prints its digest. It returns what again does.
digest_of() {
	again crane -v digest "$1" || return
	# The registry's URL is what crane has found it at.
	[ -s "$work/api" ] || sed -n '/ --> HEAD /{s|^.* --> HEAD \(.*\)/v2/.*/manifests/.*$|\1|p;q;}' "$work/errors" > "$work/api"
	cat "$work/out"
}

# ask REPOSITORY PATH [ACCEPT]: a GET of the registry's API that crane has no
# command for, with the answer in $work/answer. It returns what again does. The
# credentials in $work/header are used for several requests. Remove them before a
# request for another repository, or after some time.
ask() {
	for seconds in 5 20 0; do
		status=0
		if [ -s "$work/header" ] || credentials "$1" > "$work/header"; then
			status=$(curl --disable --silent --show-error --location --proto =https,http \
				--max-time 60 --max-filesize 8388608 --header "@$work/header" --header "Accept: ${3:-*/*}" \
				--output "$work/answer" --write-out '%{http_code}' --url "$(cat "$work/api")/v2/$1/$2" 2> "$work/errors") || status=0
		fi
		result=3
		case $status in
		200) return 0 ;;
		404) return 4 ;;
		0 | 000 | 408 | 425 | 429 | 5[0-9][0-9]) result=6 ;;
		# So do registries answer that know no referrers; cosign takes it so, too.
		400 | 405 | 406) case $2 in referrers/*) return 4 ;; esac ;;
		esac
		if [ "$result" -ne 6 ] || [ "$seconds" -eq 0 ]; then break; fi
		say "that failed, maybe temporarily: trying again in $seconds seconds"
		sleep "$seconds"
		rm -f "$work/header"
	done
	cat "$work/errors" >&2
	say "the registry answers $status to GET $2 of $1"
	return "$result"
}

# credentials REPOSITORY prints the header that lets curl read it.
credentials() {
	crane auth token -H "$HUBRELAY_INPUT_REGISTRY/$1" 2> "$work/errors" && return
	# Without a token to be had, it takes the password itself, or asks for none.
	grep -q 'is not bearer' "$work/errors" || return
	printf 'Authorization: Basic %s' "$(printf '%s:%s' "$DOCKERHUB_USERNAME" "$DOCKERHUB_TOKEN" | base64 | tr -d '\n')"
}

# is_image DIGEST [DEPTH]: whether a container can be created from it. Other
# things in registries (charts, build caches, Compose files, signatures, SBOMs)
# have other types; $kind is the type. An index with attestations, or with unknown
# platforms, is an image if it contains one. It returns 1 if not, and otherwise
# what again returns.
is_image() {
	again crane -v manifest "$IMAGE@$1" || return
	[ "${2-0}" -gt 0 ] || SIZE=$(($(wc -c < "$work/out")))
	kind=$(flat < "$work/out" | awk -F '\t' '
		function image(t) { return t ~ /^application\/vnd\.(docker\.container\.image\.v1|oci\.image\.config\.v1)\+json$/ }
		function manifest(t) { return t ~ /^application\/vnd\.(oci\.image\.(manifest|index)\.v1|docker\.distribution\.manifest(\.list)?\.v2)\+json$/ }
		function layer(t) { return t ~ /^application\/vnd\.(oci\.image\.layer\.|docker\.image\.rootfs\.)/ }
		$1 == "artifactType" { artifact = $2 }
		$1 == "config/mediaType" { config = $2 }
		$1 ~ /^fsLayers\// { old = 1 }
		$1 ~ /^layers\/[0-9]+\/mediaType$/ { other = $2; layers++; if (layer($2)) good++ }
		$1 ~ /^manifests\// {
			split($1, p, "/"); i = p[2]; if (i + 0 >= n) n = i + 1
			name = substr($1, length("manifests/" i "/") + 1)
			if (name == "mediaType") type[i] = $2
			if (name == "digest") digest[i] = $2
			if (name == "artifactType") extra[i] = $2
			if (name == "annotations/vnd.docker.reference.type") extra[i] = $2
			if (name == "platform/os") os[i] = $2
			listed = 1
		}
		END {
			if (artifact != "" && !image(artifact)) { print artifact; exit }
			if (listed) {
				for (i = 0; i < n; i++) {
					if (!manifest(type[i])) { what = type[i]; continue }
					if (extra[i] != "" && !image(extra[i])) { what = extra[i]; continue }
					if (os[i] != "" && os[i] != "unknown") { print "image"; exit }
					if (count++ < 5) inside = inside " " digest[i]
				}
				print inside != "" ? inside : what != "" ? "an index of " what : "an empty index"
			} else if (old) print "image"
			else if (!image(config)) print config == "" ? "a manifest without a config" : config
			else if (layers && !good) print other
			else print "image"
		}')
	case $kind in
	image) return 0 ;;
	*sha256:*)
		# No platform is named, so what is inside tells.
		[ "${2-0}" -lt 2 ] || return 1
		for inside in $kind; do
			is_image "$inside" "$((${2-0} + 1))" && return
			result=$?
			[ "$result" -eq 1 ] || return "$result"
		done
		return 1
		;;
	*) return 1 ;;
	esac
}

# whole DIGEST: whether every manifest, config and layer of it exists, and has its
# digest. (crane validate refuses attestations and zstd,
# google/go-containerregistry#2409.)
whole() {
	again crane -v manifest "$IMAGE@$1" || return
	flat < "$work/out" > "$work/parts.$1"
	awk -F '\t' '
		$1 ~ /^(config|(layers|fsLayers|manifests)\/[0-9]+)\/(mediaType|digest|blobSum|urls\/0)$/ {
			at = $1; sub(/\/(mediaType|digest|blobSum|urls\/0)$/, "", at)
			if (!(at in seen)) { seen[at] = 1; order[++n] = at }
			if ($1 ~ /(digest|blobSum)$/) digest[at] = $2
			if ($1 ~ /urls\/0$/) elsewhere[at] = 1
			if ($1 ~ /mediaType$/) type[at] = $2
		}
		END {
			for (i = 1; i <= n; i++) {
				at = order[i]
				manifest = type[at] ~ /manifest|image\.index/
				if (at ~ /^manifests/) print (manifest ? "manifest" : "blob") " " digest[at]
				else if (!(at in elsewhere)) print "blob " digest[at]
			}
		}' "$work/parts.$1" | sort -u > "$work/list.$1"
	while read -r part_kind part_digest; do
		if [ "$part_kind" = manifest ]; then
			[ -e "$work/list.$part_digest" ] || whole "$part_digest" < /dev/null || return
		else
			[ ! -e "$work/blob.$part_digest" ] || continue
			again pull "$IMAGE@$part_digest" < /dev/null || return
			: > "$work/blob.$part_digest"
		fi
	done < "$work/list.$1"
}

# pull REFERENCE reads a complete blob, and keeps nothing of it.
# shellcheck disable=SC2317 # again calls it
pull() { crane -v blob "$1" > /dev/null; }
