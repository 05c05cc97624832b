package notify_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

const (
	digestA      = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB      = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	botToken     = "xoxb-canary-bot"
	staticToken  = "canary-static-0123456789"
	audience     = "https://notify.example"
	channel      = "C0IMAGES"
	pushAudience = "https://notify.example/push"
	pushAccount  = "hubrelay-push@p.iam.gserviceaccount.com"
	subscription = "projects/p/subscriptions/hubrelay-dead-letters-notify"
)

const routes = `{
  "acme/api": {"gitlab": {"project": "acme/images/api"}, "slack": {"channel": "C0IMAGES", "mention": "@here"}},
  "acme/quiet": {"gitlab": {"project": "acme/images/quiet"}, "slack": {"channel": "C0IMAGES", "tell": "failures"}},
  "acme/each": {"gitlab": {"project": "acme/images/each"}, "once_per": "delivery", "slack": {"channel": "C0IMAGES"}},
  "acme/lib-*": {"gitlab": {"project": "acme/images/lib"}, "slack": {"channel": "C0IMAGES"}},
  "acme/tool-*": {"gitlab": {"project": "acme/images/lib"}, "slack": {"channel": "C0IMAGES"}},
  "other/*": {"gitlab": {"project": "other/images/{name}"}, "slack": {"channel": "C0OTHER"}}
}`

// world is Notify with everything around it.
type world struct {
	t       *testing.T
	ledger  *ledger.Ledger
	handler http.Handler
	log     lockedBuffer

	// Of a world over HTTP.
	gitlab, google *gitlabtest.Server // of the second only its issuer
	server         *slacktest.Server

	// Of a world in a bubble.
	slack    *poster
	settings notify.Notify
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

// overHTTP is Notify as it is wired from its settings, with fakes of Slack,
// GitLab and Google.
func overHTTP(t *testing.T, change map[string]string) *world {
	t.Helper()
	w := &world{t: t, server: slacktest.New(botToken)}
	for id, name := range map[string]string{channel: "images", "C0OTHER": "other", "C0DEFAULT": "hubrelay"} {
		w.server.AddChannel(id, name)
	}
	slackServer := httptest.NewServer(w.server)
	t.Cleanup(slackServer.Close)
	issuer := func() (*gitlabtest.Server, string) {
		s := httptest.NewUnstartedServer(nil)
		url := "http://" + s.Listener.Addr().String()
		fake := gitlabtest.New(url)
		s.Config.Handler = fake
		s.Start()
		t.Cleanup(s.Close)
		return fake, url
	}
	var gitlabURL, googleURL string
	w.gitlab, gitlabURL = issuer()
	w.google, googleURL = issuer()
	settings := map[string]string{
		"ROUTES": routes, "SLACK_BOT_TOKEN": botToken, "SLACK_API_URL": slackServer.URL + "/api/", "DEFAULT_CHANNEL": "C0DEFAULT",
		"NOTIFY_TOKENS": staticToken, "OIDC_ISSUER": gitlabURL, "OIDC_AUDIENCE": audience, "LEDGER": "memory:" + gitlabURL,
		"PUSH_ISSUER": googleURL, "PUSH_AUDIENCE": pushAudience, "PUSH_SERVICE_ACCOUNT": pushAccount,
	}
	maps.Copy(settings, change)
	var err error
	if w.ledger, err = ledger.Open(settings["LEDGER"]); err != nil {
		t.Fatal(err)
	}
	w.handler, err = notify.FromEnv(gcplog.NewContext(t.Context(), gcplog.New(&w.log, "p")), func(name string) string { return settings[name] })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// inABubble is a test in virtual time, with a Slack that is no server.
func inABubble(t *testing.T, test func(*world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens, err := auth.ParseTokens(staticToken)
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, ledger: ledger.New(ledger.NewMemory()), slack: &poster{}}
		w.settings = notify.Notify{
			Tokens: tokens, IDTokens: plainTokens{}, Promotions: w.ledger, Slack: w.slack, Language: slack.En,
			PushTokens: plainTokens{}, PushAccount: pushAccount, DefaultChannel: "C0DEFAULT", SilentAfter: time.Hour,
		}
		w.routes(routes)
		test(w)
	})
}

