package ledger

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

var begun = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// TestWhatAReportMakesOfAState is the column "left for" of the state table.
func TestWhatAReportMakesOfAState(t *testing.T) {
	t.Parallel()
	all := []State{Running, Promoted, Skipped, Superseded, Failed}
	for _, c := range []struct {
		name   string
		from   State
		by     Setter
		leaves []State
	}{
		{"waiting is left for any", Waiting, ByTrigger, all},
		{"starting is left for any", Starting, ByTrigger, all},
		{"triggered is left for any", Triggered, ByTrigger, all},
		{"running is left for any end", Running, ByPipeline, []State{Promoted, Skipped, Superseded, Failed}},
		{"promoted is left for nothing", Promoted, ByPipeline, nil},
		{"skipped by its pipeline is left for nothing", Skipped, ByPipeline, nil},
		{"skipped by Trigger is left for nothing", Skipped, ByTrigger, nil},
		{"superseded by its pipeline is left for nothing", Superseded, ByPipeline, nil},
		{"superseded by Trigger is left for its own pipeline's report", Superseded, ByTrigger, all},
		{"failed by its pipeline is left where a job is retried", Failed, ByPipeline, []State{Promoted, Skipped, Superseded}},
		{"failed by reconcile is left in the same way", Failed, ByReconcile, []State{Promoted, Skipped, Superseded}},
		{"failed by the clock is left for any", Failed, ByClock, all},
		{"dead by Trigger is left for its own pipeline's report", Dead, ByTrigger, all},
		{"dead by a letter is left for its own pipeline's report", Dead, ByNotify, all},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, next := range all {
				p := &Promotion{ID: "p", State: c.from, By: c.by, Requests: 1, Current: true}
				if got, want := p.accepts(next), slices.Contains(c.leaves, next); got != want {
					t.Errorf("a report of %s moves it: %t", next, got)
				}
				p.Requests = 0
				if p.accepts(next) {
					t.Errorf("without a pipeline a report of %s moves it", next)
				}
			}
		})
	}
}

func TestOnlyEndedStatesEnd(t *testing.T) {
	t.Parallel()
	for i, s := range States {
		if got, want := s.Ended(), i > slices.Index(States, Running); got != want {
			t.Errorf("%s is an end: %t", s, got)
		}
	}
}

