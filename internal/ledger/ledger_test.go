package ledger_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	digestC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

	lease = time.Minute
)

var (
	tagKey = ledger.Key{Repository: "acme/api", Tag: "1.4.0"}
	// outboxes is how a test shows promotions.
	outboxes = ledger.Outboxes{Lease: time.Minute, SilentAfter: time.Hour}
)

// fixture is a ledger, the tag that a test is about, and the time.
type fixture struct {
	*ledger.Ledger
	t    *testing.T
	key  ledger.Key
	now  func() time.Time
	pass func(time.Duration)
}

// at is the same ledger, looked at by another key.
func (f fixture) at(key ledger.Key) fixture {
	f.key = key
	return f
}

func (f fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f fixture) wantErr(got, want error) {
	f.t.Helper()
	if !errors.Is(got, want) {
		f.t.Fatalf("got error %v, want %v", got, want)
	}
}

// webhook is the message of a push that was made now. Time passes, so that the
// next one is queued later.
func (f fixture) webhook(id string) ledger.Message {
	now := f.now()
	f.pass(10 * time.Millisecond)
	return ledger.Message{ID: id, QueuedAt: now, PushedAt: now, ReceivedAt: now}
}

// replay is a message that a person has queued again now.
func (f fixture) replay(m ledger.Message) ledger.Message {
	f.pass(10 * time.Millisecond)
	m.QueuedAt, m.ReplayedAt = f.now(), f.now()
	f.pass(10 * time.Millisecond)
	return m
}

// reconciled is a message that reconcile has queued again now.
func (f fixture) reconciled(m ledger.Message) ledger.Message {
	f.pass(10 * time.Millisecond)
	m.QueuedAt, m.Reconcile = f.now(), true
	f.pass(10 * time.Millisecond)
	return m
}

func saw(m ledger.Message, digest string) ledger.Look {
	return ledger.Look{Message: m, Route: "acme/*", NewID: ledger.NewID(), Lease: lease, Digest: digest}
}

func blind(m ledger.Message, reason string) ledger.Look {
	l := saw(m, "")
	l.Reason, l.Hint = reason, "fix "+reason
	return l
}

// look reads the record and settles what was seen.
func (f fixture) look(l ledger.Look) ledger.Decision {
	f.t.Helper()
	f.pass(time.Millisecond)
	s, err := f.Read(f.t.Context(), f.key)
	f.must(err)
	d, err := s.Settle(f.t.Context(), l)
	f.must(err)
	return d
}

var verdicts = map[ledger.Verdict]string{
	ledger.Start: "start", ledger.Ignore: "ignore", ledger.InProgress: "in progress", ledger.Wait: "wait", ledger.Loop: "loop",
}

// comes looks, and expects a verdict.
func (f fixture) comes(l ledger.Look, want ledger.Verdict) ledger.Decision {
	f.t.Helper()
	d := f.look(l)
	if d.Verdict != want {
		f.t.Fatalf("the look comes to %q, want %q", verdicts[d.Verdict], verdicts[want])
	}
	return d
}

// starts looks, and expects the claim.
func (f fixture) starts(m ledger.Message, digest string) ledger.Claim {
	f.t.Helper()
	return f.comes(saw(m, digest), ledger.Start).Claim
}

// created is GitLab's answer that there is a pipeline of that ID in project 42.
func created(id int64) ledger.Answer {
	return ledger.Answer{Created: true, Pipeline: ledger.Pipeline{ProjectID: 42, ID: id, URL: "https://gitlab.example/p"}}
}

// waits is GitLab's answer that there is none yet.
func waits(m ledger.Message, reason string) ledger.Answer {
	return ledger.Answer{Message: m, Reason: reason, Hint: "fix " + reason}
}

// lost is no answer.
func lost(m ledger.Message) ledger.Answer {
	a := waits(m, "gitlab_unavailable")
	a.Lost = true
	return a
}

// refused is GitLab's answer that there will be none.
func refused(m ledger.Message) ledger.Answer {
	a := waits(m, "not_found")
	a.Dead = true
	return a
}

func (f fixture) answer(c ledger.Claim, a ledger.Answer) {
	f.t.Helper()
	f.pass(time.Millisecond)
	f.must(f.Answered(f.t.Context(), c, a))
}