// routes restarts Notify with other routes.
func (w *world) routes(text string) {
	w.t.Helper()
	table, err := route.Parse(text)
	if err != nil {
		w.t.Fatal(err)
	}
	w.settings.Routes = table
	w.restart()
}

func (w *world) restart() { w.handler = notify.New(w.settings, gcplog.New(&w.log, "p")) }

// plainTokens accepts tokens that are the JSON of their claims.
type plainTokens struct{}

func (plainTokens) Verify(_ context.Context, token string, claims any) error {
	if json.Unmarshal([]byte(token), claims) != nil {
		return auth.ErrInvalid
	}
	return nil
}

// pipeline is the id token of a job, in a bubble.
type pipeline struct{ project, path, id, source, ref string }

func (p pipeline) token() string {
	token, err := json.Marshal(map[string]string{
		"project_id": cmp.Or(p.project, "42"), "project_path": cmp.Or(p.path, "acme/images/api"), "pipeline_id": cmp.Or(p.id, "7"),
		"pipeline_source": cmp.Or(p.source, "trigger"), "ref_protected": cmp.Or(p.ref, "true"),
	})
	if err != nil {
		panic(err)
	}
	return string(token)
}

const googleToken = `{"email":"` + pushAccount + `","email_verified":true}`

// said is a message in Slack, as it was last posted or updated.
type said struct {
	channel, ts, thread string
	slack.Message
	at time.Time
}

// poster is a Slack that accepts everything, unless an error is set.
type poster struct {
	mu       sync.Mutex
	messages []said
	calls    []said           // all that were made
	err      error            // of every call
	errs     []error          // of the next calls, one each; nil is none
	refuses  map[string]error // by channel
	limited  bool             // one message a second and channel
	takes    time.Duration    // each call
	refused  int              // for the limit
}

func (p *poster) call(channel, ts, thread string, m slack.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.takes > 0 {
		p.mu.Unlock()
		time.Sleep(p.takes)
		p.mu.Lock()
	}
	last := time.Time{}
	for _, c := range p.calls {
		if c.channel == channel {
			last = c.at
		}
	}
	p.calls = append(p.calls, said{channel, ts, thread, m, time.Now()})
	switch {
	case len(p.errs) > 0:
		err := p.errs[0]
		p.errs = p.errs[1:]
		if err != nil {
			return err
		}
	case p.err != nil:
		return p.err
	}
	if err := p.refuses[channel]; err != nil {
		return err
	}
	if p.limited && !last.IsZero() && time.Since(last) < time.Second {
		p.refused++
		return &slack.Error{Code: "ratelimited", Status: 429, RetryAfter: time.Second}
	}
	return nil
}

