package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

const (
	digestA     = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB     = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	botToken    = "xoxb-canary-bot"
	staticToken = "canary-static-0123456789"
	audience    = "https://notify.example"
	channel     = "C0IMAGES"
)

const routes = `{
  "acme/api": {"gitlab": {"project": "acme/images/api"}, "slack": {"channel": "C0IMAGES"}},
  "acme/lib-*": {"gitlab": {"project": "acme/images/lib"}, "slack": {"channel": "C0IMAGES"}},
  "acme/tool-*": {"gitlab": {"project": "acme/images/lib"}, "slack": {"channel": "C0IMAGES"}},
  "other/*": {"gitlab": {"project": "other/images/{name}"}, "slack": {"channel": "C0OTHER"}}
}`

// world is Notify with a fake Slack and a fake GitLab over HTTP.
type world struct {
	t       *testing.T
	gitlab  *gitlabtest.Server
	google  *gitlabtest.Server // only its issuer
	slack   *slacktest.Server
	ledger  *ledger.Ledger
	log     lockedBuffer
	handler http.Handler
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T, change map[string]string) *world {
	t.Helper()
	w := &world{t: t, slack: slacktest.New(botToken)}
	w.slack.AddChannel(channel, "images")
	slackServer := httptest.NewServer(w.slack)
	t.Cleanup(slackServer.Close)
	gitlabServer := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.gitlab.ServeHTTP(rw, r) }))
	w.gitlab = gitlabtest.New("http://" + gitlabServer.Listener.Addr().String())
	gitlabServer.Start()
	t.Cleanup(gitlabServer.Close)

	settings := map[string]string{
		"ROUTES": routes, "SLACK_BOT_TOKEN": botToken, "SLACK_API_URL": slackServer.URL + "/api/",
		"NOTIFY_TOKENS": staticToken, "OIDC_ISSUER": gitlabServer.URL, "OIDC_AUDIENCE": audience,
		"LEDGER": "memory:" + gitlabServer.URL,
	}
	for name, value := range change {
		settings[name] = value
	}
	var err error
	w.ledger, err = ledger.Open("memory:" + gitlabServer.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx := gcplog.NewContext(t.Context(), gcplog.New(&w.log, "p"))
	w.handler, err = notify.FromEnv(ctx, func(name string) string { return settings[name] })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if strings.Contains(w.log.String(), "canary") {
			t.Errorf("a secret shows in %s", w.log.String())
		}
	})
	return w
}

type answer struct {
	status  int
	header  http.Header
	raw     string
	body    map[string]string
	channel string
	ts      string
}

// idToken makes a token as a job of the project gets it.
func (w *world) idToken(change func(*gitlabtest.Claims)) string {
	w.t.Helper()
	claims := gitlabtest.Claims{Project: "acme/images/api", Audience: audience, Ref: "main", RefProtected: true, PipelineID: 7}
	if change != nil {
		change(&claims)
	}
	token, err := w.gitlab.IDToken(claims)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func (w *world) post(token, body string) answer {
	w.t.Helper()
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return w.do(r)
}

func (w *world) do(r *http.Request) answer {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	a := answer{status: rec.Code, header: rec.Header()}
	if err := json.Unmarshal(rec.Body.Bytes(), &a.body); err != nil {
		w.t.Fatalf("the answer is not JSON: %d %s", rec.Code, rec.Body)
	}
	if strings.Contains(rec.Body.String(), "canary") {
		w.t.Errorf("a secret shows in %s", rec.Body)
	}
	a.channel, a.ts = a.body["channel"], a.body["ts"]
	return a
}

// report posts a form with the static token; pairs are keys and values.
func (w *world) report(pairs ...string) answer {
	w.t.Helper()
	return w.post(staticToken, form(pairs...))
}

func form(pairs ...string) string {
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		values.Set(pairs[i], pairs[i+1])
	}
	return values.Encode()
}

func (w *world) ok(a answer) answer {
	w.t.Helper()
	if a.status != http.StatusOK || a.channel == "" || a.ts == "" {
		w.t.Fatalf("got %d %v", a.status, a.body)
	}
	return a
}

