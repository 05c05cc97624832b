package check_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/functions/webhook"
	"github.com/getto-systems/hubrelay/internal/check"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/registry/registrytest"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// Secrets, none of which may be printed.
const (
	webhookToken = "canary-webhook-0123456789"
	notifyToken  = "canary-notify-0123456789"
	triggerToken = "glptt-canary-0123456789"
	apiToken     = "glpat-canary-0123456789"
	slackToken   = "xoxb-canary-0123456789"
	dockerToken  = "dckr_pat_canary0123456789"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const ciFile = `spec:
  inputs:
    image_repository: {type: string, default: ""}
    image_tag: {type: string, default: ""}
    image_digest: {type: string, default: ""}
    image_pushed_at: {type: string, default: ""}
    promotion_id: {type: string, default: ""}
---
workflow:
  name: $PIPELINE_NAME
  rules:
    - if: $CI_PIPELINE_SOURCE == "trigger"
      variables: {PIPELINE_NAME: "$[[ inputs.image_repository ]]:$[[ inputs.image_tag ]]"}
      auto_cancel: {on_new_commit: none}
    - when: always
include:
  - component: $CI_SERVER_FQDN/acme/hubrelay/promote@1.2.0
`

// world is everything that can be asked, set up right, and what a test changes.
type world struct {
	gitlab   *gitlabtest.Server
	project  gitlabtest.Project
	access   gitlabtest.AccessToken
	slack    *slacktest.Server
	hub      *hubtest.Server
	registry *registrytest.Server
	settings map[string]string
	options  check.Options
	// answers of the functions in the place of their own, by name
	webhook, notify, trigger http.Handler

	hosts map[string]string // of the servers, to what they are called in golden files
}

type discard struct{}

func (discard) Publish(context.Context, []byte, map[string]string) (string, error) { return "1", nil }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{hosts: map[string]string{}}
	serve := func(name string, h http.Handler) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		w.hosts[strings.TrimPrefix(s.URL, "http://")] = name
		return s.URL
	}
	// A fake needs its address before it is made.
	var gitlabHandler, registryHandler http.Handler
	gitlabURL := serve("gitlab.example", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { gitlabHandler.ServeHTTP(rw, r) }))
	w.gitlab = gitlabtest.New(gitlabURL)
	gitlabHandler = w.gitlab
	w.project = gitlabtest.Project{
		ID: 7, Path: "acme/images/api", Token: triggerToken, VariablesRole: gitlabtest.RoleNoOne,
		Files:    map[string]string{".gitlab-ci.yml": ciFile},
		Includes: []gitlabtest.Include{{Type: "component", Location: "gitlab.example/acme/hubrelay/promote@1.2.0"}},
		Merged:   "hubrelay-promote:\n  variables:\n    HUBRELAY_VERSION: 1.2.0\n",
	}
	w.access = gitlabtest.AccessToken{Token: apiToken, Scopes: []string{"read_api"}, Maintainer: true}

	w.slack = slacktest.New(slackToken)
	w.slack.AddChannel("C0123456789", "images")
	slackURL := serve("slack.example", w.slack)

	w.hub = hubtest.New()
	w.hub.AddAccount(hubtest.Account{Name: "acme", Secrets: []string{dockerToken}, AuditLogs: []string{"acme"}})
	w.hub.AuditLog("acme", 0)
	w.hub.Push(hubtest.Push{Repository: "acme/api", Tag: "1.0.0", Digest: digest, At: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)})
	hubURL := serve("hub.example", w.hub)

	registryURL := serve("registry.example", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { registryHandler.ServeHTTP(rw, r) }))
	w.registry = registrytest.New(registryURL)
	registryHandler = w.registry
	w.registry.AddAccount("acme", dockerToken)
	w.registry.AddRepository("acme/api", "acme")
	w.registry.Tag("acme/api", "latest", digest)

	w.settings = map[string]string{
		"WEBHOOK_TOKENS":        webhookToken,
		"TOPIC":                 "projects/acme/topics/pushes",
		"DEAD_LETTER_TOPIC":     "projects/acme/topics/dead-letters",
		"LEDGER":                "firestore:projects/acme/databases/hubrelay",
		"ROUTES":                `{"acme/api": {"gitlab": {"project": "acme/images/api"}, "slack": {"channel": "C0123456789"}}}`,
		"GITLAB_URL":            gitlabURL,
		"GITLAB_TRIGGER_TOKENS": `{"*": "` + triggerToken + `"}`,
		"GITLAB_API_TOKENS":     `{"*": "` + apiToken + `"}`,
		"REGISTRY":              registryURL,
		"REGISTRY_AUTH":         dockerConfig(strings.TrimPrefix(registryURL, "http://"), "acme", dockerToken),
		"HUB_URL":               hubURL,
		"SLACK_BOT_TOKEN":       slackToken,
		"SLACK_API_URL":         slackURL + "/",
		"DEFAULT_CHANNEL":       "C0123456789",
		"NOTIFY_TOKENS":         notifyToken,
		"OIDC_ISSUER":           gitlabURL,
		"OIDC_AUDIENCE":         "https://notify.example",
	}
	w.webhook = w.function(t, func(getenv func(string) string) (http.Handler, error) {
		s, err := webhook.ReadSettings(getenv)
		return webhook.New(s.Tokens, discard{}, slog.New(slog.DiscardHandler)), err
	})
	w.notify = w.function(t, func(getenv func(string) string) (http.Handler, error) {
		s, err := notify.ReadSettings(getenv)
		return notify.New(s.Notify, slog.New(slog.DiscardHandler)), err
	})
	w.trigger = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "<html>Forbidden", http.StatusForbidden) })
	w.settings["WEBHOOK_URL"] = serve("webhook.example", versioned{&w.webhook, "1.2.0"})
	w.settings["NOTIFY_URL"] = serve("notify.example", versioned{&w.notify, "1.2.0"})
	w.settings["TRIGGER_URL"] = serve("trigger.example", versioned{&w.trigger, ""})
	return w
}