// triggered makes a promotion whose pipeline is known.
func (f fixture) triggered(m ledger.Message, digest string, pipeline int64) ledger.Promotion {
	f.t.Helper()
	c := f.starts(m, digest)
	f.answer(c, created(pipeline))
	return f.get(c.ID)
}

// own is the pipeline of that ID in project 42.
func own(id string) *ledger.Caller {
	return &ledger.Caller{ProjectID: "42", PipelineID: id, Source: "trigger"}
}

// reports reports with a shared token.
func (f fixture) reports(id string, s ledger.State) ledger.Outcome {
	f.t.Helper()
	f.pass(time.Millisecond)
	out, err := f.Report(f.t.Context(), id, ledger.Report{State: s}, outboxes)
	f.must(err)
	return out
}

// promotes brings a promotion to an end.
func (f fixture) ends(m ledger.Message, digest string, pipeline int64, s ledger.State) ledger.Promotion {
	f.t.Helper()
	p := f.triggered(m, digest, pipeline)
	f.shows(f.reports(p.ID, s).Showing)
	return f.get(p.ID)
}

// shows makes Slack accept what must be shown.
func (f fixture) shows(s *ledger.Showing) {
	f.t.Helper()
	for s != nil {
		next, err := f.Shown(f.t.Context(), *s, ledger.Result{Channel: "C1", TS: "1.1", Message: true, Reply: true}, outboxes)
		f.must(err)
		s = next
	}
}

// dies is a dead letter of Pub/Sub's.
func (f fixture) dies(m ledger.Message) ledger.Outcome {
	f.t.Helper()
	out, err := f.bury(m)
	f.must(err)
	return out
}

func (f fixture) bury(m ledger.Message) (ledger.Outcome, error) {
	f.pass(time.Millisecond)
	return f.Bury(f.t.Context(), ledger.Letter{
		Key: f.key, Message: m, Route: "acme/*", NewID: ledger.NewID(), Attempts: 50, Subscription: "projects/p/subscriptions/dead",
	}, outboxes)
}

func (f fixture) get(id string) ledger.Promotion {
	f.t.Helper()
	p, err := f.Get(f.t.Context(), id)
	f.must(err)
	return p
}

func (f fixture) current() ledger.Promotion {
	f.t.Helper()
	p, err := f.Current(f.t.Context(), f.key)
	f.must(err)
	return p
}

// is expects a state and a reason of a promotion.
func (f fixture) is(id string, state ledger.State, reason string) ledger.Promotion {
	f.t.Helper()
	p := f.get(id)
	if p.State != state || p.Reason != reason {
		f.t.Fatalf("the promotion is %s %q, want %s %q", p.State, p.Reason, state, reason)
	}
	return p
}

// tag is the record as it is kept.
func (f fixture) tag() ledger.Tag {
	f.t.Helper()
	found, _, err := ledger.StoreOf(f.Ledger).Tags(f.t.Context(), f.key.ID())
	f.must(err)
	if found[0] == nil {
		return ledger.Tag{Key: f.key}
	}
	return *found[0]
}

// lookBy expects that the next look is due in about that time.
func (f fixture) lookBy(want time.Duration) ledger.Tag {
	f.t.Helper()
	tag := f.tag()
	if got := tag.LookBy.Sub(f.now()); tag.LookBy.IsZero() || got > want || got < want-5*time.Second {
		f.t.Fatalf("somebody must look by %v (in %v), want in %v", tag.LookBy, got, want)
	}
	return tag
}

// nobodyMustLook expects that no look is due.
func (f fixture) nobodyMustLook() {
	f.t.Helper()
	if tag := f.tag(); !tag.LookBy.IsZero() {
		f.t.Fatalf("somebody must look by %v", tag.LookBy)
	}
}

// tick makes the clock handle what is due, and Slack accept all of it.
func (f fixture) tick() (shown []ledger.Promotion) {
	f.t.Helper()
	due, err := f.Due(f.t.Context(), 100)
	f.must(err)
	for _, p := range due {
		showing, err := f.Tick(f.t.Context(), p.ID, outboxes)
		f.must(err)
		if showing != nil {
			shown = append(shown, showing.Promotion)
			f.shows(showing)
		}
	}
	return shown
}

// count is how many promotions there are.
func (f fixture) count() int {
	f.t.Helper()
	n := 0
	for _, err := range f.All(f.t.Context()) {
		f.must(err)
		n++
	}
	return n
}

