package route_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/route"
)

const documented = `{
  "acme/api": {
    "gitlab": {"project": "acme/images/api", "ref": "main", "pass": "inputs"},
    "tags": {"include": ["v*", "semver:>=1.2"], "exclude": ["*-rc*"]},
    "latest": "latest",
    "once_per": "digest",
    "slack": {"channel": "C0123456789", "mention": "@here", "tell": "all"},
    "inputs": {"severity": "low"}
  },
  "acme/*": {"gitlab": {"project": "acme/images/{name}"}, "slack": {"channel": "C0123456789"}}
}`

func parse(t *testing.T, text string) route.Table {
	t.Helper()
	table, err := route.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// table makes a table of routes that differ in their key and project only.
func table(t *testing.T, projects map[string]string) route.Table {
	t.Helper()
	routes := map[string]any{}
	for key, project := range projects {
		routes[key] = map[string]any{
			"gitlab": map[string]string{"project": project},
			"slack":  map[string]string{"channel": "C1"},
		}
	}
	text, err := json.Marshal(routes)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func TestTheDocumentedTable(t *testing.T) {
	t.Parallel()
	routes := parse(t, documented)
	api, ok := routes.Find("acme/api")
	if !ok || api.Key != "acme/api" || api.GitLab.Project != "acme/images/api" {
		t.Errorf("got %+v", api)
	}
	web, ok := routes.Find("acme/web")
	want := route.Route{
		Key: "acme/*", Latest: "latest", OncePer: "digest",
		GitLab: route.GitLab{Project: "acme/images/web", Ref: "main", Pass: "inputs"},
		Slack:  route.Slack{Channel: "C0123456789", Tell: "all"},
	}
	if diff := cmp.Diff(want, web); !ok || diff != "" {
		t.Error(diff)
	}
	if r, ok := routes.Find("evil/api"); ok {
		t.Errorf("evil/api gets %s", r.Key)
	}
}

func TestAnExactKeyWinsThenTheLongestGlob(t *testing.T) {
	t.Parallel()
	routes := table(t, map[string]string{
		"acme/api": "p/exact", "acme/a*": "p/a", "acme/*": "p/{name}", "*/api": "{namespace}/p", "*": "every/{namespace}-{name}",
	})
	for repository, want := range map[string]string{
		"acme/api": "p/exact", "acme/app": "p/a", "acme/web": "p/web",
		"other/api": "other/p", "other/web": "every/other-web",
	} {
		got, ok := routes.Find(repository)
		if !ok || got.GitLab.Project != want {
			t.Errorf("%s gets %q, want %q", repository, got.GitLab.Project, want)
		}
	}
}

func TestTagRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name             string
		include, exclude []string
		yes, no          []string
	}{
		{"no rules let every tag", nil, nil, []string{"1.4.0", "main", "a"}, nil},
		{"globs match the whole tag", []string{"v*"}, []string{"*-rc*"}, []string{"v1", "v1.2.3"}, []string{"1.2", "xv1", "v1-rc1"}},
		{"a constraint matches full versions with and without v",
			[]string{"semver:>=1.2"}, nil, []string{"1.2.0", "v1.2.0", "2.0.0"}, []string{"1.1.9", "1.4", "v2", "20240101", "main"}},
		{"a constraint leaves pre-releases out unless it names one",
			[]string{"semver:>=1.2"}, nil, []string{"1.3.0"}, []string{"1.3.0-rc.1"}},
		{"a constraint that names a pre-release lets them in", []string{"semver:>=1.2.0-0"}, nil, []string{"1.3.0-rc.1"}, nil},
		{"one include is enough", []string{"release-*", "semver:^1"}, nil, []string{"release-x", "1.9.0"}, []string{"2.0.0"}},
		{"exclude wins", []string{"*"}, []string{"semver:<1"}, []string{"1.0.0", "x"}, []string{"0.9.0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := route.Route{Tags: route.Tags{Include: c.include, Exclude: c.exclude}}
			for _, tag := range c.yes {
				if !r.Allows(tag) {
					t.Errorf("%s is refused", tag)
				}
			}
			for _, tag := range c.no {
				if r.Allows(tag) {
					t.Errorf("%s is allowed", tag)
				}
			}
		})
	}
}

