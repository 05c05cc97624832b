package gitlab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

func TestPipelineIsFound(t *testing.T) {
	t.Parallel()
	fake, c := start(t)
	fake.AddProject(gitlabtest.Project{Path: "acme/images/api", Token: canary, WorkflowName: "hubrelay $DELIVERY_ID"})
	fake.APIToken("glpat-canary")
	search := gitlab.Search{Project: "acme/images/api", Token: env.NewSecret("glpat-canary"), Name: gitlab.PipelineName("d1")}
	if p, found, err := c.FindPipeline(t.Context(), search); err != nil || found {
		t.Fatalf("found %+v, %v", p, err)
	}
	for _, id := range []string{"d0", "d1", "d2"} {
		r := request
		r.Inputs = map[string]string{"delivery_id": id}
		fake.Fail(gitlabtest.Failure{ResetAfter: true})
		if _, err := c.CreatePipeline(t.Context(), r); err == nil || !refused(t, err).Ambiguous {
			t.Fatalf("got %v", err)
		}
	}
	want := fake.Pipelines()[1]
	p, found, err := c.FindPipeline(t.Context(), search)
	if err != nil || !found || p.ID != want.ID || p.URL != want.WebURL {
		t.Errorf("found %+v, %t, %v, want %+v", p, found, err, want)
	}

	search.Token = env.NewSecret("glpat-canary-revoked")
	_, _, err = c.FindPipeline(t.Context(), search)
	if e := refused(t, err); e.Temporary() || e.Reason != gitlab.SearchRefused || !strings.Contains(e.Hint, "GITLAB_API_TOKENS") {
		t.Errorf("got %+v", e)
	}
}

func TestAnswersToASearch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		status    int
		body      string
		found     bool
		temporary bool
	}{
		{"a GitLab that knows no names", 200, `[{"id":1,"web_url":"https://gitlab.example/1"}]`, false, false},
		{"the newest of that name", 200, `[{"id":3,"name":"x"},{"id":2,"name":"hubrelay d1"},{"id":1,"name":"hubrelay d1"}]`, true, false},
		{"no list", 200, `{}`, false, true},
		{"no JSON", 200, `<html>`, false, true},
		{"away", 502, "", false, true},
		{"limited", 429, "Retry later", false, true},
		{"another project", 404, `{"message":"404 Project Not Found"}`, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("name") != "hubrelay d1" || r.URL.Query().Get("source") != "trigger" || r.Header.Get("PRIVATE-TOKEN") != "glpat-canary" {
					t.Errorf("asked for %s", r.URL)
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer server.Close()
			p, found, err := client(t, server.URL).FindPipeline(t.Context(),
				gitlab.Search{Project: "42", Token: env.NewSecret("glpat-canary"), Name: "hubrelay d1"})
			switch {
			case c.status == 200 && !c.temporary:
				if err != nil || found != c.found || found && p.ID != 2 {
					t.Errorf("found %+v, %t, %v", p, found, err)
				}
			case err == nil || refused(t, err).Temporary() != c.temporary:
				t.Errorf("got %v", err)
			}
		})
	}
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
			if len(created) != 1 || got != (gitlab.Pipeline{ID: created[0].ID, URL: created[0].WebURL}) || got.URL == "" {
				t.Errorf("got %+v of %+v", got, created)
			}
			want := []gitlabtest.Request{{
				Method: "POST", Path: "/api/v4/projects/" + c.path + "/trigger/pipeline", ContentType: "application/json", Body: c.body,
			}}
			if diff := cmp.Diff(want, fake.Requests()); diff != "" {
				t.Errorf("asked otherwise (-want +got):\n%s", diff)
			}
		})
	}
}

