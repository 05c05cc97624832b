package trigger_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

const routes = `{
  "acme/api": {
    "gitlab": {"project": "acme/images/api"},
    "tags": {"exclude": ["*-rc*"]},
    "slack": {"channel": "C1"},
    "inputs": {"severity": "low"}
  },
  "acme/each": {"gitlab": {"project": "acme/images/each", "pass": "variables"}, "once_per": "delivery", "slack": {"channel": "C1"}}
}`

// Refusals of GitLab and the registry.
var (
	away      = &gitlab.Error{Status: 500, Reason: gitlab.Unavailable, Hint: "Check whether GitLab is up."}
	lost      = &gitlab.Error{Reason: gitlab.Unavailable, Lost: true}
	never     = &gitlab.Error{Status: 404, Reason: gitlab.NotFound, Hint: "Check the token.", Message: "404 Project Not Found"}
	unknown   = &gitlab.Error{Status: 400, Reason: gitlab.Rejected, Hint: "Fix it.", Message: "Flux is low", Unrecognized: true}
	notThere  = &registry.Error{Status: 404, Reason: registry.NotInRegistry}
	forbidden = &registry.Error{Status: 401, Reason: registry.Denied, Hint: "Set REGISTRY_AUTH."}
)

// pipelines answers with its errors first, one each, and then creates.
type pipelines struct {
	mu       sync.Mutex
	errs     []error
	requests []gitlab.Request
	during   func(context.Context) // runs while the pipeline is created

	queries []gitlab.JobQuery
	job     *gitlab.Job // nil: there is none
	jobErr  error
}

func (p *pipelines) FindJob(_ context.Context, q gitlab.JobQuery) (gitlab.Job, bool, error) {
	p.queries = append(p.queries, q)
	if p.job == nil || p.jobErr != nil {
		return gitlab.Job{}, false, p.jobErr
	}
	return *p.job, true, nil
}

func (p *pipelines) CreatePipeline(ctx context.Context, r gitlab.Request) (gitlab.Pipeline, error) {
	p.mu.Lock()
	p.requests = append(p.requests, r)
	n, during := len(p.requests), p.during
	var err error
	if len(p.errs) > 0 {
		err, p.errs = p.errs[0], p.errs[1:]
	}
	p.mu.Unlock()
	if during != nil {
		during(ctx)
	}
	if err != nil {
		return gitlab.Pipeline{}, err
	}
	return gitlab.Pipeline{ID: int64(n), ProjectID: 42, URL: "https://gitlab.example/p/1"}, nil
}

// images has the digest of every tag.
type images struct {
	digest string
	err    error
	asked  int
	during func() // runs while the registry is asked
}

func (i *images) Digest(context.Context, string, string) (string, error) {
	i.asked++
	digest, err := i.digest, i.err // of when it was asked
	if i.during != nil {
		i.during()
	}
	if err != nil {
		return "", err
	}
	return digest, nil
}

// queue keeps what was published.
type queue struct {
	data       []string
	attributes []map[string]string
	err        error
	during     func() // runs while it publishes
}

func (q *queue) Publish(_ context.Context, data []byte, attributes map[string]string) (string, error) {
	if q.during != nil {
		q.during()
	}
	if q.err != nil {
		return "", q.err
	}
	q.data = append(q.data, string(data))
	q.attributes = append(q.attributes, attributes)
	return "m1", nil
}

// brokenLedger fails in the methods for which an error is set.
type brokenLedger struct {
	*ledger.Ledger
	read, answered, overdue, requeued error
}

func (l *brokenLedger) Read(ctx context.Context, key ledger.Key) (*ledger.Snapshot, error) {
	if l.read != nil {
		return nil, l.read
	}
	return l.Ledger.Read(ctx, key)
}

func (l *brokenLedger) Answered(ctx context.Context, c ledger.Claim, a ledger.Answer) error {
	if l.answered != nil {
		return l.answered
	}
	return l.Ledger.Answered(ctx, c, a)
}

func (l *brokenLedger) Overdue(ctx context.Context, limit int) ([]ledger.Tag, error) {
	if l.overdue != nil {
		return nil, l.overdue
	}
	return l.Ledger.Overdue(ctx, limit)
}

func (l *brokenLedger) Requeued(ctx context.Context, tag ledger.Tag) error {
	if l.requeued != nil {
		return l.requeued
	}
	return l.Ledger.Requeued(ctx, tag)
}

// store fails, or is slow, as its fields say.
type store struct {
	ledger.Store
	commit func() error
}

func (s *store) Commit(ctx context.Context, b ledger.Batch) error {
	if s.commit != nil {
		if err := s.commit(); err != nil {
			return err
		}
	}
	return s.Store.Commit(ctx, b)
}

// world is Trigger with everything around it.
type world struct {
	t           *testing.T
	pipelines   *pipelines
	images      *images
	store       *store
	ledger      *brokenLedger
	queue       *queue
	deadLetters *queue
	log         bytes.Buffer
	handler     http.Handler
	hub         *dockerHub     // nil: it is not asked
	apiTokens   trigger.Tokens // none: GitLab is not asked
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s := &store{Store: ledger.NewMemory()}
	w := &world{
		t: t, pipelines: &pipelines{}, images: &images{digest: digestA}, store: s,
		ledger: &brokenLedger{Ledger: ledger.New(s)}, queue: &queue{}, deadLetters: &queue{},
	}
	w.routes(routes)
	return w
}

// routes restarts Trigger with other routes.
func (w *world) routes(text string) {
	w.t.Helper()
	table, err := route.Parse(text)
	if err != nil {
		w.t.Fatal(err)
	}
	built := trigger.Trigger{
		Routes: table, APITokens: w.apiTokens,
		Tokens:     trigger.Tokens{"*": env.NewSecret("canary-default"), "acme/each": env.NewSecret("canary-each")},
		Promotions: w.ledger, Images: w.images, Pipelines: w.pipelines, Queue: w.queue, DeadLetters: w.deadLetters,
	}
	if w.hub != nil {
		built.Hub = w.hub
	}
	w.handler = trigger.New(built, gcplog.New(&w.log, "p"))
}

// message is one in Pub/Sub. Its times are of when it was made.
type message struct {
	id, repository, tag      string
	queued, pushed, received time.Time
	attempt                  int // 2 if it is 0
	attributes               map[string]string
}

// webhook is the message of a push that was made now, of acme/api:1.4.0 unless
// the test says otherwise.
func webhook(id string) message {
	now := time.Now()
	return message{id: id, repository: "acme/api", tag: "1.4.0", queued: now, pushed: now, received: now}
}

func (m message) of(repository, tag string) message {
	m.repository, m.tag = repository, tag
	return m
}

// replayed is the message as a person has queued it again, now.
func (m message) replayed() message {
	m.queued = time.Now()
	m.attributes = map[string]string{"replayed_at": time.Now().UTC().Format(time.RFC3339)}
	return m
}

