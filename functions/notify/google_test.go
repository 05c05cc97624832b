package notify_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

const (
	pushAudience = "https://notify.example/dead-letter"
	pushAccount  = "hubrelay-push@p.iam.gserviceaccount.com"
)

// withGoogle is Notify with an issuer that stands in for Google's: the fake
// GitLab's, for the protocol is the same.
func withGoogle(t *testing.T, change map[string]string) *world {
	t.Helper()
	issuer := httptest.NewUnstartedServer(nil)
	url := "http://" + issuer.Listener.Addr().String()
	google := gitlabtest.New(url)
	issuer.Config.Handler = google
	issuer.Start()
	t.Cleanup(issuer.Close)
	settings := map[string]string{
		"PUSH_ISSUER": url, "PUSH_AUDIENCE": pushAudience, "PUSH_SERVICE_ACCOUNT": pushAccount, "DEFAULT_CHANNEL": "C0DEFAULT",
	}
	for name, value := range change {
		settings[name] = value
	}
	w := newWorld(t, settings)
	w.slack.AddChannel("C0DEFAULT", "hubrelay")
	w.google = google
	return w
}

// googleToken is what Pub/Sub and the scheduler show.
func (w *world) googleToken(claims map[string]any) string {
	w.t.Helper()
	all := map[string]any{"email": pushAccount, "email_verified": true}
	for name, value := range claims {
		all[name] = value
	}
	token, err := w.google.IDToken(gitlabtest.Claims{Project: "x/y", Audience: pushAudience, Extra: all})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func (w *world) call(path, token, body string) answer {
	w.t.Helper()
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	a := answer{status: rec.Code, header: rec.Header(), raw: rec.Body.String()}
	_ = json.Unmarshal(rec.Body.Bytes(), &a.body)
	a.channel, a.ts = a.body["channel"], a.body["ts"]
	return a
}

// deadLetter is the body of a push of one.
func deadLetter(messageID, data string, attributes map[string]string) string {
	body, err := json.Marshal(map[string]any{
		"message": map[string]any{
			"data": base64.StdEncoding.EncodeToString([]byte(data)), "attributes": attributes, "messageId": messageID,
			"publishTime": time.Now().UTC().Format(time.RFC3339Nano),
		},
		"subscription": "projects/p/subscriptions/hubrelay-dead-letters-notify",
	})
	if err != nil {
		panic(err)
	}
	return string(body)
}

func pushData(id, repository, tag string) string {
	return fmt.Sprintf(`{"id":%q,"repository":%q,"tag":%q,"received_at":"2026-11-22T10:00:00Z"}`, id, repository, tag)
}

// shownIn returns what Slack shows of all blocks of a message.
func shownIn(t *testing.T, m slacktest.Message) string {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), `\u200b`, "")
}

func TestADeadLetterIsToldOnce(t *testing.T) {
	t.Parallel()
	w := withGoogle(t, nil)
	refused := map[string]string{"id": "d1", "reason": "not_found", "hint": "Check the project path."}
	body := deadLetter("m1", pushData("d1", "acme/api", "1.4.0"), refused)
	first := w.ok(w.call("/dead-letter", w.googleToken(nil), body))
	for range 3 { // Pub/Sub delivers at least once; Trigger may have published twice
		if again := w.ok(w.call("/dead-letter", w.googleToken(nil), body)); again.ts != first.ts {
			t.Errorf("told again as %s", again.ts)
		}
	}
	top, replies := w.messages()
	if len(top) != 1 || len(replies) != 0 || top[0].Channel != channel {
		t.Fatalf("Slack shows %+v, %+v", top, replies)
	}
	shown := shownIn(t, top[0])
	for _, want := range []string{
		"acme/api:1.4.0", "not_found", "Check the project path.",
		"replay -subscription projects/p/subscriptions/hubrelay-dead-letters -match acme/api:1.4.0 -apply",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in %s", want, shown)
		}
	}
	if got := w.state("d1"); got != ledger.Failed {
		t.Errorf("the promotion is %s", got)
	}
}