func TestEveryMistakeIsNamed(t *testing.T) {
	t.Parallel()
	_, err := route.Parse(`{
	  "Acme/API": {"gitlab": {"project": "acme/api"}, "slack": {"channel": "C1"}},
	  "acme*": {"gitlab": {"project": "acme/api"}, "slack": {"channel": "C1"}},
	  "acme/[": {"gitlab": {"project": "acme/api"}, "slack": {"channel": "C1"}},
	  "acme/a": {"gitlab": {"project": "{nmae}/x", "ref": "a b", "pass": "x"}, "once_per": "week", "latest": "a b", "slack": {"channel": "C 1"}},
	  "acme/b": {},
	  "acme/c": {"gitlab": {"project": "api"}, "slack": {"channel": "C1"}, "tags": {"include": ["", "[", "semver:>=nope"], "exclude": ["semver:"]}},
	  "acme/d": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}, "inputs": {"image_tag": "x", "a b": "y", "big": "` + strings.Repeat("x", 1024) + `", "A": "1", "a": "2"}},
	  "acme/e": {"gitlab": {"project": "a/b", "pass": "variables"}, "slack": {"channel": "C1"}, "inputs": {"a-b": "1"}},
	  "acme/f": {"gitlab": {"projekt": "a/b"}},
	  "acme/g": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}, "inputs": {"a": 1}}
	}`)
	if err == nil {
		t.Fatal("no mistake found")
	}
	for _, want := range []string{
		`"Acme/API": the key`, `"acme*": the key "acme*" matches no repository`, `"acme/[": the key`,
		`"acme/a": gitlab.project has {nmae}`, `"acme/a": gitlab.ref`, `"acme/a": gitlab.pass`, `"acme/a": once_per`, `"acme/a": latest`, `"acme/a": slack.channel`,
		`"acme/b": gitlab.project is required`, `"acme/b": slack.channel is required`,
		`"acme/c": gitlab.project "api"`, `"acme/c": tags.include ""`, `"acme/c": tags.include "["`, `"acme/c": tags.include "semver:>=nope"`, `"acme/c": tags.exclude "semver:"`,
		`"acme/d": inputs: "image_tag"`, `"acme/d": inputs: "a b"`, `"acme/d": inputs: the value of "big"`, `"acme/d": inputs: "a" is there twice`,
		`"acme/e": inputs: "a-b"`, `"acme/f": json: unknown field "projekt"`, `"acme/g": json: cannot unmarshal number`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not among\n%v", want, err)
		}
	}
}

func TestInvalidTables(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``: "not a JSON object", `[]`: "not a JSON object", `{"a":`: "not JSON", `{"a" 1}`: "not JSON", `{1:2}`: "not JSON",
		`{} {}`: "after its end", `{"acme/a":{},"acme/a":{}}`: "is there twice",
	} {
		_, err := route.Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if _, err := route.Parse(`{}`); err != nil {
		t.Errorf("a table without routes: %v", err)
	}
}

func TestRoutesOfAProject(t *testing.T) {
	t.Parallel()
	routes := table(t, map[string]string{"acme/api": "acme/images/api", "acme/*": "acme/images/{name}", "other/x": "77", "b/*": "{namespace}/only"})
	for _, c := range []struct {
		project route.Project
		want    []string
	}{
		{route.Project{ID: "1", Path: "acme/images/api"}, []string{"acme/api", "acme/*"}},
		{route.Project{ID: "1", Path: "acme/images/web"}, []string{"acme/*"}},
		{route.Project{ID: "1", Path: "Acme/Images/Web"}, []string{"acme/*"}},
		{route.Project{ID: "77", Path: "some/where"}, []string{"other/x"}},
		{route.Project{ID: "2", Path: "b/only"}, []string{"b/*"}},
		{route.Project{ID: "1", Path: "acme/images/a/b"}, nil},
		{route.Project{ID: "1", Path: "xacme/images/web"}, nil},
	} {
		var got []string
		for _, r := range routes.OfProject(c.project) {
			got = append(got, r.Key)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v: %s", c.project, diff)
		}
	}
	r, _ := routes.Find("acme/web")
	if !r.RunsIn(route.Project{ID: "1", Path: "acme/images/web"}) || !r.RunsIn(route.Project{ID: "1", Path: "Acme/Images/Web"}) || r.RunsIn(route.Project{ID: "1", Path: "acme/images/api"}) {
		t.Error("a route runs in the wrong project")
	}
}

