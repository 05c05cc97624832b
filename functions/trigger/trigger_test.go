package trigger_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/ledger"
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
  "acme/signed": {"gitlab": {"project": "acme/images/signed"}, "skip_signed": true, "slack": {"channel": "C1"}},
  "acme/each": {"gitlab": {"project": "acme/images/each", "pass": "variables"}, "once_per": "delivery", "slack": {"channel": "C1"}}
}`

// pipelines answers with its errors first, one each, and then creates.
type pipelines struct {
	errs     []error
	requests []gitlab.Request
	during   func(context.Context) // runs while the pipeline is created

	left      string // by an attempt that nobody heard of the end of
	searchErr error
	searches  []gitlab.Search
}

func (p *pipelines) CreatePipeline(ctx context.Context, r gitlab.Request) (gitlab.Pipeline, error) {
	p.requests = append(p.requests, r)
	if p.during != nil {
		p.during(ctx)
	}
	if len(p.errs) > 0 {
		err := p.errs[0]
		p.errs = p.errs[1:]
		return gitlab.Pipeline{}, err
	}
	return gitlab.Pipeline{URL: "https://gitlab.example/p/1"}, nil
}

func (p *pipelines) FindPipeline(_ context.Context, s gitlab.Search) (gitlab.Pipeline, bool, error) {
	p.searches = append(p.searches, s)
	return gitlab.Pipeline{URL: p.left}, p.left != "", p.searchErr
}

type images struct {
	digest string
	signed bool
	err    error // of both questions
	asked  int
}

func (i *images) Digest(context.Context, string, string) (string, error) {
	i.asked++
	return i.digest, i.err
}

func (i *images) Signed(context.Context, string, string) (bool, error) { return i.signed, i.err }

// queue keeps what was published.
type queue struct {
	data       []string
	attributes []map[string]string
	err        error
}

func (q *queue) Publish(_ context.Context, data []byte, attributes map[string]string) (string, error) {
	if q.err != nil {
		return "", q.err
	}
	q.data = append(q.data, string(data))
	q.attributes = append(q.attributes, attributes)
	return "m1", nil
}

// brokenLedger fails in what it is told to fail in.
type brokenLedger struct {
	trigger.Claims
	claim, record error
}

func (l brokenLedger) Claim(ctx context.Context, p ledger.Push) (ledger.Claim, error) {
	if l.claim != nil {
		return ledger.Claim{}, l.claim
	}
	return l.Claims.Claim(ctx, p)
}

func (l brokenLedger) Triggered(ctx context.Context, c ledger.Claim, url string) error {
	if l.record != nil {
		return l.record
	}
	return l.Claims.Triggered(ctx, c, url)
}

func (l brokenLedger) Release(ctx context.Context, c ledger.Claim, reason string, uncertain bool) error {
	if l.record != nil {
		return l.record
	}
	return l.Claims.Release(ctx, c, reason, uncertain)
}

// world is Trigger with all that is around it.
type world struct {
	pipelines *pipelines
	images    *images
	ledger    trigger.Claims
	queue     *queue
	registry  bool
	apiTokens trigger.Tokens
	log       bytes.Buffer
	handler   http.Handler
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{
		pipelines: &pipelines{}, images: &images{digest: digestA}, ledger: ledger.NewMemory(), queue: &queue{}, registry: true,
	}
}

type answer struct {
	status int
	body   map[string]string
}

// deliver posts a push message to Trigger.
func (w *world) deliver(t *testing.T, id, repository, tag string) answer {
	t.Helper()
	data, err := json.Marshal(map[string]string{
		"id": id, "repository": repository, "tag": tag, "received_at": "2026-11-22T10:00:00Z",
	})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{
		"message": map[string]any{
			"data": data, "messageId": "m-" + id,
			"attributes": map[string]string{"id": id, "repository": repository, "tag": tag},
		},
		"deliveryAttempt": 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w.post(t, string(body))
}

func (w *world) post(t *testing.T, body string) answer {
	t.Helper()
	if w.handler == nil {
		table, err := route.Parse(routes)
		if err != nil {
			t.Fatal(err)
		}
		settings := trigger.Trigger{
			Routes:    table,
			Tokens:    trigger.Tokens{"*": env.NewSecret("canary-default"), "acme/each": env.NewSecret("canary-each")},
			APITokens: w.apiTokens,
			Claims:    w.ledger,
			Pipelines: w.pipelines, DeadLetters: w.queue,
		}
		if w.registry {
			settings.Images = w.images
		}
		w.handler = trigger.New(settings, gcplog.New(&w.log, "p"))
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(body)))
	got := answer{status: rec.Code}
	if err := json.Unmarshal(rec.Body.Bytes(), &got.body); err != nil {
		t.Fatalf("the answer is not JSON: %s", rec.Body)
	}
	return got
}

func (a answer) is(t *testing.T, status int, outcome, reason string) {
	t.Helper()
	if a.status != status || a.body["outcome"] != outcome || a.body["reason"] != reason {
		t.Errorf("got %d %v, want %d %s %s", a.status, a.body, status, outcome, reason)
	}
}

func TestEveryRowOfTheTable(t *testing.T) {
	t.Parallel()
	never := &gitlab.Error{Status: 404, Reason: "not_found", Hint: "Check the token."}
	later := &gitlab.Error{Status: 500, Reason: "gitlab_unavailable"}
	if never.Temporary() || !later.Temporary() {
		t.Fatal("the errors are not what this test takes them for")
	}
	for _, c := range []struct {
		name            string
		prepare         func(*testing.T, *world)
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
		{name: "the route's tag rules refuse it", tag: "1.4.0-rc1", status: 200, outcome: "ignored", reason: "tag_rules"},
		{name: "the promotion is under way", prepare: func(t *testing.T, w *world) {
			w.deliver(t, "before", "acme/api", "1.4.0")
			w.pipelines.requests = nil
		}, status: 200, outcome: "ignored", reason: "duplicate"},
		{name: "another delivery holds the claim", prepare: func(t *testing.T, w *world) {
			if _, err := w.ledger.Claim(t.Context(), ledger.Push{ID: "x", Route: "acme/api", Repository: "acme/api", Tag: "1.4.0", Digest: digestA}); err != nil {
				t.Fatal(err)
			}
		}, status: 503, outcome: "retry", reason: "in_progress"},
		{name: "signed already, and the route says skip_signed", repository: "acme/signed",
			prepare: func(_ *testing.T, w *world) { w.images.signed = true }, status: 200, outcome: "ignored", reason: "signed"},
		{name: "not signed, and the route says skip_signed", repository: "acme/signed", status: 200, outcome: "triggered", requests: 1},
		{name: "GitLab says never", prepare: func(_ *testing.T, w *world) { w.pipelines.errs = []error{never} },
			status: 200, outcome: "dead", reason: "not_found", requests: 1, dead: 1},
		{name: "the image is not in the registry yet", prepare: func(_ *testing.T, w *world) {
			w.images.err = &registry.Error{Status: 404, Reason: "not_in_registry"}
		}, status: 503, outcome: "retry", reason: "not_in_registry"},
		{name: "the registry fails in a way of its own", prepare: func(_ *testing.T, w *world) { w.images.err = errors.New("x") },
			status: 503, outcome: "retry", reason: "registry_unavailable"},
		{name: "the ledger fails", prepare: func(_ *testing.T, w *world) { w.ledger = brokenLedger{w.ledger, errors.New("away"), nil} },
			status: 503, outcome: "retry", reason: "ledger_unavailable"},
		{name: "GitLab fails", prepare: func(_ *testing.T, w *world) { w.pipelines.errs = []error{later} },
			status: 503, outcome: "retry", reason: "gitlab_unavailable", requests: 1},
		{name: "GitLab fails in a way of its own", prepare: func(_ *testing.T, w *world) { w.pipelines.errs = []error{io.ErrUnexpectedEOF} },
			status: 503, outcome: "retry", reason: "gitlab_unavailable", requests: 1},
		{name: "the dead-letter topic refuses", prepare: func(_ *testing.T, w *world) {
			w.pipelines.errs = []error{never}
			w.queue.err = errors.New("no")
		}, status: 503, outcome: "retry", reason: "dead_letter_unavailable", requests: 1},
		{name: "the pipeline is created and the ledger cannot be told", prepare: func(_ *testing.T, w *world) {
			w.ledger = brokenLedger{w.ledger, nil, errors.New("away")}
		}, status: 200, outcome: "triggered", requests: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if c.prepare != nil {
				c.prepare(t, w)
			}
			if c.repository == "" {
				c.repository = "acme/api"
			}
			if c.tag == "" {
				c.tag = "1.4.0"
			}
			got := w.deliver(t, "d1", c.repository, c.tag)
			got.is(t, c.status, c.outcome, c.reason)
			if len(w.pipelines.requests) != c.requests || len(w.queue.data) != c.dead {
				t.Errorf("%d requests and %d dead letters, want %d and %d", len(w.pipelines.requests), len(w.queue.data), c.requests, c.dead)
			}
			if (got.body["pipeline_url"] != "") != (c.outcome == "triggered") || (got.body["hint"] != "") != (c.outcome == "dead") {
				t.Errorf("the answer is %v", got.body)
			}
			if strings.Contains(w.log.String(), "canary") {
				t.Errorf("a token shows in %s", w.log.String())
			}
		})
	}
}

func TestMalformedMessagesDie(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, data string }{
		"what is no push at all":       {"hello", "hello"},
		"a push whose data is no JSON": {`{"message":{"data":"aGVsbG8=","attributes":{"x":"y"}}}`, "hello"},
		"a push with a bad tag":        {`{"message":{"data":"e30=","attributes":{"x":"y"}}}`, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.post(t, c.body).is(t, 200, "dead", "malformed")
			if len(w.queue.data) != 1 || w.queue.data[0] != c.data || w.queue.attributes[0]["reason"] != "malformed" || w.queue.attributes[0]["hint"] == "" {
				t.Errorf("published %q %v", w.queue.data, w.queue.attributes)
			}
		})
	}
}

func TestADeadLetterKeepsTheMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pipelines.errs = []error{&gitlab.Error{Status: 404, Reason: "not_found", Hint: "Check the token."}}
	w.deliver(t, "d1", "acme/api", "1.4.0")
	want := map[string]string{"id": "d1", "repository": "acme/api", "tag": "1.4.0", "reason": "not_found", "hint": "Check the token."}
	if diff := cmp.Diff(want, w.queue.attributes[0]); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(w.queue.data[0], `"id":"d1"`) {
		t.Errorf("the data is %s", w.queue.data[0])
	}
	// The one that died may be replayed.
	w.deliver(t, "d1", "acme/api", "1.4.0").is(t, 200, "triggered", "")
}

func TestWhatThePipelineIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deliver(t, "d1", "acme/api", "1.4.0")
	w.deliver(t, "d2", "acme/each", "1.4.0")
	inputs, variables := w.pipelines.requests[0], w.pipelines.requests[1]
	if inputs.Project != "acme/images/api" || inputs.Ref != "main" || inputs.Token.Reveal() != "canary-default" || inputs.Variables != nil {
		t.Errorf("asked for %+v", inputs)
	}
	want := map[string]string{
		"image_repository": "acme/api", "image_tag": "1.4.0", "image_digest": digestA, "delivery_id": "d1", "severity": "low",
	}
	if diff := cmp.Diff(want, inputs.Inputs); diff != "" {
		t.Error(diff)
	}
	if variables.Project != "acme/images/each" || variables.Token.Reveal() != "canary-each" || variables.Inputs != nil {
		t.Errorf("asked for %+v", variables)
	}
	want = map[string]string{
		"IMAGE_REPOSITORY": "acme/each", "IMAGE_TAG": "1.4.0", "IMAGE_DIGEST": digestA, "DELIVERY_ID": "d2",
	}
	if diff := cmp.Diff(want, variables.Variables); diff != "" {
		t.Error(diff)
	}
}

func TestARetryThatWorks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pipelines.errs = []error{&gitlab.Error{Status: 500, Reason: "gitlab_unavailable"}}
	w.deliver(t, "d1", "acme/api", "1.4.0").is(t, 503, "retry", "gitlab_unavailable")
	w.deliver(t, "d1", "acme/api", "1.4.0").is(t, 200, "triggered", "")
	w.deliver(t, "d1", "acme/api", "1.4.0").is(t, 200, "ignored", "duplicate")
}

// Of six webhooks for one push, one dies: the others must not die after it, and
// a push that comes later is another attempt.
func TestWhatWaitedForAFailureIsNoNewAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pipelines.errs = []error{&gitlab.Error{Status: 404, Reason: "not_found"}}
	deliver := func(id string, queued time.Time) answer {
		t.Helper()
		data := []byte(`{"id":"` + id + `","repository":"acme/api","tag":"1.4.0"}`)
		body, err := json.Marshal(map[string]any{"message": map[string]any{"data": data, "publishTime": queued}})
		if err != nil {
			t.Fatal(err)
		}
		return w.post(t, string(body))
	}
	before := time.Now().Add(-time.Second)
	deliver("d1", before).is(t, 200, "dead", "not_found")
	for _, id := range []string{"d1", "d2", "d3"} {
		deliver(id, before).is(t, 200, "ignored", "duplicate")
	}
	deliver("d4", time.Now().Add(time.Second)).is(t, 200, "triggered", "")
	if len(w.queue.data) != 1 {
		t.Errorf("%d dead letters", len(w.queue.data))
	}
}

func TestOncePerDigest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, digest := range []string{digestA, digestB, digestA} {
		w.images.digest = digest
		w.deliver(t, "d"+string(rune('0'+i)), "acme/api", "1.4.0").is(t, 200, "triggered", "")
		w.deliver(t, "again"+string(rune('0'+i)), "acme/api", "1.4.0").is(t, 200, "ignored", "duplicate")
	}
}

func TestOncePerDelivery(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, repository string
		registry         bool
	}{
		{"because the route says so", "acme/each", true},
		{"because there is no registry to ask", "acme/api", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.registry = c.registry
			for _, id := range []string{"d1", "d2"} {
				w.deliver(t, id, c.repository, "1.4.0").is(t, 200, "triggered", "")
				w.deliver(t, id, c.repository, "1.4.0").is(t, 200, "ignored", "duplicate")
			}
		})
	}
}

// While GitLab takes its time, the lease must not run out under the request.
func TestTheClaimOutlivesTheRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var took time.Duration
		w.pipelines.during = func(ctx context.Context) {
			start := time.Now()
			<-ctx.Done()
			took = time.Since(start)
		}
		w.pipelines.errs = []error{&gitlab.Error{Reason: "gitlab_unavailable", Ambiguous: true}}
		w.deliver(t, "d1", "acme/api", "1.4.0").is(t, 503, "retry", "gitlab_unavailable")
		if took >= ledger.Lease {
			t.Errorf("a request may take %v under a lease of %v", took, ledger.Lease)
		}
	})
}

func TestTheLogLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const trace = "0af7651916cd43dd8448eb211c80319c"
	w.post(t, `{"message":{"data":"`+"eyJpZCI6ImQxIiwicmVwb3NpdG9yeSI6ImFjbWUvYXBpIiwidGFnIjoiMS40LjAifQ=="+
		`","messageId":"m1","attributes":{"traceparent":"00-`+trace+`-b7ad6b7169203331-01"}},"deliveryAttempt":2}`)
	line := map[string]any{}
	if err := json.Unmarshal(w.log.Bytes(), &line); err != nil {
		t.Fatalf("not one line of JSON: %s", w.log.String())
	}
	for key, want := range map[string]any{
		"severity": "INFO", "message": "pipeline created", "id": "d1", "repository": "acme/api", "tag": "1.4.0", "route": "acme/api",
		"project": "acme/images/api", "outcome": "triggered", "pipeline_url": "https://gitlab.example/p/1", "message_id": "m1",
		"delivery_attempt": 2.0, "status": 200.0, "logging.googleapis.com/trace": "projects/p/traces/" + trace,
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
}

func TestEverySettingIsChecked(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"ROUTES": routes, "GITLAB_TRIGGER_TOKENS": `{"*":"canary"}`, "DEAD_LETTER_TOPIC": "projects/p/topics/dead", "LEDGER": "memory:settings",
		"PUBSUB_EMULATOR_HOST": "127.0.0.1:1",
	}
	if _, err := trigger.FromEnv(t.Context(), func(name string) string { return good[name] }); err != nil {
		t.Fatalf("good settings: %v", err)
	}
	for _, c := range []struct {
		name   string
		change map[string]string
		want   []string
	}{
		{"nothing is set", map[string]string{"ROUTES": "", "GITLAB_TRIGGER_TOKENS": "", "DEAD_LETTER_TOPIC": "", "LEDGER": ""},
			[]string{"ROUTES: is required", "GITLAB_TRIGGER_TOKENS: is required", "LEDGER: is required", "DEAD_LETTER_TOPIC: is required"}},
		{"everything is wrong", map[string]string{
			"ROUTES": `{"a/b":{}}`, "GITLAB_TRIGGER_TOKENS": "canary", "DEAD_LETTER_TOPIC": "dead", "LEDGER": "redis:x",
			"GITLAB_URL": "gitlab", "REGISTRY": "docker.io", "REGISTRY_AUTH": "canary",
		}, []string{
			`ROUTES: "a/b": gitlab.project`, `ROUTES: "a/b": slack.channel`, "GITLAB_TRIGGER_TOKENS: is not a JSON object",
			"LEDGER: ", "REGISTRY", "GITLAB_URL: must be a URL", "DEAD_LETTER_TOPIC: ",
		}},
		{"a route without a token, a token without a route", map[string]string{"GITLAB_TRIGGER_TOKENS": `{"acme/api":"canary","acme/each":"","acme/x":"canary"}`},
			[]string{`"acme/each" has an empty token`}},
		{"a route without a token", map[string]string{"GITLAB_TRIGGER_TOKENS": `{"acme/api":"canary","acme/each":"canary","acme/x":"canary"}`},
			[]string{`route "acme/signed" has no token`, `"acme/x" is not the key of a route`}},
		{"no registry for skip_signed", map[string]string{"REGISTRY": "off"}, []string{`REGISTRY: is off, but skip_signed of route "acme/signed"`}},
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
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("a secret shows in\n%v", err)
			}
		})
	}
}

