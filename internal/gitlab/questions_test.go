package gitlab_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
)

const accessToken = "glpat-canary-0123456789"

func asking(t *testing.T) (*gitlabtest.Server, *gitlab.Client) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	base := "http://" + server.Listener.Addr().String() + "/gitlab"
	fake := gitlabtest.New(base)
	server.Config.Handler = http.StripPrefix("/gitlab", fake)
	server.Start()
	t.Cleanup(server.Close)
	c, err := gitlab.New(base)
	if err != nil {
		t.Fatal(err)
	}
	fake.AddAccessToken(gitlabtest.AccessToken{Token: accessToken, Scopes: []string{"read_api"}, Maintainer: true, ExpiresAt: time.Now().Add(1000 * time.Hour)})
	fake.AddProject(gitlabtest.Project{
		ID: 7, Path: "acme/images/api", MovedFrom: "acme/old", Tags: []string{"v1/x"}, Unprotected: []string{"main"},
		VariablesRole: gitlabtest.RoleOwner, CIConfigPath: "ci/a b.yml", Files: map[string]string{"ci/a b.yml": "x: 1"},
		Includes: []gitlabtest.Include{{Type: "component", Location: "x/promote@1"}},
	})
	return fake, c
}

func TestQuestions(t *testing.T) {
	t.Parallel()
	fake, c := asking(t)
	ctx, token := t.Context(), env.NewSecret(accessToken)
	if v, err := c.Version(ctx, token); v != "18.5.0-ee" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	self, err := c.Self(ctx, token)
	if !self.Active || self.Scopes[0] != "read_api" || time.Until(self.Expires()) < 900*time.Hour || err != nil {
		t.Errorf("%+v, %v", self, err)
	}
	for _, name := range []string{"acme/images/api", "7"} {
		p, err := c.Project(ctx, name, token)
		want := gitlab.Project{ID: 7, Path: "acme/images/api", BuildsAccess: "enabled", ConfigPath: "ci/a b.yml", VariablesRole: "owner"}
		if d := cmp.Diff(want, p); d != "" || err != nil {
			t.Errorf("%v %s", err, d)
		}
	}
	if r, err := c.Branch(ctx, "7", "main", token); err != nil || r != (gitlab.Ref{Name: "main"}) {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := c.Tag(ctx, "7", "v1/x", token); err != nil || r != (gitlab.Ref{Name: "v1/x", Protected: true}) {
		t.Errorf("%+v, %v", r, err)
	}
	l, err := c.Lint(ctx, "acme/images/api", "v1/x", token)
	if !l.Valid || len(l.Jobs) != 4 || l.Includes[0].Location != "x/promote@1" || err != nil {
		t.Errorf("%+v, %v", l, err)
	}
	if text, err := c.File(ctx, "acme/images/api", "main", "ci/a b.yml", token); string(text) != "x: 1" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	for _, r := range fake.Requests() {
		if r.Method != http.MethodGet || strings.Contains(r.Path, "canary") {
			t.Errorf("asked %+v", r)
		}
	}
}

func TestQuestionsThatAreRefused(t *testing.T) {
	t.Parallel()
	project := func(name string) func(context.Context, *gitlab.Client, env.Secret) error {
		return func(ctx context.Context, c *gitlab.Client, token env.Secret) error {
			_, err := c.Project(ctx, name, token)
			return err
		}
	}
	answer := func(status int, body string) func(*gitlabtest.Server) {
		return func(s *gitlabtest.Server) { s.AnswerQuestions(&gitlabtest.Failure{Status: status, Body: body}) }
	}
	for _, c := range []struct {
		name   string
		change func(*gitlabtest.Server)
		ask    func(context.Context, *gitlab.Client, env.Secret) error
		status int
		reason string
	}{
		{"the version, without a token", nil, func(ctx context.Context, c *gitlab.Client, _ env.Secret) error {
			_, err := c.Version(ctx, env.Secret{})
			return err
		}, 401, gitlab.Unauthorized},
		{"a project, without a token", nil, func(ctx context.Context, c *gitlab.Client, _ env.Secret) error {
			_, err := c.Project(ctx, "7", env.Secret{})
			return err
		}, 404, gitlab.NotFound},
		{"a project that is not there", nil, project("acme/nosuch"), 404, gitlab.NotFound},
		{"a project that was moved", nil, project("acme/old"), 301, gitlab.Redirected},
		{"a token without a scope", func(s *gitlabtest.Server) {
			s.AddAccessToken(gitlabtest.AccessToken{Token: accessToken, Scopes: []string{"read_registry"}})
		}, project("7"), 403, gitlab.Unauthorized},
		{"a token that was revoked", func(s *gitlabtest.Server) {
			s.AddAccessToken(gitlabtest.AccessToken{Token: accessToken, Revoked: true})
		}, project("7"), 401, gitlab.Unauthorized},
		{"a page", answer(404, "<html>"), project("7"), 404, gitlab.Rejected},
		{"a path that GitLab's API does not know", answer(404, `{"error":"404 Not Found"}`), project("7"), 404, gitlab.Rejected},
		{"a limit", answer(429, "Retry later"), project("7"), 429, gitlab.RateLimited},
		{"a failure", answer(502, accessToken), project("7"), 502, gitlab.Unavailable},
		{"another refusal", answer(400, `{"message":"`+accessToken+`"}`), project("7"), 400, gitlab.Rejected},
		{"a list", answer(200, `["canary"]`), project("7"), 200, gitlab.Unavailable},
		{"no JSON", answer(200, `canary`), project("7"), 200, gitlab.Unavailable},
		{"no answer", func(s *gitlabtest.Server) { s.AnswerQuestions(&gitlabtest.Failure{Reset: true}) }, project("7"), 0, gitlab.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := asking(t)
			if c.change != nil {
				c.change(fake)
			}
			err := c.ask(t.Context(), client, env.NewSecret(accessToken))
			var e *gitlab.Error
			if !errors.As(err, &e) || e.Status != c.status || e.Reason != c.reason || strings.Contains(err.Error(), "canary") {
				t.Errorf("got %v", err)
			}
		})
	}
}
