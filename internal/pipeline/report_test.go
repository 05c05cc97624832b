package pipeline

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

const (
	audience = "https://notify.example"
	delivery = "0123456789abcdef"
	someHash = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)

// world is the real Notify, told of one promotion, with a fake Slack and the
// id tokens of a fake GitLab. It counts what it is asked.
type world struct {
	t     *testing.T
	url   string
	token string
	slack *slacktest.Server
	book  *ledger.Ledger

	asked   atomic.Int32
	limited atomic.Int32 // so many requests are answered with 503
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, slack: slacktest.New("xoxb-canary")}
	w.slack.AddChannel("C0IMAGES", "images")
	slackServer := httptest.NewServer(w.slack)
	t.Cleanup(slackServer.Close)
	var gitlab *gitlabtest.Server
	gitlabServer := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { gitlab.ServeHTTP(rw, r) }))
	gitlab = gitlabtest.New("http://" + gitlabServer.Listener.Addr().String())
	gitlabServer.Start()
	t.Cleanup(gitlabServer.Close)

	settings := map[string]string{
		"ROUTES":          `{"acme/api": {"gitlab": {"project": "acme/images/api"}, "slack": {"channel": "C0IMAGES"}}}`,
		"SLACK_BOT_TOKEN": "xoxb-canary", "SLACK_API_URL": slackServer.URL + "/api/",
		"OIDC_ISSUER": gitlabServer.URL, "OIDC_AUDIENCE": audience, "LEDGER": "memory:" + gitlabServer.URL,
	}
	handler, err := notify.FromEnv(gcplog.NewContext(t.Context(), gcplog.New(io.Discard, "p")), func(name string) string { return settings[name] })
	if err != nil {
		t.Fatal(err)
	}
	w.book, err = ledger.Open(settings["LEDGER"])
	if err != nil {
		t.Fatal(err)
	}
	claim, err := w.book.Claim(t.Context(), ledger.Push{ID: delivery, Route: "acme/api", Repository: "acme/api", Tag: "1.4.0", Digest: someHash})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.book.Triggered(t.Context(), claim, url1); err != nil {
		t.Fatal(err)
	}
	w.token, err = gitlab.IDToken(gitlabtest.Claims{Project: "acme/images/api", Audience: audience, Ref: "main", RefProtected: true, PipelineID: 1})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		if w.limited.Add(-1) >= 0 {
			rw.Header().Set("Retry-After", "1")
			http.Error(rw, `{"error":"Slack limits"}`, http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

// report runs one of the jobs that report.
func (w *world) report(job string, with ...string) outcome {
	w.t.Helper()
	inputs := map[string]string{
		"notify_url": w.url, "notify_audience": audience, "image_repository": "acme/api", "image_tag": "1.4.0",
		"image_digest": someHash, "delivery_id": delivery,
	}
	env := map[string]string{"NOTIFY_ID_TOKEN": w.token, "CI_PIPELINE_URL": url1}
	for pair := range slices.Chunk(with, 2) {
		if strings.ToLower(pair[0]) == pair[0] {
			inputs[pair[0]] = pair[1]
		} else {
			env[pair[0]] = pair[1]
		}
	}
	return run(w.t, []string{"sh", "-e"}, "", job, inputs, env)
}

func (w *world) ok(o outcome) {
	w.t.Helper()
	if o.code != 0 {
		w.t.Errorf("exit code %d\n%s", o.code, o.log)
	}
}

func (w *world) wantState(state ledger.State) {
	w.t.Helper()
	p, err := w.book.Get(w.t.Context(), delivery)
	if err != nil {
		w.t.Fatal(err)
	}
	if p.State != state {
		w.t.Errorf("the promotion is %s, not %s", p.State, state)
	}
}

// text is what stands in Slack, messages and replies.
func (w *world) text() string {
	w.t.Helper()
	text, err := json.Marshal(w.slack.Messages())
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

func TestOnePromotionIsOneMessage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		job, status, message string
		state                ledger.State
	}{
		"success":                           {"hubrelay-done", "success", "signed; latest moved to it", ledger.Promoted},
		"skipped":                           {"hubrelay-done", "skipped", "signed already", ledger.Skipped},
		"failure":                           {"hubrelay-failed", "failure", "whether it is signed cannot be told", ledger.Failed},
		"failure of which nothing was left": {"hubrelay-failed", "", "", ledger.Failed},
		"failure of another job, after it":  {"hubrelay-failed", "success", "signed", ledger.Promoted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.ok(w.report("hubrelay-running"))
			w.wantState(ledger.Running)
			w.ok(w.report(c.job, "HUBRELAY_STATUS", c.status, "HUBRELAY_MESSAGE", c.message))
			w.wantState(c.state)
			messages := 0
			for _, m := range w.slack.Messages() {
				if m.ThreadTS == "" {
					messages++
				}
			}
			if messages != 1 {
				t.Errorf("Slack shows %d messages: %s", messages, w.text())
			}
			if c.state == ledger.Failed {
				want := c.message
				if want == "" {
					want = "ran out of time"
				}
				if !strings.Contains(w.text(), want) {
					t.Errorf("Slack does not say %q: %s", want, w.text())
				}
			}
		})
	}
}

