# The grammar of routes, as internal/route and internal/dockerhub check it. Both
# sides use the same regular expressions (RE2); tests/routes holds what both
# must accept, and what both must refuse.
locals {
  # Globs are those of Go's path.Match: brackets and backslashes must be closed.
  glob_range = "(?:[^\\\\\\]-]|\\\\.)(?:-(?:[^\\\\\\]-]|\\\\.))?"
  glob_first = "(?:[^\\\\\\]^-]|\\\\.)(?:-(?:[^\\\\\\]-]|\\\\.))?"
  glob_class = "\\[(?:\\^(?:${local.glob_range})+|${local.glob_first}(?:${local.glob_range})*)\\]"
  glob_wild  = "(?:[*?]|\\\\.|${local.glob_class})"
  repository = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"

  # A constraint is one of github.com/Masterminds/semver: comparisons that all
  # hold, ranges with " - " (a comma before them, or "|| " with a space), and
  # "||" between alternatives. What that library lets pass without a space or
  # comma where one would expect it is refused here.
  semver_number     = "[0-9]{1,19}"
  semver_any        = "[0-9xX*]+"
  semver_identifier = "(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
  semver_version = join("", [
    "v?(?:[xX*](?:\\.${local.semver_any}){0,2}",
    "|${local.semver_number}(?:\\.[xX*](?:\\.${local.semver_any})?)?",
    "|${local.semver_number}\\.${local.semver_number}(?:\\.(?:[xX*]|${local.semver_number}))?)",
    "(?:-${local.semver_identifier}(?:\\.${local.semver_identifier})*)?",
    "(?:\\+[0-9A-Za-z-]+(?:\\.[0-9A-Za-z-]+)*)?",
  ])
  semver_comparison = "(?:=|!=|>|<|>=|=>|<=|=<|~|~>|\\^)?\\s*${local.semver_version}\\s*"
  semver_range      = "${local.semver_version}\\s+-\\s+${local.semver_version}\\s*"
  semver_rest       = "(?:(?:\\s+|,\\s*)${local.semver_comparison}|,\\s*${local.semver_range})*"
  semver_first      = "\\s*(?:${local.semver_range}|${local.semver_comparison})${local.semver_rest}"
  semver_other      = "(?:\\s+${local.semver_range}|\\s*${local.semver_comparison})${local.semver_rest}"

  grammar = {
    key        = "(?s)^(?:${local.repository}(?:/${local.repository})*|[^*?\\\\[]*${local.glob_wild}(?:[^*?\\\\[]|${local.glob_wild})*)$"
    wild       = "[*?\\\\[]"
    glob       = "(?s)^(?:[^*?\\\\[]|${local.glob_wild})+$"
    constraint = "^semver:${local.semver_first}(?:\\|\\|${local.semver_other})*$"
    tag        = "^(?:|[A-Za-z0-9_][A-Za-z0-9._-]{0,127})$"
    project    = "^(?:[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+|[1-9][0-9]*)$"
    ref        = "^[^\\s~^:?*\\[\\\\]*$"
    channel    = "^[^\\s\\p{Z}\\p{Cc}]+$"
    mention    = "^(?:|@here|@channel|[UWS][A-Z0-9]{2,20})$"
    input      = "^[A-Za-z_][A-Za-z0-9_-]*$"
    reserved   = ["image_repository", "image_tag", "image_digest", "image_pushed_at", "promotion_id"]
  }

  # A base URL, as internal/env reads it, but for IPv6 addresses, which functions
  # do not reach.
  port     = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
  host     = "[A-Za-z0-9._-]+(?::${local.port})?"
  base_url = "^https://${local.host}(?:/[A-Za-z0-9._~/-]*)?$"

  # A token of another service, as it travels in a header. internal/env takes the
  # same.
  token = "^[!-~]+$"

  # A user and an access token of a registry, and the names of Docker Hub in a
  # Docker config.json. internal/env takes the same.
  account    = "^[^: \\p{Cc}]+:[^\\p{Z}\\p{Cc}](?:\\P{Cc}*[^\\p{Z}\\p{Cc}])?$"
  docker_hub = ["docker.io", "index.docker.io", "registry-1.docker.io"]

  # Of a webhook token, in characters. The longest URL that Cloud Run makes has
  # some hundred, and Docker Hub takes 255.
  longest_token = 128

  # What people leave from an example. internal/auth refuses the same.
  placeholder = "(?i)^[<{\\[$]|change[-_ ]?me|replace[-_ ]?(me|this)|your[-_ ]|example|placeholder|insert[-_ ]|x{6,}|\\*{6,}"
}