func TestWhatPubSubGaveUp(t *testing.T) {
	t.Parallel()
	w := withGoogle(t, nil)
	push := ledger.Push{ID: "d1", Route: "acme/api", Repository: "acme/api", Tag: "1.4.0"}
	if err := w.ledger.PutOff(t.Context(), push, "not_in_registry"); err != nil {
		t.Fatal(err)
	}
	// It was replayed: the reason is of its earlier life.
	w.ok(w.call("/dead-letter", w.googleToken(nil), deadLetter("m1", pushData("d1", "acme/api", "1.4.0"), map[string]string{
		"reason": "unauthorized", "replayed_at": "2026-11-22T10:00:00Z", "CloudPubSubDeadLetterSourceDeliveryCount": "20",
	})))
	top, _ := w.messages()
	shown := shownIn(t, top[0])
	for _, want := range []string{"gave up after 20 attempts", "not_in_registry"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in %s", want, shown)
		}
	}
	if strings.Contains(shown, "unauthorized") {
		t.Errorf("an old reason is in %s", shown)
	}
}

func TestOneMessageTellsOfDeathAndOfWhatFollows(t *testing.T) {
	t.Parallel()
	w := withGoogle(t, nil)
	die := func(message string) answer {
		return w.ok(w.call("/dead-letter", w.googleToken(nil),
			deadLetter(message, pushData("d1", "acme/api", "1.4.0"), map[string]string{"reason": "not_found", "hint": "Check it."})))
	}
	first := die("m1")
	time.Sleep(time.Millisecond)
	push := ledger.Push{ID: "d1", Route: "acme/api", Repository: "acme/api", Tag: "1.4.0", Replayed: true, QueuedAt: time.Now()}
	if _, err := w.ledger.Claim(t.Context(), push); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Millisecond)
	if again := die("m2"); again.ts != first.ts {
		t.Errorf("the second death has the message %s", again.ts)
	}
	top, replies := w.messages()
	if len(top) != 1 || len(replies) != 1 {
		t.Errorf("Slack shows %+v, %+v", top, replies)
	}
	push.QueuedAt = time.Now()
	claim, err := w.ledger.Claim(t.Context(), push)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.ledger.Triggered(t.Context(), claim, "https://gitlab.example/p/7"); err != nil {
		t.Fatal(err)
	}
	for _, status := range []string{"running", "success"} {
		if told := w.ok(w.report("status", status, "repository", "acme/api", "delivery_id", "d1")); told.ts != first.ts {
			t.Errorf("%s has the message %s", status, told.ts)
		}
	}
	top, _ = w.messages()
	if len(top) != 1 || strings.Contains(shownIn(t, top[0]), "replay") || !strings.Contains(top[0].Text, "signed") {
		t.Errorf("Slack shows %+v", top)
	}
	die("m3") // late: it is promoted
	if got := w.state("d1"); got != ledger.Promoted {
		t.Errorf("the promotion is %s", got)
	}
}

func TestWhereDeadLettersGo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, data string
		change     map[string]string
		status     int
		channel    string
		says       string
	}{
		{"to the route's channel", pushData("d1", "other/x", "1"), nil, 200, "C0OTHER", "other/x:1"},
		{"without a route to the default", pushData("d1", "nobody/x", "1"), nil, 200, "C0DEFAULT", "nobody/x:1"},
		{"without a default nowhere: Pub/Sub keeps it", pushData("d1", "nobody/x", "1"), map[string]string{"DEFAULT_CHANNEL": ""}, 404, "", "DEFAULT_CHANNEL"},
		{"malformed", `{"id":`, nil, 200, "C0DEFAULT", "not a push"},
		{"without a ledger", pushData("d1", "acme/api", "1"), map[string]string{"LEDGER": ""}, 200, channel, "not_found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := withGoogle(t, c.change)
			w.slack.AddChannel("C0OTHER", "other")
			got := w.call("/dead-letter", w.googleToken(nil), deadLetter("m1", c.data, map[string]string{"reason": "not_found"}))
			if got.status != c.status || got.channel != c.channel {
				t.Fatalf("got %d %s", got.status, got.raw)
			}
			said := got.raw
			if top, _ := w.messages(); len(top) == 1 {
				said += shownIn(t, top[0])
			}
			if !strings.Contains(said, c.says) {
				t.Errorf("%q is not in %s", c.says, said)
			}
		})
	}
}