// function makes one of ours with the settings as they are now.
func (w *world) function(t *testing.T, build func(func(string) string) (http.Handler, error)) http.Handler {
	t.Helper()
	h, err := build(func(name string) string { return w.settings[name] })
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// versioned answers with another version than that of this source.
type versioned struct {
	next    *http.Handler
	version string
}

func (v versioned) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	(*v.next).ServeHTTP(stamped{rw, v.version}, r)
}

type stamped struct {
	http.ResponseWriter
	version string
}

func (s stamped) WriteHeader(status int) {
	s.Header().Del("Hubrelay-Version")
	if s.version != "" {
		s.Header().Set("Hubrelay-Version", s.version)
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s stamped) Write(p []byte) (int, error) {
	if s.Header().Get("Hubrelay-Version") != s.version {
		s.WriteHeader(http.StatusOK)
	}
	return s.ResponseWriter.Write(p)
}

func answering(status int, body string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
	})
}

// breaking closes every connection.
func breaking() http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

func dockerConfig(host, user, token string) string {
	entry := map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + token))}
	raw, err := json.Marshal(map[string]any{"auths": map[string]any{host: entry, "https://index.docker.io/v1/": entry}})
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// run checks the world, and holds what holds for every report: no secret is in what
// is written, no two findings are about the same thing, and whatever is not well says
// what to do about it.
func (w *world) run(t *testing.T) check.Report {
	t.Helper()
	w.gitlab.AddProject(w.project)
	w.gitlab.AddAccessToken(w.access)
	w.options.Getenv = func(name string) string { return w.settings[name] }
	report, err := check.Run(t.Context(), w.options)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range report.Findings {
		if name := f.ID + " " + f.Subject; names[name] {
			t.Errorf("%s stands twice", name)
		} else {
			names[name] = true
		}
		if (f.Status == check.Fail || f.Status == check.Warn || f.Unknown) && f.Mend == "" {
			t.Errorf("%s %s does not say what to do: %s", f.ID, f.Subject, f.Found)
		}
	}
	for _, text := range []string{w.text(t, report), w.json(t, report)} {
		for _, secret := range []string{"canary", base64.StdEncoding.EncodeToString([]byte("acme:" + dockerToken))} {
			if strings.Contains(text, secret) {
				t.Errorf("a secret shows in\n%s", text)
			}
		}
	}
	return report
}

// text and json are what is written, with the names of the servers.
func (w *world) text(t *testing.T, r check.Report) string {
	t.Helper()
	var out strings.Builder
	if err := r.WriteText(&out, false); err != nil {
		t.Fatal(err)
	}
	return w.named(out.String())
}

func (w *world) json(t *testing.T, r check.Report) string {
	t.Helper()
	var out strings.Builder
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	return w.named(out.String())
}

func (w *world) named(text string) string {
	for address, name := range w.hosts {
		text = strings.ReplaceAll(text, address, name)
	}
	return text
}

// find returns a finding, by its ID and subject, as in gitlab.ref acme/api@main.
func find(t *testing.T, r check.Report, name string) check.Finding {
	t.Helper()
	for _, f := range r.Findings {
		if strings.TrimSpace(f.ID+" "+f.Subject) == name {
			return f
		}
	}
	var names []string
	for _, f := range r.Findings {
		names = append(names, fmt.Sprintf("%s %s", f.ID, f.Subject))
	}
	t.Fatalf("there is no finding %s among\n%s", name, strings.Join(names, "\n"))
	return check.Finding{}
}
