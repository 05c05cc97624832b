package route_test

import (
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/route"
)

func TestWhyATagIsPromotedOrNot(t *testing.T) {
	t.Parallel()
	routes := parse(t, `{
	  "acme/api": {
	    "gitlab": {"project": "acme/images/api", "ref": "stable"},
	    "tags": {"include": ["v*", "semver:>=1.2"], "exclude": ["*-rc*", "v0*"]},
	    "latest": "current",
	    "slack": {"channel": "C1"}
	  },
	  "acme/a*": {"gitlab": {"project": "acme/a"}, "slack": {"channel": "C2"}},
	  "acme/*": {"gitlab": {"project": "acme/images/{name}"}, "slack": {"channel": "C3"}, "tags": {"exclude": ["dev"]}},
	  "nginx": {"gitlab": {"project": "mirror/{namespace}-{name}"}, "slack": {"channel": "C4"}}
	}`)
	api := func(e route.Explanation) route.Explanation {
		e.Repository, e.Route, e.Project, e.Ref, e.Channel, e.Latest = "acme/api", "acme/api", "acme/images/api", "stable", "C1", "current"
		e.Include, e.Others = []string{"v*", "semver:>=1.2"}, []string{"acme/a*", "acme/*"}
		return e
	}
	web := func(e route.Explanation) route.Explanation {
		e.Repository, e.Route, e.Project, e.Ref, e.Channel, e.Latest = "acme/web", "acme/*", "acme/images/web", "main", "C3", "latest"
		return e
	}
	const artifact = "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		name, repository, tag string
		want                  route.Explanation
		lines                 []string
	}{
		{"a version within the constraint", "acme/api", "1.4.0",
			api(route.Explanation{Tag: "1.4.0", Promoted: true, IncludedBy: "semver:>=1.2"}),
			[]string{
				"acme/api:1.4.0 is promoted.", `tags.include has "semver:>=1.2", which matches the tag.`, `The route is "acme/api".`,
				`The route "acme/a*" matches, too, and loses: an exact key wins, then the longest glob.`,
				`The route "acme/*" matches, too, and loses: an exact key wins, then the longest glob.`,
				"The pipeline's project is acme/images/api.", "The pipeline's ref is stable.", "The moving tag is current.", "The Slack channel is C1.",
			}},
		{"an exclude wins over an include", "acme/api", "v1.2.0-rc1",
			api(route.Explanation{Tag: "v1.2.0-rc1", Reason: route.TagRules, IncludedBy: "v*", ExcludedBy: "*-rc*"}),
			[]string{"acme/api:v1.2.0-rc1 is not promoted: tag_rules.", `tags.exclude has "*-rc*", which matches the tag.`}},
		{"a pre-release that is excluded and not included either", "acme/api", "1.2.0-rc1",
			api(route.Explanation{Tag: "1.2.0-rc1", Reason: route.TagRules, ExcludedBy: "*-rc*"}),
			[]string{
				`tags.exclude has "*-rc*", which matches the tag.`, "No pattern of tags.include matches the tag.",
				`tags.include has "v*", which does not match: a glob must match the whole tag.`,
				`tags.include has "semver:>=1.2", which does not match: the tag is a pre-release, which a constraint lets in only where it names one itself, such as >=1.2.0-0.`,
			}},
		{"a version below the constraint", "acme/api", "1.1.9",
			api(route.Explanation{Tag: "1.1.9", Reason: route.TagRules}),
			[]string{`tags.include has "semver:>=1.2", which does not match: the version does not satisfy the constraint.`}},
		{"a pre-release below the constraint", "acme/api", "1.1.0-beta.1",
			api(route.Explanation{Tag: "1.1.0-beta.1", Reason: route.TagRules}),
			[]string{`tags.include has "semver:>=1.2", which does not match: the version does not satisfy the constraint.`}},
		{"a tag that is not a full version", "acme/api", "1.4",
			api(route.Explanation{Tag: "1.4", Reason: route.TagRules}),
			[]string{`tags.include has "semver:>=1.2", which does not match: the tag is not a full version, such as 1.4.0 or v1.4.0.`}},
		{"the route's own moving tag", "acme/api", "current",
			api(route.Explanation{Tag: "current", Reason: route.MovingTag}),
			[]string{"acme/api:current is not promoted: moving_tag.", "The tag is the moving tag of its route: what is promoted is moved to it."}},
		{"latest, where another tag is the moving one", "acme/api", "latest",
			api(route.Explanation{Tag: "latest", Reason: route.TagRules}), []string{"acme/api:latest is not promoted: tag_rules."}},
		{"a signature", "acme/api", artifact + ".sig",
			api(route.Explanation{Tag: artifact + ".sig", Reason: route.ArtifactTag}),
			[]string{"The tag is that of a signature or another artifact: it belongs to an image, and is none."}},
		{"a glob with placeholders and no include", "acme/web", "main",
			web(route.Explanation{Tag: "main", Promoted: true}),
			[]string{"The route has no tags.include, so every tag is included.", "The pipeline's project is acme/images/web."}},
		{"an exclude without an include", "acme/web", "dev",
			web(route.Explanation{Tag: "dev", Reason: route.TagRules, ExcludedBy: "dev"}), []string{`tags.exclude has "dev", which matches the tag.`}},
		{"a repository that no route matches", "evil/api", "1.0.0",
			route.Explanation{Repository: "evil/api", Tag: "1.0.0", Reason: route.NoRoute},
			[]string{"evil/api:1.0.0 is not promoted: no_route.", "No route matches the repository."}},
		{"an official image by its short name", "nginx", "1.27",
			route.Explanation{
				Repository: "library/nginx", Tag: "1.27", Promoted: true,
				Route: "library/nginx", Project: "mirror/library-nginx", Ref: "main", Channel: "C4", Latest: "latest",
			}, []string{"library/nginx:1.27 is promoted."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := routes.Explain(c.repository, c.tag)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			r, reason := routes.Decide(c.repository, c.tag)
			if reason != got.Reason || r.Key != got.Route || (reason == "") != got.Promoted {
				t.Errorf("the decision is %q by %q", reason, r.Key)
			}
			lines := strings.Split(got.String(), "\n")
			at := 0
			for _, want := range c.lines {
				for at < len(lines) && lines[at] != want {
					at++
				}
				if at == len(lines) {
					t.Fatalf("the line %q is not there, in its order, in\n%s", want, got)
				}
			}
		})
	}
}

// What is written is shown on a terminal.
func TestAnExplanationCommandsNoTerminal(t *testing.T) {
	t.Parallel()
	routes := parse(t, `{"acme/\u001bc*": {"gitlab": {"project": "a/b", "ref": "x\u001bc\u202e"}, "slack": {"channel": "C\u202e1m"}}, "acme/*": {"gitlab": {"project": "a/b", "ref": "x\u001bc"}, "slack": {"channel": "C\u200b1"}}}`)
	for _, repository := range []string{"acme/api", "acme/\x1bc"} {
		for _, c := range routes.Explain(repository, "1\x1bc").String() {
			if c != '\n' && !unicode.IsPrint(c) {
				t.Errorf("%U is written", c)
			}
		}
	}
}