// TestALook is a table of (record, message, what it saw) → verdict and record.
func TestALook(t *testing.T) {
	t.Parallel()
	const a, b = "sha256:a", "sha256:b"
	now := begun.Add(10 * time.Minute)
	message := Message{ID: "m", QueuedAt: now.Add(-time.Second), PushedAt: now.Add(-time.Second), ReceivedAt: now.Add(-time.Second)}
	sibling := Message{ID: "m", QueuedAt: begun, PushedAt: begun, ReceivedAt: begun}
	replay, replayOfLater := sibling, message
	replay.ReplayedAt, replayOfLater.ReplayedAt = now, now
	promotion := func(s State, by Setter, digest string) *Promotion {
		return &Promotion{ID: "old", State: s, By: by, Digest: digest, CreatedAt: begun, UpdatedAt: begun.Add(time.Minute), Current: true, Requests: 1}
	}
	leased := func(p *Promotion, to string) *Promotion {
		p.LeaseEnds, p.Message = now.Add(time.Second), Message{ID: to, QueuedAt: message.QueuedAt}
		return p
	}
	for _, c := range []struct {
		name    string
		settled *Promotion
		message Message
		want    Verdict
		fresh   bool  // a new promotion is claimed
		old     State // of the settled one, afterwards
	}{
		{"a new tag", nil, message, Start, true, ""},
		{"the image waits for GitLab", promotion(Waiting, ByTrigger, a), message, Start, false, Starting},
		{"the image waits, leased to another message", leased(promotion(Waiting, ByTrigger, a), "x"), message, InProgress, false, Waiting},
		{"the image waits, leased to this message", leased(promotion(Waiting, ByTrigger, a), "m"), message, Start, false, Starting},
		{"the image is being started by another", leased(promotion(Starting, ByTrigger, a), "x"), message, InProgress, false, Starting},
		{"the image is being started by an earlier attempt", leased(promotion(Starting, ByTrigger, a), "m"), message, InProgress, false, Starting},
		{"the claim was not answered", promotion(Starting, ByTrigger, a), message, Start, false, Starting},
		{"the pipeline is known", promotion(Triggered, ByTrigger, a), message, Ignore, false, Triggered},
		{"the pipeline runs", promotion(Running, ByPipeline, a), message, Ignore, false, Running},
		{"the image is promoted", promotion(Promoted, ByPipeline, a), message, Ignore, false, Promoted},
		{"there was nothing to do", promotion(Skipped, ByPipeline, a), message, Ignore, false, Skipped},
		{"the image is superseded, and is there again", promotion(Superseded, ByPipeline, a), message, Start, true, Superseded},
		{"the image failed before the push", promotion(Failed, ByPipeline, a), message, Start, true, Failed},
		{"the image failed after the push", promotion(Failed, ByPipeline, a), sibling, Ignore, false, Failed},
		{"the image failed before the replay", promotion(Failed, ByPipeline, a), replay, Ignore, false, Failed},
		{"the image failed before the push that is replayed", promotion(Failed, ByPipeline, a), replayOfLater, Start, true, Failed},
		{"the image died before the push", promotion(Dead, ByTrigger, a), message, Start, true, Dead},
		{"the image died after the push", promotion(Dead, ByTrigger, a), sibling, Ignore, false, Dead},
		{"the image died before the replay", promotion(Dead, ByTrigger, a), replay, Start, true, Dead},
		{"an unknown image died before the push", promotion(Dead, ByNotify, ""), message, Start, true, Dead},
		{"an unknown image died after the push", promotion(Dead, ByNotify, ""), sibling, Ignore, false, Dead},
		{"another image waits", promotion(Waiting, ByTrigger, b), sibling, Start, true, Superseded},
		{"another image is being started", leased(promotion(Starting, ByTrigger, b), "x"), sibling, Start, true, Superseded},
		{"another image's pipeline runs", promotion(Running, ByPipeline, b), sibling, Start, true, Running},
		{"another image is promoted", promotion(Promoted, ByPipeline, b), sibling, Start, true, Promoted},
		{"another image failed", promotion(Failed, ByPipeline, b), sibling, Start, true, Failed},
		{"another image died", promotion(Dead, ByTrigger, b), sibling, Start, true, Dead},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := &record{tag: &Tag{}, settled: c.settled, now: now}
			r.group = r.tag
			if c.settled != nil {
				r.tag.Settled = c.settled.ID
			}
			if got := r.look(Look{Message: c.message, NewID: "new", Lease: time.Minute}, a); got != c.want {
				t.Fatalf("the verdict is %d, want %d", got, c.want)
			}
			if c.settled != nil && c.settled.State != c.old {
				t.Errorf("the old one is %s", c.settled.State)
			}
			if fresh := r.settled != nil && r.settled != c.settled; fresh != c.fresh {
				t.Errorf("a new one is claimed: %t", fresh)
			}
			if c.want == Start {
				p := r.settled
				if p.State != Starting || p.Digest != a || !p.Current || !p.LeaseEnds.Equal(now.Add(time.Minute)) ||
					!r.tag.LookBy.Equal(now.Add(time.Minute+StartingLookBy)) || r.tag.Look != c.message || r.tag.Settled != p.ID {
					t.Errorf("the claim is %+v, the tag %+v", p, r.tag)
				}
			}
		})
	}
}