func (p *poster) Post(_ context.Context, channel string, m slack.Message) (slack.Ref, error) {
	if err := p.call(channel, "", "", m); err != nil {
		return slack.Ref{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ts := fmt.Sprintf("%d.0", len(p.messages)+1)
	p.messages = append(p.messages, said{channel, ts, "", m, time.Now()})
	return slack.Ref{Channel: channel, TS: ts}, nil
}

func (p *poster) Update(_ context.Context, r slack.Ref, m slack.Message) (slack.Ref, error) {
	if err := p.call(r.Channel, r.TS, "", m); err != nil {
		return slack.Ref{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.messages, func(s said) bool { return s.channel == r.Channel && s.ts == r.TS && s.thread == "" })
	if i < 0 {
		return slack.Ref{}, &slack.Error{Code: "message_not_found", Status: 200}
	}
	p.messages[i].Message = m
	return r, nil
}

func (p *poster) Reply(_ context.Context, r slack.Ref, m slack.Message) error {
	if err := p.call(r.Channel, "", r.TS, m); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.ContainsFunc(p.messages, func(s said) bool { return s.channel == r.Channel && s.ts == r.TS && s.thread == "" }) {
		return &slack.Error{Code: "thread_not_found", Status: 200}
	}
	p.messages = append(p.messages, said{r.Channel, fmt.Sprintf("%d.1", len(p.messages)+1), r.TS, m, time.Now()})
	return nil
}

// shown are the messages, and the replies.
func (p *poster) shown() (top, replies []said) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.messages {
		if m.thread == "" {
			top = append(top, m)
		} else {
			replies = append(replies, m)
		}
	}
	return top, replies
}

// shows expects a number of messages and replies, and returns them.
func (w *world) shows(messages, replies int) (top, answers []said) {
	w.t.Helper()
	top, answers = w.slack.shown()
	if len(top) != messages || len(answers) != replies {
		for _, m := range append(top, answers...) {
			w.t.Logf("%s %s %s: %s %s:%s %s %s", m.channel, m.ts, m.thread, m.Status, m.Repository, m.Tag, m.Reason, m.Text)
		}
		w.t.Fatalf("Slack shows %d messages and %d replies, want %d and %d", len(top), len(answers), messages, replies)
	}
	return top, answers
}

type answer struct {
	t           *testing.T
	status      int
	header      http.Header
	raw         string
	body        map[string]any
	channel, ts string
}

func (w *world) do(r *http.Request) answer {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	a := answer{t: w.t, status: rec.Code, header: rec.Header(), raw: rec.Body.String()}
	if r.URL.Path != "/ready" {
		if err := json.Unmarshal(rec.Body.Bytes(), &a.body); err != nil {
			w.t.Fatalf("the answer is not JSON: %d %s", rec.Code, rec.Body)
		}
	}
	if said := a.raw + w.log.String(); strings.Contains(said, "canary") {
		w.t.Errorf("a secret shows in %s", said)
	}
	a.channel, _ = a.body["channel"].(string)
	a.ts, _ = a.body["ts"].(string)
	return a
}

func (w *world) call(path, token, body string) answer {
	w.t.Helper()
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return w.do(r)
}

// report posts a form with the shared token; pairs are keys and values.
func (w *world) report(pairs ...string) answer {
	w.t.Helper()
	return w.call("/", staticToken, form(pairs...))
}

// from posts a form as a job.
func (w *world) from(p pipeline, pairs ...string) answer {
	w.t.Helper()
	return w.call("/", p.token(), form(pairs...))
}

func form(pairs ...string) string {
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		values.Set(pairs[i], pairs[i+1])
	}
	return values.Encode()
}

// is expects a status, and words in the answer.
func (a answer) is(status int, words ...string) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("got %d %s, want %d", a.status, a.raw, status)
	}
	for _, want := range words {
		if !strings.Contains(a.raw, want) {
			a.t.Errorf("%q is not in %s", want, a.raw)
		}
	}
	if status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
		a.t.Error("there is no Retry-After")
	}
	return a
}

// ok expects that it is recorded and shown.
func (a answer) ok() answer {
	a.t.Helper()
	if a.is(200); a.channel == "" || a.ts == "" {
		a.t.Fatalf("got %d %s", a.status, a.raw)
	}
	return a
}

// push is the message of a webhook that was sent now.
func push(id string) ledger.Message {
	now := time.Now()
	time.Sleep(time.Millisecond)
	return ledger.Message{ID: id, QueuedAt: now, PushedAt: now, ReceivedAt: now}
}

func key(repository, tag string) ledger.Key { return ledger.Key{Repository: repository, Tag: tag} }

