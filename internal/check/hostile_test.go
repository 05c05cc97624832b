package check_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/getto-systems/hubrelay/internal/check"
)

// What is written goes to a terminal: nobody's words may command it, or look like
// another line.
func TestNobodysWordsCommandTheTerminal(t *testing.T) {
	t.Parallel()
	const evil = "\x1b[2J\x1b]0;x\x07\u202e\u2028\u200b\x9b1m"
	w := newWorld(t)
	w.settings["LEDGER"] = "memory:x"
	file := strings.Replace(ciFile, "name: $PIPELINE_NAME", `name: "a\e[2J\u202e\x9bb"`, 1)
	w.project.Files[".gitlab-ci.yml"] = strings.Replace(file, "inputs:\n", `inputs:`+"\n"+`    "team\e[1m": {}`+"\n", 1)
	w.project.Includes[0].Location = "gitlab.example/promote@1.2.0" + evil
	w.project.VariablesRole = "developer" + evil
	w.access.Scopes = []string{"read_api", "x" + evil}
	w.gitlab.SetVersion("18.5.0" + evil)
	key, err := json.Marshal("acme/api*" + evil)
	if err != nil {
		t.Fatal(err)
	}
	w.settings["ROUTES"] = `{"acme/api": {"gitlab":{"project":"acme/images/api","ref":"main"},"slack":{"channel":"C0123456789"}},` +
		string(key) + `: {"gitlab":{"project":"acme/images/api"},"slack":{"channel":"C1\u202e\u200b"}}}`
	w.settings["DEFAULT_CHANNEL"] = "D\u202e\u200b"
	r := w.run(t)
	for _, text := range []string{w.text(t, r), w.json(t, r)} {
		for _, c := range text {
			if c != '\n' && !unicode.IsPrint(c) || c == unicode.ReplacementChar {
				t.Fatalf("%U is written in\n%q", c, text)
			}
		}
	}
	for _, f := range r.Findings {
		if strings.Contains(f.Subject+f.Found+f.Mend+f.Wanted, "\n") {
			t.Errorf("%s goes over several lines", f.ID)
		}
	}
}

// Whoever is asked may repeat a secret, as it is, as it was encoded, or in a long
// text that is cut.
func TestSecretsThatAreRepeated(t *testing.T) {
	t.Parallel()
	auth := base64.StdEncoding.EncodeToString([]byte("acme:" + dockerToken))
	for _, padding := range []int{0, 470, 480, 490, 495} {
		for _, secret := range []string{apiToken, triggerToken, slackToken, dockerToken, auth, webhookToken, notifyToken} {
			w := newWorld(t)
			w.settings["LEDGER"] = "memory:x"
			w.options.Only = []string{"gitlab.ci_file", "gitlab.workflow", "gitlab.issuer"}
			w.project.InvalidYAML = true
			w.project.Files[".gitlab-ci.yml"] = "workflow: {name: " + secret + "}\n"
			proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/ci/lint") {
					_ = json.NewEncoder(rw).Encode(map[string]any{"valid": false, "errors": []string{strings.Repeat("x", padding) + secret + strings.Repeat("y", 100)}})
					return
				}
				if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
					_ = json.NewEncoder(rw).Encode(map[string]any{"issuer": strings.Repeat("x", max(0, padding-300)) + secret})
					return
				}
				w.gitlab.ServeHTTP(rw, r)
			}))
			t.Cleanup(proxy.Close)
			w.settings["GITLAB_URL"], w.settings["OIDC_ISSUER"] = proxy.URL, proxy.URL
			r := w.run(t) // looks for canary itself
			text := w.text(t, r) + w.json(t, r)
			for n := 7; n < len(secret); n++ {
				if strings.Contains(text, secret[:n]) {
					t.Fatalf("%q is told, a part of a secret", secret[:n])
				}
			}
		}
	}
}

// A secret in the place of another setting is not repeated.
func TestASecretInTheWrongSetting(t *testing.T) {
	t.Parallel()
	for _, name := range check.Names {
		for _, secret := range []string{"glptt-canary-9876543210", "glpat-canary-9876543210", "xoxb-canary-9876543210", "dckr_pat_canary9876543210", "https://x:glpat-canary-98765@gitlab.example"} {
			w := newWorld(t)
			w.settings["LEDGER"] = "memory:x"
			w.settings[name] = secret
			w.options.Only = []string{"settings", "routes", "slack", "deployed.webhook", "deployed.trigger"}
			w.run(t)
		}
	}
}