// TestAdmission is P6, without a store.
func TestAdmission(t *testing.T) {
	t.Parallel()
	own, other := Caller{ProjectID: "42", PipelineID: "7", Source: "trigger"}, Caller{ProjectID: "42", PipelineID: "8", Source: "trigger"}
	allowed := func(c Caller, ok bool) Caller { c.Allowed = ok; return c }
	by := func(c Caller, source string) Caller { c.Source = source; return c }
	of := func(c Caller, project string) Caller { c.ProjectID = project; return c }
	known := Promotion{State: Triggered, Requests: 1, ProjectID: "42", Pipelines: []string{"42/7"}}
	unknown := Promotion{State: Starting, Requests: 1}
	change := func(p Promotion, f func(*Promotion)) Promotion { f(&p); return p }
	for _, c := range []struct {
		name      string
		promotion Promotion
		caller    Caller
		ok        bool
	}{
		{"its own, independent of the route", known, own, true},
		{"its own, from another source", known, by(own, "web"), true},
		{"another of its project", known, allowed(other, true), false},
		{"the pipeline of that ID of another project", known, allowed(of(own, "43"), true), false},
		{"where an answer was lost, another of its project", change(known, func(p *Promotion) { p.Lost = true }), other, true},
		{"where an answer was lost, one by hand", change(known, func(p *Promotion) { p.Lost = true }), by(other, "web"), false},
		{"where an answer was lost, one of another project", change(known, func(p *Promotion) { p.Lost = true }), allowed(of(other, "43"), true), false},
		{"where nothing is known, one of the route's project", unknown, allowed(own, true), true},
		{"where nothing is known, one of another project", unknown, own, false},
		{"where nothing is known, one by hand", unknown, by(allowed(own, true), "web"), false},
		{"where nothing is known, one by a schedule", unknown, by(allowed(own, true), "schedule"), false},
		{"where it has failed, one by hand", change(known, func(p *Promotion) { p.State = Failed }), by(other, "web"), true},
		{"where it has failed, one by hand of another project", change(known, func(p *Promotion) { p.State = Failed }), allowed(by(of(other, "43"), "web"), true), false},
		{"where it is promoted, one by hand", change(known, func(p *Promotion) { p.State = Promoted }), by(other, "web"), false},
		{"where GitLab was never asked", Promotion{State: Dead}, allowed(own, true), false},
		{"where GitLab was never asked, by hand", Promotion{State: Dead}, by(allowed(own, true), "web"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := c.promotion
			p.Pipelines = slices.Clone(p.Pipelines)
			err := p.admit(c.caller, Failed)
			if (err == nil) != c.ok {
				t.Fatalf("it is admitted: %v", err)
			}
			if mine := slices.Contains(p.Pipelines, c.caller.ProjectID+"/"+c.caller.PipelineID); mine != c.ok {
				t.Errorf("it is one of its own: %t", mine)
			}
			if c.ok && p.ProjectID != "42" {
				t.Errorf("its project is %q", p.ProjectID)
			}
		})
	}
}

// Endless reports of pipelines do not make the record grow without end.
func TestPipelinesOfAPromotionAreBounded(t *testing.T) {
	t.Parallel()
	p := &Promotion{State: Failed, Requests: 1, ProjectID: "42"}
	for i := range 10 * maxPipelines {
		_ = p.admit(Caller{ProjectID: "42", PipelineID: fmt.Sprint(i + 1), Source: "web"}, Running)
		p.own(42, int64(i+1000))
	}
	if len(p.Pipelines) > maxPipelines {
		t.Errorf("it knows %d", len(p.Pipelines))
	}
}