func TestOnlyGoogleCallsTheseDoors(t *testing.T) {
	t.Parallel()
	w := withGoogle(t, nil)
	body := deadLetter("m1", pushData("d1", "acme/api", "1.4.0"), nil)
	for _, path := range []string{"/dead-letter", "/silent"} {
		for name, token := range map[string]string{
			"no token":             "",
			"a token of reporters": staticToken,
			"GitLab's":             w.idToken(nil),
			"another audience":     w.googleToken(map[string]any{"aud": "https://other.example"}),
			"another account":      w.googleToken(map[string]any{"email": "evil@p.iam.gserviceaccount.com"}),
			"no account":           w.googleToken(map[string]any{"email": nil}),
			"not verified":         w.googleToken(map[string]any{"email_verified": false}),
			"out of date":          w.googleToken(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		} {
			if got := w.call(path, token, body); got.status != http.StatusUnauthorized {
				t.Errorf("%s lets %s in: %d %s", path, name, got.status, got.raw)
			}
		}
		if got := newWorld(t, nil).call(path, "x.y.z", body); got.status != http.StatusNotFound || !strings.Contains(got.raw, "PUSH_AUDIENCE") {
			t.Errorf("%s is open where it is not set up: %d %s", path, got.status, got.raw)
		}
	}
	if top, _ := w.messages(); len(top) != 0 {
		t.Errorf("Slack shows %+v", top)
	}
	if got := w.call("/dead-letter", w.googleToken(nil), `{}`); got.status != http.StatusBadRequest {
		t.Errorf("no message: %d %s", got.status, got.raw)
	}
}

func TestSlackIsAwayForADeadLetter(t *testing.T) {
	t.Parallel()
	w := withGoogle(t, nil)
	body := deadLetter("m1", pushData("d1", "acme/api", "1.4.0"), map[string]string{"reason": "not_found"})
	w.slack.Fail(slacktest.Failure{Status: 500})
	if got := w.call("/dead-letter", w.googleToken(nil), body); got.status != http.StatusServiceUnavailable {
		t.Fatalf("got %d %s", got.status, got.raw)
	}
	w.ok(w.call("/dead-letter", w.googleToken(nil), body))
	if top, _ := w.messages(); len(top) != 1 {
		t.Errorf("Slack shows %+v", top)
	}
}

// anyToken takes every token for one of pushAccount.
type anyToken struct{}

func (anyToken) Verify(_ context.Context, _ string, claims any) error {
	return json.Unmarshal([]byte(`{"email":"`+pushAccount+`","email_verified":true}`), claims)
}

func TestSilentPromotionsAreToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table, err := route.Parse(routes)
		if err != nil {
			t.Fatal(err)
		}
		l, say, log := ledger.NewMemory(), &poster{}, &bytes.Buffer{}
		h := notify.New(notify.Notify{
			Routes: table, Promotions: l, Slack: say, PushTokens: anyToken{}, PushAccount: pushAccount, SilentAfter: time.Hour,
		}, gcplog.New(log, "p"))
		look := func(status int, body string) {
			t.Helper()
			r := httptest.NewRequest("POST", "/silent", nil)
			r.Header.Set("Authorization", "Bearer x")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != status || !strings.Contains(w.Body.String(), body) {
				t.Errorf("got %d %s, want %d %s", w.Code, w.Body, status, body)
			}
		}
		start := func(id, tag string) {
			c, err := l.Claim(t.Context(), ledger.Push{ID: id, Route: "acme/api", Repository: "acme/api", Tag: tag, Digest: digestA})
			if err == nil {
				err = l.Triggered(t.Context(), c, "https://gitlab.example/p/7")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		start("d1", "1")
		start("d2", "2")
		look(200, `{"told":0}`)
		time.Sleep(time.Hour)
		if _, err := l.Report(t.Context(), ledger.Report{ID: "d2", State: ledger.Running}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		say.err = &slack.Error{Code: "ratelimited", Status: 429}
		look(503, "Slack")
		say.err = nil
		look(200, `{"told":1}`)
		look(200, `{"told":0}`)
		if p, _ := l.Get(t.Context(), "d1"); p.State != ledger.Triggered || p.Message.Tells != ledger.Silent {
			t.Errorf("the promotion is %+v", p)
		}
		time.Sleep(time.Hour)
		look(200, `{"told":1}`) // d2 fell silent, too
		telling, err := l.Report(t.Context(), ledger.Report{ID: "d1", State: ledger.Running})
		if err == nil {
			err = l.Told(t.Context(), telling, ledger.Message{Channel: "C1", TS: "1.1", Tells: ledger.Running})
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		look(200, `{"told":1}`) // d1 was heard of, and fell silent again
		if say.posts != 2 || say.updates != 1 || say.replies != 1 {
			t.Errorf("Slack has %+v", say)
		}
	})
}