func (m message) body(t *testing.T) string {
	t.Helper()
	fields := map[string]any{"id": m.id, "repository": m.repository, "tag": m.tag, "pusher": "someone", "received_at": m.received}
	if !m.pushed.IsZero() {
		fields["pushed_at"] = m.pushed
	}
	data, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	attributes := map[string]string{"id": m.id, "repository": m.repository, "tag": m.tag, "source": "webhook"}
	maps.Copy(attributes, m.attributes)
	push := map[string]any{"data": data, "messageId": "m-" + m.id, "attributes": attributes}
	if !m.queued.IsZero() {
		push["publishTime"] = m.queued
	}
	body, err := json.Marshal(map[string]any{"message": push, "deliveryAttempt": cmp.Or(m.attempt, 2)})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

type answer struct {
	t      *testing.T
	status int
	body   map[string]any
}

// deliver posts a message to Trigger.
func (w *world) deliver(m message) answer {
	w.t.Helper()
	return w.post("/", m.body(w.t))
}

func (w *world) post(path, body string) answer {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, httptest.NewRequest("POST", path, strings.NewReader(body)))
	got := answer{t: w.t, status: rec.Code}
	if err := json.Unmarshal(rec.Body.Bytes(), &got.body); err != nil {
		w.t.Fatalf("the answer is not JSON: %s", rec.Body)
	}
	if said := rec.Body.String() + w.log.String(); strings.Contains(said, "canary") {
		w.t.Errorf("a token shows in %s", said)
	}
	return got
}

// is expects an answer, and returns its promotion_id.
func (a answer) is(status int, outcome, reason string) (promotionID string) {
	a.t.Helper()
	got, _ := a.body["reason"].(string)
	if a.status != status || a.body["outcome"] != outcome || got != reason {
		a.t.Fatalf("got %d %v, want %d %s %s", a.status, a.body, status, outcome, reason)
	}
	promotionID, _ = a.body["promotion_id"].(string)
	return promotionID
}

// current is the newest promotion of acme/api:1.4.0.
func (w *world) current() ledger.Promotion {
	w.t.Helper()
	p, err := w.ledger.Current(w.t.Context(), ledger.Key{Repository: "acme/api", Tag: "1.4.0"})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// report is what a pipeline says to Notify.
func (w *world) report(id string, s ledger.State) {
	w.t.Helper()
	if _, err := w.ledger.Report(w.t.Context(), id, ledger.Report{State: s}, ledger.Outboxes{}); err != nil {
		w.t.Fatal(err)
	}
}

// asked expects a number of requests to create a pipeline, and of dead letters.
func (w *world) asked(requests, dead int) {
	w.t.Helper()
	if len(w.pipelines.requests) != requests || len(w.deadLetters.data) != dead {
		w.t.Errorf("%d requests and %d dead letters, want %d and %d", len(w.pipelines.requests), len(w.deadLetters.data), requests, dead)
	}
}

// inABubble is a test in virtual time.
func inABubble(t *testing.T, test func(*world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(newWorld(t)) })
}

func TestEveryRowOfTheTable(t *testing.T) {
	t.Parallel()
	if never.Temporary() || !away.Temporary() || !unknown.Temporary() {
		t.Fatal("the errors are not what this test takes them for")
	}
	errAway := errors.New("away")
	for _, c := range []struct {
		name            string
		prepare         func(*world)
		repository, tag string
		status          int
		outcome, reason string
		requests        int // to create a pipeline
		dead            int // letters
	}{
		{name: "pipeline created", status: 200, outcome: "triggered", requests: 1},
		{name: "no route for the repository", repository: "other/api", status: 200, outcome: "ignored", reason: "no_route"},
		{name: "the route's moving tag", tag: "latest", status: 200, outcome: "ignored", reason: "moving_tag"},
		{name: "an artifact tag", tag: "sha256-" + strings.Repeat("a", 64) + ".sig", status: 200, outcome: "ignored", reason: "artifact_tag"},
		{name: "an artifact tag without a suffix", tag: "sha256-" + strings.Repeat("a", 64), status: 200, outcome: "ignored", reason: "artifact_tag"},
		{name: "the route's tag rules refuse it", tag: "1.4.0-rc1", status: 200, outcome: "ignored", reason: "tag_rules"},
		{name: "the promotion is under way", prepare: func(w *world) {
			w.deliver(webhook("before"))
			w.pipelines.requests = nil
		}, status: 200, outcome: "ignored", reason: "duplicate"},
		{name: "the promotion is done", prepare: func(w *world) {
			w.report(w.deliver(webhook("before")).is(200, "triggered", ""), ledger.Promoted)
			w.pipelines.requests = nil
		}, status: 200, outcome: "ignored", reason: "duplicate"},
		{name: "the promotion failed, and this is a sibling", prepare: func(w *world) {
			w.report(w.deliver(webhook("before")).is(200, "triggered", ""), ledger.Failed)
			w.pipelines.requests = nil
		}, status: 200, outcome: "ignored", reason: "duplicate"},
		{name: "the promotion is being started elsewhere", prepare: func(w *world) {
			s, err := w.ledger.Ledger.Read(w.t.Context(), ledger.Key{Repository: "acme/api", Tag: "1.4.0"})
			if err == nil {
				_, err = s.Settle(w.t.Context(), ledger.Look{NewID: "x", Lease: time.Minute, Digest: digestA})
			}
			if err != nil {
				w.t.Fatal(err)
			}
		}, status: 503, outcome: "retry", reason: "in_progress"},
		{name: "GitLab says never", prepare: func(w *world) { w.pipelines.errs = []error{never} },
			status: 200, outcome: "dead", reason: "not_found", requests: 1, dead: 1},
		{name: "the image is not in the registry yet", prepare: func(w *world) { w.images.err = notThere },
			status: 503, outcome: "retry", reason: "not_in_registry"},
		{name: "the registry refuses", prepare: func(w *world) { w.images.err = forbidden },
			status: 503, outcome: "retry", reason: "registry_denied"},
		{name: "the registry limits", prepare: func(w *world) { w.images.err = &registry.Error{Status: 429, Reason: registry.RateLimited} },
			status: 503, outcome: "retry", reason: "registry_rate_limited"},
		{name: "the registry fails in a way of its own", prepare: func(w *world) { w.images.err = errors.New("x") },
			status: 503, outcome: "retry", reason: "registry_unavailable"},
		{name: "the ledger cannot be read", prepare: func(w *world) { w.ledger.read = errAway },
			status: 503, outcome: "retry", reason: "ledger_unavailable"},
		{name: "the ledger cannot be written", prepare: func(w *world) { w.store.commit = func() error { return errAway } },
			status: 503, outcome: "retry", reason: "ledger_unavailable"},
		{name: "GitLab fails", prepare: func(w *world) { w.pipelines.errs = []error{away} },
			status: 503, outcome: "retry", reason: "gitlab_unavailable", requests: 1},
		{name: "GitLab's answer is lost", prepare: func(w *world) { w.pipelines.errs = []error{lost} },
			status: 503, outcome: "retry", reason: "gitlab_unavailable", requests: 1},
		{name: "GitLab limits", prepare: func(w *world) { w.pipelines.errs = []error{&gitlab.Error{Status: 429, Reason: gitlab.RateLimited}} },
			status: 503, outcome: "retry", reason: "gitlab_rate_limited", requests: 1},
		{name: "GitLab is out of capacity", prepare: func(w *world) { w.pipelines.errs = []error{&gitlab.Error{Status: 400, Reason: gitlab.Capacity}} },
			status: 503, outcome: "retry", reason: "gitlab_capacity", requests: 1},
		{name: "GitLab refuses in words that are not known", prepare: func(w *world) { w.pipelines.errs = []error{unknown} },
			status: 503, outcome: "retry", reason: "rejected", requests: 1},
		{name: "GitLab fails in a way of its own", prepare: func(w *world) { w.pipelines.errs = []error{io.ErrUnexpectedEOF} },
			status: 503, outcome: "retry", reason: "gitlab_unavailable", requests: 1},
		{name: "the dead-letter topic refuses", prepare: func(w *world) {
			w.pipelines.errs = []error{never}
			w.deadLetters.err = errAway
		}, status: 503, outcome: "retry", reason: "dead_letter_unavailable", requests: 1},
		{name: "the pipeline is created and the ledger cannot be told", prepare: func(w *world) { w.ledger.answered = errAway },
			status: 200, outcome: "triggered", requests: 1},
		{name: "it is dead and the ledger cannot be told", prepare: func(w *world) {
			w.pipelines.errs = []error{never}
			w.ledger.answered = errAway
		}, status: 503, outcome: "retry", reason: "ledger_unavailable", requests: 1, dead: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				if c.prepare != nil {
					c.prepare(w)
				}
				got := w.deliver(webhook("d1").of(cmp.Or(c.repository, "acme/api"), cmp.Or(c.tag, "1.4.0")))
				got.is(c.status, c.outcome, c.reason)
				w.asked(c.requests, c.dead)
				if (got.body["pipeline_url"] != nil) != (c.outcome == "triggered") || got.body["hint"] == nil && c.outcome == "dead" {
					w.t.Errorf("the answer is %v", got.body)
				}
				if id, _ := got.body["promotion_id"].(string); (len(id) == 32) != (c.outcome == "triggered" || c.outcome == "dead") {
					w.t.Errorf("the promotion is %q", id)
				}
			})
		})
	}
}

func TestOtherPathsAndMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		method, path string
		status       int
	}{{"GET", "/ready", 200}, {"GET", "/", 405}, {"PUT", "/", 405}, {"GET", "/reconcile", 405}, {"POST", "/nothing", 404}} {
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, httptest.NewRequest(c.method, c.path, nil))
		if rec.Code != c.status || c.status == 405 && rec.Header().Get("Allow") != "POST" {
			t.Errorf("%s %s: got %d %v", c.method, c.path, rec.Code, rec.Header())
		}
	}
}

func TestMalformedMessagesDie(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, data string }{
		"a body that is not a push":     {"hello", "hello"},
		"a push whose data is not JSON": {`{"message":{"data":"aGVsbG8=","attributes":{"x":"y"}}}`, "hello"},
		"a push with a bad tag":         {`{"message":{"data":"e30=","attributes":{"x":"y"}}}`, "{}"},
		"a push without data":           {`{"message":{"attributes":{"x":"y"}}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.post("/", c.body).is(200, "dead", "malformed")
			w.asked(0, 1)
			if w.deadLetters.data[0] != c.data || w.deadLetters.attributes[0]["reason"] != "malformed" || w.deadLetters.attributes[0]["hint"] == "" {
				t.Errorf("published %q %v", w.deadLetters.data, w.deadLetters.attributes)
			}
			w.deadLetters.err = errors.New("no")
			w.post("/", c.body).is(503, "retry", "dead_letter_unavailable")
		})
	}
}

func TestADeadLetterHasEverythingThatIsKnown(t *testing.T) {
	inABubble(t, func(w *world) {
		w.pipelines.errs = []error{never}
		m := webhook("d1")
		m.queued = m.queued.Add(123456 * time.Microsecond)
		m.attributes = map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
		time.Sleep(time.Second)
		id := w.deliver(m).is(200, "dead", "not_found")
		want := map[string]string{
			"id": "d1", "repository": "acme/api", "tag": "1.4.0", "source": "webhook", "traceparent": m.attributes["traceparent"],
			"reason": "not_found", "hint": "Check the token.", "words": "404 Project Not Found", "promotion_id": id,
			"queued_at": m.queued.UTC().Format(time.RFC3339Nano),
		}
		if diff := gocmp.Diff(want, w.deadLetters.attributes[0]); diff != "" {
			w.t.Error(diff)
		}
		if !strings.Contains(w.deadLetters.data[0], `"id":"d1"`) {
			w.t.Errorf("the data is %s", w.deadLetters.data[0])
		}
		if p := w.current(); p.ID != id || p.State != ledger.Dead || p.Reason != "not_found" || p.Words != "404 Project Not Found" || p.By != ledger.ByTrigger {
			w.t.Errorf("the record is %+v", p)
		}
	})
}

func TestTheValuesOfThePipeline(t *testing.T) {
	inABubble(t, func(w *world) {
		began := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00")
		first := w.deliver(webhook("d1")).is(200, "triggered", "")
		second := w.deliver(webhook("d2").of("acme/each", "1.4.0")).is(200, "triggered", "")
		inputs, variables := w.pipelines.requests[0], w.pipelines.requests[1]
		if inputs.Project != "acme/images/api" || inputs.Ref != "main" || inputs.Token.Reveal() != "canary-default" || inputs.Variables != nil {
			w.t.Errorf("asked for %+v", inputs)
		}
		want := map[string]string{
			"image_repository": "acme/api", "image_tag": "1.4.0", "image_digest": digestA,
			"image_pushed_at": began, "promotion_id": first, "severity": "low",
		}
		if diff := gocmp.Diff(want, inputs.Inputs); diff != "" {
			w.t.Error(diff)
		}
		if variables.Project != "acme/images/each" || variables.Token.Reveal() != "canary-each" || variables.Inputs != nil {
			w.t.Errorf("asked for %+v", variables)
		}
		want = map[string]string{
			"IMAGE_REPOSITORY": "acme/each", "IMAGE_TAG": "1.4.0", "IMAGE_DIGEST": digestA,
			"IMAGE_PUSHED_AT": began, "PROMOTION_ID": second,
		}
		if diff := gocmp.Diff(want, variables.Variables); diff != "" {
			w.t.Error(diff)
		}
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(first) || first == second {
			w.t.Errorf("the promotions are %q and %q", first, second)
		}
	})
}

// A retry is the same promotion, begun when it was.
func TestARetryThatWorks(t *testing.T) {
	inABubble(t, func(w *world) {
		w.pipelines.errs = []error{away}
		m := webhook("d1")
		w.deliver(m).is(503, "retry", "gitlab_unavailable")
		if p := w.current(); p.State != ledger.Waiting || p.Reason != "gitlab_unavailable" || p.Hint != "Check whether GitLab is up." {
			w.t.Errorf("the record is %+v", p)
		}
		time.Sleep(10 * time.Second)
		w.deliver(m).is(200, "triggered", "")
		w.deliver(m).is(200, "ignored", "duplicate")
		a, b := w.pipelines.requests[0].Inputs, w.pipelines.requests[1].Inputs
		if !maps.Equal(a, b) {
			w.t.Errorf("the second request is %v, the first was %v", b, a)
		}
		if p := w.current(); p.State != ledger.Triggered || p.Reason != "" || !slices.Equal(p.Pipelines, []string{"42/2"}) || p.PipelineURL == "" {
			w.t.Errorf("the record is %+v", p)
		}
	})
}

func TestTheRecordSaysWhyAPushWaits(t *testing.T) {
	inABubble(t, func(w *world) {
		w.images.err = forbidden
		m := webhook("d1")
		m.queued = m.received.Add(3 * time.Second)
		time.Sleep(5 * time.Second)
		w.deliver(m).is(503, "retry", "registry_denied")
		waits := w.current()
		if got := waits.Message; got.ID != "d1" || !got.QueuedAt.Equal(m.queued) || !got.PushedAt.Equal(m.pushed) || !got.ReceivedAt.Equal(m.received) || got.Reconcile {
			w.t.Errorf("its message is %+v", got)
		}
		if waits.State != ledger.Waiting || waits.Reason != "registry_denied" || waits.Hint != "Set REGISTRY_AUTH." || waits.Digest != "" {
			w.t.Errorf("the record is %+v", waits)
		}
		w.images.err = nil
		if id := w.deliver(m).is(200, "triggered", ""); id != waits.ID {
			w.t.Error("what waited is another promotion")
		}
	})
}

// If Pub/Sub does not say when a message was queued, another field does.
func TestWhenAMessageWasQueued(t *testing.T) {
	inABubble(t, func(w *world) {
		w.images.err = forbidden
		m := webhook("d1")
		m.queued = time.Time{}
		w.deliver(m).is(503, "retry", "registry_denied")
		if got := w.current().Message; !got.QueuedAt.Equal(m.received) {
			w.t.Errorf("its message is %+v", got)
		}
		replayed := m.received.Add(time.Hour).UTC().Truncate(time.Second)
		m.attributes = map[string]string{"replayed_at": replayed.Format(time.RFC3339)}
		w.deliver(m).is(503, "retry", "registry_denied")
		if got := w.current().Message; !got.QueuedAt.Equal(replayed) || !got.ReplayedAt.Equal(replayed) {
			w.t.Errorf("its message is %+v", got)
		}
	})
}

// The registry is asked once, and what it said is promoted, though the tag
// moves right after.
func TestL1AnotherLookMeanwhileHasTheTagLookedAtAgain(t *testing.T) {
	inABubble(t, func(w *world) {
		m := webhook("d1")
		w.images.during = func() {
			w.images.during = nil
			w.images.digest = digestB // the tag moves, and its own webhook is faster
			w.deliver(webhook("d2")).is(200, "triggered", "")
		}
		w.deliver(m).is(200, "ignored", "duplicate")
		if w.images.asked != 3 {
			w.t.Errorf("the registry was asked %d times", w.images.asked)
		}
		w.asked(1, 0)
		if p := w.current(); p.Digest != digestB || p.State != ledger.Triggered {
			w.t.Errorf("the newest is %+v", p)
		}
	})
}

func TestL1AfterThreeLooksPubSubDoesTheWaiting(t *testing.T) {
	inABubble(t, func(w *world) {
		other := ledger.Key{Repository: "acme/api", Tag: "1.4.0"}
		w.images.during = func() {
			time.Sleep(time.Millisecond)
			s, err := w.ledger.Ledger.Read(w.t.Context(), other)
			if err == nil {
				_, err = s.Settle(w.t.Context(), ledger.Look{Message: ledger.Message{ID: "other", QueuedAt: time.Now()}, NewID: ledger.NewID(), Reason: "registry_unavailable"})
			}
			if err != nil {
				w.t.Fatal(err)
			}
		}
		w.deliver(webhook("d1")).is(503, "retry", "in_progress")
		if w.images.asked != 3 {
			w.t.Errorf("the registry was asked %d times", w.images.asked)
		}
		w.asked(0, 0)
		w.images.during = nil
		w.deliver(webhook("d1")).is(200, "triggered", "")
	})
}

// Even if every call takes its whole time-out, the lease does not end before
// it.
func TestTheClaimOutlivesTheRequest(t *testing.T) {
	inABubble(t, func(w *world) {
		m := webhook("d1")
		other := webhook("d2")
		var toldOthers []string
		look := func() {
			images, commit := w.images.during, w.store.commit
			w.images.during, w.store.commit = nil, nil
			a := w.deliver(other)
			toldOthers = append(toldOthers, fmt.Sprintf("%d %v", a.status, a.body["reason"]))
			w.images.during, w.store.commit = images, commit
		}
		w.images.during = func() { time.Sleep(registry.Timeout) }
		n := 0
		w.store.commit = func() error {
			time.Sleep(ledger.Timeout - time.Millisecond)
			if n++; n == 2 { // GitLab's answer
				look()
			}
			return nil
		}
		w.pipelines.during = func(context.Context) {
			time.Sleep(gitlab.Timeout)
			look()
		}
		w.deadLetters.during = func() {
			time.Sleep(pubsub.PublishTimeout)
			look()
		}
		w.pipelines.errs = []error{never}
		w.deliver(m).is(200, "dead", "not_found")
		if want := []string{"503 in_progress", "503 in_progress", "503 in_progress"}; !slices.Equal(toldOthers, want) {
			w.t.Errorf("another was told %v", toldOthers)
		}
		w.asked(1, 1)
	})
}

// A decision is carried out, even if the caller disconnects.
func TestACallerThatHangsUp(t *testing.T) {
	inABubble(t, func(w *world) {
		ctx, cancel := context.WithCancel(w.t.Context())
		w.pipelines.during = func(asked context.Context) {
			cancel()
			if asked.Err() != nil {
				w.t.Error("the request ends with its caller")
			}
		}
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(webhook("d1").body(w.t))).WithContext(ctx))
		if p := w.current(); p.State != ledger.Triggered {
			w.t.Errorf("the record is %+v", p)
		}
	})
}

func TestAfterALostAnswerTheSameMessageContinuesImmediately(t *testing.T) {
	inABubble(t, func(w *world) {
		m, other := webhook("d1"), webhook("d2")
		w.pipelines.errs = []error{lost}
		w.deliver(m).is(503, "retry", "gitlab_unavailable")
		w.deliver(other).is(503, "retry", "in_progress")
		w.asked(1, 0)
		w.deliver(m).is(200, "triggered", "")
		w.deliver(other).is(200, "ignored", "duplicate")
		w.asked(2, 0)
	})
}

func TestAfterALostAnswerOthersContinueWhenTheLeaseEnds(t *testing.T) {
	for name, lose := range map[string]func(*world){
		"it did not arrive":         func(w *world) { w.pipelines.errs = []error{lost} },
		"it could not be recorded":  func(w *world) { w.ledger.answered = errors.New("away") },
		"the process was killed":    func(w *world) { w.pipelines.during = func(context.Context) { panic(http.ErrAbortHandler) } },
		"it was neither of the two": func(w *world) { w.pipelines.errs = []error{io.ErrUnexpectedEOF} },
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				lose(w)
				func() {
					defer func() { _ = recover() }()
					w.deliver(webhook("d1"))
				}()
				w.pipelines.during, w.ledger.answered = nil, nil
				began := time.Now()
				for w.deliver(webhook("d2")).status != 200 {
					w.asked(1, 0)
					time.Sleep(10 * time.Second)
				}
				if waited := time.Since(began); waited < time.Minute || waited > 2*time.Minute {
					w.t.Errorf("another asks after %v", waited)
				}
				for _, id := range []string{"d1", "d2", "d3"} {
					w.deliver(webhook(id)).is(200, "ignored", "duplicate")
				}
				w.asked(2, 0)
			})
		})
	}
}

func TestUnknownRefusalsAreRetriedThreeTimes(t *testing.T) {
	inABubble(t, func(w *world) {
		w.pipelines.errs = []error{unknown, unknown, away, unknown, unknown}
		m := webhook("d1")
		for _, reason := range []string{"rejected", "rejected", "gitlab_unavailable", "rejected"} {
			w.deliver(m).is(503, "retry", reason)
		}
		w.deliver(m).is(200, "dead", "rejected")
		w.asked(5, 1)
		if a := w.deadLetters.attributes[0]; a["words"] != "Flux is low" || a["hint"] != "Fix it." {
			w.t.Errorf("the letter says %v", a)
		}
	})
}

// They are counted in the promotion, for all of its messages.
func TestUnknownRefusalsAreCountedInThePromotion(t *testing.T) {
	inABubble(t, func(w *world) {
		w.pipelines.errs = []error{unknown, unknown, unknown, unknown}
		for i := range 3 {
			w.deliver(webhook(fmt.Sprint(i))).is(503, "retry", "rejected")
		}
		w.deadLetters.err = errors.New("no")
		w.deliver(webhook("3")).is(503, "retry", "dead_letter_unavailable")
		w.deadLetters.err = nil
		w.pipelines.errs = []error{unknown}
		w.deliver(webhook("3")).is(200, "dead", "rejected")
	})
}

func TestCapacityIsWaitedForWithoutEnd(t *testing.T) {
	inABubble(t, func(w *world) {
		m := webhook("d1")
		for range 50 {
			w.pipelines.errs = []error{&gitlab.Error{Status: 400, Reason: gitlab.Capacity, Hint: "Let some end."}}
			w.deliver(m).is(503, "retry", "gitlab_capacity")
			time.Sleep(10 * time.Minute)
		}
		w.deliver(m).is(200, "triggered", "")
		w.asked(51, 0)
	})
}

func TestTheFifthPromotionInARowIsALoop(t *testing.T) {
	inABubble(t, func(w *world) {
		digest := func(i int) string { return fmt.Sprintf("sha256:%064d", i) }
		for i := range 4 {
			w.images.digest = digest(i)
			w.report(w.deliver(webhook(fmt.Sprint(i))).is(200, "triggered", ""), ledger.Promoted)
			time.Sleep(time.Minute)
		}
		w.images.digest = digest(5)
		w.deadLetters.err = errors.New("no")
		w.deliver(webhook("5")).is(503, "retry", "dead_letter_unavailable")
		w.deadLetters.err = nil
		a := w.deliver(webhook("5"))
		id := a.is(200, "dead", "promotion_loop")
		w.asked(4, 1)
		hint := fmt.Sprint(a.body["hint"])
		if !strings.Contains(hint, "build") || !strings.Contains(hint, "cache") || len(hint) > 1024 {
			w.t.Errorf("the hint is %q", hint)
		}
		if got := w.deadLetters.attributes[0]; got["promotion_id"] != id || got["hint"] != hint || got["reason"] != "promotion_loop" {
			w.t.Errorf("the letter says %v", got)
		}
		if p := w.current(); p.ID != id || p.State != ledger.Dead || p.Digest != digest(5) {
			w.t.Errorf("the record is %+v", p)
		}
		for range 3 {
			w.deliver(webhook("5")).is(200, "ignored", "duplicate")
		}
		time.Sleep(10 * time.Minute)
		w.deliver(webhook("6")).is(200, "triggered", "")
	})
}

// The letter was published, and the death cannot be recorded: the tag is looked
// at again.
func TestALoopThatCannotBeRecorded(t *testing.T) {
	inABubble(t, func(w *world) {
		for i := range 4 {
			w.images.digest = fmt.Sprintf("sha256:%064d", i)
			w.report(w.deliver(webhook(fmt.Sprint(i))).is(200, "triggered", ""), ledger.Promoted)
		}
		w.images.digest = digestB
		w.store.commit = func() error { return errors.New("away") }
		w.deliver(webhook("5")).is(503, "retry", "ledger_unavailable")
		w.store.commit = nil
		w.deliver(webhook("5")).is(200, "dead", "promotion_loop")
	})
}

func TestOncePerDelivery(t *testing.T) {
	inABubble(t, func(w *world) {
		for range 2 { // of one second, with one id
			m := webhook("d1").of("acme/each", "1.4.0")
			w.deliver(m).is(200, "triggered", "")
			w.deliver(m).is(200, "ignored", "duplicate")
			m.queued = time.Now().Add(time.Hour) // reconcile's, or a replay
			w.deliver(m).is(200, "ignored", "duplicate")
			time.Sleep(time.Millisecond)
		}
		w.asked(2, 0)
	})
}

func TestOncePerDeliveryDiesAndIsReplayedByItself(t *testing.T) {
	inABubble(t, func(w *world) {
		m, other := webhook("d1").of("acme/each", "1.4.0"), webhook("d2").of("acme/each", "1.4.0")
		w.pipelines.errs = []error{never, never}
		w.deliver(m).is(200, "dead", "not_found")
		w.deliver(other).is(200, "dead", "not_found")
		w.deliver(m).is(200, "ignored", "duplicate")
		time.Sleep(2 * time.Second)
		w.deliver(m.replayed()).is(200, "triggered", "")
		w.deliver(m.replayed()).is(200, "ignored", "duplicate")
		w.deliver(other).is(200, "ignored", "duplicate")
		w.asked(3, 2)
	})
}

func TestOncePerDeliveryIsUnwantedByChangedRules(t *testing.T) {
	for name, changed := range map[string]string{
		"the route":     strings.ReplaceAll(routes, `"acme/each": {"gitlab"`, `"acme/every": {"gitlab"`),
		"the tag rules": strings.ReplaceAll(routes, `"once_per"`, `"tags": {"exclude": ["*"]}, "once_per"`),
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				w.images.err = notThere
				m := webhook("d1").of("acme/each", "1.4.0")
				w.deliver(m).is(503, "retry", "not_in_registry")
				w.routes(changed)
				if a := w.deliver(m); a.status != 200 || a.body["outcome"] != "ignored" {
					w.t.Errorf("got %d %v", a.status, a.body)
				}
				if overdue := w.overdue(24 * time.Hour); len(overdue) != 0 {
					w.t.Errorf("somebody must look at %+v", overdue)
				}
				for p := range w.ledger.All(w.t.Context()) {
					if p.State != ledger.Skipped || p.Reason != ledger.Unwanted {
						w.t.Errorf("the promotion is %+v", p)
					}
				}
			})
		})
	}
}

func TestP5AReplayAfterADeathStartsAnew(t *testing.T) {
	inABubble(t, func(w *world) {
		m := webhook("d1")
		w.pipelines.errs = []error{never}
		dead := w.deliver(m).is(200, "dead", "not_found")
		w.deliver(m).is(200, "ignored", "duplicate") // Pub/Sub delivers at least once
		time.Sleep(2 * time.Second)
		again := m.replayed()
		w.pipelines.errs = []error{never}
		second := w.deliver(again).is(200, "dead", "not_found")
		time.Sleep(2 * time.Second)
		third := w.deliver(m.replayed()).is(200, "triggered", "")
		if dead == second || second == third {
			w.t.Error("a promotion begins twice")
		}
		w.deliver(again).is(200, "ignored", "duplicate")
		w.asked(3, 2)
	})
}

func TestP5SiblingsOfAFailureStartNothing(t *testing.T) {
	inABubble(t, func(w *world) {
		w.pipelines.errs = []error{never}
		w.deliver(webhook("d0")).is(200, "dead", "not_found")
		for i := range 5 { // of a push of six architectures
			time.Sleep(5 * time.Second)
			w.deliver(webhook(fmt.Sprint("d", i+1))).is(200, "ignored", "duplicate")
		}
		w.asked(1, 1)
		time.Sleep(time.Minute)
		late := webhook("late")
		late.pushed = late.pushed.Add(-time.Hour) // before it died
		w.deliver(late).is(200, "ignored", "duplicate")
		w.deliver(webhook("d6")).is(200, "triggered", "")
	})
}

func TestP5WithoutAPushedAtTheTimeOfQueueingCounts(t *testing.T) {
	inABubble(t, func(w *world) {
		early := webhook("d2")
		early.pushed = time.Time{}
		w.report(w.deliver(webhook("d1")).is(200, "triggered", ""), ledger.Failed)
		time.Sleep(2 * time.Minute)
		w.deliver(early).is(200, "ignored", "duplicate")
		reconciled := early
		reconciled.queued, reconciled.attributes = time.Now(), map[string]string{"source": "reconcile"}
		w.deliver(reconciled).is(200, "ignored", "duplicate") // it was received before the failure
		later := webhook("d3")
		later.pushed = time.Time{}
		w.deliver(later).is(200, "triggered", "")
	})
}

// What waits for a tag that the current routes do not promote ends.
func TestUnwantedByChangedRules(t *testing.T) {
	for name, c := range map[string]struct{ routes, reason string }{
		"the tag rules":  {strings.ReplaceAll(routes, `"*-rc*"`, `"1.*"`), "tag_rules"},
		"the moving tag": {strings.ReplaceAll(routes, `"inputs"`, `"latest": "1.4.0", "inputs"`), "moving_tag"},
		"the route":      {strings.ReplaceAll(routes, `"acme/api"`, `"acme/web"`), "no_route"},
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				w.images.err = forbidden
				m := webhook("d1")
				w.deliver(m).is(503, "retry", "registry_denied")
				w.routes(c.routes)
				w.images.asked = 0
				w.deliver(m).is(200, "ignored", c.reason)
				if w.images.asked != 0 {
					w.t.Error("the registry was asked")
				}
				if _, err := w.ledger.Current(w.t.Context(), ledger.Key{Repository: "acme/api", Tag: "1.4.0"}); !errors.Is(err, ledger.ErrUnknown) {
					w.t.Errorf("there still is a promotion: %v", err)
				}
				if overdue := w.overdue(24 * time.Hour); len(overdue) != 0 {
					w.t.Errorf("somebody must look at %+v", overdue)
				}
				for p := range w.ledger.All(w.t.Context()) {
					if p.State != ledger.Skipped || p.Reason != ledger.Unwanted || p.By != ledger.ByTrigger {
						w.t.Errorf("the promotion is %+v", p)
					}
				}
				w.routes(routes) // and back
				w.images.err = nil
				w.deliver(webhook("d2")).is(200, "triggered", "")
			})
		})
	}
}

func TestAnUnwantedPushNeedsNoLedgerAtFirst(t *testing.T) {
	inABubble(t, func(w *world) {
		w.ledger.read = errors.New("away")
		m := webhook("d1").of("acme/api", "latest")
		m.attempt = 1
		w.deliver(m).is(200, "ignored", "moving_tag")
		m.attempt = 2
		w.deliver(m).is(503, "retry", "ledger_unavailable")
	})
}

// P8: whatever is renamed, the image is promoted once.
func TestRenamesPromoteNothingAgain(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.deliver(webhook("d1")).is(200, "triggered", "")
		for _, change := range [][2]string{
			{`"acme/api"`, `"acme/a*"`}, {`acme/images/api`, `acme/renamed/api`}, {`"C1"`, `"C2"`}, {`"*-rc*"`, `"*-beta*"`},
		} {
			w.routes(strings.ReplaceAll(routes, change[0], change[1]))
			w.deliver(webhook("d2")).is(200, "ignored", "duplicate")
		}
		w.report(id, ledger.Promoted)
		w.deliver(webhook("d3")).is(200, "ignored", "duplicate")
		w.asked(1, 0)
	})
}

// overdue are the tags whose LookBy is not after a time.
func (w *world) overdue(after time.Duration) []*ledger.Tag {
	w.t.Helper()
	tags, err := w.store.Overdue(w.t.Context(), time.Now().Add(after), 10)
	if err != nil {
		w.t.Fatal(err)
	}
	return tags
}

// reconcile is a call of the clock.
func (w *world) reconcile(queued int) {
	w.t.Helper()
	before := len(w.queue.data)
	got := w.post("/reconcile", "")
	if n, _ := got.body["queued"].(float64); got.status != 200 || int(n) != queued || len(w.queue.data)-before != queued {
		w.t.Fatalf("got %d %v, and %d were queued, want %d", got.status, got.body, len(w.queue.data)-before, queued)
	}
}

// queued is the last message that reconcile queued, as Pub/Sub delivers it.
func (w *world) queued() message {
	w.t.Helper()
	var m message
	var data struct {
		ID         string    `json:"id"`
		Repository string    `json:"repository"`
		Tag        string    `json:"tag"`
		PushedAt   time.Time `json:"pushed_at"`
		ReceivedAt time.Time `json:"received_at"`
	}
	last := len(w.queue.data) - 1
	if err := json.Unmarshal([]byte(w.queue.data[last]), &data); err != nil {
		w.t.Fatal(err)
	}
	m = message{
		id: data.ID, repository: data.Repository, tag: data.Tag, pushed: data.PushedAt, received: data.ReceivedAt,
		queued: time.Now(), attributes: w.queue.attributes[last], attempt: 1,
	}
	return m
}

func TestReconcileQueuesWhatNobodyLookedAt(t *testing.T) {
	inABubble(t, func(w *world) {
		w.reconcile(0)
		w.images.err = notThere
		m := webhook("d1")
		w.deliver(m).is(503, "retry", "not_in_registry")
		w.reconcile(0)
		time.Sleep(ledger.WaitingLookBy)
		w.reconcile(1)
		want := map[string]string{"id": "d1", "repository": "acme/api", "tag": "1.4.0", "source": "reconcile"}
		if diff := gocmp.Diff(want, w.queue.attributes[0]); diff != "" {
			w.t.Error(diff)
		}
		got := w.queued()
		if got.id != m.id || got.repository != m.repository || got.tag != m.tag || !got.pushed.Equal(m.pushed) || !got.received.Equal(m.received) {
			w.t.Errorf("queued is %+v, of %+v", got, m)
		}
		w.reconcile(0) // that was done
		time.Sleep(ledger.StartingLookBy)
		w.reconcile(1) // nobody has looked all the same
		w.images.err = nil
		w.deliver(w.queued()).is(200, "triggered", "")
		time.Sleep(24 * time.Hour)
		w.reconcile(0)
		w.deliver(m).is(200, "ignored", "duplicate")
		w.asked(1, 0)
	})
}

func TestReconcileWithoutAPushedAt(t *testing.T) {
	inABubble(t, func(w *world) {
		w.images.err = notThere
		m := webhook("d1")
		m.pushed = time.Time{}
		w.deliver(m).is(503, "retry", "not_in_registry")
		time.Sleep(ledger.WaitingLookBy)
		w.reconcile(1)
		if strings.Contains(w.queue.data[0], "pushed_at") || !w.queued().received.Equal(m.received) {
			w.t.Errorf("queued is %s", w.queue.data[0])
		}
	})
}

func TestReconcileLooksAgainAtASupersededTag(t *testing.T) {
	for repository, name := range map[string]string{"acme/api": "once per digest", "acme/each": "once per delivery"} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				for i := range 3 {
					a := w.deliver(webhook(fmt.Sprint("d", i)).of(repository, "1.4.0"))
					if id, _ := a.body["promotion_id"].(string); id != "" {
						w.report(id, ledger.Superseded)
						break
					}
				}
				w.images.digest = digestB
				w.reconcile(1)
				w.deliver(w.queued()).is(200, "triggered", "")
				if got := w.pipelines.requests[1]; got.Inputs["image_digest"]+got.Variables["IMAGE_DIGEST"] != digestB {
					w.t.Errorf("asked for %+v", got)
				}
				w.reconcile(0)
			})
		})
	}
}

func TestReconcileOfATagThatIsNoLongerWanted(t *testing.T) {
	inABubble(t, func(w *world) {
		w.images.err = notThere
		w.deliver(webhook("d1")).is(503, "retry", "not_in_registry")
		w.routes(strings.ReplaceAll(routes, `"*-rc*"`, `"1.*"`))
		time.Sleep(ledger.WaitingLookBy)
		w.reconcile(1)
		w.deliver(w.queued()).is(200, "ignored", "tag_rules")
		time.Sleep(24 * time.Hour)
		w.reconcile(0)
	})
}

func TestReconcileThatCannotQueue(t *testing.T) {
	inABubble(t, func(w *world) {
		w.images.err = notThere
		for i := range 3 {
			w.deliver(webhook("d").of("acme/api", fmt.Sprint(i))).is(503, "retry", "not_in_registry")
		}
		time.Sleep(ledger.WaitingLookBy)
		fails := func() {
			w.t.Helper()
			if got := w.post("/reconcile", ""); got.status != 503 || got.body["error"] == nil {
				w.t.Errorf("got %d %v", got.status, got.body)
			}
		}
		w.ledger.overdue = errors.New("away")
		fails()
		w.ledger.overdue = nil
		w.queue.err = errors.New("away")
		fails()
		w.queue.err = nil
		w.ledger.requeued = errors.New("away")
		fails()
		w.ledger.requeued = nil
		w.reconcile(3)
		w.reconcile(0)
	})
}

func TestTheLogLine(t *testing.T) {
	t.Parallel()
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for _, c := range []struct {
		name    string
		prepare func(*world)
		want    map[string]any
	}{
		{"a pipeline is created", func(*world) {}, map[string]any{
			"severity": "INFO", "message": "pipeline created", "outcome": "triggered", "pipeline_url": "https://gitlab.example/p/1",
			"digest": digestA, "status": 200.0,
		}},
		{"a push is put off", func(w *world) { w.images.err = forbidden }, map[string]any{
			"severity": "WARNING", "message": "push put off", "outcome": "retry", "reason": "registry_denied", "status": 503.0,
			"error": "registry_denied. Set REGISTRY_AUTH.",
		}},
		{"a push is given up", func(w *world) { w.pipelines.errs = []error{never} }, map[string]any{
			"severity": "ERROR", "message": "push given up", "outcome": "dead", "reason": "not_found", "digest": digestA, "status": 200.0,
			"error": "not_found: GitLab answered 404: 404 Project Not Found. Check the token.",
		}},
		{"a push is ignored", func(w *world) { w.deliver(webhook("before")); w.log.Reset() }, map[string]any{
			"severity": "INFO", "message": "push ignored", "outcome": "ignored", "reason": "duplicate", "status": 200.0,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				c.prepare(w)
				m := webhook("d1")
				m.attributes = map[string]string{"traceparent": "00-" + trace + "-b7ad6b7169203331-01"}
				got := w.deliver(m)
				line := map[string]any{}
				if err := json.Unmarshal(w.log.Bytes(), &line); err != nil {
					w.t.Fatalf("not one line of JSON: %s", w.log.String())
				}
				maps.Copy(c.want, map[string]any{
					"id": "d1", "repository": "acme/api", "tag": "1.4.0", "route": "acme/api", "project": "acme/images/api",
					"message_id": "m-d1", "delivery_attempt": 2.0, "logging.googleapis.com/trace": "projects/p/traces/" + trace,
				})
				if id := got.body["promotion_id"]; id != nil {
					c.want["promotion_id"] = id
				}
				for key, want := range c.want {
					if line[key] != want {
						w.t.Errorf("%s is %v, want %v", key, line[key], want)
					}
				}
				known := strings.Fields("id promotion_id repository tag digest route project outcome reason state pipeline_url message_id " +
					"delivery_attempt status duration_ms error severity message time logging.googleapis.com/trace")
				for key := range line {
					if !slices.Contains(known, key) {
						w.t.Errorf("%s is no key of the list", key)
					}
				}
			})
		})
	}
}

func TestEverySettingIsChecked(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"ROUTES": routes, "GITLAB_TRIGGER_TOKENS": `{"*":"canary"}`, "TOPIC": "projects/p/topics/pushes",
		"DEAD_LETTER_TOPIC": "projects/p/topics/dead", "LEDGER": "memory:settings", "PUBSUB_EMULATOR_HOST": "127.0.0.1:1",
	}
	if _, err := trigger.FromEnv(t.Context(), func(name string) string { return good[name] }); err != nil {
		t.Fatalf("good settings: %v", err)
	}
	for _, c := range []struct {
		name   string
		change map[string]string
		want   []string
	}{
		{"nothing is set", map[string]string{"ROUTES": "", "GITLAB_TRIGGER_TOKENS": "", "TOPIC": "", "DEAD_LETTER_TOPIC": "", "LEDGER": ""},
			[]string{"ROUTES: is required", "GITLAB_TRIGGER_TOKENS: is required", "LEDGER: is required", "DEAD_LETTER_TOPIC: is required", "\nTOPIC: is required"}},
		{"everything is wrong", map[string]string{
			"ROUTES": `{"a/b":{}}`, "GITLAB_TRIGGER_TOKENS": "canary", "TOPIC": "pushes", "DEAD_LETTER_TOPIC": "dead", "LEDGER": "redis:x",
			"GITLAB_URL": "gitlab", "REGISTRY": "docker.io", "REGISTRY_AUTH": "canary",
		}, []string{
			`ROUTES: "a/b": gitlab.project`, `ROUTES: "a/b": slack.channel`, "GITLAB_TRIGGER_TOKENS: is not a JSON object",
			"LEDGER: ", "REGISTRY", "GITLAB_URL: must be a URL", "DEAD_LETTER_TOPIC: ", "\nTOPIC: ",
		}},
		{"an empty token", map[string]string{"GITLAB_TRIGGER_TOKENS": `{"acme/api":"canary","acme/each":"","acme/x":"canary"}`},
			[]string{`"acme/each" has an empty token`}},
		{"a token with a line break", map[string]string{"GITLAB_TRIGGER_TOKENS": `{"*":"canary\n"}`},
			[]string{`the token of "*" has a line break in it`}},
		{"an access token with a space", map[string]string{"GITLAB_API_TOKENS": `{"*":"can ary"}`},
			[]string{`GITLAB_API_TOKENS: the token of "*" has a space`}},
		{"a route without a token, and a token without a route", map[string]string{"GITLAB_TRIGGER_TOKENS": `{"acme/api":"canary","acme/x":"canary"}`},
			[]string{`route "acme/each" has no token`, `"acme/x" is not the key of a route`}},
		{"a duplicate token", map[string]string{"GITLAB_TRIGGER_TOKENS": `{"*":"canary","nginx":"canary","library/nginx":"canary"}`},
			[]string{`"library/nginx" is there twice`}},
		{"the registry cannot be switched off", map[string]string{"REGISTRY": "off"}, []string{"REGISTRY: "}},
		{"skip_signed is not a field any more", map[string]string{"ROUTES": strings.ReplaceAll(routes, `"inputs": {"severity": "low"}`, `"skip_signed": true`)},
			[]string{"skip_signed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := trigger.FromEnv(t.Context(), func(name string) string {
				if v, ok := c.change[name]; ok {
					return v
				}
				return good[name]
			})
			if err == nil {
				t.Fatal("the settings were taken")
			}
			for _, want := range c.want {
				if !strings.Contains("\n"+err.Error(), want) {
					t.Errorf("%q is not in\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "can ary") {
				t.Errorf("a secret shows in\n%v", err)
			}
		})
	}
}

// A token belongs to a route by the key in ROUTES.
func TestATokenOfAnOfficialImage(t *testing.T) {
	t.Parallel()
	for _, inRoutes := range []string{"nginx", "library/nginx"} {
		for _, inTokens := range []string{"nginx", "library/nginx"} {
			settings := map[string]string{
				"ROUTES":                `{"` + inRoutes + `": {"gitlab": {"project": "acme/images/nginx"}, "slack": {"channel": "C0123456789"}}}`,
				"GITLAB_TRIGGER_TOKENS": `{"` + inTokens + `": "canary"}`, "GITLAB_API_TOKENS": `{"` + inTokens + `": "canary"}`,
				"TOPIC": "projects/p/topics/pushes", "DEAD_LETTER_TOPIC": "projects/p/topics/dead", "LEDGER": "memory:settings",
			}
			s, err := trigger.ReadSettings(func(name string) string { return settings[name] })
			if err != nil || s.Tokens.Of("library/nginx").Reveal() != "canary" || s.APITokens.Of("library/nginx").Reveal() != "canary" {
				t.Errorf("%s in ROUTES, %s in the tokens: %v", inRoutes, inTokens, err)
			}
		}
	}
}

// instantTrigger is Trigger with a GitLab, a registry and queues that take no
// time.
func instantTrigger(tb testing.TB) http.Handler {
	tb.Helper()
	table, err := route.Parse(routes)
	if err != nil {
		tb.Fatal(err)
	}
	return trigger.New(trigger.Trigger{
		Routes: table, Tokens: trigger.Tokens{"*": env.NewSecret("t")}, Images: &images{digest: digestA},
		Promotions: ledger.New(ledger.NewMemory()), Pipelines: instant{}, Queue: &queue{}, DeadLetters: &queue{},
	}, gcplog.New(io.Discard, "p"))
}

// deliverNth delivers a push that is a new promotion for each n.
func deliverNth(tb testing.TB, h http.Handler, n int) {
	tb.Helper()
	data := fmt.Appendf(nil, `{"id":"d%d","repository":"acme/api","tag":"1.%d"}`, n, n)
	body := `{"message":{"data":"` + base64.StdEncoding.EncodeToString(data) + `","messageId":"m"}}`
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(body)))
	if w.Code != http.StatusOK {
		tb.Fatalf("got %d %s", w.Code, w.Body)
	}
}

// BenchmarkDeliver is the time that Trigger itself takes for a push.
func BenchmarkDeliver(b *testing.B) {
	h := instantTrigger(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		deliverNth(b, h, n)
	}
}

// The store in memory keeps the last 10,000 promotions, and its tables reach
// their full size only after several times as many. The limit is so low that
// ten bytes left behind by each push exceed it.
func TestMemoryIsFlat(t *testing.T) {
	const first, all, limit = 50_000, 100_000, 500_000
	h := instantTrigger(t)
	var before uint64
	for n := range all {
		if n == first {
			before = heap()
		}
		deliverNth(t, h, n)
	}
	after := heap()
	runtime.KeepAlive(h)
	t.Logf("the heap holds %.1f MiB after %d pushes, and %.1f MiB after %d", float64(before)/(1<<20), first, float64(after)/(1<<20), all)
	if after > before+limit {
		t.Errorf("the heap has grown by %d bytes", after-before)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // pools keep what they hold for one more
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

type instant struct{}

func (instant) FindJob(context.Context, gitlab.JobQuery) (gitlab.Job, bool, error) {
	return gitlab.Job{}, false, nil
}

func (instant) CreatePipeline(context.Context, gitlab.Request) (gitlab.Pipeline, error) {
	return gitlab.Pipeline{ID: 1, ProjectID: 1, URL: "https://gitlab.example/p/1"}, nil
}

// Only a message of Docker Hub's webhook shows that one is registered, not one
// that others queued.
func TestAWebhookSaysThatOneIsRegistered(t *testing.T) {
	for name, c := range map[string]struct {
		change     func(m message) message
		registered bool
	}{
		"a webhook": {func(m message) message { return m }, true},
		"reconcile": {func(m message) message { m.attributes = map[string]string{"source": "reconcile"}; return m }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				w.deliver(c.change(webhook("d1")))
				for range 5 {
					if err := w.ledger.Found(context.Background(), "acme/api", "acme/api", "Paste the URL."); err != nil {
						t.Fatal(err)
					}
				}
				told := false
				for p := range w.ledger.All(context.Background()) {
					told = told || p.Event == ledger.Registration
				}
				if told == c.registered {
					t.Errorf("people hear of it: %t", told)
				}
			})
		})
	}
}