// promotion makes one that is triggered, under the delivery id.
func (w *world) promotion(id, repository, routeKey, digest string) {
	w.t.Helper()
	claim, err := w.ledger.Claim(context.Background(), ledger.Push{ID: id, Route: routeKey, Repository: repository, Tag: "1.4.0", Digest: digest})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.ledger.Triggered(context.Background(), claim, "https://gitlab.example/p/7"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) state(id string) ledger.State {
	w.t.Helper()
	p, err := w.ledger.Get(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.State
}

// messages returns those that are not replies, and the replies.
func (w *world) messages() (top, replies []slacktest.Message) {
	for _, m := range w.slack.Messages() {
		if m.ThreadTS == "" {
			top = append(top, m)
		} else {
			replies = append(replies, m)
		}
	}
	return top, replies
}

func TestEveryRowOfTheTable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		method string
		token  string
		body   string
		slack  []slacktest.Failure
		status int
		answer string
		header [2]string
	}{
		{name: "a report", token: staticToken, body: form("status", "success", "repository", "acme/api", "tag", "1.4.0"), status: 200},
		{name: "a report as JSON", token: staticToken, body: `{"status":"success","repository":"acme/api","tag":"1.4.0","digest":null}`, status: 200},
		{name: "no token", body: "status=success", status: 401, answer: "no valid bearer token"},
		{name: "a wrong token", token: "wrong", body: "status=success", status: 401, answer: "no valid bearer token"},
		{name: "another method", method: "GET", status: 405, answer: "only POST", header: [2]string{"Allow", "POST"}},
		{name: "a body over 64 KiB", token: staticToken, body: "message=" + strings.Repeat("x", 64<<10), status: 413, answer: "over 65536 bytes"},
		{name: "no route", token: staticToken, body: form("status", "success", "repository", "nobody/api"), status: 404, answer: "no route for nobody/api"},
		{name: "no repository with a static token", token: staticToken, body: "status=success", status: 400, answer: "repository is required"},
		{name: "Slack says never", token: staticToken, body: form("status", "success", "repository", "acme/api"),
			slack: []slacktest.Failure{{Code: "not_in_channel"}}, status: 502, answer: "not_in_channel"},
		{name: "Slack knows no such channel", token: staticToken, body: form("status", "success", "repository", "other/x"), status: 502, answer: "channel_not_found"},
		{name: "Slack limits", token: staticToken, body: form("status", "success", "repository", "acme/api"),
			slack: []slacktest.Failure{{Status: 429, RetryAfter: 42 * time.Second}}, status: 503, answer: "send it again", header: [2]string{"Retry-After", "42"}},
		{name: "Slack fails", token: staticToken, body: form("status", "success", "repository", "acme/api"),
			slack: []slacktest.Failure{{Status: 500}}, status: 503, answer: "send it again", header: [2]string{"Retry-After", "10"}},
		{name: "Slack fails politely", token: staticToken, body: form("status", "success", "repository", "acme/api"),
			slack: []slacktest.Failure{{Code: "internal_error"}}, status: 503, answer: "send it again", header: [2]string{"Retry-After", "10"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.slack.Fail(c.slack...)
			if c.method == "" {
				c.method = "POST"
			}
			r := httptest.NewRequest(c.method, "/", strings.NewReader(c.body))
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			a := w.do(r)
			if a.status != c.status || !strings.Contains(a.body["error"], c.answer) {
				t.Errorf("got %d %v", a.status, a.body)
			}
			if c.header[0] != "" && a.header.Get(c.header[0]) != c.header[1] {
				t.Errorf("%s is %q", c.header[0], a.header.Get(c.header[0]))
			}
			if c.status == 200 && (a.channel != channel || a.ts == "") {
				t.Errorf("got %v", a.body)
			}
		})
	}
}

func TestUnknownPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if a := w.do(httptest.NewRequest("POST", "/nothing", strings.NewReader(""))); a.status != 404 {
		t.Errorf("got %d", a.status)
	}
}

func TestEveryMistakeIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"nothing", "", []string{"status is required"}},
		{"not JSON", "{", []string{"not JSON"}},
		{"not a form", "a=%zz", []string{"neither JSON nor a form"}},
		{"values that are no strings", `{"status":1,"tag":[]}`, []string{`"status" is not a string`, `"tag" is not a string`}},
		{"twice", "status=success&status=failure", []string{`"status" stands twice`}},
		{"everything at once", form(
			"status", "done", "event", "party", "repository", "A", "delivery_id", "a b", "ts", "now", "tag", "a b", "digest", "x",
			"version", strings.Repeat("v", 129), "message", strings.Repeat("あ", 2001), "pipeline_url", "javascript:alert(1)",
		), []string{
			`status is "done"`, `event is "party"`, "repository", "delivery_id", "ts", "tag", "digest", "version is over 128", "message is over 2000", "pipeline_url",
		}},
		{"a field that is none", form("status", "success", "pipelineurl", "x"), []string{`"pipelineurl" is not a field; those are status, event`}},
	} {
		a := w.post(staticToken, c.body)
		if a.status != 400 {
			t.Errorf("%s: got %d", c.name, a.status)
		}
		for _, want := range c.want {
			if !strings.Contains(a.body["error"], want) {
				t.Errorf("%s: %q is not in %q", c.name, want, a.body["error"])
			}
		}
	}
	if len(w.slack.Messages()) != 0 {
		t.Error("Slack was told")
	}
}

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		claims     func(*gitlabtest.Claims)
		repository string
		status     int
		answer     string
	}{
		{"a job of the route's project", nil, "acme/api", 200, ""},
		{"a job of a project of one route, which need not say the repository", nil, "", 200, ""},
		{"a job of another project", func(c *gitlabtest.Claims) { c.Project = "evil/images/api" }, "acme/api", 403, "does not name the project evil/images/api"},
		{"a job of no route's project", func(c *gitlabtest.Claims) { c.Project = "evil/images/api" }, "", 403, "no route names"},
		{"a job of a project of two routes", func(c *gitlabtest.Claims) { c.Project = "acme/images/lib" }, "", 400, "belongs to 2 routes"},
		{"a job on a branch that is not protected", func(c *gitlabtest.Claims) { c.RefProtected = false }, "acme/api", 403, "not protected"},
		{"a token for somebody else", func(c *gitlabtest.Claims) { c.Audience = "https://else.example" }, "acme/api", 401, ""},
		{"a token that has expired", func(c *gitlabtest.Claims) { c.Expiry = -time.Hour }, "acme/api", 401, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"NOTIFY_TOKENS": ""})
			pairs := []string{"status", "success"}
			if c.repository != "" {
				pairs = append(pairs, "repository", c.repository)
			}
			a := w.post(w.idToken(c.claims), form(pairs...))
			if a.status != c.status || !strings.Contains(a.body["error"], c.answer) {
				t.Errorf("got %d %v", a.status, a.body)
			}
		})
	}
}

func TestForgedTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	other := newWorld(t, nil) // another GitLab, with keys of its own
	good := w.idToken(nil)
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"of another issuer":       other.idToken(nil),
		"with another payload":    parts[0] + "." + strings.Split(w.idToken(func(c *gitlabtest.Claims) { c.Project = "a/b" }), ".")[1] + "." + parts[2],
		"without a signature":     parts[0] + "." + parts[1] + ".",
		"with two parts":          parts[0] + "." + parts[1],
		"that is no token":        "a.b.c",
		"the static one and more": staticToken + "x",
	} {
		if a := w.post(token, form("status", "success", "repository", "acme/api")); a.status != 401 {
			t.Errorf("a token %s: got %d %v", name, a.status, a.body)
		}
	}
}

