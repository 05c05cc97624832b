package ledger

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// walk applies events to one tag. Each byte is one event. It reports what does
// not hold.
type walk struct {
	t          *testing.T
	tag        *Tag
	promotions map[string]*Promotion
	repository *Repository
	claims     []Promotion
	messages   []Message
	now        time.Time
	n          int
	unwanted   string // the newest, when the routes did not want the tag
}

func newWalk(t *testing.T) *walk {
	return &walk{t: t, tag: &Tag{Key: Key{Repository: "acme/api", Tag: "1"}}, promotions: map[string]*Promotion{}, repository: &Repository{}, now: begun}
}

// record is what a reader would get: copies.
func (w *walk) record() *record {
	tag := *w.tag
	r := &record{tag: &tag, group: &tag, now: w.now}
	for id, p := range map[string]**Promotion{tag.Settled: &r.settled, tag.Pending: &r.pending} {
		if found := w.promotions[id]; id != "" && found != nil {
			c := *found
			*p = &c
		}
	}
	return r
}

// write is what a commit does.
func (w *walk) write(r *record, others ...*Promotion) {
	for _, p := range append(others, r.settled, r.pending, r.dropped, r.ousted) {
		if p == nil {
			continue
		}
		p.schedule(w.now, w.repository.EndedAt, time.Hour)
		was := w.promotions[p.ID]
		c := *p
		w.promotions[p.ID] = &c
		w.compare(was, &c)
	}
	w.tag = r.tag
	w.check()
}

// compare checks what a change may do.
func (w *walk) compare(was, is *Promotion) {
	w.t.Helper()
	if was == nil {
		return
	}
	left := map[State]bool{Promoted: false, Skipped: false}
	if can, final := left[was.State]; final && !can && is.State != was.State {
		w.t.Fatalf("%s was left for %s", was.State, is.State)
	}
	if was.State == Superseded && was.By == ByPipeline && is.State != Superseded {
		w.t.Fatalf("superseded was left for %s", is.State)
	}
	if was.State == Failed && was.By == ByPipeline && !slices.Contains([]State{Failed, Promoted, Skipped, Superseded}, is.State) {
		w.t.Fatalf("failed was left for %s", is.State)
	}
	if is.Revision < was.Revision || is.Token < was.Token || is.ShowToken < was.ShowToken || is.Requests < was.Requests {
		w.t.Fatalf("a count went back:\n%+v\n%+v", was, is)
	}
	if was.Digest != "" && is.Digest != was.Digest {
		w.t.Fatalf("the digest went from %s to %s", was.Digest, is.Digest)
	}
	if was.TS != "" && is.TS == "" && is.State != Dead { // a replay goes on with a dead one's
		w.t.Fatalf("the message was forgotten:\n%+v\n%+v", was, is)
	}
}

// check checks what always holds.
func (w *walk) check() {
	w.t.Helper()
	current, ts := 0, map[string]string{}
	for id, p := range w.promotions {
		switch {
		case p.Current && id != w.tag.Settled && id != w.tag.Pending:
			w.t.Fatalf("%s is current, and the tag is %+v", id, w.tag)
		case p.Current:
			current++
		case p.retried():
			w.t.Fatalf("%s is %s, and nobody's", id, p.State)
		}
		if p.TS != "" {
			if other := ts[p.TS]; other != "" {
				w.t.Fatalf("%s and %s have one message", other, id)
			}
			ts[p.TS] = id
		}
		if p.retried() && id == w.tag.Settled && p.Digest == "" {
			w.t.Fatalf("%s is settled without a digest: %+v", id, p)
		}
		if p.Shown > p.Revision || p.Replied > p.Revision {
			w.t.Fatalf("more is shown than there is: %+v", p)
		}
		if !p.ExpiresAt.IsZero() && (p.Current || p.retried() || p.underWay() || p.Behind()) {
			w.t.Fatalf("it may be forgotten: %+v", p)
		}
		if p.DueAt.IsZero() && (p.Behind() || p.underWay() || p.State == Waiting && !p.ToldWaiting) {
			w.t.Fatalf("the clock never looks at it: %+v", p)
		}
	}
	want := 0
	for _, id := range []string{w.tag.Settled, w.tag.Pending} {
		if id != "" {
			want++
		}
	}
	if current != want {
		w.t.Fatalf("%d are current, the tag is %+v", current, w.tag)
	}
	if s := w.promotions[w.tag.Pending]; s != nil && (s.State != Waiting || s.Digest != "") {
		w.t.Fatalf("what waits for its digest is %+v", s)
	}
	settled, pending := w.promotions[w.tag.Settled], w.promotions[w.tag.Pending]
	if (pending != nil || settled != nil && settled.retried()) && w.tag.LookBy.IsZero() {
		w.t.Fatalf("nobody must look at %+v\nsettled %+v\npending %+v", w.tag, settled, pending)
	}
	if settled != nil && settled.State == Dead && pending == nil && settled.TS == "" && !settled.Behind() && settled.ID != w.unwanted {
		w.t.Fatalf("it is dead, and nobody hears of it: %+v", settled)
	}
	if pending != nil && w.tag.Waiting.ID == "" {
		w.t.Fatalf("nobody's letter is the death of %+v", w.tag)
	}
}