// Each row of the contract: what GitLab says, and what follows.
func TestRefusals(t *testing.T) {
	t.Parallel()
	base := func(message string) string { return `{"message":{"base":[` + strconv.Quote(message) + `]}}` }
	for _, c := range []struct {
		name      string
		status    int
		header    map[string]string
		body      string
		reason    string
		temporary bool
		ambiguous bool
		hint      string // is part of it; "-" for none
		message   string
		after     time.Duration
	}{
		{name: "too many pipelines is a 400 that passes", status: 400, body: base("Too many pipelines created in the last minute. Try again later."),
			reason: "gitlab_rate_limited", temporary: true, hint: "-", message: "Too many pipelines created in the last minute. Try again later.", after: time.Minute},
		{name: "too many pipelines, as a string", status: 400, body: `{"message":"Too many pipelines created in the last minute. Try again later."}`,
			reason: "gitlab_rate_limited", temporary: true, hint: "-", message: "Too many pipelines created in the last minute. Try again later.", after: time.Minute},
		{name: "a ref that is not found may be found later", status: 400, body: base("Reference not found"),
			reason: "reference_not_found", temporary: true, hint: "branch or tag main exists in acme/images/api", message: "Reference not found"},
		{name: "variables that nobody may set", status: 400, body: base("Insufficient permissions to set pipeline variables"),
			reason: "variables_forbidden", hint: "pass: inputs", message: "Insufficient permissions to set pipeline variables"},
		{name: "rules that leave no jobs", status: 400,
			body:   base("Pipeline will not run for the selected trigger. The rules configuration prevented any jobs from being added to the pipeline."),
			reason: "no_jobs", hint: "rules", message: "Pipeline will not run for the selected trigger. The rules configuration prevented any jobs from being added to the pipeline."},
		{name: "workflow rules", status: 400, body: base("Pipeline filtered out by workflow rules."),
			reason: "no_jobs", hint: "workflow", message: "Pipeline filtered out by workflow rules."},
		{name: "no stages", status: 400, body: base("No stages / jobs for this pipeline."),
			reason: "no_jobs", hint: "rules", message: "No stages / jobs for this pipeline."},
		{name: "no configuration", status: 400, body: base("Missing CI config file"),
			reason: "no_jobs", hint: ".gitlab-ci.yml", message: "Missing CI config file"},
		{name: "inputs that are no map", status: 400, body: `{"error":"inputs is invalid"}`,
			reason: "inputs_refused", hint: "spec: inputs:", message: "inputs is invalid"},
		{name: "inputs that are not declared", status: 422, body: base("unknown input arguments: image_tag"),
			reason: "inputs_refused", hint: "pass: variables", message: "unknown input arguments: image_tag"},
		{name: "inputs where none is declared", status: 422,
			body:   base("Given inputs not defined in the `spec` section of the included configuration file"),
			reason: "inputs_refused", hint: "spec: inputs:", message: "Given inputs not defined in the `spec` section of the included configuration file"},
		{name: "an input without a value", status: 422, body: base("`severity` input: required value has not been provided"),
			reason: "inputs_refused", hint: "spec: inputs:", message: "`severity` input: required value has not been provided"},
		{name: "any other 400 is for good", status: 400, body: `{"message":"Pipelines are disabled!"}`,
			reason: "rejected", hint: "in the log line", message: "Pipelines are disabled!"},
		{name: "a map of fields", status: 400, body: `{"message":{"ref":["is bad","is old"],"base":["No."],"user":{"name":["is long"]}}}`,
			reason: "rejected", hint: "in the log line", message: "No., ref: is bad, is old, user: name: is long"},
		{name: "a body without words", status: 400, body: `{"code":7}`, reason: "rejected", hint: "in the log line"},
		{name: "an empty body", status: 400, reason: "rejected", hint: "in the log line"},
		{name: "401 is for good", status: 401, body: `{"message":"401 Unauthorized"}`,
			reason: "unauthorized", hint: "GITLAB_TRIGGER_TOKENS", message: "401 Unauthorized"},
		{name: "403 may pass", status: 403, body: `{"message":"403 Forbidden"}`,
			reason: "forbidden", temporary: true, hint: "address", message: "403 Forbidden"},
		{name: "404 is for good, and may be the token", status: 404, body: `{"message":"404 Not Found"}`,
			reason: "not_found", hint: "project path acme/images/api and its token", message: "404 Not Found"},
		{name: "422 is for good, for the pipeline was stored", status: 422, body: base("jobs:build config should implement the script:"),
			reason: "pipeline_invalid", hint: "pipelines page", message: "jobs:build config should implement the script:"},
		{name: "429 with Retry-After", status: 429, header: map[string]string{"Content-Type": "text/plain", "Retry-After": "42", "RateLimit-Reset": "1"}, body: "Retry later\n",
			reason: "gitlab_rate_limited", temporary: true, hint: "-", message: "Retry later", after: 42 * time.Second},
		{name: "429 with a reset that is over", status: 429, header: map[string]string{"RateLimit-Reset": "1700000000"},
			reason: "gitlab_rate_limited", temporary: true, hint: "-"},
		{name: "429 with a reset far away", status: 429, header: map[string]string{"RateLimit-Reset": "99999999999"},
			reason: "gitlab_rate_limited", temporary: true, hint: "-", after: time.Hour},
		{name: "429 without a header", status: 429, body: `{"message":{"error":"This endpoint has been requested too many times. Try again later."}}`,
			reason: "gitlab_rate_limited", temporary: true, hint: "-", message: "error: This endpoint has been requested too many times. Try again later."},
		{name: "a reset that goes with every answer is no wish", status: 403, header: map[string]string{"RateLimit-Reset": "99999999999"},
			reason: "forbidden", temporary: true, hint: "address"},
		{name: "500 may have created the pipeline", status: 500, body: `{"message":"500 Internal Server Error"}`,
			reason: "gitlab_unavailable", temporary: true, ambiguous: true, hint: "-", message: "500 Internal Server Error"},
		{name: "502 with a page, which is not repeated", status: 502, header: map[string]string{"Content-Type": "text/html"}, body: "<h1>Whoops</h1>",
			reason: "gitlab_unavailable", temporary: true, ambiguous: true, hint: "-"},
		{name: "503 with Retry-After", status: 503, header: map[string]string{"Retry-After": "7"},
			reason: "gitlab_unavailable", temporary: true, ambiguous: true, hint: "-", after: 7 * time.Second},
		{name: "a redirect is not followed", status: 307, header: map[string]string{"Location": "/elsewhere"},
			reason: "redirected", hint: "GITLAB_URL"},
		{name: "a redirect to the sign-in", status: 302, header: map[string]string{"Location": "/users/sign_in?token=" + canary}, reason: "redirected", hint: "GITLAB_URL"},
		{name: "304 is no success", status: 304, reason: "redirected", hint: "GITLAB_URL"},
		{name: "200 is no success", status: 200, header: map[string]string{"Content-Type": "text/html"}, body: "<h1>Welcome</h1>", reason: "rejected", hint: "GITLAB_URL"},
		{name: "204 is no success", status: 204, reason: "rejected", hint: "GITLAB_URL"},
		{name: "405 is not the API", status: 405, reason: "rejected", hint: "GITLAB_URL"},
		{name: "408 is a time-out", status: 408, reason: "gitlab_unavailable", temporary: true, ambiguous: true, hint: "-"},
		{name: "409 is a lock", status: 409, reason: "gitlab_unavailable", temporary: true, hint: "-"},
		{name: "413 is for good", status: 413, reason: "rejected", hint: "in the log line"},
		{name: "an answer over the limit may fit later", status: 400, body: `{"message":"` + strings.Repeat("x", httpclient.MaxAnswer) + `"}`,
			reason: "gitlab_unavailable", temporary: true, ambiguous: true, hint: "-"},
		{name: "the token comes back", status: 400, body: `{"message":"token ` + canary + ` is bad"}`,
			reason: "rejected", hint: "in the log line", message: "token [secret] is bad"},
		{name: "the token comes back as in a URL", status: 400, body: `{"message":"at /x?token=glptt-canary%2B%2F%3C1%3E"}`,
			reason: "rejected", hint: "in the log line", message: "at /x?token=[secret]"},
		{name: "words over many lines, with control characters", status: 400, header: map[string]string{"Content-Type": "text/plain"}, body: "a\x1b[31m\r\n\tb\xff",
			reason: "rejected", hint: "in the log line", message: "a [31m b"},
		{name: "a long message is shortened", status: 400, body: `{"message":"` + strings.Repeat("é", 600) + `"}`,
			reason: "rejected", hint: "in the log line", message: strings.Repeat("é", 499) + "…"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := start(t)
			header := http.Header{"Content-Type": {"application/json"}}
			for name, value := range c.header {
				header.Set(name, value)
			}
			// Should the client repeat the request, it succeeds.
			fake.AddProject(gitlabtest.Project{Path: request.Project, Token: canary})
			fake.Fail(gitlabtest.Failure{Status: c.status, Header: header, Body: c.body})

			_, err := client.CreatePipeline(t.Context(), request)
			got := refused(t, err)
			if got.Status != c.status || got.Reason != c.reason || got.Temporary() != c.temporary || got.Ambiguous != c.ambiguous {
				t.Errorf("got %+v, temporary %v", got, got.Temporary())
			}
			if got.Message != c.message {
				t.Errorf("message is %q, want %q", got.Message, c.message)
			}
			if c.hint == "-" && got.Hint != "" || c.hint != "-" && !strings.Contains(got.Hint, c.hint) || strings.Contains(got.Hint, "{") {
				t.Errorf("hint is %q", got.Hint)
			}
			if got.RetryAfter != c.after {
				t.Errorf("wait %v, want %v", got.RetryAfter, c.after)
			}
			if !strings.HasPrefix(err.Error(), "create pipeline for acme/images/api: "+c.reason) {
				t.Errorf("error is %q", err)
			}
			if n := len(fake.Requests()); n != 1 {
				t.Errorf("%d requests for one call", n)
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
			c.project.Path, c.project.Token = request.Project, canary
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
		{"as documented", `{"id":7,"web_url":"https://gitlab.example/p/7"}`, gitlab.Pipeline{ID: 7, URL: "https://gitlab.example/p/7"}},
		{"empty", "", gitlab.Pipeline{}},
		{"no JSON", "<html>", gitlab.Pipeline{}},
		{"an id that is a string", `{"id":"7","web_url":"https://gitlab.example/p/7"}`, gitlab.Pipeline{URL: "https://gitlab.example/p/7"}},
		{"over the limit", strings.Repeat(" ", httpclient.MaxAnswer) + `{"id":7}`, gitlab.Pipeline{}},
		{"a URL that is none", `{"id":7,"web_url":"javascript:alert(1)"}`, gitlab.Pipeline{ID: 7}},
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
		created int
	}{
		{"before the pipeline is created", gitlabtest.Failure{Reset: true}, 0},
		{"after the pipeline is created", gitlabtest.Failure{ResetAfter: true}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := start(t)
			fake.AddProject(gitlabtest.Project{Path: request.Project, Token: canary})
			fake.Fail(c.failure)
			_, err := client.CreatePipeline(t.Context(), request)
			got := refused(t, err)
			if got.Status != 0 || got.Reason != "gitlab_unavailable" || !got.Temporary() || !got.Ambiguous || got.Unwrap() == nil {
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
	if !errors.Is(err, context.Canceled) || got.Reason != "gitlab_unavailable" || !got.Ambiguous {
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

func TestWithoutAConnectionNothingIsAmbiguous(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	_, err = client(t, "http://"+listener.Addr().String()).CreatePipeline(t.Context(), request)
	if got := refused(t, err); got.Reason != "gitlab_unavailable" || !got.Temporary() || got.Ambiguous {
		t.Errorf("got %+v", got)
	}

	unknown := httptest.NewUnstartedServer(http.NotFoundHandler())
	unknown.Config.ErrorLog = log.New(io.Discard, "", 0)
	unknown.StartTLS()
	t.Cleanup(unknown.Close)
	_, err = client(t, unknown.URL).CreatePipeline(t.Context(), request)
	if got := refused(t, err); got.Reason != "gitlab_unavailable" || got.Ambiguous || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %+v", got)
	}
}

// What is no HTTP may be an echo of the request.
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
	if got := refused(t, err); got.Status != 0 || got.Reason != "gitlab_unavailable" || !got.Ambiguous {
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
