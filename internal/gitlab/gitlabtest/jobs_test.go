package gitlabtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
)

const apiToken = "glpat-1"

// call makes a call with an access token, and follows no redirect.
func call(t *testing.T, token, method, url string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("PRIVATE-TOKEN", token)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	status, body := read(t, res)
	return status, body, res.Header
}

// started serves a fake with one pipeline.
func started(t *testing.T) (fake *gitlabtest.Server, api string, played chan gitlabtest.Pipeline) {
	t.Helper()
	fake, base := start(t)
	fake.AddProject(gitlabtest.Project{ID: 20, Path: project, Token: token, MovedFrom: "acme/old"})
	fake.APIToken(apiToken)
	played = make(chan gitlabtest.Pipeline, 9)
	fake.OnPipeline(func(p gitlabtest.Pipeline) { played <- p })
	if status, body := post(t, base, project, jsonType, `{"token":"glptt-1","ref":"main"}`); status != 201 {
		t.Fatalf("got %d %s", status, body)
	}
	return fake, base + "/api/v4/projects/", played
}

// jobs lists the jobs of a pipeline as their statuses.
func jobs(t *testing.T, api, query string) []string {
	t.Helper()
	status, body, _ := call(t, apiToken, "GET", api+"20/pipelines/1/jobs"+query)
	var list []struct {
		ID           int
		Name, Status string
		Pipeline     struct{ ID int }
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || status != 200 {
		t.Fatalf("got %d %s", status, body)
	}
	var statuses []string
	for _, j := range list {
		if j.Name != gitlabtest.JobName || j.ID == 0 || j.Pipeline.ID != 1 {
			t.Errorf("got %+v", j)
		}
		statuses = append(statuses, j.Status)
	}
	return statuses
}

func TestAJobIsRetriedInItsPipeline(t *testing.T) {
	t.Parallel()
	fake, api, played := started(t)
	first := <-played
	if fake.Retry(project, first.ID) {
		t.Error("what has not failed was retried")
	}
	fake.SetStatus(project, first.ID, "failed")
	if !fake.Retry(project, first.ID) {
		t.Error("what has failed was not retried")
	}
	again := <-played
	if again.ID != first.ID || again.JobID == first.JobID || again.Source != "trigger" {
		t.Errorf("%+v was retried as %+v", first, again)
	}
	if diff := cmp.Diff([]string{"pending"}, jobs(t, api, "")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"pending", "failed"}, jobs(t, api, "?include_retried=true")); diff != "" {
		t.Error(diff)
	}
	fake.SetStatus(project, first.ID, "failed")
	if status, body, _ := call(t, apiToken, "POST", api+"20/pipelines/1/retry"); status != 201 {
		t.Errorf("got %d %s", status, body)
	}
	if third := <-played; third.JobID == again.JobID || len(fake.Pipelines()) != 1 {
		t.Errorf("%+v was retried as %+v", again, third)
	}
}

func TestAPipelineIsCanceledForGood(t *testing.T) {
	t.Parallel()
	fake, api, played := started(t)
	p := <-played
	if status, body, _ := call(t, apiToken, "POST", api+url.PathEscape(project)+"/pipelines/1/cancel"); status != 200 {
		t.Errorf("got %d %s", status, body)
	}
	fake.SetStatus(project, p.ID, "success") // the job was canceled in the meantime
	if status := fake.Pipelines()[0].Status; status != "canceled" {
		t.Errorf("the pipeline is %s", status)
	}
	if diff := cmp.Diff([]string{"canceled"}, jobs(t, api, "")); diff != "" {
		t.Error(diff)
	}
	if fake.Cancel(project, p.ID) {
		t.Error("it was canceled twice")
	}
	if !fake.Retry(project, p.ID) {
		t.Error("it was not retried")
	}
	fake.SetStatus(project, (<-played).ID, "success")
	if status := fake.Pipelines()[0].Status; status != "success" {
		t.Errorf("the pipeline is %s", status)
	}
}

func TestWhoMayAskAboutAPipeline(t *testing.T) {
	t.Parallel()
	_, api, _ := started(t)
	for _, c := range []struct {
		name, token, method, path string
		status                    int
		leads                     string
	}{
		{"a token", apiToken, "GET", "20/pipelines/1", 200, ""},
		{"a token that is revoked", "glpat-2", "GET", "20/pipelines/1", 401, ""},
		{"nobody", "", "GET", "20/pipelines/1/jobs", 404, ""},
		{"of another project", apiToken, "GET", "21/pipelines/1", 404, ""},
		{"of another pipeline", apiToken, "GET", "20/pipelines/2/jobs", 404, ""},
		{"by a path of before", apiToken, "GET", "acme%2Fold/pipelines/1/jobs?per_page=1", 301, "20/pipelines/1/jobs?per_page=1"},
		{"by a path of before, to change it", apiToken, "POST", "acme%2Fold/pipelines/1/retry", 405, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			status, body, header := call(t, c.token, c.method, api+c.path)
			leads := header.Get("Location")
			if status != c.status || c.leads != "" && leads != api+c.leads || c.leads == "" && leads != "" {
				t.Error(fmt.Sprint(status, " ", body, " ", leads))
			}
		})
	}
}

func TestTimePasses(t *testing.T) {
	t.Parallel()
	fake, api, _ := started(t)
	fake.RateLimit(1)
	fake.SetStatus(project, 1, "success")
	fake.Age(time.Hour)
	var list []struct {
		FinishedAt time.Time `json:"finished_at"`
	}
	status, body, _ := call(t, apiToken, "GET", api+"20/pipelines/1/jobs")
	if err := json.Unmarshal([]byte(body), &list); err != nil || status != 200 || time.Since(list[0].FinishedAt) < time.Hour {
		t.Errorf("got %d %s", status, body)
	}
	if p := fake.Pipelines()[0]; time.Since(p.CreatedAt) < time.Hour {
		t.Errorf("it was created at %s", p.CreatedAt)
	}
}

// As GitLab does.
func TestAProjectThatNobodyAddedIsFoundByItsNumber(t *testing.T) {
	t.Parallel()
	fake, base := start(t)
	fake.AnyProject("glptt-any")
	fake.APIToken(apiToken)
	api := base + "/api/v4/projects/"
	if status, body := post(t, base, "any/path", jsonType, `{"token":"glptt-any","ref":"main"}`); status != 201 {
		t.Fatalf("got %d %s", status, body)
	}
	id := fake.Pipelines()[0].ProjectID
	for path, want := range map[string]int{fmt.Sprintf("%d/pipelines/1/jobs", id): 200, "any%2Fpath/pipelines/1": 200, "7/pipelines/1": 404} {
		if status, body, _ := call(t, apiToken, "GET", api+path); status != want {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
}