func TestThePipelinesInputs(t *testing.T) {
	t.Parallel()
	image := route.Image{
		Repository: "acme/api", Tag: "1.4.0", Digest: "sha256:1", PromotionID: "p1",
		PushedAt: time.Date(2026, 11, 25, 10, 0, 0, 500_000_000, time.FixedZone("", 3600)),
	}
	r := route.Route{Inputs: map[string]string{"severity": "low"}, GitLab: route.GitLab{Pass: route.PassInputs}}
	want := map[string]string{
		"image_repository": "acme/api", "image_tag": "1.4.0", "image_digest": "sha256:1",
		"image_pushed_at": "2026-11-25T09:00:00.500000Z", "promotion_id": "p1", "severity": "low",
	}
	if diff := cmp.Diff(want, r.Values(image)); diff != "" {
		t.Error(diff)
	}
	r.GitLab.Pass = route.PassVariables
	want = map[string]string{
		"IMAGE_REPOSITORY": "acme/api", "IMAGE_TAG": "1.4.0", "IMAGE_DIGEST": "sha256:1",
		"IMAGE_PUSHED_AT": "2026-11-25T09:00:00.500000Z", "PROMOTION_ID": "p1", "SEVERITY": "low",
	}
	if diff := cmp.Diff(want, r.Values(image)); diff != "" {
		t.Error(diff)
	}
}

func TestAnOfficialImageHasTwoNames(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"busybox", "library/busybox", "library/*"} {
		routes := table(t, map[string]string{key: "acme/busybox"})
		for _, name := range []string{"busybox", "library/busybox"} {
			if r, ok := routes.Find(name); !ok || r.GitLab.Project != "acme/busybox" {
				t.Errorf("the route %s does not match %s", key, name)
			}
		}
	}
	_, err := route.Parse(`{"busybox":{"gitlab":{"project":"1"},"slack":{"channel":"C1"}},"library/busybox":{"gitlab":{"project":"1"},"slack":{"channel":"C1"}}}`)
	if err == nil || !strings.Contains(err.Error(), "is there twice") {
		t.Errorf("two routes of one repository: %v", err)
	}
}

func TestWhoIsMentionedAndWhatIsTold(t *testing.T) {
	t.Parallel()
	for slack, want := range map[string]string{
		`{"channel":"C1","mention":"U0123ABC","tell":"failures"}`: "",
		`{"channel":"C1","mention":"S0123ABC"}`:                   "",
		`{"channel":"C1","mention":"@channel"}`:                   "",
		`{"channel":"C1","mention":"@everyone"}`:                  "slack.mention",
		`{"channel":"C1","mention":"<@U0123ABC>"}`:                "slack.mention",
		`{"channel":"C1","mention":"here"}`:                       "slack.mention",
		`{"channel":"C1","tell":"nothing"}`:                       "slack.tell",
	} {
		_, err := route.Parse(`{"acme/api":{"gitlab":{"project":"1"},"slack":` + slack + `}}`)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", slack, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(documented, "acme/api", "1.4.0")
	f.Add(`{"*":{"gitlab":{"project":"7"},"slack":{"channel":"C1"},"tags":{"include":["semver:^1 || ~2.x"]}}}`, "a/b", "v1.2.3")
	f.Add(`{"a/[^b]*":{"gitlab":{"project":"{namespace}/{name}"},"slack":{"channel":"C1"}}}`, "a/cd", "x")
	f.Fuzz(func(t *testing.T, text, repository, tag string) {
		routes, err := route.Parse(text)
		if err != nil {
			return
		}
		r, ok := routes.Find(repository)
		if !ok || dockerhub.CheckRepository(repository) != nil {
			return
		}
		r.Allows(tag)
		if strings.ContainsAny(r.GitLab.Project, "{}") {
			t.Errorf("a placeholder is left in %q", r.GitLab.Project)
		}
		if !r.RunsIn(route.Project{ID: "-", Path: r.GitLab.Project}) && !r.RunsIn(route.Project{ID: r.GitLab.Project}) {
			t.Errorf("%+v does not run in its own project", r)
		}
	})
}
