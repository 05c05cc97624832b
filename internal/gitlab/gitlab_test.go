package gitlab_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

const canary = "glptt-canary+/<1>"

var request = gitlab.Request{
	Project: "acme/images/api", Ref: "main", Token: env.NewSecret(canary),
	Inputs: map[string]string{"image_tag": "1.4.0"},
}

// start serves a fake GitLab below a prefix.
func start(t *testing.T) (*gitlabtest.Server, *gitlab.Client) {
	t.Helper()
	var fake *gitlabtest.Server
	server := httptest.NewServer(http.StripPrefix("/gitlab", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fake.ServeHTTP(w, r)
	})))
	t.Cleanup(server.Close)
	fake = gitlabtest.New(server.URL + "/gitlab")
	return fake, client(t, server.URL+"/gitlab")
}

func client(t *testing.T, url string) *gitlab.Client {
	t.Helper()
	c, err := gitlab.New(url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused returns the *Error that err must be, and looks for the token in it.
func refused(t *testing.T, err error) *gitlab.Error {
	t.Helper()
	var refusal *gitlab.Error
	if !errors.As(err, &refusal) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if text := fmt.Sprintf("%v %+v %#v", err, *refusal, *refusal); strings.Contains(text, "canary") {
		t.Errorf("the token shows: %s", text)
	}
	return refusal
}

func TestPipelineIsCreated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		project, path     string
		inputs, variables map[string]string
		body              string
	}{
		{"by path, with inputs", "acme/images/api.v2", "acme%2Fimages%2Fapi%2Ev2", map[string]string{"image_tag": "1.4.0"}, nil,
			`{"token":"glptt","ref":"main","inputs":{"image_tag":"1.4.0"}}`},
		{"by id, with variables", "42", "42", nil, map[string]string{"IMAGE_TAG": "1.4.0"},
			`{"token":"glptt","ref":"main","variables":{"IMAGE_TAG":"1.4.0"}}`},
		{"with neither", "42", "42", nil, nil, `{"token":"glptt","ref":"main"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := start(t)
			fake.AddProject(gitlabtest.Project{ID: 42, Path: "acme/images/api.v2", Token: "glptt"})
			got, err := client.CreatePipeline(t.Context(), gitlab.Request{
				Project: c.project, Ref: "main", Token: env.NewSecret("glptt"), Inputs: c.inputs, Variables: c.variables,
			})
			if err != nil {
				t.Fatal(err)
			}
			created := fake.Pipelines()
			if len(created) != 1 || got != (gitlab.Pipeline{ID: int64(created[0].ID), ProjectID: 42, URL: created[0].WebURL}) || got.URL == "" {
				t.Errorf("got %+v of %+v", got, created)
			}
			want := []gitlabtest.Request{{
				Method: "POST", Path: "/api/v4/projects/" + c.path + "/trigger/pipeline", ContentType: "application/json", Body: c.body,
			}}
			if diff := gocmp.Diff(want, fake.Requests()); diff != "" {
				t.Errorf("asked otherwise (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefusalsOfTheFake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		project gitlabtest.Project
		change  func(*gitlab.Request)
		reason  string
	}{
		{name: "another token", change: func(r *gitlab.Request) { r.Token = env.NewSecret("glptt-canary-2") }, reason: "not_found"},
		{name: "another project", change: func(r *gitlab.Request) { r.Project = "acme/images/web" }, reason: "not_found"},
		{name: "another ref", change: func(r *gitlab.Request) { r.Ref = "trunk" }, reason: "reference_not_found"},
		{name: "no ref", change: func(r *gitlab.Request) { r.Ref = "" }, reason: "rejected"},
		{name: "a path of before", project: gitlabtest.Project{Path: "acme/images/api-2", MovedFrom: request.Project}, reason: "rejected"},
		{name: "a limit", project: gitlabtest.Project{Refuse: &gitlabtest.Failure{Status: 400,
			Body: `{"message":{"base":["Project exceeded the allowed number of jobs in active pipelines. Retry later."]}}`}}, reason: "gitlab_capacity"},
		{name: "a project that climbs", change: func(r *gitlab.Request) { r.Project = "../.." }, reason: "not_found"},
		{name: "variables forbidden", project: gitlabtest.Project{ForbidVariables: true},
			change: func(r *gitlab.Request) { r.Variables = r.Inputs }, reason: "variables_forbidden"},
		{name: "the payload forbidden", project: gitlabtest.Project{ForbidPayload: true}, reason: "variables_forbidden"},
		{name: "inputs undeclared", project: gitlabtest.Project{Inputs: []string{"severity"}}, reason: "inputs_refused"},
		{name: "no jobs", project: gitlabtest.Project{NoJobs: true}, reason: "no_jobs"},
		{name: "bad YAML", project: gitlabtest.Project{InvalidYAML: true}, reason: "pipeline_invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := start(t)
			c.project.Path, c.project.Token = cmp.Or(c.project.Path, request.Project), canary
			fake.AddProject(c.project)
			r := request
			if c.change != nil {
				c.change(&r)
			}
			_, err := client.CreatePipeline(t.Context(), r)
			if got := refused(t, err); got.Reason != c.reason {
				t.Errorf("got %v, want %s", err, c.reason)
			}
		})
	}
}

// A 201 means that the pipeline exists, and an error would create another.
func TestCreatedIsASuccessWhateverTheBody(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		want       gitlab.Pipeline
	}{
		{"as documented", `{"id":7,"project_id":42,"web_url":"https://gitlab.example/p/7"}`, gitlab.Pipeline{ID: 7, ProjectID: 42, URL: "https://gitlab.example/p/7"}},
		{"ids that need 64 bits", `{"id":9007199254740993,"project_id":9007199254740995}`, gitlab.Pipeline{ID: 9007199254740993, ProjectID: 9007199254740995}},
		{"ids below zero", `{"id":-7,"project_id":-42}`, gitlab.Pipeline{}},
		{"empty", "", gitlab.Pipeline{}},
		{"no JSON", "<html>", gitlab.Pipeline{}},
		{"an id that is a string", `{"id":"7","web_url":"https://gitlab.example/p/7"}`, gitlab.Pipeline{URL: "https://gitlab.example/p/7"}},
		{"over the limit", strings.Repeat(" ", httpclient.MaxAnswer) + `{"id":7}`, gitlab.Pipeline{}},
		{"an invalid URL", `{"id":7,"web_url":"javascript:alert(1)"}`, gitlab.Pipeline{ID: 7}},
		{"a URL with the token", `{"id":7,"web_url":"https://gitlab.example/?t=glptt-canary%2B%2F%3C1%3E"}`, gitlab.Pipeline{ID: 7}},
		{"a URL without end", `{"id":7,"web_url":"https://gitlab.example/` + strings.Repeat("x", 2000) + `"}`, gitlab.Pipeline{ID: 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := start(t)
			fake.Fail(gitlabtest.Failure{Status: 201, Body: c.body})
			got, err := client.CreatePipeline(t.Context(), request)
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		failure gitlabtest.Failure
		status  int
		created int
	}{
		{"before the pipeline is created", gitlabtest.Failure{Reset: true}, 0, 0},
		{"after the pipeline is created", gitlabtest.Failure{ResetAfter: true}, 0, 1},
		{"by a proxy, after the pipeline is created", gitlabtest.Failure{Status: 502, After: true}, 502, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := start(t)
			fake.AddProject(gitlabtest.Project{Path: request.Project, Token: canary})
			fake.Fail(c.failure)
			_, err := client.CreatePipeline(t.Context(), request)
			got := refused(t, err)
			if got.Status != c.status || got.Reason != "gitlab_unavailable" || !got.Temporary() || !got.Lost || (got.Unwrap() == nil) != (c.status != 0) {
				t.Errorf("got %+v", got)
			}
			if n := len(fake.Requests()); n != 1 {
				t.Errorf("%d requests for one call", n)
			}
			if n := len(fake.Pipelines()); n != c.created {
				t.Errorf("%d pipelines, want %d", n, c.created)
			}
		})
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(asked)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	_, err := client(t, server.URL).CreatePipeline(ctx, request)
	got := refused(t, err)
	if !errors.Is(err, context.Canceled) || got.Reason != "gitlab_unavailable" || !got.Lost {
		t.Errorf("got %+v", got)
	}
}

func TestACallEndsWithItsDeadline(t *testing.T) {
	t.Parallel()
	fake, client := start(t)
	fake.Fail(gitlabtest.Failure{Hang: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := client.CreatePipeline(ctx, request)
	if got := refused(t, err); !errors.Is(err, context.DeadlineExceeded) || got.Reason != "gitlab_unavailable" || !got.Temporary() {
		t.Errorf("got %+v", got)
	}
}

// An answer that is not HTTP may be an echo of the request.
func TestAnAnswerThatIsNoHTTP(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\n\r\n", canary)
	}))
	t.Cleanup(server.Close)
	_, err := client(t, server.URL).CreatePipeline(t.Context(), request)
	if got := refused(t, err); got.Status != 0 || got.Reason != "gitlab_unavailable" || !got.Lost {
		t.Errorf("got %+v", got)
	}
}

func TestNewTakesABaseURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url string
		ok  bool
	}{
		{"https://gitlab.com", true},
		{"https://gitlab.com/", true},
		{"http://127.0.0.1:8080/gitlab", true},
		{"", false},
		{"gitlab.com", false},
		{"ftp://gitlab.com", false},
		{"https://", false},
		{"https://u:canary@gitlab.com", false},
		{"https://gitlab.com?private_token=canary", false},
		{"https://gitlab.com/%zz", false},
	} {
		_, err := gitlab.New(c.url)
		if (err == nil) != c.ok {
			t.Errorf("%q: %v", c.url, err)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("the secret shows: %v", err)
		}
	}
}