// TestTheClock is a table of (promotion, time) → what Slack must show.
func TestTheClock(t *testing.T) {
	t.Parallel()
	const silentAfter = time.Hour
	triggered := Promotion{State: Triggered, By: ByTrigger, UpdatedAt: begun}
	waiting := func(reason string) Promotion {
		return Promotion{State: Waiting, By: ByTrigger, Reason: reason, UpdatedAt: begun, Outbox: Outbox{WaitsSince: begun}}
	}
	change := func(p Promotion, f func(*Promotion)) Promotion { f(&p); return p }
	for _, c := range []struct {
		name       string
		promotion  Promotion
		repository time.Duration // after which one of its promotions has ended
		after      time.Duration // from which on it happens
		hears      func(Promotion) bool
	}{
		{"waits for a person", waiting("registry_denied"), 0, 10 * time.Minute, func(p Promotion) bool { return p.ToldWaiting && p.Bad() }},
		{"waits for the ref", waiting("reference_not_found"), 0, 10 * time.Minute, func(p Promotion) bool { return p.ToldWaiting }},
		{"waits to be let in", waiting("forbidden"), 0, 10 * time.Minute, func(p Promotion) bool { return p.ToldWaiting }},
		{"waits for capacity", waiting("gitlab_capacity"), 0, time.Hour, func(p Promotion) bool { return p.ToldWaiting }},
		{"waits for anything else", waiting("what comes"), 0, time.Hour, func(p Promotion) bool { return p.ToldWaiting }},
		{"is silent", triggered, 0, time.Hour, Promotion.silent},
		{"runs, and is silent", change(triggered, func(p *Promotion) { p.State = Running }), 0, time.Hour, Promotion.silent},
		{"another has ended since", triggered, 30 * time.Minute, 90 * time.Minute, Promotion.silent},
		{"another has ended before", triggered, -30 * time.Minute, time.Hour, Promotion.silent},
		{"others go on ending", triggered, 10 * time.Hour, 7 * time.Hour, Promotion.silent},
		{"GitLab said recently that it continues", change(triggered, func(p *Promotion) { p.AskedAt = begun.Add(2 * time.Hour) }), 0, 2*time.Hour + askedLately, Promotion.silent},
		{"is silent for good", change(triggered, func(p *Promotion) { p.SilentSince = begun.Add(time.Hour) }), 0, 7 * time.Hour,
			func(p Promotion) bool {
				return p.State == Failed && p.By == ByClock && p.Reason == Silence && !p.Silent()
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			repository := begun.Add(c.repository)
			for _, at := range []time.Duration{c.after - time.Second, c.after} {
				p := c.promotion
				p.schedule(begun, repository, silentAfter)
				if p.DueAt.IsZero() || p.DueAt.After(begun.Add(c.after)) {
					t.Errorf("the clock looks at %v, after %v", p.DueAt, p.DueAt.Sub(begun))
				}
				revision := p.Revision
				p.tick(begun.Add(at), repository, silentAfter)
				due := at == c.after
				if c.hears(p) != due || (p.Revision > revision) != due {
					t.Errorf("after %v it is %+v", at, p)
				}
				p.tick(begun.Add(at), repository, silentAfter)
				if p.Revision > revision+1 {
					t.Errorf("after %v a second look tells of it again", at)
				}
			}
		})
	}
}

func (p Promotion) silent() bool { return p.Silent() && p.Bad() }

func TestWhatIsShown(t *testing.T) {
	t.Parallel()
	message := Outbox{Channel: "C", TS: "1.1"}
	posting := Outbox{ShowEnds: begun}
	for _, c := range []struct {
		name string
		p    Promotion
		want bool
		bad  bool
	}{
		{"running", Promotion{State: Running}, true, false},
		{"promoted", Promotion{State: Promoted}, true, false},
		{"failed", Promotion{State: Failed}, true, true},
		{"dead", Promotion{State: Dead}, true, true},
		{"skipped by its pipeline", Promotion{State: Skipped, By: ByPipeline}, true, false},
		{"superseded by its pipeline", Promotion{State: Superseded, By: ByPipeline}, true, false},
		{"skipped by Trigger", Promotion{State: Skipped, By: ByTrigger}, false, false},
		{"superseded by Trigger", Promotion{State: Superseded, By: ByTrigger}, false, false},
		{"superseded by Trigger, with a message", Promotion{State: Superseded, By: ByTrigger, Outbox: message}, true, false},
		{"superseded by Trigger, while a message is posted", Promotion{State: Superseded, By: ByTrigger, Outbox: posting}, true, false},
		{"skipped by Trigger, with a message", Promotion{State: Skipped, By: ByTrigger, Outbox: message}, true, false},
		{"waiting", Promotion{State: Waiting}, false, false},
		{"waiting for long", Promotion{State: Waiting, Outbox: Outbox{ToldWaiting: true}}, true, true},
		{"waiting, with a message", Promotion{State: Waiting, Outbox: message}, true, false},
		{"starting", Promotion{State: Starting}, false, false},
		{"starting, with a message", Promotion{State: Starting, Outbox: message}, false, false},
		{"triggered", Promotion{State: Triggered}, false, false},
		{"triggered, with a message", Promotion{State: Triggered, Outbox: message}, true, false},
		{"triggered and silent", Promotion{State: Triggered, Outbox: Outbox{SilentSince: begun}}, true, true},
	} {
		if got := c.p.visible(); got != c.want {
			t.Errorf("%s is shown: %t", c.name, got)
		}
		if got := c.p.Bad(); got != c.bad {
			t.Errorf("%s is bad news: %t", c.name, got)
		}
	}
}
