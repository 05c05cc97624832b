#!/bin/sh
# Writes the tables of inputs and outputs in README.md from variables.tf and
# outputs.tf; with --check, says whether they are up to date. It relies on the
# form that `terraform fmt` gives to a file.
set -eu
cd "$(dirname "$0")"

tables() {
	awk '
	function clean(text) {
		gsub(/\|/, "\\|", text)
		gsub(/\\"/, "\"", text)
		return text
	}
	function cell(text) { return text == "" ? "" : "`" clean(text) "`" }
	FNR == 1 && FILENAME == "variables.tf" {
		print "## Inputs\n\n| name | | type | default |\n|---|---|---|---|"
	}
	FNR == 1 && FILENAME == "outputs.tf" {
		print "\n## Outputs\n\n| name | |\n|---|---|"
	}
	/^(variable|output) "/ {
		kind = $1; name = $2; gsub(/"/, "", name)
		text = type = fallback = ""; given = secret = 0
	}
	heredoc && /^  EOT$/ { heredoc = 0; next }
	heredoc {
		sub(/^    /, ""); sub(/^- /, "· ")
		if ($0 != "") text = text (text == "" ? "" : "<br>") $0
		next
	}
	/^  description += <<-EOT$/ { heredoc = 1; next }
	/^  description += "/ { text = $0; sub(/^[^"]*"/, "", text); sub(/"$/, "", text) }
	/^  type += / { type = $0; sub(/^[^=]*= /, "", type); if (sub(/\(\{$/, "", type)) type = type (type ~ /\(/ ? ")" : "") }
	/^  default += / { fallback = $0; sub(/^[^=]*= /, "", fallback); given = 1 }
	/^  ephemeral += true/ { secret = 1 }
	/^}/ && kind == "variable" {
		printf "| `%s` | %s | %s | %s |\n", name, clean(text), cell(type) (secret ? ", ephemeral" : ""), given ? cell(fallback) : "required"
		kind = ""
	}
	/^}/ && kind == "output" { printf "| `%s` | %s |\n", name, clean(text); kind = "" }
	' variables.tf outputs.tf
}

page() {
	sed '/^<!-- tables -->$/q' README.md
	tables
	sed -n '/^<!-- end of tables -->$/,$p' README.md
}

new=$(page)
if [ "${1:-}" = --check ]; then
	[ "$new" = "$(cat README.md)" ] || { echo "terraform/README.md is not up to date: run terraform/tables.sh" >&2; exit 1; }
else
	printf '%s\n' "$new" > README.md
fi