func TestKeysAreCached(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if w.gitlab.DiscoveryRequests()+w.gitlab.KeyRequests() != 0 {
		t.Error("GitLab was asked at the start")
	}
	for range 3 {
		w.ok(w.post(w.idToken(nil), form("status", "success", "repository", "acme/api")))
	}
	if d, k := w.gitlab.DiscoveryRequests(), w.gitlab.KeyRequests(); d != 1 || k != 1 {
		t.Errorf("GitLab was asked %d times where its keys are, and %d times for them", d, k)
	}
	w.gitlab.RotateKeys()
	w.ok(w.post(w.idToken(nil), form("status", "success", "repository", "acme/api")))
	if k := w.gitlab.KeyRequests(); k != 2 {
		t.Errorf("GitLab was asked %d times for its keys", k)
	}
}

func TestAnIssuerThatIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"OIDC_ISSUER": "http://127.0.0.1:1"})
	gone := gitlabtest.New("http://127.0.0.1:1")
	token, err := gone.IDToken(gitlabtest.Claims{Project: "acme/images/api", Audience: audience, RefProtected: true})
	if err != nil {
		t.Fatal(err)
	}
	a := w.post(token, form("status", "success", "repository", "acme/api"))
	if a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("got %d %v", a.status, a.body)
	}
	if a := w.post("nonsense", form("status", "success", "repository", "acme/api")); a.status != 401 {
		t.Errorf("nonsense got %d", a.status)
	}
}

func TestOnePromotionIsOneMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "acme/api", "acme/api", digestA)
	say := func(status string) answer {
		t.Helper()
		return w.ok(w.report("status", status, "repository", "acme/api", "delivery_id", "d1", "digest", digestA))
	}
	running := say("running")
	success := say("success")
	late := say("running")
	twice := say("success")
	for _, a := range []answer{success, late, twice} {
		if a.ts != running.ts || a.channel != running.channel {
			t.Errorf("got %v, want %v", a.body, running.body)
		}
	}
	top, replies := w.messages()
	if len(top) != 1 || len(replies) != 0 || top[0].Edits != 1 {
		t.Fatalf("Slack shows %+v and replies %+v", top, replies)
	}
	if !strings.Contains(top[0].Text, "acme/api:1.4.0") || !strings.Contains(string(top[0].Blocks), "https://gitlab.example/p/7") {
		t.Errorf("Slack shows %q %s", top[0].Text, top[0].Blocks)
	}
	if s := w.state("d1"); s != ledger.Promoted {
		t.Errorf("the promotion is %s", s)
	}
}

func TestAFailureIsRepliedToOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "acme/api", "acme/api", digestA)
	for _, status := range []string{"running", "failure", "failure", "running"} {
		w.ok(w.report("status", status, "repository", "acme/api", "delivery_id", "d1", "message", "no disk"))
	}
	top, replies := w.messages()
	if len(top) != 1 || len(replies) != 1 || replies[0].ThreadTS != top[0].TS {
		t.Fatalf("Slack shows %+v and replies %+v", top, replies)
	}
	if s := w.state("d1"); s != ledger.Failed {
		t.Errorf("the promotion is %s", s)
	}
	// A job that is retried by hand may still succeed.
	w.ok(w.report("status", "success", "repository", "acme/api", "delivery_id", "d1"))
	if s := w.state("d1"); s != ledger.Promoted {
		t.Errorf("the promotion is %s", s)
	}
}

func TestAReportOfAnotherDigestChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "acme/api", "acme/api", digestA)
	a := w.report("status", "failure", "repository", "acme/api", "delivery_id", "d1", "digest", digestB)
	if a.status != 200 || len(w.slack.Messages()) != 0 || w.state("d1") != ledger.Triggered {
		t.Errorf("got %d %v; the promotion is %s", a.status, a.body, w.state("d1"))
	}
}