// What hangs in one place is waited for there alone.
func TestNamespacesAreAskedAboutAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var many []string
	for i := range 6 {
		many = append(many, fmt.Sprintf(`"acme%d/*": {%s,%s}`, i, toAPI, toChannel))
	}
	w.settings["ROUTES"] = "{" + strings.Join(many, ",") + "}"
	w.options.Only = []string{"gitlab.project"}
	var now, most atomic.Int64
	slow := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		for range 50 {
			if now.Load() == 6 || most.Load() == 6 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		rw.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(slow.Close)
	w.settings["HUB_URL"] = slow.URL
	delete(w.settings, "REGISTRY_AUTH")
	r := w.run(t)
	if most.Load() != 6 {
		t.Errorf("Docker Hub was asked about %d namespaces at a time, of 6", most.Load())
	}
	want{"gitlab.project acme5/*", "unknown", "Docker Hub did not list", ""}.check(t, r)
}

// A part that was not checked because of a mistake elsewhere is never well.
func TestNoPartIsWellWithoutRoutes(t *testing.T) {
	t.Parallel()
	for _, only := range append(append([]string{}, check.Sections...), "slack.channel", "dockerhub.pull", "dockerhub.missed", "gitlab.trigger_token", "deployed.heard") {
		if only == "deployed" {
			continue
		}
		w := newWorld(t)
		w.settings["LEDGER"] = "memory:x"
		w.settings["ROUTES"] = `{"acme/api": {}}`
		w.options.Only = []string{only}
		r := w.run(t)
		if r.ExitCode() != 1 {
			t.Errorf("-only %s ends with %d:\n%s", only, r.ExitCode(), w.text(t, r))
		}
	}
}

func TestAnswersThatAreNotWhatTheySeem(t *testing.T) {
	t.Parallel()
	gitlabSays := func(path, body string) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, path) {
					_, _ = rw.Write([]byte(body))
					return
				}
				w.gitlab.ServeHTTP(rw, r)
			}))
			t.Cleanup(proxy.Close)
			w.settings["GITLAB_URL"], w.settings["OIDC_ISSUER"] = proxy.URL, proxy.URL
		}
	}
	slackSays := func(path, body string) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, path) {
					_, _ = rw.Write([]byte(body))
					return
				}
				w.slack.ServeHTTP(rw, r)
			}))
			t.Cleanup(proxy.Close)
			w.settings["SLACK_API_URL"] = proxy.URL
		}
	}
	redirecting := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "https://login.example/", http.StatusFound)
	})
	ready := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/ready" {
				_, _ = rw.Write([]byte("ok"))
				return
			}
			h.ServeHTTP(rw, r)
		})
	}
	const self, onLint = "/personal_access_tokens/self", "/ci/lint"
	for _, c := range []struct {
		name   string
		change func(*testing.T, *world)
		wants  []want
	}{
		{"a token that GitLab says nothing about", gitlabSays(self, `{}`), []want{{"gitlab.api_token *", "unknown", "does not say", ""}}},
		{"a token of which nothing has its type", gitlabSays(self, `{"active":"yes","scopes":"read_api","expires_at":7}`), []want{{"gitlab.api_token *", "unknown", "does not say", ""}}},
		{"a token that expires nobody knows when", gitlabSays(self, `{"active":true,"scopes":["read_api"],"expires_at":"soon"}`), []want{{"gitlab.api_token *", "unknown", "soon", ""}}},
		{"a token that expires at a time", gitlabSays(self, `{"active":true,"scopes":["read_api"],"expires_at":"2020-01-01T00:00:00Z"}`), []want{{"gitlab.api_token *", "unknown", "2020", ""}}},
		{"a proxy that decodes the path of a project", func(t *testing.T, w *world) {
			delete(w.settings, "GITLAB_API_TOKENS")
			proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/trigger/pipeline") {
					rw.Header().Set("Content-Type", "application/json")
					rw.WriteHeader(http.StatusNotFound)
					_, _ = rw.Write([]byte(`{"error":"404 Not Found"}`))
					return
				}
				w.gitlab.ServeHTTP(rw, r)
			}))
			t.Cleanup(proxy.Close)
			w.settings["GITLAB_URL"], w.settings["OIDC_ISSUER"] = proxy.URL, proxy.URL
		}, []want{{"gitlab.trigger_token " + project, "fail", "before it looked at the project or the token", "%2F"}}},
		{"a page in the place of a project", gitlabSays("/projects/acme/images/api", "<html>Sign in"), []want{{"gitlab.project " + project, "unknown", "not GitLab's", ""}}},
		{"a lint that says nothing", gitlabSays(onLint, `{}`), []want{{"gitlab.ci_file " + onMain, "unknown", "does not say", ""}}},
		{"a lint of another type", gitlabSays(onLint, `{"valid":"true"}`), []want{{"gitlab.ci_file " + onMain, "unknown", "does not say", ""}}},
		{"a branch that says nothing", gitlabSays("/repository/branches/main", `{}`), []want{{"gitlab.ref " + onMain, "unknown", "does not say", ""}}},
		{"a Slack that says nothing", slackSays("/auth.test", `{"ok":true}`), []want{{"slack.token", "unknown", "does not say whose", ""}}},
		{"a channel of which Slack says nothing", slackSays("/conversations.info", `{"ok":true,"channel":{}}`), []want{{"slack.channel C0123456789", "unknown", "does not say which", ""}}},
		{"a direct message", func(t *testing.T, w *world) {
			slackSays("/conversations.info", `{"ok":true,"channel":{"id":"D0123456789","is_im":true}}`)(t, w)
			w.settings["DEFAULT_CHANNEL"] = "D0123456789"
		}, []want{{"slack.channel D0123456789", "pass", "direct message", ""}}},
		{"a wrong trigger token, and an archived project", func(_ *testing.T, w *world) {
			w.project.Archived = true
			w.settings["GITLAB_TRIGGER_TOKENS"] = `{"*":"glptt-canary-another-one"}`
		}, []want{
			{"gitlab.project " + project, "fail", "archived", ""},
			{"gitlab.trigger_token " + project, "fail", "the project is there, and GitLab answered 404", "Make a token"},
		}},
		{"a proxy that refuses tokens with a page", func(_ *testing.T, w *world) {
			w.webhook, w.notify = ready(answering(400, "<html>Bad Request")), ready(answering(400, "Bad Request"))
		}, []want{
			{"deployed.webhook_token token 1 of 1", "unknown", "not hubrelay's", ""}, {"deployed.notify_token token 1 of 1", "unknown", "not hubrelay's", ""},
		}},
		{"functions behind a login", func(_ *testing.T, w *world) { w.webhook, w.notify, w.trigger = redirecting, redirecting, redirecting }, []want{
			{"deployed.webhook", "fail", "302", "redirects"}, {"deployed.notify", "fail", "302", "redirects"},
			{"deployed.trigger", "unknown", "302", ""}, {"deployed.webhook_token token 1 of 1", "skip", "", ""},
		}},
		{"a configuration with references", func(_ *testing.T, w *world) {
			w.project.Files[".gitlab-ci.yml"] = strings.Replace(ciFile, "    - when: always\n", "    - !reference [.rules, all]\n    - when: always\n", 1)
		}, []want{{"gitlab.inputs acme/api", "pass", "", ""}, {"gitlab.workflow " + onMain, "pass", "named $PIPELINE_NAME", ""}}},
		{"a configuration whose workflow is included", func(_ *testing.T, w *world) {
			w.project.Files[".gitlab-ci.yml"] = strings.Replace(ciFile, "workflow:\n", "workflow: !reference [.workflow]\nother:\n", 1)
		}, []want{{"gitlab.inputs acme/api", "pass", "", ""}}},
		{"a pre-release of GitLab", func(_ *testing.T, w *world) { w.gitlab.SetVersion("18.6-pre") }, []want{{"gitlab.url", "pass", "18.6-pre", ""}}},
		{"an answer over the limit", func(_ *testing.T, w *world) {
			w.webhook = answering(200, strings.Repeat("x", 5<<20))
		}, []want{{"deployed.webhook", "unknown", "no answer", ""}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.settings["LEDGER"] = "memory:x"
			c.change(t, w)
			r := w.run(t)
			for _, want := range c.wants {
				want.check(t, r)
			}
		})
	}
}