func TestMemory(t *testing.T) {
	t.Parallel()
	for _, c := range conformance {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c.test(fixture{ledger.New(ledger.NewMemory()), t, tagKey, time.Now, time.Sleep})
			})
		})
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", "memory", "redis:x", "firestore:", "firestore:projects/p", "firestore:projects/p/databases/", "firestore:projects/P/databases/d",
		"firestore:projects/p/databases/d/documents/x", " memory:x",
	} {
		if _, err := ledger.Open(name); err == nil {
			t.Errorf("%q is taken for a ledger", name)
		}
		if _, err := ledger.ParseName(name); err == nil {
			t.Errorf("%q is taken for the name of a ledger", name)
		}
	}
	for text, inMemory := range map[string]bool{"memory:x": true, "firestore:projects/p/databases/(default)": false} {
		if name, err := ledger.ParseName(text); err != nil || name.InMemory() != inMemory {
			t.Errorf("%q: %v", text, err)
		}
	}
	open := func(name string) fixture {
		l, err := ledger.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		return fixture{l, t, tagKey, time.Now, time.Sleep}
	}
	name, other := "memory:"+ledger.NewID(), "memory:"+ledger.NewID()
	f := open(name)
	m := f.webhook("one")
	f.comes(saw(m, digestA), ledger.Start)
	open(name).comes(saw(m, digestA), ledger.InProgress)
	open(other).comes(saw(m, digestA), ledger.Start)
}

func TestNamesOfDocuments(t *testing.T) {
	t.Parallel()
	received := time.UnixMilli(1234)
	for want, key := range map[string]ledger.Key{
		"acme~api:1.4.0":         tagKey,
		"acme~api:1.4.0:d1@1234": ledger.WebhookKey("acme/api", "1.4.0", "d1", received),
		"acme~team~api:1":        {Repository: "acme/team/api", Tag: "1"},
	} {
		if got := key.ID(); got != want {
			t.Errorf("the document is %q, want %q", got, want)
		}
		if key.Group().Delivery != "" || key.Group().Tag != key.Tag {
			t.Errorf("the group of %v is %v", key, key.Group())
		}
	}
	a, b := ledger.NewID(), ledger.NewID()
	if len(a) != 32 || a == b {
		t.Errorf("IDs are %q and %q", a, b)
	}
}

func TestASharedStoreIsTheOneThatIsOpened(t *testing.T) {
	t.Parallel()
	name, store := "memory:"+ledger.NewID(), ledger.NewMemory()
	ledger.Share(name, store)
	opened, err := ledger.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	m := fixture{opened, t, tagKey, time.Now, time.Sleep}.webhook("one")
	fixture{opened, t, tagKey, time.Now, time.Sleep}.comes(saw(m, digestA), ledger.Start)
	fixture{ledger.New(store), t, tagKey, time.Now, time.Sleep}.comes(saw(m, digestA), ledger.InProgress)
	ledger.Share(name, nil)
	if opened, err = ledger.Open(name); err != nil {
		t.Fatal(err)
	}
	fixture{opened, t, tagKey, time.Now, time.Sleep}.comes(saw(m, digestA), ledger.Start)
}

// hung is a store that does not answer.
type hung struct{ ledger.Store }

func (hung) Tags(ctx context.Context, _ ...string) ([]*ledger.Tag, time.Time, error) {
	<-ctx.Done()
	return nil, time.Time{}, ctx.Err()
}

func (hung) Repository(ctx context.Context, _ string) (*ledger.Repository, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// What is recorded must be queued, so who records that a push was found does not
// give up by itself.
func TestWhatIsKnownOfARepositoryIsRecordedInTimeOrNot(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(*ledger.Ledger) error{
		"found": func(l *ledger.Ledger) error {
			return l.Found(context.WithoutCancel(t.Context()), "acme/api", "acme/*", "h")
		},
		"heard of": func(l *ledger.Ledger) error { return l.HeardOf(context.WithoutCancel(t.Context()), "acme/api") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began, done := time.Now(), make(chan error, 1)
				go func() { done <- call(ledger.New(hung{ledger.NewMemory()})) }()
				select {
				case err := <-done:
					if took := time.Since(began); err == nil || took > ledger.Timeout {
						t.Errorf("it took %v, and came to %v", took, err)
					}
				case <-time.After(time.Hour):
					t.Fatal("it never ends")
				}
			})
		})
	}
}