// any is one of the promotions, nil if there is none.
func (w *walk) any() *Promotion {
	ids := []string{}
	for id := range w.promotions {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	return w.promotions[ids[w.n%len(ids)]]
}

// with is the record, and the promotion as a part of it or beside it.
func (w *walk) with(p *Promotion) (*record, *Promotion) {
	r := w.record()
	for _, mine := range []*Promotion{r.settled, r.pending} {
		if mine != nil && mine.ID == p.ID {
			return r, mine
		}
	}
	other := *p
	return r, &other
}

// step is one event.
func (w *walk) step(what, how byte) {
	w.n++
	w.now = w.now.Add([]time.Duration{0, time.Millisecond, time.Second, 40 * time.Second, 2 * time.Minute, 20 * time.Minute, 2 * time.Hour, 100 * 24 * time.Hour}[how>>5])
	digest := []string{"sha256:a", "sha256:b"}[how&1]
	message := func() Message {
		if len(w.messages) > 0 && how&2 != 0 {
			return w.messages[int(how>>2)%len(w.messages)]
		}
		m := Message{ID: fmt.Sprint(w.n), QueuedAt: w.now, PushedAt: w.now, ReceivedAt: w.now}
		if how&4 != 0 && len(w.messages) > 0 {
			m = w.messages[len(w.messages)-1]
			m.QueuedAt = w.now
			if m.Reconcile = how&8 != 0; !m.Reconcile {
				m.ReplayedAt = w.now
			}
		}
		w.messages = append(w.messages, m)
		return m
	}
	look := Look{NewID: fmt.Sprintf("p%04d", w.n), Lease: time.Minute, Route: "r"}
	switch what % 9 {
	case 0, 1: // a look
		look.Message = message()
		r := w.record()
		switch r.look(look, digest) {
		case Start:
			w.claims = append(w.claims, *r.settled)
		case Loop:
			r.bury(r.settled, ByTrigger, PromotionLoop, "", "")
		}
		w.write(r)
	case 2: // the registry does not say
		look.Message, look.Reason = message(), "registry_denied"
		r := w.record()
		r.unseen(look)
		w.write(r)
	case 3: // GitLab's answer
		if len(w.claims) == 0 {
			return
		}
		claim := w.claims[len(w.claims)-1]
		w.claims = w.claims[:len(w.claims)-1]
		r, p := w.with(w.promotions[claim.ID])
		if p.Token != claim.Token {
			return
		}
		a := Answer{Message: claim.Message, Reason: "x"}
		switch how % 4 {
		case 0:
			a = Answer{Created: true, Pipeline: Pipeline{ProjectID: 42, ID: int64(w.n)}}
		case 1:
			a.Lost = true
		case 2:
			a.Dead = true
		}
		r.answered(p, a)
		w.write(r, p)
	case 4: // a report
		p := w.any()
		if p == nil {
			return
		}
		s := []State{Running, Promoted, Skipped, Superseded, Failed}[int(how)%5]
		if p.accepts(s) {
			r, p := w.with(p)
			r.report(p, Report{State: s}, w.repository)
			w.write(r, p)
		}
	case 5: // a dead letter
		r := w.record()
		r.letter(Letter{Message: message(), NewID: look.NewID, Attempts: 50})
		w.write(r)
	case 6: // the clock
		p := w.any()
		if p == nil {
			return
		}
		r, p := w.with(p)
		p.tick(w.now, w.repository.EndedAt, time.Hour)
		r.handled(p)
		w.write(r, p)
	case 7: // Slack
		p := w.any()
		if p == nil || !p.Behind() || p.showing(w.now) {
			return
		}
		r, p := w.with(p)
		p.shown(Result{
			Revision: p.Revision, Channel: "C", TS: cmp.Or(p.TS, fmt.Sprint(w.n)), Message: how&1 != 0, Reply: how&1 != 0,
		}, w.now)
		w.write(r, p)
	case 8: // the routes change
		r := w.record()
		r.unwanted()
		w.unwanted = r.tag.Settled
		w.write(r)
	}
}

// FuzzRules applies events in any order, and checks what must always hold.
func FuzzRules(f *testing.F) {
	f.Add([]byte{0, 0, 3, 0, 4, 1, 0, 1, 4, 3})
	f.Add([]byte{2, 0, 5, 2, 0, 6, 3, 2, 6, 255})
	f.Fuzz(func(t *testing.T, events []byte) {
		w := newWalk(t)
		for i := 0; i+1 < len(events) && i < 400; i += 2 {
			w.step(events[i], events[i+1])
		}
	})
}

// The same, from a seed, so that every run of the tests covers many events.
func TestRulesWhateverComes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		random := rand.New(rand.NewPCG(seed, 0))
		w := newWalk(t)
		for range 60 {
			w.step(byte(random.Uint32()), byte(random.Uint32()))
		}
	}
}