// Of a glob, each repository has a project of its own.
func TestAProjectReportsForItsOwnRepositoryOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"ROUTES": `{"acme/*": {"gitlab": {"project": "Acme/images/{name}"}, "slack": {"channel": "C0IMAGES"}}}`})
	w.promotion("d1", "acme/api", "acme/*", digestA)
	sibling := w.idToken(func(c *gitlabtest.Claims) { c.Project = "acme/images/web" })
	for _, repository := range []string{"", "acme/api", "acme/web"} {
		pairs := []string{"status", "success", "delivery_id", "d1"}
		if repository != "" {
			pairs = append(pairs, "repository", repository)
		}
		if got := w.post(sibling, form(pairs...)); got.status != http.StatusForbidden {
			t.Errorf("repository %q: got %d %v", repository, got.status, got.body)
		}
	}
	if got := w.state("d1"); got != ledger.Triggered {
		t.Errorf("it is %s", got)
	}
	// GitLab writes its path in another way than the route does.
	w.ok(w.post(w.idToken(nil), form("status", "success", "delivery_id", "d1")))
}

func TestAPromotionOutlivesItsRoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "acme/api", "acme/*", digestA) // while there was that glob
	w.ok(w.post(w.idToken(nil), form("status", "success", "repository", "acme/api", "delivery_id", "d1")))
	if got := w.state("d1"); got != ledger.Promoted {
		t.Errorf("it is %s", got)
	}
}

func TestAReportWithFieldsWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var form, object strings.Builder
	for i := range 9000 {
		fmt.Fprintf(&form, "%x&", i)
		fmt.Fprintf(&object, `"%x":1,`, i)
	}
	for _, body := range []string{form.String(), "{" + object.String()[:60000] + `":1}`} {
		if got := w.post(staticToken, body); got.status != http.StatusBadRequest || len(got.body["error"]) > 1000 {
			t.Errorf("got %d, %d bytes", got.status, len(got.body["error"]))
		}
	}
}

func TestADeliveryOfAnotherRepositoryIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "other/x", "other/*", digestA)
	for _, body := range []string{
		form("status", "success", "repository", "acme/api", "delivery_id", "d1"),
		form("status", "success", "delivery_id", "d1"),
	} {
		if a := w.post(w.idToken(nil), body); a.status != 403 {
			t.Errorf("got %d %v", a.status, a.body)
		}
	}
	if s := w.state("d1"); s != ledger.Triggered {
		t.Errorf("the promotion is %s", s)
	}
}

func TestReportsAtOnceMakeOneMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "acme/api", "acme/api", digestA)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			status := []string{"running", "success"}[i%2]
			w.ok(w.report("status", status, "repository", "acme/api", "delivery_id", "d1"))
		})
	}
	wg.Wait()
	top, _ := w.messages()
	if len(top) != 1 {
		t.Fatalf("Slack shows %d messages", len(top))
	}
	p, err := w.ledger.Get(t.Context(), "d1")
	if err != nil || p.Message.Tells != ledger.Promoted {
		t.Errorf("the message tells %+v", p.Message)
	}
}

func TestWhatSlackRefusedIsToldByTheNextReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "acme/api", "acme/api", digestA)
	w.slack.Fail(slacktest.Failure{Status: 503})
	if a := w.report("status", "success", "repository", "acme/api", "delivery_id", "d1"); a.status != 503 {
		t.Fatalf("got %d", a.status)
	}
	w.ok(w.report("status", "success", "repository", "acme/api", "delivery_id", "d1"))
	if top, _ := w.messages(); len(top) != 1 {
		t.Errorf("Slack shows %d messages", len(top))
	}
}

func TestAnUpdateThatFailsPostsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "acme/api", "acme/api", digestA)
	first := w.ok(w.report("status", "running", "repository", "acme/api", "delivery_id", "d1"))
	for _, f := range []slacktest.Failure{{Status: 503}, {Code: "is_archived"}} {
		w.slack.Fail(f)
		if a := w.report("status", "success", "repository", "acme/api", "delivery_id", "d1"); a.status < 500 {
			t.Errorf("got %d", a.status)
		}
	}
	again := w.ok(w.report("status", "success", "repository", "acme/api", "delivery_id", "d1"))
	if top, _ := w.messages(); len(top) != 1 || again.ts != first.ts {
		t.Errorf("Slack shows %+v", top)
	}
}

func TestAReplyThatFailsIsMadeUpFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "acme/api", "acme/api", digestA)
	w.slack.OnMessage(func(m slacktest.Message) {
		if m.ThreadTS == "" && len(w.slack.Calls()) == 1 {
			w.slack.Fail(slacktest.Failure{Status: 503}) // the reply to come
		}
	})
	if a := w.report("status", "failure", "repository", "acme/api", "delivery_id", "d1"); a.status != 503 {
		t.Fatalf("got %d", a.status)
	}
	w.ok(w.report("status", "failure", "repository", "acme/api", "delivery_id", "d1"))
	if top, replies := w.messages(); len(top) != 1 || len(replies) != 1 {
		t.Errorf("Slack shows %+v and replies %+v", top, replies)
	}
}

func TestAMessageThatWasDeletedIsPostedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "acme/api", "acme/api", digestA)
	first := w.ok(w.report("status", "running", "repository", "acme/api", "delivery_id", "d1"))
	w.slack.Fail(slacktest.Failure{Code: "message_not_found"})
	second := w.ok(w.report("status", "success", "repository", "acme/api", "delivery_id", "d1"))
	if first.ts == second.ts {
		t.Error("the message is where it was")
	}
}

func TestCallersMayKeepTheirMessage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, ledger, delivery string }{
		{"without a ledger", "", "d1"},
		{"without a delivery", "memory:kept", ""},
		{"with a delivery that nobody knows", "memory:kept", "d-unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"LEDGER": c.ledger})
			pairs := []string{"repository", "acme/api", "tag", "1.4.0"}
			if c.delivery != "" {
				pairs = append(pairs, "delivery_id", c.delivery)
			}
			first := w.ok(w.report(append(pairs, "status", "running")...))
			second := w.ok(w.report(append(pairs, "status", "failure", "ts", first.ts)...))
			top, replies := w.messages()
			if first.ts != second.ts || len(top) != 1 || len(replies) != 1 || top[0].Edits != 1 {
				t.Errorf("Slack shows %+v and replies %+v", top, replies)
			}
		})
	}
}

func TestAReleaseSaysNothingOfThePromotion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.promotion("d1", "acme/api", "acme/api", digestA)
	w.ok(w.report("status", "success", "event", "release", "version", "2.0.0", "repository", "acme/api", "delivery_id", "d1"))
	if s := w.state("d1"); s != ledger.Triggered {
		t.Errorf("the promotion is %s", s)
	}
	if top, _ := w.messages(); len(top) != 1 || !strings.Contains(top[0].Text, "2.0.0") {
		t.Errorf("Slack shows %+v", top)
	}
}

func TestLanguage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"LANGUAGE": "ja"})
	w.ok(w.report("status", "success", "repository", "acme/api", "tag", "1.4.0"))
	text := w.slack.Messages()[0].Text
	if !strings.ContainsFunc(text, func(r rune) bool { return r >= 'ぁ' && r <= 'ヿ' }) {
		t.Errorf("Slack shows %q", text)
	}
}

func TestEverySettingIsChecked(t *testing.T) {
	t.Parallel()
	_, err := notify.FromEnv(t.Context(), func(name string) string {
		return map[string]string{
			"ROUTES": "[]", "SLACK_API_URL": "slack", "LANGUAGE": "fr", "NOTIFY_TOKENS": "canary", "OIDC_ISSUER": "gitlab", "LEDGER": "redis:",
		}[name]
	})
	for _, want := range []string{"ROUTES: ", "SLACK_BOT_TOKEN: is required", "SLACK_API_URL: ", "LANGUAGE: ", "NOTIFY_TOKENS: line 1", "OIDC_ISSUER: ", "LEDGER: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	if strings.Contains(fmt.Sprint(err), "canary") {
		t.Errorf("a secret shows in %v", err)
	}
	_, err = notify.FromEnv(t.Context(), func(string) string { return "" })
	for _, want := range []string{"ROUTES: is required", "SLACK_BOT_TOKEN: is required", "OIDC_AUDIENCE: or NOTIFY_TOKENS is required"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}
