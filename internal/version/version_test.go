package version

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
)

// section is a version of the changelog.
type section struct {
	version string
	date    string // or "unreleased"
	text    string
}

var (
	heading = regexp.MustCompile(`(?m)^## (.*)\n`)
	title   = regexp.MustCompile(`^([0-9]\S*) - (unreleased|[0-9]{4}-[0-9]{2}-[0-9]{2})$`)
)

func changelog(t *testing.T) []section {
	t.Helper()
	text, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	var sections []section
	found := heading.FindAllSubmatchIndex(text, -1)
	for i, at := range found {
		m := title.FindSubmatch(text[at[2]:at[3]])
		if m == nil {
			t.Fatalf("the heading %q is no version with a date, or unreleased", text[at[2]:at[3]])
		}
		end := len(text)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		sections = append(sections, section{string(m[1]), string(m[2]), string(text[at[1]:end])})
	}
	if len(sections) == 0 {
		t.Fatal("CHANGELOG.md has no version")
	}
	return sections
}

func TestNumberIsTheNewestOfTheChangelog(t *testing.T) {
	t.Parallel()
	newest := changelog(t)[0]
	want := newest.version
	if newest.date == "unreleased" {
		want += "-dev"
	}
	if Number != want {
		t.Errorf("the version is %s; CHANGELOG.md begins with %s - %s, which makes it %s", Number, newest.version, newest.date, want)
	}
	if _, err := semver.StrictNewVersion(Number); err != nil {
		t.Errorf("%s: %v", Number, err)
	}
}

func TestChangelogHasOneSectionForEachVersionTheNewestFirst(t *testing.T) {
	t.Parallel()
	sections := changelog(t)
	for i, s := range sections {
		v, err := semver.StrictNewVersion(s.version)
		if err != nil {
			t.Fatalf("%s: %v", s.version, err)
		}
		if i > 0 && s.date == "unreleased" {
			t.Errorf("%s has no date, and is not the newest", s.version)
		}
		if i > 0 && !v.LessThan(semver.MustParse(sections[i-1].version)) {
			t.Errorf("%s stands below %s", s.version, sections[i-1].version)
		}
		if !strings.Contains(s.text, "\n### What the plan shows\n") {
			t.Errorf("%s does not say what the plan of an upgrade shows", s.version)
		}
	}
}

// What a reader copies must be there: a tag in the documents is the one that was
// released last, or before the first release the one to come.
func TestDocumentsNameTheReleasedTag(t *testing.T) {
	t.Parallel()
	sections := changelog(t)
	want := "v" + sections[0].version
	if sections[0].date == "unreleased" && len(sections) > 1 {
		want = "v" + sections[1].version
	}
	tag := regexp.MustCompile(`hubrelay(?:\.git//terraform\?ref=|/promote@|@|/(?:raw/)?)(v[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.-]*)`)
	found := 0
	err := filepath.WalkDir("../..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".." {
			return filepath.SkipDir
		}
		if ext := filepath.Ext(file); ext != ".md" && ext != ".tf" || entry.Name() == "CHANGELOG.md" || entry.Name() == "decisions.md" {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, m := range tag.FindAllStringSubmatch(string(text), -1) {
			found++
			if m[1] != want {
				t.Errorf("%s names %s; the tag to name is %s", file, m[1], want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no document names a tag")
	}
}

func TestCommit(t *testing.T) {
	t.Parallel()
	type settings = []debug.BuildSetting
	for name, test := range map[string]struct {
		main     string
		settings settings
		commit   string
		changed  bool
	}{
		"built in a clone":                        {"v0.1.0", settings{{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}, {Key: "vcs.modified", Value: "false"}}, "0123456789ab", false},
		"built in a clone with changes":           {"v0.1.1-0.20261126001829-0123456789ab+dirty", settings{{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}, {Key: "vcs.modified", Value: "true"}}, "0123456789ab", true},
		"built from an archive":                   {"(devel)", nil, "", false},
		"installed at a tag":                      {"v0.1.0", nil, "", false},
		"installed at a tag of a pre-release":     {"v0.1.0-rc.1", nil, "", false},
		"installed at a commit before any tag":    {"v0.0.0-20261126001829-0123456789ab", nil, "0123456789ab", false},
		"installed at a commit after a tag":       {"v0.1.1-0.20261126001829-0123456789ab", nil, "0123456789ab", false},
		"installed at a commit after pre-release": {"v0.1.0-rc.1.0.20261126001829-0123456789ab", nil, "0123456789ab", false},
		"a revision that is cut":                  {"", settings{{Key: "vcs.revision", Value: "0123"}}, "0123", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			commit, changed := commitOf(&debug.BuildInfo{Main: debug.Module{Version: test.main}, Settings: test.settings})
			if commit != test.commit || changed != test.changed {
				t.Errorf("got %q, %v; want %q, %v", commit, changed, test.commit, test.changed)
			}
		})
	}
}
