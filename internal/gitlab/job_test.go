package gitlab_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
)

const apiCanary = "glpat-canary"

// startPipeline creates one in a fake GitLab whose jobs may be asked for.
func startPipeline(t *testing.T) (*gitlabtest.Server, *gitlab.Client, gitlabtest.Pipeline, gitlab.JobQuery) {
	t.Helper()
	fake, client := start(t)
	fake.AddProject(gitlabtest.Project{ID: 42, Path: request.Project, Token: canary})
	fake.APIToken(apiCanary)
	if _, err := client.CreatePipeline(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	p := fake.Pipelines()[0]
	return fake, client, p, gitlab.JobQuery{ProjectID: "42", PipelineID: fmt.Sprint(p.ID), Token: env.NewSecret(apiCanary)}
}

func TestTheJobIsFound(t *testing.T) {
	t.Parallel()
	fake, client, p, query := startPipeline(t)
	is := func(status string, ended bool) {
		t.Helper()
		before := len(fake.Requests())
		j, found, err := client.FindJob(t.Context(), query)
		if err != nil || !found || j.Status != status || j.FinishedAt.IsZero() == ended || time.Since(j.FinishedAt) < 0 || !strings.Contains(j.URL, "/-/jobs/") {
			t.Errorf("got %+v, %v, %v, want %s", j, found, err, status)
		}
		if n := len(fake.Requests()) - before; n != 1 {
			t.Errorf("it took %d requests", n)
		}
	}
	is("created", false)
	for _, status := range []string{"waiting_for_resource", "pending", "running", "manual"} {
		fake.SetStatus(p.Project, p.ID, status)
		is(status, false)
	}
	fake.SetStatus(p.Project, p.ID, "failed")
	is("failed", true)
	fake.Retry(p.Project, p.ID)
	is("pending", false) // the later of the two
	fake.Cancel(p.Project, p.ID)
	is("canceled", true)
}

// replies answers with a status, a body and headers.
func replies(status int, body string, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func TestJobsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		change  func(*gitlab.JobQuery)
		answer  func(http.ResponseWriter) // in the place of the fake's
		status  int
		reason  string
		hint    string
		retries time.Duration
	}{
		{name: "a token that GitLab does not know", change: func(q *gitlab.JobQuery) { q.Token = env.NewSecret("glpat-canary-2") },
			status: 401, reason: gitlab.Unauthorized, hint: "GITLAB_API_TOKENS"},
		{name: "a project that is not there", change: func(q *gitlab.JobQuery) { q.ProjectID = "43" },
			status: 404, reason: gitlab.Unauthorized, hint: "read_api"},
		{name: "a pipeline that was deleted", change: func(q *gitlab.JobQuery) { q.PipelineID = "9" },
			status: 404, reason: gitlab.Unauthorized, hint: "GITLAB_API_TOKENS"},
		{name: "a scope that is not enough", answer: replies(403, `{"error":"insufficient_scope"}`), status: 403, reason: gitlab.Unauthorized, hint: "read_api"},
		{name: "a limit", answer: replies(429, "Retry later\n", "Retry-After", "30"), status: 429, reason: gitlab.RateLimited, retries: 30 * time.Second},
		{name: "GitLab is down", answer: replies(502, "<html>"),
			status: 502, reason: gitlab.Unavailable},
		{name: "a redirect is not followed", answer: replies(302, "", "Location", "https://elsewhere.example/"), status: 302, reason: gitlab.Unavailable},
		{name: "no list", answer: replies(200, `{"glpat-canary":1}`), status: 200, reason: gitlab.Unavailable},
		{name: "the connection breaks", answer: func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
			reason: gitlab.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, gitlab, _, query := startPipeline(t)
			if c.change != nil {
				c.change(&query)
			}
			if c.answer != nil {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { c.answer(w) }))
				t.Cleanup(server.Close)
				gitlab = client(t, server.URL)
			}
			j, found, err := gitlab.FindJob(t.Context(), query)
			if e := refused(t, err); e.Status != c.status || e.Reason != c.reason || !strings.Contains(e.Hint, c.hint) || e.RetryAfter != c.retries {
				t.Errorf("got %#v", e)
			}
			if found || j.Status != "" {
				t.Errorf("got %+v", j)
			}
		})
	}
}

func TestTheJobAmongOthers(t *testing.T) {
	t.Parallel()
	many := strings.Repeat(`{"id":1,"name":"build","status":"success"},`, 99) + `{"id":2,"name":"test","status":"success"}`
	for _, c := range []struct {
		name, body string
		status     string // "" where it is not there
		fails      bool
	}{
		{name: "it is not there", body: `[{"id":1,"name":"build","status":"success"}]`},
		{name: "no jobs", body: `[]`},
		{name: "another one is named like it", body: `[{"id":1,"name":"hubrelay-promote-2","status":"failed"}]`},
		{name: "a later job has failed", body: `[{"id":3,"name":"hubrelay-done","status":"failed"},{"id":2,"name":"hubrelay-promote","status":"success"}]`, status: "success"},
		{name: "of two the newest, in whichever order", body: `[{"id":2,"name":"hubrelay-promote","status":"failed"},{"id":9,"name":"hubrelay-promote","status":"running"},{"id":5,"name":"hubrelay-promote","status":"canceled"}]`, status: "running"},
		{name: "without an ID", body: `[{"name":"hubrelay-promote","status":"running"}]`, status: "running"},
		{name: "a null", body: `null`, fails: true},
		{name: "a full page without it, which others follow", body: "[" + many + "]", fails: true},
		{name: "a full page with it", body: "[" + many + `,{"id":3,"name":"hubrelay-promote","status":"failed","finished_at":null}]`, status: "failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/api/v4/projects/42/pipelines/7/jobs" || r.URL.Query().Get("per_page") != "100" || r.Header.Get("Private-Token") != apiCanary {
					w.WriteHeader(http.StatusTeapot)
				}
				_, _ = w.Write([]byte(c.body))
			}))
			t.Cleanup(server.Close)
			j, found, err := client(t, server.URL).FindJob(t.Context(), gitlab.JobQuery{ProjectID: "42", PipelineID: "7", Token: env.NewSecret(apiCanary)})
			if c.fails {
				refused(t, err)
			} else if err != nil || found != (c.status != "") || j.Status != c.status {
				t.Errorf("got %+v, %v, %v", j, found, err)
			}
		})
	}
}
