# Functions for both scripts of the template: the grammar of their inputs, and
# their output. They come before both scripts in the template.
# shellcheck shell=sh
set -eu
LC_ALL=C # so that [a-z] is those 26 letters
export LC_ALL

# The names come as pipeline inputs, or else as the variables of `pass:
# variables`: never some of each, because a project may have its own
# IMAGE_DIGEST.
# shellcheck disable=SC2034 # each script uses some of them
if [ -n "${HUBRELAY_INPUT_TAG-}" ]; then
	repository=${HUBRELAY_INPUT_REPOSITORY-} tag=$HUBRELAY_INPUT_TAG digest=${HUBRELAY_INPUT_DIGEST-}
	pushed_at=${HUBRELAY_INPUT_PUSHED_AT-} promotion_id=${HUBRELAY_INPUT_PROMOTION_ID-}
else
	repository=${IMAGE_REPOSITORY-} tag=${IMAGE_TAG-} digest=${IMAGE_DIGEST-}
	pushed_at=${IMAGE_PUSHED_AT-} promotion_id=${PROMOTION_ID-}
fi

say() { printf 'hubrelay: %s\n' "$1" >&2; }

# matches VALUE LENGTH EXPRESSION: the whole value, which is one line.
matches() {
	[ "${#1}" -le "$2" ] || return 1
	case $1 in *'
'*) return 1 ;; esac
	printf '%s\n' "$1" | grep -Eq -e "^($3)\$"
}

# The grammar of distribution/reference, as hubrelay checks it.
part='[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*'
is_repository() { matches "$1" 255 "$part(/$part)*"; }
is_tag() { matches "$1" 128 '[A-Za-z0-9_][A-Za-z0-9._-]*'; }
is_digest() { matches "$1" 71 'sha256:[0-9a-f]{64}'; }

# need COMMAND: installs it if there is Alpine's package manager.
need() {
	command -v "$1" > /dev/null && return
	command -v apk > /dev/null && apk add --no-cache --quiet "$1" > /dev/null && return
	say "$1 is not installed, and could not be installed: use an image that has it (input image)"
	return 1
}
