package route

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/Masterminds/semver/v3"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
)

// Why a push is not promoted.
const (
	NoRoute     = "no_route"
	MovingTag   = "moving_tag"
	ArtifactTag = "artifact_tag"
	TagRules    = "tag_rules"
)

// Decide returns the route of a push, as Find does, and why the push is not
// promoted, "" if it is.
func (t Table) Decide(repository, tag string) (r Route, reason string) {
	r, ok := t.Find(repository)
	if !ok {
		return r, NoRoute
	}
	return r, r.Unwanted(tag)
}

// Explanation is what Decide says about a push, with the reasons. It does not
// consider what the registry and the ledger know of the image.
type Explanation struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag"`
	Promoted   bool   `json:"promoted"`
	Reason     string `json:"reason,omitempty"` // why it is not promoted: NoRoute, MovingTag, ArtifactTag or TagRules

	// Of the route, placeholders filled. All are "" if there is none.
	Route   string `json:"route,omitempty"` // its key
	Project string `json:"project,omitempty"`
	Ref     string `json:"ref,omitempty"`
	Channel string `json:"channel,omitempty"`
	Latest  string `json:"latest,omitempty"` // the moving tag

	Include    []string `json:"include,omitempty"`     // the route's patterns; none means every tag
	IncludedBy string   `json:"included_by,omitempty"` // the first of them that matches the tag
	ExcludedBy string   `json:"excluded_by,omitempty"` // the first pattern of the route's exclude that matches the tag
	Others     []string `json:"others,omitempty"`      // keys of other routes that match, too
}

// Explain reports whether a push of the tag is promoted, by which route, and if
// not, which rule excludes it. Like Trigger, it uses Decide.
func (t Table) Explain(repository, tag string) Explanation {
	r, reason := t.Decide(repository, tag)
	e := Explanation{Repository: canonical(repository), Tag: tag, Promoted: reason == "", Reason: reason}
	if reason == NoRoute {
		return e
	}
	e.Route, e.Project, e.Ref, e.Channel, e.Latest = r.Key, r.GitLab.Project, r.GitLab.Ref, r.Slack.Channel, r.Latest
	e.Include = r.Tags.Include
	e.IncludedBy, e.ExcludedBy = r.Tags.match(tag)
	for _, other := range t.routes {
		if other.Key != r.Key && other.matches(e.Repository) {
			e.Others = append(e.Others, other.Key)
		}
	}
	return e
}

// String explains it in sentences, one per line. The first line is the answer.
func (e Explanation) String() string {
	var b strings.Builder
	// A channel or a ref may contain control sequences of a terminal.
	line := func(format string, args ...any) { b.WriteString(printable(fmt.Sprintf(format, args...)) + "\n") }
	verdict := "is promoted"
	if !e.Promoted {
		verdict = "is not promoted: " + e.Reason
	}
	line("%s:%s %s.", e.Repository, e.Tag, verdict)
	switch e.Reason {
	case NoRoute:
		line("No route matches the repository.")
		return b.String()
	case MovingTag:
		line("The tag is the moving tag of its route: what is promoted is moved to it.")
	case ArtifactTag:
		line("The tag is that of a signature or another artifact: it belongs to an image, and is none.")
	case TagRules:
		e.rules(line)
	default:
		if len(e.Include) == 0 {
			line("The route has no tags.include, so every tag is included.")
		} else {
			line("tags.include has %q, which matches the tag.", e.IncludedBy)
		}
	}
	line("The route is %q.", e.Route)
	for _, key := range e.Others {
		line("The route %q matches, too, and loses: an exact key wins, then the longest glob.", key)
	}
	line("The pipeline's project is %s.", e.Project)
	line("The pipeline's ref is %s.", e.Ref)
	line("The moving tag is %s.", e.Latest)
	line("The Slack channel is %s.", e.Channel)
	return b.String()
}

func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text)
}

// rules says which patterns exclude the tag.
func (e Explanation) rules(line func(string, ...any)) {
	if e.ExcludedBy != "" {
		line("tags.exclude has %q, which matches the tag.", e.ExcludedBy)
	}
	if len(e.Include) == 0 || e.IncludedBy != "" {
		return
	}
	line("No pattern of tags.include matches the tag.")
	for _, pattern := range e.Include {
		line("tags.include has %q, which does not match: %s.", pattern, mismatch(pattern, e.Tag))
	}
}

// mismatch says why a pattern does not match a tag.
func mismatch(pattern, tag string) string {
	if !strings.HasPrefix(pattern, semverPrefix) {
		return "a glob must match the whole tag"
	}
	v, err := version(tag)
	if err != nil {
		return "the tag is not a full version, such as 1.4.0 or v1.4.0"
	}
	// 1.2.0 would match, and 1.2.0-rc.1 does not.
	release, _ := v.SetPrerelease("")
	if ok, _ := matchTag(pattern, release.String()); ok && v.Prerelease() != "" {
		return "the tag is a pre-release, which a constraint lets in only where it names one itself, such as >=1.2.0-0"
	}
	return "the version does not satisfy the constraint"
}

// semverPrefix marks a tag pattern that is a version constraint.
const semverPrefix = "semver:"

// version reads a tag that is a full version, with or without a "v". Otherwise
// a constraint would also match "1.4" or "20240101".
func version(tag string) (*semver.Version, error) {
	return semver.StrictNewVersion(strings.TrimPrefix(tag, "v"))
}

// Unwanted says why a push of the tag is not promoted by the route, "" if it
// is.
func (r Route) Unwanted(tag string) (reason string) {
	switch {
	case tag == r.Latest:
		return MovingTag
	case dockerhub.IsArtifactTag(tag):
		return ArtifactTag
	case !r.Allows(tag):
		return TagRules
	}
	return ""
}

// Allows reports whether the route's tag rules let a tag be promoted.
func (r Route) Allows(tag string) bool {
	included, excluded := r.Tags.match(tag)
	return (len(r.Tags.Include) == 0 || included != "") && excluded == ""
}

// match returns the first pattern of each list that matches the tag, "" if none
// does. No pattern is empty.
func (t Tags) match(tag string) (include, exclude string) {
	return firstMatch(t.Include, tag), firstMatch(t.Exclude, tag)
}
