package gitlabtest_test

import (
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
)

const (
	project = "acme/images/api"
	token   = "glptt-1"
)

// start serves a fake below a prefix, and returns its base URL.
func start(t *testing.T) (*gitlabtest.Server, string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	base := "http://" + server.Listener.Addr().String() + "/gitlab"
	fake := gitlabtest.New(base)
	server.Config.Handler = http.StripPrefix("/gitlab", fake)
	server.Start()
	t.Cleanup(server.Close)
	return fake, base
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, res)
}

func post(t *testing.T, base, id, contentType, body string) (int, string) {
	t.Helper()
	res, err := http.Post(base+"/api/v4/projects/"+url.PathEscape(id)+"/trigger/pipeline", contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return read(t, res)
}

func read(t *testing.T, res *http.Response) (int, string) {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(body))
}

const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"
)

func TestParametersAreReadAsGitLabReadsThem(t *testing.T) {
	t.Parallel()
	none, noInputs := map[string]string{}, map[string]any{}
	for _, c := range []struct {
		name, contentType, body string
		variables               map[string]string
		inputs                  map[string]any
		refusal                 string
	}{
		{"JSON", jsonType, `{"token":"glptt-1","ref":"main","variables":{"A":"a"},"inputs":{"b":"b","c":[1]}}`,
			map[string]string{"A": "a"}, map[string]any{"b": "b", "c": []any{1.0}}, ""},
		{"flat keys in JSON mean nothing", jsonType, `{"token":"glptt-1","ref":"main","variables[A]":"a","inputs[b]":"b"}`, none, noInputs, ""},
		{"a form", formType, "token=glptt-1&ref=main&variables[A]=a&inputs[b]=b", map[string]string{"A": "a"}, map[string]any{"b": "b"}, ""},
		{"no token", formType, "ref=main", nil, nil, `{"error":"token is missing"}`},
		{"no ref", jsonType, `{"token":"glptt-1"}`, nil, nil, `{"error":"ref is missing"}`},
		{"an empty ref", formType, "token=glptt-1&ref=", nil, nil, `{"error":"ref is empty"}`},
		{"variables that are no map", formType, "token=glptt-1&ref=main&variables=a", nil, nil, `{"error":"variables is invalid"}`},
		{"a variable that is not a string", jsonType, `{"token":"glptt-1","ref":"main","variables":{"A":1}}`, nil, nil,
			`{"message":"variables needs to be a map of key-valued strings"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, base := start(t)
			fake.AddProject(gitlabtest.Project{Path: project, Token: token})
			status, body := post(t, base, project, c.contentType, c.body)
			if c.refusal != "" {
				if status != 400 || body != c.refusal || len(fake.Pipelines()) != 0 {
					t.Errorf("got %d %s", status, body)
				}
				return
			}
			if status != 201 {
				t.Fatalf("got %d %s", status, body)
			}
			got := fake.Pipelines()[0]
			if diff := cmp.Diff(c.variables, got.Variables); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.inputs, got.Inputs); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefusalsAreInGitLabsWords(t *testing.T) {
	t.Parallel()
	plain := `{"token":"glptt-1","ref":"main"}`
	for _, c := range []struct {
		name    string
		project gitlabtest.Project
		id      string
		body    string
		status  int
		says    string
		stored  int
	}{
		{name: "another token", id: project, body: `{"token":"x","ref":"main"}`, status: 404, says: `{"message":"404 Not Found"}`},
		{name: "another project", id: "acme/x", body: plain, status: 404, says: `{"message":"404 Not Found"}`},
		{name: "another ref", id: project, body: `{"token":"glptt-1","ref":"x"}`, status: 400, says: `{"message":{"base":["Reference not found"]}}`},
		{name: "variables forbidden", project: gitlabtest.Project{ForbidVariables: true}, id: project,
			body: `{"token":"glptt-1","ref":"main","variables":{"A":"a"}}`, status: 400, says: "Insufficient permissions to set pipeline variables"},
		{name: "variables forbidden, but there is none", project: gitlabtest.Project{ForbidVariables: true}, id: project, body: plain, status: 201, stored: 1},
		{name: "the payload forbidden", project: gitlabtest.Project{ForbidPayload: true}, id: project, body: plain, status: 400, says: "Insufficient permissions"},
		{name: "no jobs", project: gitlabtest.Project{NoJobs: true}, id: project, body: plain, status: 400, says: "prevented any jobs"},
		{name: "bad YAML is stored", project: gitlabtest.Project{InvalidYAML: true}, id: project, body: plain, status: 422, says: `{"message":{"base":[`, stored: 1},
		{name: "an undeclared input", project: gitlabtest.Project{Inputs: []string{"a"}}, id: project,
			body: `{"token":"glptt-1","ref":"main","inputs":{"a":"1","b":"2"}}`, status: 422, says: "unknown input arguments: b", stored: 1},
		{name: "an input where none is declared", project: gitlabtest.Project{Inputs: []string{}}, id: project,
			body: `{"token":"glptt-1","ref":"main","inputs":{"a":"1"}}`, status: 422, says: "Given inputs not defined", stored: 1},
		{name: "a path of before", project: gitlabtest.Project{MovedFrom: "acme/old"}, id: "acme/old", body: plain, status: 405,
			says: `{"message":"Non GET methods are not allowed for moved projects"}`},
		{name: "whatever it was told", project: gitlabtest.Project{Refuse: &gitlabtest.Failure{Status: 400, Body: "no"}}, id: project, body: plain, status: 400, says: "no"},
		{name: "whatever it was told, but the token first", project: gitlabtest.Project{Refuse: &gitlabtest.Failure{Status: 400, Body: "no"}}, id: project,
			body: `{"token":"x","ref":"main"}`, status: 404, says: "404 Not Found"},
		{name: "the id instead of the path", project: gitlabtest.Project{ID: 7}, id: "7", body: plain, status: 201, stored: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, base := start(t)
			c.project.Path, c.project.Token = project, token
			fake.AddProject(c.project)
			status, body := post(t, base, c.id, jsonType, c.body)
			if status != c.status || !strings.Contains(body, c.says) {
				t.Errorf("got %d %s", status, body)
			}
			if n := len(fake.Pipelines()); n != c.stored {
				t.Errorf("%d pipelines stored, want %d", n, c.stored)
			}
		})
	}
}

func TestAPipelineIsReportedAndShown(t *testing.T) {
	t.Parallel()
	fake, base := start(t)
	fake.AnyProject(token)
	told := make(chan gitlabtest.Pipeline, 1)
	fake.OnPipeline(func(p gitlabtest.Pipeline) { told <- p })
	status, body := post(t, base, project, jsonType, `{"token":"glptt-1","ref":"trunk","inputs":{"a":"<b>"}}`)
	var answer struct {
		ID        int    `json:"id"`
		ProjectID int    `json:"project_id"`
		Status    string `json:"status"`
		Source    string `json:"source"`
		WebURL    string `json:"web_url"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 201 || answer.Status != "created" || answer.Source != "trigger" {
		t.Fatalf("got %d %s", status, body)
	}
	if p := <-told; p.ID != answer.ID || p.ProjectID == 0 || p.ProjectID != answer.ProjectID || p.Project != project || p.Ref != "trunk" {
		t.Errorf("told of %+v", p)
	}
	fake.SetStatus(project, answer.ID, "running")
	status, page := get(t, answer.WebURL)
	if status != 200 || !strings.Contains(page, "running") || !strings.Contains(page, "&lt;b&gt;") || !strings.HasPrefix(answer.WebURL, base) {
		t.Errorf("%s shows %d %s", answer.WebURL, status, page)
	}
	if status, _ := get(t, base+"/acme/x/-/pipelines/1"); status != 404 {
		t.Errorf("a pipeline that is none shows %d", status)
	}
}

func TestThePipelineLimitIsPerProjectAndRef(t *testing.T) {
	t.Parallel()
	fake, base := start(t)
	fake.AnyProject(token)
	fake.RateLimit(1)
	for _, c := range []struct {
		project, ref string
		status       int
	}{{"a/b", "main", 201}, {"a/b", "main", 400}, {"a/b", "x", 201}, {"a/c", "main", 201}, {"a/c", "main", 400}} {
		status, body := post(t, base, c.project, jsonType, `{"token":"glptt-1","ref":"`+c.ref+`"}`)
		if status != c.status || status == 400 && !strings.Contains(body, "Too many pipelines created in the last minute. Try again later.") {
			t.Errorf("%s %s: got %d %s", c.project, c.ref, status, body)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	fake := gitlabtest.New("http://gitlab.example")
	fake.AnyProject(token)
	for range 1005 {
		r := httptest.NewRequest("POST", "/api/v4/projects/a%2Fb/trigger/pipeline", strings.NewReader("token=glptt-1&ref=main"))
		r.Header.Set("Content-Type", formType)
		fake.ServeHTTP(httptest.NewRecorder(), r)
	}
	pipelines := fake.Pipelines()
	if len(pipelines) != 1000 || len(fake.Requests()) != 1000 || pipelines[999].ID != 1005 {
		t.Errorf("%d pipelines, %d requests", len(pipelines), len(fake.Requests()))
	}
	w := httptest.NewRecorder()
	fake.ServeHTTP(w, httptest.NewRequest("POST", "/api/v4/projects/1/trigger/pipeline", strings.NewReader(strings.Repeat("x", 1<<20))))
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body is answered %d", w.Code)
	}
}

// verify checks a token against the published keys.
func verify(t *testing.T, base, raw string) (map[string]any, error) {
	t.Helper()
	_, body := get(t, base+"/.well-known/openid-configuration")
	var config struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal([]byte(body), &config); err != nil || config.Issuer != base {
		t.Fatalf("discovery: %v, %s", err, body)
	}
	_, body = get(t, config.Keys)
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(body), &keys); err != nil || len(keys.Keys) != 1 {
		t.Fatalf("keys: %v, %s", err, body)
	}
	if _, public := keys.Keys[0].Key.(*rsa.PublicKey); !public {
		t.Fatalf("the published key is %T", keys.Keys[0].Key)
	}
	parsed, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, err
	}
	if parsed.Headers[0].KeyID != keys.Keys[0].KeyID {
		return nil, fmt.Errorf("signed with another key")
	}
	claims := map[string]any{}
	return claims, parsed.Claims(keys.Keys[0].Key, &claims)
}

func TestIDTokensAreAsGitLabSignsThem(t *testing.T) {
	t.Parallel()
	fake, base := start(t)
	fake.AddProject(gitlabtest.Project{ID: 20, Path: project, Token: token})
	raw, err := fake.IDToken(gitlabtest.Claims{
		Project: project, Audience: "hubrelay", RefProtected: true, PipelineID: 574, JobID: 302,
		Extra: map[string]any{"user_login": "ada", "sha": nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := verify(t, base, raw)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"iss": base, "aud": "hubrelay", "sub": "project_path:acme/images/api:ref_type:branch:ref:main",
		"namespace_path": "acme/images", "project_id": "20", "project_path": project, "pipeline_id": "574", "job_id": "302",
		"pipeline_source": "trigger", "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
		"user_login": "ada",
	} {
		if claims[name] != want {
			t.Errorf("%s is %v, want %v", name, claims[name], want)
		}
	}
	if _, ok := claims["sha"]; ok {
		t.Error("a claim that is nil is not left out")
	}
	if life := claims["exp"].(float64) - claims["iat"].(float64); life != 300 {
		t.Errorf("valid for %v s", life)
	}
	if d, k := fake.DiscoveryRequests(), fake.KeyRequests(); d != 1 || k != 1 {
		t.Errorf("%d discoveries, %d fetches of keys", d, k)
	}

	fake.RotateKeys()
	if _, err := verify(t, base, raw); err == nil {
		t.Error("the old key is still published")
	}
	fresh, err := fake.IDToken(gitlabtest.Claims{Project: project})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify(t, base, fresh); err != nil {
		t.Error(err)
	}
}