// BenchmarkDeliver is Trigger's own time for a push, and its memory: GitLab, the
// registry and the dead-letter topic take none. Every push is a new promotion.
func BenchmarkDeliver(b *testing.B) {
	table, err := route.Parse(routes)
	if err != nil {
		b.Fatal(err)
	}
	h := trigger.New(trigger.Trigger{
		Routes: table, Tokens: trigger.Tokens{"*": env.NewSecret("t")}, Images: &images{digest: digestA},
		Claims: ledger.NewMemory(), Pipelines: instant{}, DeadLetters: &queue{},
	}, gcplog.New(io.Discard, "p"))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		data := fmt.Appendf(nil, `{"id":"d%d","repository":"acme/api","tag":"1.%d"}`, n, n)
		body := `{"message":{"data":"` + base64.StdEncoding.EncodeToString(data) + `","messageId":"m"}}`
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(body)))
		if w.Code != http.StatusOK {
			b.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "MiB-heap")
	runtime.KeepAlive(h)
}

type instant struct{}

func (instant) FindPipeline(context.Context, gitlab.Search) (gitlab.Pipeline, bool, error) {
	return gitlab.Pipeline{}, false, nil
}

func (instant) CreatePipeline(context.Context, gitlab.Request) (gitlab.Pipeline, error) {
	return gitlab.Pipeline{URL: "https://gitlab.example/p/1"}, nil
}
