// Package version has the version of this build.
package version

import (
	"regexp"
	"runtime/debug"
)

// Number is the version by SemVer, without the v of its tag: that of the newest
// section of CHANGELOG.md, with -dev at its end until that is released. It is a
// constant because Cloud Functions builds from an archive, which has no version
// from a tag or a module proxy.
const Number = "0.1.0-dev"

// Header of the answer to GET /ready has Number.
const Header = "Hubrelay-Version"

// Commit returns the first 12 hex digits of the commit that the program was
// built from, and whether files had been changed since. The commit is "" if Go
// does not know it: in an archive, and after `go install` with a tag.
func Commit() (commit string, changed bool) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", false
	}
	return commitOf(info)
}

// pseudo is the end of the version that Go gives to a commit without a tag.
var pseudo = regexp.MustCompile(`[-.][0-9]{14}-([0-9a-f]{12})(?:\+incompatible)?(\+dirty)?$`)

func commitOf(info *debug.BuildInfo) (commit string, changed bool) {
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if m := pseudo.FindStringSubmatch(info.Main.Version); commit == "" && m != nil {
		return m[1], m[2] != ""
	}
	return commit, changed
}