// A token travels to nobody but whom it is for.
func TestTokensDoNotFollowARedirect(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was asked for %s with %v", r.Host, r.URL.Path, r.Header)
	}))
	t.Cleanup(elsewhere.Close)
	redirecting := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, elsewhere.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	})
	from := httptest.NewServer(redirecting)
	t.Cleanup(from.Close)
	for _, name := range []string{"GITLAB_URL", "HUB_URL", "REGISTRY", "SLACK_API_URL", "WEBHOOK_URL", "NOTIFY_URL", "TRIGGER_URL"} {
		w := newWorld(t)
		w.settings["LEDGER"] = "memory:x"
		w.settings[name] = from.URL
		if name == "REGISTRY" {
			w.settings["REGISTRY_AUTH"] = dockerConfig(strings.TrimPrefix(from.URL, "http://"), "acme", dockerToken)
		}
		if r := w.run(t); r.ExitCode() == 0 {
			t.Errorf("%s that redirects is well", name)
		}
	}
	w := newWorld(t)
	w.webhook, w.notify = redirecting, redirecting
	w.run(t)
}

// The same world is told of in the same words, in the same order.
func TestAReportIsStable(t *testing.T) {
	t.Parallel()
	w := troubled(t)
	w.settings["ROUTES"] = `{"b/*":{` + toAPI + `,` + toChannel + `},"a/*":{` + toAPI + `,` + toChannel + `},"acme/api":{"gitlab":{"project":"acme/images/api","ref":"x"},` + toChannel + `}}`
	w.options.Images = []check.Image{{Repository: "a/x"}, {Repository: "b/y"}, {Repository: "a/z"}}
	first := w.json(t, w.run(t))
	for range 5 {
		if again := w.json(t, w.run(t)); again != first {
			t.Fatalf("first\n%s\nthen\n%s", first, again)
		}
	}
}