func TestOnlyACancellationIsReportedByThePromotionItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asReport := []string{"HUBRELAY_REPORT", jobOf(t, "hubrelay-promote", map[string]string{"notify_url": w.url, "notify_audience": audience}).variables["HUBRELAY_REPORT"]}
	for _, status := range []string{"success", "failed"} {
		w.ok(w.report(".hubrelay-report", append(asReport, "CI_JOB_STATUS", status)...))
	}
	if n := w.asked.Load(); n != 0 {
		t.Errorf("it reported %d times", n)
	}
	w.ok(w.report(".hubrelay-report", append(asReport, "CI_JOB_STATUS", "canceled")...))
	w.wantState(ledger.Failed)
}

func TestASuccessWithoutAWordIsNoSuccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, status := range []string{"", "failure", "running"} {
		if o := w.report("hubrelay-done", "HUBRELAY_STATUS", status); o.code == 0 || w.asked.Load() != 0 {
			t.Errorf("%q: exit code %d, %d reports\n%s", status, o.code, w.asked.Load(), o.log)
		}
	}
}

func TestAReportComesBackWhenNotifyAsksForIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.limited.Store(2)
	w.ok(w.report("hubrelay-running"))
	w.wantState(ledger.Running)
	if n := w.asked.Load(); n != 3 {
		t.Errorf("Notify was asked %d times", n)
	}
}

func TestARefusedReportFailsAndSaysWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.report("hubrelay-running", "NOTIFY_ID_TOKEN", "not-a-token")
	if o.code == 0 || w.asked.Load() != 1 || !strings.Contains(o.log, `"error"`) {
		t.Errorf("exit code %d after %d requests\n%s", o.code, w.asked.Load(), o.log)
	}
}

func TestNamesThatNotifyWouldRefuseAreLeftOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hostile := "$(touch owned)\n'\"&status=success"
	w.ok(w.report("hubrelay-failed", "image_repository", "", "image_tag", "", "image_digest", "",
		"IMAGE_REPOSITORY", hostile, "IMAGE_TAG", hostile, "IMAGE_DIGEST", hostile))
	w.wantState(ledger.Failed)
}

func TestNamesOfVariablesAreReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ok(w.report("hubrelay-running", "image_repository", "", "image_tag", "", "image_digest", "", "delivery_id", "",
		"IMAGE_REPOSITORY", "acme/api", "IMAGE_TAG", "1.4.0", "IMAGE_DIGEST", someHash, "DELIVERY_ID", delivery))
	w.wantState(ledger.Running)
}

func TestTheTokenStandsOnNoCommandLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	spy := "#!/bin/sh\nprintf '%s\\n' \"$@\" > " + dir + "/arguments\nPATH=" + os.Getenv("PATH") + " exec curl \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "curl"), []byte(spy), 0o700); err != nil {
		t.Fatal(err)
	}
	o := w.report("hubrelay-running", "PATH", dir+":"+os.Getenv("PATH"))
	w.ok(o)
	w.wantState(ledger.Running)
	arguments := read(t, filepath.Join(dir, "arguments"))
	if strings.Contains(arguments, w.token) || !strings.Contains(arguments, "status=running") {
		t.Errorf("curl was called with %s", arguments)
	}
	if strings.Contains(o.log, w.token) {
		t.Error("the log holds the token")
	}
}
