package gitlabtest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
)

// The answers of GitLab's own source to requests about a project's settings.
func TestQuestionsAboutASetUp(t *testing.T) {
	t.Parallel()
	fake, base := start(t)
	fake.AddProject(gitlabtest.Project{
		ID: 7, Path: project, Token: token, MovedFrom: "acme/old", Tags: []string{"v1"}, Unprotected: []string{"main"},
		Files: map[string]string{".gitlab-ci.yml": "job: {script: [true]}"},
	})
	fake.AddProject(gitlabtest.Project{ID: 8, Path: "acme/empty", EmptyRepo: true, CIDisabled: true, Archived: true})
	fake.AddProject(gitlabtest.Project{ID: 9, Path: "acme/bare", Files: map[string]string{}})
	fake.AddAccessToken(gitlabtest.AccessToken{Token: "maintainer", Maintainer: true})
	fake.AddAccessToken(gitlabtest.AccessToken{Token: "reporter", Scopes: []string{"read_api"}, ExpiresAt: time.Now().Add(time.Hour)})
	fake.AddAccessToken(gitlabtest.AccessToken{Token: "guest", Scopes: []string{"read_api"}, Guest: true})
	fake.AddAccessToken(gitlabtest.AccessToken{Token: "other", Projects: []string{"acme/empty"}})
	fake.AddAccessToken(gitlabtest.AccessToken{Token: "scopeless", Scopes: []string{"read_registry"}})
	fake.AddAccessToken(gitlabtest.AccessToken{Token: "revoked", Revoked: true})
	fake.AddAccessToken(gitlabtest.AccessToken{Token: "expired", ExpiresAt: time.Now().Add(-time.Hour)})
	for _, c := range []struct {
		token, path string
		status      int
		says        string
		not         string
	}{
		{"", "version", 401, "401 Unauthorized", ""},
		{"reporter", "version", 200, `"version":"18.5.0-ee"`, ""},
		{"reporter", "personal_access_tokens/self", 200, `"scopes":["read_api"]`, ""},
		{"scopeless", "personal_access_tokens/self", 200, `"expires_at":null`, ""},
		{"nosuch", "personal_access_tokens/self", 401, "401 Unauthorized", ""},
		{"revoked", "personal_access_tokens/self", 401, "Token was revoked", ""},
		{"expired", "personal_access_tokens/self", 401, "Token is expired", ""},
		{"scopeless", "projects/7", 403, "insufficient_scope", ""},
		{"", "projects/7", 404, "404 Project Not Found", ""},
		{"other", "projects/7", 404, "404 Project Not Found", ""},
		{"maintainer", "projects/7", 200, `"ci_pipeline_variables_minimum_override_role":"developer"`, ""},
		{"reporter", "projects/acme%2Fimages%2Fapi", 200, `"path_with_namespace":"acme/images/api"`, "minimum_override_role"},
		{"guest", "projects/7", 200, `"builds_access_level":"enabled"`, "ci_config_path"},
		{"reporter", "projects/8", 200, `"builds_access_level":"disabled"`, ""},
		{"reporter", "projects/acme%2Fold", 301, "301 Moved Permanently", ""},
		{"reporter", "projects/7/repository/branches/main", 200, `"protected":false`, ""},
		{"reporter", "projects/7/repository/branches/v1", 404, "404 Branch Not Found", ""},
		{"reporter", "projects/7/repository/tags/v1", 200, `"protected":true`, ""},
		{"reporter", "projects/7/repository/tags/main", 404, "404 Tag Not Found", ""},
		{"guest", "projects/7/repository/branches/main", 403, "403 Forbidden", ""},
		{"reporter", "projects/7/ci/lint?content_ref=main&include_jobs=true", 200, `"name":"hubrelay-promote"`, ""},
		{"reporter", "projects/7/ci/lint?content_ref=main", 200, `"valid":true`, `"jobs"`},
		{"reporter", "projects/7/ci/lint?content_ref=x", 404, "404 Commit Not Found", ""},
		{"reporter", "projects/8/ci/lint?content_ref=main", 404, "404 Repository Not Found", ""},
		{"reporter", "projects/9/ci/lint?content_ref=main", 200, `"valid":false`, ""},
		{"guest", "projects/7/ci/lint?content_ref=main", 403, "403 Forbidden", ""},
		{"reporter", "projects/7/repository/files/.gitlab-ci.yml/raw?ref=main", 200, "job: {script: [true]}", ""},
		{"reporter", "projects/7/repository/files/x.yml/raw?ref=main", 404, "404 File Not Found", ""},
		{"reporter", "projects/7/repository/files/.gitlab-ci.yml/raw?ref=x", 404, "404 Commit Not Found", ""},
		{"guest", "projects/7/repository/files/.gitlab-ci.yml/raw?ref=main", 403, "403 Forbidden", ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/v4/"+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.token != "" {
			r.Header.Set("PRIVATE-TOKEN", c.token)
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		status, body := read(t, res)
		if status != c.status || !strings.Contains(body, c.says) || c.not != "" && strings.Contains(body, c.not) {
			t.Errorf("%s by %q: got %d %s", c.path, c.token, status, body)
		}
		if status == 301 && res.Header.Get("Location") != base+"/api/v4/projects/7" {
			t.Errorf("it leads to %s", res.Header.Get("Location"))
		}
	}
}

// The token is checked first, then the rights of its owner, and only then the
// ref.
func TestTheOrderInWhichATriggerIsRefused(t *testing.T) {
	t.Parallel()
	fake, base := start(t)
	for _, c := range []struct {
		change func(*gitlabtest.Project)
		token  string
		status int
		says   string
	}{
		{func(*gitlabtest.Project) {}, token, 400, "Reference not found"},
		{func(p *gitlabtest.Project) { p.NoRight = true }, "another", 404, "404 Not Found"},
		{func(p *gitlabtest.Project) { p.NoRight = true }, token, 400, "Insufficient permissions to create a new pipeline"},
		{func(p *gitlabtest.Project) { p.Archived = true }, token, 400, "Insufficient permissions to create a new pipeline"},
		{func(p *gitlabtest.Project) { p.CIDisabled = true }, token, 400, "Pipelines are disabled!"},
	} {
		p := gitlabtest.Project{Path: project, Token: token}
		c.change(&p)
		fake.AddProject(p)
		status, body := post(t, base, project, jsonType, `{"token":"`+c.token+`","ref":"hubrelay-check-1"}`)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("got %d %s, want %d %s", status, body, c.status, c.says)
		}
	}
	if n := len(fake.Pipelines()); n != 0 {
		t.Errorf("%d pipelines", n)
	}
}
