package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
)

// A GitLab and a registry outside of the sandbox, and a tunnel for the webhook
// and the report: from a push to a message of success.
func TestLocalWithARealGitLabAndRegistry(t *testing.T) {
	var gitlab *gitlabtest.Server
	gitlabHost := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { gitlab.ServeHTTP(w, r) }))
	t.Cleanup(gitlabHost.Close)
	gitlab = gitlabtest.New(gitlabHost.URL)
	gitlab.AddProject(gitlabtest.Project{Path: "group/promote", Token: "glptt-real"})

	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	image, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(strings.TrimPrefix(images.URL, "http://") + "/acme/api:7.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}

	var target atomic.Pointer[url.URL]
	tunnel := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target.Load())
		if r.In.Header.Get("Keep-Host") != "" {
			r.Out.Host = r.In.Host
		} else {
			r.SetXForwarded()
		}
	}})
	t.Cleanup(tunnel.Close)

	routes := filepath.Join(t.TempDir(), "routes.json")
	if err := os.WriteFile(routes, []byte(`{"acme/*": {"gitlab": {"project": "group/promote"}, "slack": {"channel": "C0IMAGES"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GITLAB_TRIGGER_TOKENS", `{"*": "glptt-real"}`)
	ctx, cancel := context.WithCancel(t.Context())
	var (
		out  screen
		done = make(chan error)
	)
	go func() {
		done <- run(ctx, []string{
			"local", "-addr", "127.0.0.1:0", "-fast", "-routes", routes,
			"-gitlab-url", gitlabHost.URL + "/", "-registry", images.URL, "-public-url", tunnel.URL + "/",
		}, &out)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	out.wait(t, "notify_audience: ")
	printed := func(pattern string) string {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(out.String())
		if m == nil {
			t.Fatalf("%s is not in\n%s", pattern, out.String())
		}
		return m[1]
	}
	here, err := url.Parse(printed(`Watch it here, or at (\S+)`))
	if err != nil {
		t.Fatal(err)
	}
	target.Store(here)
	if got := printed(`registry: (\S+)`); got != strings.TrimPrefix(images.URL, "http://") {
		t.Errorf("the component is given the registry %s", got)
	}

	contains(t, said(t, "push", printed(`(`+regexp.QuoteMeta(tunnel.URL)+`/webhook/\S+)`), "acme/api:7.0.0"), "202 Accepted")
	eventually(t, "a pipeline", func() bool { return len(gitlab.Pipelines()) == 1 })
	pipeline := gitlab.Pipelines()[0]
	if pipeline.Project != "group/promote" || pipeline.Inputs["image_digest"] != digest.String() {
		t.Errorf("the pipeline is %+v", pipeline)
	}

	token, err := gitlab.IDToken(gitlabtest.Claims{
		Project: pipeline.Project, Ref: "main", RefProtected: true, PipelineID: pipeline.ID, Audience: printed(`notify_audience: (\S+)`),
	})
	if err != nil {
		t.Fatal(err)
	}
	report := strings.NewReader(url.Values{"status": {"success"}, "repository": {"acme/api"}, "tag": {"7.0.0"}}.Encode())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, printed(`notify_url: (`+regexp.QuoteMeta(tunnel.URL)+`\S+)`), report)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("the report is answered %s", res.Status)
	}
	out.wait(t, "✅")

	// What requires no token cannot be reached from outside.
	for _, path := range []string{"/", "/trigger/", "/api/", "/api/events", "/gitlab/", "/slack/api/auth.test", "/v2/"} {
		for _, keepHost := range []string{"", "yes"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, tunnel.URL+path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Keep-Host", keepHost)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusNotFound {
				t.Errorf("%s is answered %s", path, res.Status)
			}
		}
	}
	res, err = http.Get(here.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("the page is answered %s", res.Status)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("%s: that does not come", what)
}

// said runs the command and returns what it writes.
func said(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("hubrelay %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

func contains(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