// look is what Trigger does with a message.
func (w *world) look(k ledger.Key, l ledger.Look) ledger.Decision {
	w.t.Helper()
	l.NewID, l.Lease, l.Route = ledger.NewID(), time.Minute, k.Repository
	s, err := w.ledger.Read(context.Background(), k)
	if err != nil {
		w.t.Fatal(err)
	}
	d, err := s.Settle(context.Background(), l)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// claim creates a promotion that is being started.
func (w *world) claim(k ledger.Key, m ledger.Message, digest string) ledger.Claim {
	w.t.Helper()
	d := w.look(k, ledger.Look{Message: m, Digest: digest})
	if d.Verdict != ledger.Start {
		w.t.Fatalf("the verdict is %d", d.Verdict)
	}
	return d.Claim
}

func (w *world) answered(c ledger.Claim, a ledger.Answer) {
	w.t.Helper()
	if err := w.ledger.Answered(context.Background(), c, a); err != nil {
		w.t.Fatal(err)
	}
}

// triggered creates a promotion whose pipeline is known, and returns its ID.
func (w *world) triggered(repository, tag string, pipeline int64) string {
	w.t.Helper()
	c := w.claim(key(repository, tag), push("d1"), digestA)
	w.answered(c, ledger.Answer{Created: true, Pipeline: ledger.Pipeline{ProjectID: 42, ID: pipeline, URL: "https://gitlab.example/p/7"}})
	return c.ID
}

// waits creates a promotion that waits for the registry, and returns its ID.
func (w *world) waits(k ledger.Key, m ledger.Message, reason string) string {
	w.t.Helper()
	w.look(k, ledger.Look{Message: m, Reason: reason, Hint: "Fix " + reason + "."})
	p, err := w.ledger.Current(context.Background(), k)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.ID
}

func (w *world) get(id string) ledger.Promotion {
	w.t.Helper()
	p, err := w.ledger.Get(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// state expects a promotion's state.
func (w *world) state(id string, want ledger.State) ledger.Promotion {
	w.t.Helper()
	p := w.get(id)
	if p.State != want {
		w.t.Fatalf("the promotion is %s %s, want %s", p.State, p.Reason, want)
	}
	return p
}

// tick is a call of the clock.
func (w *world) tick() answer {
	w.t.Helper()
	return w.call("/tick", googleToken, "").is(200)
}

// ticks makes the clock tick every minute for a time.
func (w *world) ticks(d time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		next := time.Now().Add(time.Minute)
		w.tick()
		time.Sleep(time.Until(next))
	}
}

// letter is the body of a push of a dead letter, of the message as Trigger
// would publish it.
func letter(m ledger.Message, repository, tag string, attributes map[string]string) string {
	data, err := json.Marshal(map[string]any{
		"id": m.ID, "repository": repository, "tag": tag, "pushed_at": m.PushedAt, "received_at": m.ReceivedAt,
	})
	if err != nil {
		panic(err)
	}
	all := map[string]string{"id": m.ID, "repository": repository, "tag": tag, "source": "webhook", "queued_at": m.QueuedAt.Format(time.RFC3339Nano)}
	maps.Copy(all, attributes)
	return rawLetter("l-"+m.ID, string(data), all)
}

// givenUp is the body for a message that Pub/Sub gave up.
func givenUp(m ledger.Message, repository, tag string) string {
	attributes := map[string]string{
		"CloudPubSubDeadLetterSourceDeliveryCount": "50", "CloudPubSubDeadLetterSourceSubscription": "hubrelay-push",
		"CloudPubSubDeadLetterSourceTopicPublishTime": m.QueuedAt.UTC().Format("2006-01-02T15:04:05.000+00:00"),
	}
	if !m.ReplayedAt.IsZero() {
		attributes["replayed_at"] = m.ReplayedAt.UTC().Format(time.RFC3339)
	}
	body := letter(m, repository, tag, attributes)
	return body
}

func rawLetter(messageID, data string, attributes map[string]string) string {
	body, err := json.Marshal(map[string]any{
		"message": map[string]any{
			"data": base64.StdEncoding.EncodeToString([]byte(data)), "attributes": attributes, "messageId": messageID,
			"publishTime": time.Now().UTC().Format(time.RFC3339Nano),
		},
		"subscription": subscription,
	})
	if err != nil {
		panic(err)
	}
	return string(body)
}

// dies is a call of Pub/Sub with a dead letter.
func (w *world) dies(body string) answer {
	w.t.Helper()
	return w.call("/dead-letter", googleToken, body)
}
