package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

// conformance tests a ledger on any store. L1 to L3 and P1 to P8 are the
// promises of docs/architecture.md.
var conformance = slices.Concat(looking, dying, attempts, telling, keeping, reconciling, registration)

type scenario struct {
	name string
	test func(fixture)
}

var looking = []scenario{
	{"L1: a look writes only if the record is what it was before the registry was asked", func(f fixture) {
		m1, m2 := f.webhook("1"), f.webhook("2")
		older, err := f.Read(f.t.Context(), f.key)
		f.must(err)
		f.ends(m2, digestB, 7, ledger.Promoted)
		_, err = older.Settle(f.t.Context(), saw(m1, digestA))
		f.wantErr(err, ledger.ErrConflict)
		if p := f.current(); p.Digest != digestB || p.State != ledger.Promoted || f.count() != 1 {
			f.t.Errorf("the newest promotion is %+v, of %d", p, f.count())
		}
	}},
	{"L1: so does one that waits, one of a duplicate, and one that is unwanted", func(f fixture) {
		f.ends(f.webhook("1"), digestA, 7, ledger.Promoted)
		f.comes(blind(f.webhook("2"), "registry_unavailable"), ledger.Wait)
		m := f.webhook("3")
		for name, l := range map[string]ledger.Look{
			"waits": blind(m, "registry_denied"), "duplicate": saw(m, digestA), "unwanted": {Message: m, Unwanted: true},
		} {
			f.pass(time.Millisecond)
			older, err := f.Read(f.t.Context(), f.key)
			f.must(err)
			f.comes(blind(f.webhook("other "+name), "registry_unavailable "+name), ledger.Wait)
			if _, err = older.Settle(f.t.Context(), l); err == nil {
				f.t.Errorf("an old look that comes to %s is written", name)
			}
		}
	}},
	{"L1: a report of the end between reading and writing has the tag looked at again", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		m := f.webhook("2")
		older, err := f.Read(f.t.Context(), f.key)
		f.must(err)
		f.reports(p.ID, ledger.Superseded)
		_, err = older.Settle(f.t.Context(), saw(m, digestA)) // as a duplicate: nobody would look any more
		f.wantErr(err, ledger.ErrConflict)
		f.comes(saw(m, digestA), ledger.Start)
	}},
	{"L1: so has any other change of a promotion's state, by a report, GitLab's answer or the clock", func(f fixture) {
		m := f.webhook("1")
		var (
			c  ledger.Claim
			id string
		)
		for _, change := range []struct {
			name string
			do   func()
		}{
			{"started", func() { c = f.starts(m, digestA); id = c.ID }},
			{"waits", func() { f.answer(c, waits(m, "gitlab_unavailable")) }},
			{"started again", func() { c = f.starts(m, digestA) }},
			{"triggered", func() { f.answer(c, created(7)) }},
			{"silent", func() { f.pass(outboxes.SilentAfter); f.tick() }},
			{"failed by the clock", func() { f.pass(ledger.SilenceFails); f.tick() }},
			{"runs after all", func() { f.shows(f.reports(id, ledger.Running).Showing) }},
			{"failed", func() { f.shows(f.reports(id, ledger.Failed).Showing) }},
			{"promoted", func() { f.shows(f.reports(id, ledger.Promoted).Showing) }},
		} {
			older, err := f.Read(f.t.Context(), f.key)
			f.must(err)
			before := ledger.State("")
			if id != "" {
				before = f.get(id).State
			}
			change.do()
			if f.get(id).State == before {
				continue // only what is shown of it has changed
			}
			_, err = older.Settle(f.t.Context(), saw(f.webhook("2"), digestB))
			if !errors.Is(err, ledger.ErrConflict) {
				f.t.Errorf("an old look is written after it was %s: %v", change.name, err)
			}
		}
	}},
	{"L1: a look that waits is not written either, where the state has changed meanwhile", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		f.pass(outboxes.SilentAfter)
		f.tick()
		older, err := f.Read(f.t.Context(), f.key)
		f.must(err)
		f.pass(ledger.SilenceFails)
		f.tick()
		f.is(p.ID, ledger.Failed, ledger.Silence)
		_, err = older.Settle(f.t.Context(), blind(f.webhook("2"), "registry_unavailable"))
		f.wantErr(err, ledger.ErrConflict)
	}},
	{"L2: each message that must wait gets that answer, and the one queued last is remembered", func(f fixture) {
		first, last := f.webhook("1"), f.webhook("2")
		f.comes(blind(last, "registry_denied"), ledger.Wait)
		f.comes(blind(first, "registry_denied"), ledger.Wait)
		if tag := f.tag(); tag.Waiting.ID != last.ID || tag.Look.ID != last.ID {
			f.t.Errorf("the tag waits for %q, and is queued by %q", tag.Waiting.ID, tag.Look.ID)
		}
		if f.count() != 1 {
			f.t.Errorf("%d promotions", f.count())
		}
		if out := f.dies(first); out.Known || out.Changed {
			f.t.Errorf("the death of the first is %+v", out)
		}
		f.is(f.current().ID, ledger.Waiting, "registry_denied")
		out := f.dies(last)
		if !out.Changed || out.Promotion.State != ledger.Dead || out.Promotion.Reason != "registry_denied" ||
			out.Promotion.Hint != "fix registry_denied" || out.Promotion.Attempts != 50 {
			f.t.Errorf("the death of the last is %+v", out.Promotion)
		}
		f.nobodyMustLook()
	}},
	{"L2: of two webhooks of one second, which share an ID, the one queued last counts", func(f fixture) {
		first, last := f.webhook("1"), f.webhook("1")
		for _, m := range []ledger.Message{first, last} {
			f.comes(blind(m, "registry_denied"), ledger.Wait)
		}
		if f.dies(first).Known {
			f.t.Error("the first is the tag's death")
		}
		if !f.dies(last).Changed {
			f.t.Error("the last is not")
		}
	}},
	{"L2: a dead letter's time has milliseconds, and is the same message all the same", func(f fixture) {
		m := f.webhook("1")
		m.QueuedAt = m.QueuedAt.Truncate(time.Second).Add(123_456_789)
		f.pass(2 * time.Second)
		f.comes(blind(m, "registry_denied"), ledger.Wait)
		m.QueuedAt = m.QueuedAt.Truncate(time.Millisecond)
		if !f.dies(m).Changed {
			f.t.Error("it is another message")
		}
	}},
	{"L2: a message that waits for GitLab is remembered, too", func(f fixture) {
		first, last := f.webhook("1"), f.webhook("2")
		f.answer(f.starts(first, digestA), waits(first, "gitlab_capacity"))
		f.answer(f.starts(last, digestA), waits(last, "gitlab_capacity"))
		f.answer(f.starts(first, digestA), waits(first, "gitlab_capacity"))
		if f.dies(first).Known {
			f.t.Error("the first is the tag's death")
		}
		if out := f.dies(last); !out.Changed || out.Promotion.Digest != digestA || out.Promotion.Reason != "gitlab_capacity" {
			f.t.Errorf("the death of the last is %+v", out)
		}
	}},
	{"L2: what waits is not forgotten when the pipeline of the image before it ends", func(f fixture) {
		for _, end := range []ledger.State{ledger.Running, ledger.Promoted, ledger.Skipped, ledger.Failed} {
			f := f.at(ledger.Key{Repository: "acme/api", Tag: string(end)})
			p := f.triggered(f.webhook("1"), digestA, int64(len(end)))
			m := f.webhook("2")
			f.comes(blind(m, "registry_denied"), ledger.Wait)
			f.shows(f.reports(p.ID, end).Showing)
			f.lookBy(ledger.WaitingLookBy)
			if out := f.dies(m); !out.Changed || out.Promotion.Reason != "registry_denied" {
				f.t.Errorf("after %s the death is %+v", end, out)
			}
		}
	}},
	{"L2: nor when GitLab's answer about the image before it comes late", func(f fixture) {
		m1, m2 := f.webhook("1"), f.webhook("2")
		c := f.starts(m1, digestA)
		f.reports(c.ID, ledger.Running) // before GitLab's answer is recorded
		f.comes(blind(m2, "registry_denied"), ledger.Wait)
		f.answer(c, created(7))
		f.lookBy(ledger.WaitingLookBy)
		if !f.dies(m2).Changed {
			f.t.Error("its death is none")
		}
	}},
	{"L3: what waits for the registry is looked at within half an hour", func(f fixture) {
		m := f.webhook("1")
		f.comes(blind(m, "not_in_registry"), ledger.Wait)
		tag := f.lookBy(ledger.WaitingLookBy)
		if tag.Look.ID != m.ID || !tag.Look.PushedAt.Equal(m.PushedAt.Truncate(time.Microsecond)) && !tag.Look.PushedAt.Equal(m.PushedAt) {
			f.t.Errorf("it is queued by %+v", tag.Look)
		}
		f.starts(m, digestA)
		f.lookBy(lease + ledger.StartingLookBy)
	}},
	{"L3: what is being started is looked at a quarter of an hour after the lease", func(f fixture) {
		m := f.webhook("1")
		c := f.starts(m, digestA)
		f.lookBy(lease + ledger.StartingLookBy)
		f.answer(c, waits(m, "gitlab_unavailable"))
		f.lookBy(ledger.WaitingLookBy)
		f.answer(f.starts(m, digestA), created(7))
		f.nobodyMustLook()
	}},
	{"L3: a superseded tag is looked at again immediately, by its own message", func(f fixture) {
		m := f.webhook("1")
		f.ends(m, digestA, 7, ledger.Superseded)
		tag := f.tag()
		if tag.LookBy.IsZero() || tag.LookBy.After(f.now()) || tag.Look.ID != "1" {
			f.t.Fatalf("the record is %+v", tag)
		}
		overdue, err := f.Overdue(f.t.Context(), 10)
		f.must(err)
		if len(overdue) != 1 || overdue[0].ID() != f.key.ID() {
			f.t.Fatalf("overdue are %+v", overdue)
		}
		f.comes(saw(f.reconciled(tag.Look), digestB), ledger.Start)
	}},
	{"L3: an image that has followed already is not looked at for the one before it", func(f fixture) {
		old := f.triggered(f.webhook("1"), digestA, 7)
		f.triggered(f.webhook("2"), digestB, 8)
		f.reports(old.ID, ledger.Superseded)
		f.nobodyMustLook()
	}},
	{"L3: reconcile moves look_by on by a quarter of an hour, but not if the tag was looked at", func(f fixture) {
		m := f.webhook("1")
		f.comes(blind(m, "not_in_registry"), ledger.Wait)
		if overdue, _ := f.Overdue(f.t.Context(), 10); len(overdue) != 0 {
			f.t.Fatalf("overdue are %+v", overdue)
		}
		f.pass(ledger.WaitingLookBy)
		overdue, err := f.Overdue(f.t.Context(), 10)
		f.must(err)
		if len(overdue) != 1 {
			f.t.Fatalf("overdue are %+v", overdue)
		}
		f.must(f.Requeued(f.t.Context(), overdue[0]))
		f.lookBy(ledger.StartingLookBy)
		f.answer(f.starts(m, digestA), created(7))
		f.must(f.Requeued(f.t.Context(), overdue[0]))
		f.nobodyMustLook()
	}},
	{"L3: a tag that was deleted a day ago is not looked at again", func(f fixture) {
		m := f.webhook("1")
		f.ends(m, digestA, 7, ledger.Superseded)
		f.comes(blind(f.reconciled(m), "not_in_registry"), ledger.Ignore)
		f.lookBy(ledger.StartingLookBy) // the registry may lag
		f.pass(24 * time.Hour)
		f.comes(blind(f.reconciled(m), "not_in_registry"), ledger.Ignore)
		f.nobodyMustLook()
	}},
	{"L3: a webhook of a tag that is not there yet waits, even after an earlier promotion", func(f fixture) {
		f.ends(f.webhook("1"), digestA, 7, ledger.Superseded)
		f.comes(blind(f.webhook("2"), "not_in_registry"), ledger.Wait)
		f.lookBy(ledger.WaitingLookBy)
	}},
	{"P1: six webhooks of one push are one promotion", func(f fixture) {
		var six []ledger.Message
		for i := range 6 {
			six = append(six, f.webhook(fmt.Sprint(i)))
		}
		c := f.starts(six[0], digestA)
		for _, m := range six {
			f.comes(saw(m, digestA), ledger.InProgress)
		}
		f.answer(c, created(7))
		for _, m := range six {
			f.comes(saw(m, digestA), ledger.Ignore)
		}
		for _, s := range []ledger.State{ledger.Running, ledger.Promoted} {
			f.reports(c.ID, s)
			for _, m := range six {
				f.comes(saw(m, digestA), ledger.Ignore)
			}
		}
		if f.count() != 1 {
			f.t.Errorf("%d promotions", f.count())
		}
	}},
	{"P1: a tag that moves away and back is promoted each time", func(f fixture) {
		for i, digest := range []string{digestA, digestB, digestA} {
			f.ends(f.webhook(fmt.Sprint(i)), digest, int64(i), ledger.Promoted)
			f.pass(ledger.LoopWindow)
		}
		if p := f.current(); p.Digest != digestA || !p.Current || f.count() != 3 {
			f.t.Errorf("the newest is %+v, of %d", p, f.count())
		}
	}},
	{"P1: a tag that moves before there is a pipeline leaves a superseded promotion behind", func(f fixture) {
		m1, m2 := f.webhook("1"), f.webhook("2")
		old := f.starts(m1, digestA)
		f.answer(old, waits(m1, "gitlab_unavailable"))
		c := f.starts(m2, digestB)
		if p := f.is(old.ID, ledger.Superseded, ""); p.Current || p.By != ledger.ByTrigger {
			f.t.Errorf("the old one is %+v", p)
		}
		f.answer(c, created(7))
		f.comes(saw(m1, digestB), ledger.Ignore)
	}},
	{"P1: what waited for the registry takes the image that is seen then", func(f fixture) {
		m := f.webhook("1")
		f.comes(blind(m, "registry_unavailable"), ledger.Wait)
		id := f.current().ID
		if f.get(id).Digest != "" {
			f.t.Error("it has a digest")
		}
		if c := f.starts(m, digestA); c.ID != id || c.Digest != digestA {
			f.t.Errorf("the claim is of %+v", c)
		}
	}},
	{"P1: what waited for the registry, and is what there is already, had nothing to do", func(f fixture) {
		f.ends(f.webhook("1"), digestA, 7, ledger.Promoted)
		first, last := f.webhook("2"), f.webhook("3")
		f.comes(blind(first, "registry_unavailable"), ledger.Wait)
		id := f.current().ID
		f.comes(blind(last, "registry_unavailable"), ledger.Wait)
		f.comes(saw(first, digestA), ledger.Ignore) // the last one may see another
		f.is(id, ledger.Waiting, "registry_unavailable")
		f.lookBy(ledger.WaitingLookBy)
		f.comes(saw(last, digestA), ledger.Ignore)
		if p := f.is(id, ledger.Skipped, ledger.Duplicate); p.Current {
			f.t.Errorf("the newest is %+v", p)
		}
		f.is(f.current().ID, ledger.Promoted, "")
		f.nobodyMustLook()
	}},
	{"P1: what the routes of now do not want ends, and counts as not done", func(f fixture) {
		m := f.webhook("1")
		f.comes(ledger.Look{Message: m, Unwanted: true}, ledger.Ignore)
		if f.count() != 0 {
			f.t.Error("an unwanted push has a promotion")
		}
		f.comes(blind(m, "registry_denied"), ledger.Wait)
		id := f.current().ID
		f.comes(ledger.Look{Message: m, Unwanted: true}, ledger.Ignore)
		f.is(id, ledger.Skipped, ledger.Unwanted)
		f.nobodyMustLook()
		f.answer(f.starts(m, digestA), waits(m, "gitlab_capacity"))
		id = f.current().ID
		f.comes(ledger.Look{Message: m, Unwanted: true}, ledger.Ignore)
		f.is(id, ledger.Skipped, ledger.Unwanted)
		f.starts(f.webhook("2"), digestA) // wanted again
	}},
	{"P1: an unwanted one that may have a pipeline is superseded, and its pipeline may still report", func(f fixture) {
		m := f.webhook("1")
		c := f.starts(m, digestA)
		f.answer(c, lost(m))
		f.comes(ledger.Look{Message: m, Unwanted: true}, ledger.Ignore)
		f.is(c.ID, ledger.Waiting, "gitlab_unavailable") // somebody may still be at it
		f.pass(lease)
		f.comes(ledger.Look{Message: m, Unwanted: true}, ledger.Ignore)
		f.is(c.ID, ledger.Superseded, ledger.Unwanted)
		f.reports(c.ID, ledger.Promoted)
		f.is(c.ID, ledger.Promoted, "")
	}},
	{"P2: after a lost answer the same message continues immediately, the others at the lease's end", func(f fixture) {
		m, other := f.webhook("1"), f.webhook("2")
		f.answer(f.starts(m, digestA), lost(m))
		f.comes(saw(other, digestA), ledger.InProgress)
		c := f.starts(m, digestA)
		if c.Requests != 2 {
			f.t.Errorf("%d requests", c.Requests)
		}
		f.answer(c, created(8))
		f.comes(saw(other, digestA), ledger.Ignore)
	}},
	{"P2: if the result of a request is unknown, all wait for the lease's end, and then one asks", func(f fixture) {
		m, other := f.webhook("1"), f.webhook("2")
		killed := f.starts(m, digestA)
		f.comes(saw(m, digestA), ledger.InProgress)
		f.comes(saw(other, digestA), ledger.InProgress)
		f.comes(blind(other, "registry_unavailable"), ledger.Wait)
		f.is(killed.ID, ledger.Starting, "")
		f.pass(lease)
		c := f.starts(other, digestA)
		if c.ID != killed.ID || c.Requests != 2 || c.Token <= killed.Token || !f.get(c.ID).Lost {
			f.t.Errorf("the claim is of %+v", c)
		}
		f.comes(saw(m, digestA), ledger.InProgress)
		f.wantErr(f.Answered(f.t.Context(), killed, created(9)), ledger.ErrStale)
		f.is(c.ID, ledger.Starting, "")
		f.answer(c, created(7))
		if p := f.get(c.ID); !slices.Equal(p.Pipelines, []string{"42/7"}) || p.ProjectID != "42" || p.PipelineURL == "" {
			f.t.Errorf("it is %+v", p)
		}
	}},
	{"P2: a complete refusal frees the promotion immediately", func(f fixture) {
		m, other := f.webhook("1"), f.webhook("2")
		f.answer(f.starts(m, digestA), waits(m, "gitlab_rate_limited"))
		f.starts(other, digestA)
	}},
	{"P2: no second pipeline is requested if the first reports before GitLab's answer is recorded", func(f fixture) {
		m := f.webhook("1")
		c := f.starts(m, digestA)
		f.reports(c.ID, ledger.Running)
		f.nobodyMustLook()
		f.comes(saw(m, digestA), ledger.Ignore)
		f.answer(c, lost(m))
		f.is(c.ID, ledger.Running, "")
		f.comes(saw(m, digestA), ledger.Ignore)
		f.answer(c, created(7))
		if p := f.is(c.ID, ledger.Running, ""); !slices.Equal(p.Pipelines, []string{"42/7"}) {
			f.t.Errorf("its pipelines are %v", p.Pipelines)
		}
	}},
	{"P3: the fifth promotion in a row is a loop", func(f fixture) {
		for i := 1; i < ledger.MaxRow; i++ {
			f.ends(f.webhook(fmt.Sprint(i)), digest(i), int64(i), ledger.Promoted)
			f.pass(ledger.LoopWindow - time.Minute)
		}
		d := f.comes(saw(f.webhook("5"), digest(5)), ledger.Loop)
		if p := f.current(); p.Digest != digest(4) {
			f.t.Errorf("it is recorded before there is a dead letter: %+v", p)
		}
		f.must(d.Died(f.t.Context(), ledger.PromotionLoop, "look for the build"))
		p := f.is(d.Claim.ID, ledger.Dead, ledger.PromotionLoop)
		if p.Digest != digest(5) || p.Hint != "look for the build" || p.Requests != 0 || f.current().ID != p.ID {
			f.t.Errorf("it is %+v", p)
		}
		f.comes(saw(f.reconciled(f.webhook("5")), digest(5)), ledger.Ignore)
	}},
	{"P3: a loop is one of promotions that follow each other closely", func(f fixture) {
		for i := range 3 * ledger.MaxRow {
			f.ends(f.webhook(fmt.Sprint(i)), digest(i), int64(i), ledger.Promoted)
			f.pass(ledger.LoopWindow)
		}
	}},
	{"P3: pushes while a pipeline runs are no loop", func(f fixture) {
		for i := range 3 * ledger.MaxRow {
			f.triggered(f.webhook(fmt.Sprint(i)), digest(i), int64(i))
		}
	}},
	{"P3: nor are those after one that has ended, while the one before each still runs", func(f fixture) {
		f.ends(f.webhook("0"), digest(0), 1, ledger.Promoted)
		for i := range 3 * ledger.MaxRow {
			f.triggered(f.webhook(fmt.Sprint(i+1)), digest(i+1), int64(i+2))
		}
	}},
	{"P3: an image that is superseded again and again is a loop", func(f fixture) {
		m := f.webhook("1")
		for i := 1; i < ledger.MaxRow; i++ {
			f.ends(f.reconciled(m), digestA, int64(i), ledger.Superseded)
		}
		f.comes(saw(f.reconciled(m), digestA), ledger.Loop)
	}},
	{"P3: after a loop's death, ten quiet minutes or a replay start the count again", func(f fixture) {
		var m ledger.Message
		for i := 1; i < ledger.MaxRow; i++ {
			f.ends(f.webhook(fmt.Sprint(i)), digest(i), int64(i), ledger.Promoted)
		}
		m = f.webhook("5")
		f.must(f.comes(saw(m, digest(5)), ledger.Loop).Died(f.t.Context(), ledger.PromotionLoop, ""))
		f.pass(2 * time.Minute)
		f.must(f.comes(saw(f.webhook("6"), digest(6)), ledger.Loop).Died(f.t.Context(), ledger.PromotionLoop, ""))
		f.starts(f.replay(m), digest(6))
		f.pass(ledger.LoopWindow)
	}},
	{"P3: under once_per: delivery a loop is counted per tag", func(f fixture) {
		for i := 1; i <= ledger.MaxRow; i++ {
			m := f.webhook(fmt.Sprint(i))
			each := f.at(ledger.WebhookKey("acme/api", "1.4.0", m.ID, m.ReceivedAt))
			if i == ledger.MaxRow {
				each.comes(saw(m, digestA), ledger.Loop)
				break
			}
			each.ends(m, digestA, int64(i), ledger.Promoted)
		}
	}},
	{"P8: a route that is renamed changes nothing", func(f fixture) {
		m := f.webhook("1")
		f.ends(m, digestA, 7, ledger.Promoted)
		l := saw(f.webhook("2"), digestA)
		l.Route = "acme/api"
		f.comes(l, ledger.Ignore)
		if f.count() != 1 {
			f.t.Errorf("%d promotions", f.count())
		}
	}},
}

func digest(i int) string { return "sha256:" + strings.Repeat(fmt.Sprintf("%02x", i), 32) }

var dying = []scenario{
	{"P4: six webhooks that GitLab refuses are one death", func(f fixture) {
		var six []ledger.Message
		for i := range 6 {
			six = append(six, f.webhook(fmt.Sprint(i)))
		}
		c := f.starts(six[0], digestA)
		_, err := f.bury(six[0]) // published before it is recorded
		f.wantErr(err, ledger.ErrLeased)
		f.answer(c, refused(six[0]))
		f.is(c.ID, ledger.Dead, "not_found")
		for _, m := range six[1:] {
			f.comes(saw(m, digestA), ledger.Ignore)
		}
		letter := ledger.Letter{Key: f.key, Message: six[0], PromotionID: c.ID, Reason: "not_found", NewID: ledger.NewID(), Subscription: "s"}
		out, err := f.Bury(f.t.Context(), letter, outboxes)
		f.must(err)
		if out.Showing == nil || out.Promotion.ID != c.ID || !out.Showing.Message || !out.Showing.Reply {
			f.t.Fatalf("the letter comes to %+v", out)
		}
		f.shows(out.Showing)
		out, err = f.Bury(f.t.Context(), letter, outboxes)
		f.must(err)
		if out.Showing != nil || f.count() != 1 {
			f.t.Errorf("again it comes to %+v, %d promotions", out, f.count())
		}
	}},
	{"P4: six that wait for the registry are one death, whichever letter comes first", func(f fixture) {
		for _, backwards := range []bool{false, true} {
			f := f.at(ledger.Key{Repository: "acme/api", Tag: fmt.Sprint(backwards)})
			var six []ledger.Message
			for i := range 6 {
				m := f.webhook(fmt.Sprint(i))
				six = append(six, m)
				f.comes(blind(m, "registry_denied"), ledger.Wait)
			}
			if backwards {
				slices.Reverse(six)
			}
			deaths := 0
			for _, m := range six {
				if out := f.dies(m); out.Changed {
					deaths++
					f.shows(out.Showing)
				} else if out.Showing != nil {
					f.t.Error("it is shown again")
				}
			}
			if deaths != 1 {
				f.t.Errorf("%d deaths", deaths)
			}
		}
	}},
	{"P4: six letters of a time without a look are one death", func(f fixture) {
		var six []ledger.Message
		for i := range 6 {
			six = append(six, f.webhook(fmt.Sprint(i)))
		}
		deaths := 0
		for _, m := range six {
			if out := f.dies(m); out.Changed {
				deaths++
				if out.Promotion.Digest != "" || out.Promotion.State != ledger.Dead || out.Promotion.Attempts != 50 {
					f.t.Errorf("the death is %+v", out.Promotion)
				}
			}
		}
		if deaths != 1 || f.count() != 1 {
			f.t.Errorf("%d deaths, %d promotions", deaths, f.count())
		}
		for _, m := range six {
			f.comes(saw(f.reconciled(m), digestA), ledger.Ignore) // it stands for every push before it
		}
		f.pass(ledger.SiblingWindow)
		f.starts(f.webhook("7"), digestA)
	}},
	{"P4: an image that is promoted by then is not a death", func(f fixture) {
		m, other := f.webhook("1"), f.webhook("2")
		f.comes(blind(m, "registry_denied"), ledger.Wait)
		f.ends(other, digestA, 7, ledger.Promoted)
		for _, late := range []ledger.Message{m, other} {
			if out := f.dies(late); out.Changed || out.Showing != nil {
				f.t.Errorf("it comes to %+v", out)
			}
		}
		f.is(f.current().ID, ledger.Promoted, "")
	}},
	{"P4: a letter that was queued after the last look is a death beside what is promoted", func(f fixture) {
		p := f.ends(f.webhook("1"), digestA, 7, ledger.Promoted)
		out := f.dies(f.webhook("2"))
		if !out.Changed || out.Promotion.ID == p.ID {
			f.t.Errorf("it comes to %+v", out)
		}
		f.is(p.ID, ledger.Promoted, "")
		if got := f.current(); got.State != ledger.Dead || !got.Current || f.get(p.ID).Current {
			f.t.Errorf("the newest is %+v", got)
		}
	}},
	{"P4: during a lease a letter comes again later", func(f fixture) {
		m := f.webhook("1")
		f.answer(f.starts(m, digestA), waits(m, "gitlab_unavailable"))
		f.answer(f.starts(m, digestA), lost(m))
		_, err := f.bury(m)
		f.wantErr(err, ledger.ErrLeased)
		f.pass(lease)
		if out := f.dies(m); !out.Changed || out.Promotion.Digest != digestA || out.Promotion.Reason != "gitlab_unavailable" {
			f.t.Errorf("it comes to %+v", out)
		}
	}},
	{"P4: a death is noticed by the first who reads the letter", func(f fixture) {
		m := f.webhook("1")
		c := f.starts(m, digestA)
		f.answer(c, refused(m))
		if shown := f.tick(); len(shown) != 1 || shown[0].State != ledger.Dead {
			f.t.Fatalf("the clock shows %+v", shown)
		}
		out, err := f.Bury(f.t.Context(), ledger.Letter{Key: f.key, Message: m, PromotionID: c.ID, Reason: "not_found", Subscription: "s"}, outboxes)
		f.must(err)
		if out.Showing == nil || !out.Showing.Message || out.Showing.Reply || out.Showing.Promotion.Subscription != "s" {
			f.t.Errorf("with the letter the message says how to replay it, and nobody is pinged again: %+v", out.Showing)
		}
	}},
	{"P4: a letter that comes again is not the death of what its message began since", func(f fixture) {
		m := f.webhook("1")
		c := f.starts(m, digestA)
		f.answer(c, refused(m)) // but Pub/Sub does not hear of it, and delivers the message again
		next := f.starts(m, digestB)
		f.answer(next, waits(m, "gitlab_unavailable"))
		out, err := f.Bury(f.t.Context(), ledger.Letter{Key: f.key, Message: m, PromotionID: c.ID, Reason: "not_found", NewID: ledger.NewID(), Subscription: "s"}, outboxes)
		f.must(err)
		if out.Changed {
			f.t.Errorf("it comes to %+v", out)
		}
		f.is(next.ID, ledger.Waiting, "gitlab_unavailable")
		if out := f.dies(m); !out.Changed || out.Promotion.ID != next.ID { // a letter of Pub/Sub's own
			f.t.Errorf("it comes to %+v", out)
		}
	}},
	{"P4: a sibling that meets the death of its push does not die, too", func(f fixture) {
		m1, m2 := f.webhook("1"), f.webhook("2")
		f.answer(f.starts(m1, digestA), refused(m1))
		f.comes(saw(m2, digestA), ledger.Ignore)
		if f.dies(m2).Known {
			f.t.Error("its letter is a death")
		}
	}},
}

var attempts = []scenario{
	{"P5: a webhook that was pushed after a failure or death is another attempt", func(f fixture) {
		for _, end := range []ledger.State{ledger.Failed, ledger.Dead} {
			f := f.at(ledger.Key{Repository: "acme/api", Tag: string(end)})
			before := f.webhook("before")
			m := f.webhook("1")
			c := f.starts(m, digestA)
			if end == ledger.Dead {
				f.answer(c, refused(m))
			} else {
				f.answer(c, created(7))
				f.reports(c.ID, ledger.Failed)
			}
			f.pass(ledger.SiblingWindow)
			f.comes(saw(before, digestA), ledger.Ignore)
			late := f.webhook("late")
			late.PushedAt = m.PushedAt // Docker Hub took its time
			f.comes(saw(late, digestA), ledger.Ignore)
			silent := f.webhook("without a time")
			silent.PushedAt = time.Time{}
			if c := f.starts(silent, digestA); f.get(c.ID).Digest != digestA || f.count() < 2 {
				f.t.Errorf("it is %+v", c)
			}
		}
	}},
	{"P5: webhooks within a minute of the beginning are siblings, however fast it failed", func(f fixture) {
		p := f.ends(f.webhook("1"), digestA, 7, ledger.Failed)
		f.comes(saw(f.webhook("2"), digestA), ledger.Ignore)
		f.pass(p.CreatedAt.Add(ledger.SiblingWindow).Sub(f.now()) - 50*time.Millisecond)
		f.comes(saw(f.webhook("3"), digestA), ledger.Ignore)
		f.pass(time.Second)
		f.starts(f.webhook("4"), digestA)
	}},
	{"P5: one that follows another digest is never a sibling", func(f fixture) {
		f.ends(f.webhook("1"), digestA, 7, ledger.Failed)
		f.ends(f.webhook("2"), digestB, 8, ledger.Failed)
		f.starts(f.webhook("3"), digestA)
	}},
	{"P5: a push soon after a death without a digest is not a sibling", func(f fixture) {
		for _, look := range []string{"blind", "seen"} {
			f := f.at(ledger.Key{Repository: "acme/api", Tag: look})
			m := f.webhook("1")
			sibling := f.webhook("2")
			f.comes(blind(m, "not_in_registry"), ledger.Wait)
			f.dies(m)
			f.comes(blind(sibling, "not_in_registry"), ledger.Ignore)
			later := f.webhook("3")
			if look == "seen" {
				f.starts(later, digestA)
				continue
			}
			f.comes(blind(later, "registry_unavailable"), ledger.Wait)
			f.starts(later, digestA)
		}
	}},
	{"P5: a replay of what was pushed after a failure starts, and of what was pushed before does not", func(f fixture) {
		before := f.webhook("1")
		f.ends(before, digestA, 7, ledger.Failed)
		f.pass(2 * ledger.SiblingWindow)
		after := f.webhook("2") // and nobody could look until its letter was replayed
		f.comes(saw(f.replay(before), digestA), ledger.Ignore)
		f.starts(f.replay(after), digestA)
	}},
	{"P5: a replay after a death starts a new promotion in the dead one's message", func(f fixture) {
		m := f.webhook("1")
		c := f.starts(m, digestA)
		f.answer(c, refused(m))
		out, err := f.Bury(f.t.Context(), ledger.Letter{Key: f.key, Message: m, PromotionID: c.ID, Reason: "not_found", Subscription: "s"}, outboxes)
		f.must(err)
		f.shows(out.Showing)
		again := f.starts(f.replay(m), digestA)
		if again.ID == c.ID || again.TS != "1.1" || again.Channel != "C1" {
			f.t.Errorf("the new one is %+v", again)
		}
		if dead := f.get(c.ID); dead.TS != "" || dead.Behind() || dead.Current {
			f.t.Errorf("the dead one is %+v", dead)
		}
		f.answer(again, created(7))
		if shown := f.tick(); len(shown) != 1 || shown[0].State != ledger.Triggered || shown[0].TS != "1.1" {
			f.t.Errorf("the clock shows %+v", shown)
		}
	}},
	{"P5: a replay of what died without a digest, too, and a second death is shown again", func(f fixture) {
		m := f.webhook("1")
		f.comes(blind(m, "registry_denied"), ledger.Wait)
		f.shows(f.dies(m).Showing)
		first := f.current()
		m = f.replay(m)
		f.comes(blind(m, "registry_denied"), ledger.Wait)
		second := f.current()
		if second.ID == first.ID || second.TS != "1.1" {
			f.t.Fatalf("the new one is %+v", second)
		}
		out := f.dies(m)
		if out.Showing == nil || out.Promotion.ID != second.ID || !out.Showing.Message || !out.Showing.Reply {
			f.t.Fatalf("the second death comes to %+v", out)
		}
		f.shows(out.Showing)
		m = f.replay(m)
		out = f.dies(m) // before anybody has looked
		if out.Showing == nil || out.Showing.TS != "1.1" || !out.Showing.Reply {
			f.t.Errorf("the third death comes to %+v", out)
		}
	}},
	{"P5: a replay after a death of another digest starts a new promotion, with a new message", func(f fixture) {
		m := f.webhook("1")
		f.answer(f.starts(m, digestA), refused(m))
		f.tick()
		if c := f.starts(f.replay(m), digestB); c.TS != "" {
			f.t.Errorf("the new one is %+v", c)
		}
	}},
	{"P5: a replay waits while the death is being shown", func(f fixture) {
		m := f.webhook("1")
		f.answer(f.starts(m, digestA), refused(m))
		due, err := f.Due(f.t.Context(), 1)
		f.must(err)
		showing, err := f.Tick(f.t.Context(), due[0].ID, outboxes)
		f.must(err)
		m = f.replay(m)
		f.comes(saw(m, digestA), ledger.InProgress)
		f.shows(showing)
		if c := f.starts(m, digestA); c.TS != "1.1" {
			f.t.Errorf("the new one is %+v", c)
		}
	}},
	{"P5: a replay of what failed, or is on its way or done, is a duplicate", func(f fixture) {
		m := f.webhook("1")
		p := f.triggered(m, digestA, 7)
		for _, s := range []ledger.State{ledger.Triggered, ledger.Running, ledger.Failed, ledger.Promoted} {
			if s != ledger.Triggered {
				f.reports(p.ID, s)
			}
			f.comes(saw(f.replay(m), digestA), ledger.Ignore)
		}
	}},
	{"P5: a replay that waits continues with the first message that sees the image", func(f fixture) {
		m := f.webhook("1")
		f.comes(blind(m, "registry_denied"), ledger.Wait)
		f.shows(f.dies(m).Showing)
		again := f.replay(m)
		f.comes(blind(again, "registry_unavailable"), ledger.Wait) // it goes on with the dead one's message
		f.pass(ledger.WaitingLookBy)
		f.look(saw(f.reconciled(m), digestA)) // the registry is back
		f.tick()
		if p := f.current(); p.State == ledger.Dead && p.TS == "" {
			for p, _ := range f.All(f.t.Context()) {
				f.t.Logf("%s %s %q, in Slack as %q", p.ID, p.State, p.Reason, p.TS)
			}
			f.t.Error("the newest is dead, and Slack does not say so")
		}
	}},
	{"P5: a replay by a clock that is behind is a replay after the death all the same", func(f fixture) {
		m := f.webhook("1")
		f.answer(f.starts(m, digestA), refused(m))
		m = f.replay(m)
		m.ReplayedAt = m.ReplayedAt.Truncate(time.Second).Add(-time.Minute)
		f.starts(m, digestA)
	}},
	{"P5: a replay before the death does not count after it", func(f fixture) {
		m := f.webhook("1")
		early := f.replay(m)
		f.answer(f.starts(m, digestA), refused(m))
		f.comes(saw(early, digestA), ledger.Ignore)
	}},
	{"P5: reconcile restarts nothing that failed or died, and a push after it is a missed push", func(f fixture) {
		for _, end := range []ledger.State{ledger.Failed, ledger.Dead} {
			f := f.at(ledger.Key{Repository: "acme/api", Tag: string(end)})
			m := f.webhook("1")
			c := f.starts(m, digestA)
			if end == ledger.Dead {
				f.answer(c, refused(m))
			} else {
				f.answer(c, created(7))
				f.reports(c.ID, ledger.Failed)
			}
			f.pass(2 * ledger.SiblingWindow)
			f.comes(saw(f.reconciled(m), digestA), ledger.Ignore)
			missed := f.webhook("missed")
			f.pass(time.Hour)
			f.starts(f.reconciled(missed), digestA)
		}
	}},
	{"once_per: delivery: each webhook has a promotion of its own, once", func(f fixture) {
		for i := range 3 {
			m := f.webhook("1") // of one second: they share the ID
			f.pass(time.Minute)
			each := f.at(ledger.WebhookKey("acme/api", "1.4.0", m.ID, m.ReceivedAt))
			p := each.triggered(m, digestA, int64(i))
			each.comes(saw(m, digestA), ledger.Ignore)
			each.reports(p.ID, ledger.Promoted)
			f.pass(ledger.LoopWindow)
		}
		if f.count() != 3 || f.tag().Digest != digestA {
			f.t.Errorf("%d promotions, and the tag is %+v", f.count(), f.tag())
		}
	}},
	{"once_per: delivery: a superseded tag is looked at once, not once a webhook", func(f fixture) {
		var webhooks []fixture
		var ids []string
		for i := range 3 {
			m := f.webhook(fmt.Sprint(i))
			each := f.at(ledger.WebhookKey("acme/api", "1.4.0", m.ID, m.ReceivedAt))
			webhooks, ids = append(webhooks, each), append(ids, each.triggered(m, digestA, int64(i)).ID)
		}
		for i, each := range webhooks {
			each.reports(ids[i], ledger.Superseded)
		}
		overdue, err := f.Overdue(f.t.Context(), 10)
		f.must(err)
		if len(overdue) != 1 || overdue[0].Delivery != "" {
			f.t.Fatalf("overdue are %+v", overdue)
		}
		m := f.reconciled(overdue[0].Look)
		f.at(ledger.WebhookKey("acme/api", "1.4.0", m.ID, m.ReceivedAt)).starts(m, digestB)
		if f.tag().Digest != digestB {
			f.t.Errorf("the tag is %+v", f.tag())
		}
		f.nobodyMustLook()
	}},
	{"once_per: delivery: L2 and P4 hold for each webhook", func(f fixture) {
		m1, m2 := f.webhook("1"), f.webhook("2")
		one := f.at(ledger.WebhookKey("acme/api", "1.4.0", "1", m1.ReceivedAt))
		two := f.at(ledger.WebhookKey("acme/api", "1.4.0", "2", m2.ReceivedAt))
		one.comes(blind(m1, "registry_denied"), ledger.Wait)
		two.comes(blind(m2, "registry_denied"), ledger.Wait)
		one.lookBy(ledger.WaitingLookBy)
		for _, each := range []struct {
			fixture
			m ledger.Message
		}{{one, m1}, {two, m2}} {
			if !each.dies(each.m).Changed || each.dies(each.m).Changed {
				f.t.Errorf("webhook %s does not die once", each.m.ID)
			}
		}
	}},
}

var telling = []scenario{
	{"P6: only its own pipeline reports", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		for name, c := range map[string]ledger.Caller{
			"another pipeline":                         {ProjectID: "42", PipelineID: "8", Source: "trigger", Allowed: true},
			"the pipeline of that ID of another":       {ProjectID: "43", PipelineID: "7", Source: "trigger", Allowed: true},
			"one that was run by hand":                 {ProjectID: "42", PipelineID: "9", Source: "web", Allowed: true},
			"one of a project that took the path over": {ProjectID: "44", PipelineID: "1", Source: "trigger", Allowed: true},
		} {
			_, err := f.Report(f.t.Context(), p.ID, ledger.Report{State: ledger.Failed, From: &c}, outboxes)
			f.t.Log(name)
			f.wantErr(err, ledger.ErrForeign)
		}
		f.is(p.ID, ledger.Triggered, "")
		_, err := f.Report(f.t.Context(), p.ID, ledger.Report{State: ledger.Promoted, From: own("7")}, outboxes) // whatever the route says
		f.must(err)
		f.is(p.ID, ledger.Promoted, "")
	}},
	{"P6: after a lost answer any triggered pipeline of the project reports, and is found by its ID", func(f fixture) {
		m := f.webhook("1")
		c := f.starts(m, digestA)
		f.answer(c, lost(m))
		by := func(who ledger.Caller) error {
			_, err := f.Report(f.t.Context(), c.ID, ledger.Report{State: ledger.Running, From: &who}, outboxes)
			return err
		}
		f.wantErr(by(ledger.Caller{ProjectID: "42", PipelineID: "7", Source: "trigger"}), ledger.ErrForeign)
		f.wantErr(by(ledger.Caller{ProjectID: "42", PipelineID: "7", Source: "web", Allowed: true}), ledger.ErrForeign)
		_, err := f.OfPipeline(f.t.Context(), "42", "7")
		f.wantErr(err, ledger.ErrUnknown)
		f.must(by(ledger.Caller{ProjectID: "42", PipelineID: "7", Source: "trigger", Allowed: true}))
		f.must(by(ledger.Caller{ProjectID: "42", PipelineID: "8", Source: "trigger"})) // the second one, with the project renamed
		f.wantErr(by(ledger.Caller{ProjectID: "43", PipelineID: "9", Source: "trigger", Allowed: true}), ledger.ErrForeign)
		for _, id := range []string{"7", "8"} {
			if p, err := f.OfPipeline(f.t.Context(), "42", id); err != nil || p.ID != c.ID {
				f.t.Errorf("pipeline %s is of %+v, %v", id, p, err)
			}
		}
	}},
	{"P6: a pipeline that was run by hand takes over only what has failed", func(f fixture) {
		hand := &ledger.Caller{ProjectID: "42", PipelineID: "9", Source: "web"}
		p := f.triggered(f.webhook("1"), digestA, 7)
		for _, s := range []ledger.State{ledger.Running, ledger.Failed} {
			_, err := f.Report(f.t.Context(), p.ID, ledger.Report{State: ledger.Promoted, From: hand}, outboxes)
			f.wantErr(err, ledger.ErrForeign)
			f.reports(p.ID, s)
		}
		_, err := f.Report(f.t.Context(), p.ID, ledger.Report{State: ledger.Promoted, From: hand}, outboxes)
		f.must(err)
		f.is(p.ID, ledger.Promoted, "")
	}},
	{"P6: a report about another digest changes nothing", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		out, err := f.Report(f.t.Context(), p.ID, ledger.Report{State: ledger.Promoted, Digest: digestB, From: own("7")}, outboxes)
		f.must(err)
		if out.Changed || !out.Known || out.Showing != nil {
			f.t.Errorf("it comes to %+v", out)
		}
		f.is(p.ID, ledger.Triggered, "")
		out, err = f.Report(f.t.Context(), p.ID, ledger.Report{State: ledger.Promoted, Digest: digestA, From: own("7")}, outboxes)
		f.must(err)
		if !out.Changed {
			f.t.Errorf("it comes to %+v", out)
		}
	}},
	{"P6: without a request there is no pipeline that could report", func(f fixture) {
		m := f.webhook("1")
		f.comes(blind(m, "registry_denied"), ledger.Wait)
		id := f.current().ID
		if f.reports(id, ledger.Promoted).Changed {
			f.t.Error("it is promoted")
		}
		f.dies(m)
		if f.reports(id, ledger.Promoted).Changed {
			f.t.Error("it is promoted")
		}
		_, err := f.Report(f.t.Context(), id, ledger.Report{State: ledger.Promoted, From: own("7")}, outboxes)
		f.wantErr(err, ledger.ErrForeign)
	}},
	{"P6: a report for an unknown promotion is refused", func(f fixture) {
		_, err := f.Report(f.t.Context(), ledger.NewID(), ledger.Report{State: ledger.Promoted}, outboxes)
		f.wantErr(err, ledger.ErrUnknown)
		_, err = f.Get(f.t.Context(), ledger.NewID())
		f.wantErr(err, ledger.ErrUnknown)
		_, err = f.Current(f.t.Context(), f.key)
		f.wantErr(err, ledger.ErrUnknown)
	}},
	{"P7: a report is shown once, and a change is shown again", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		if p.Behind() {
			f.t.Error("that there is a pipeline is news")
		}
		out := f.reports(p.ID, ledger.Running)
		if out.Showing == nil || !out.Showing.Message || out.Showing.Reply {
			f.t.Fatalf("it comes to %+v", out.Showing)
		}
		f.shows(out.Showing)
		if again := f.reports(p.ID, ledger.Running); again.Changed || again.Showing != nil {
			f.t.Errorf("again it comes to %+v", again)
		}
		out = f.reports(p.ID, ledger.Failed)
		if out.Showing == nil || !out.Showing.Reply || out.Showing.TS != "1.1" {
			f.t.Fatalf("the failure comes to %+v", out.Showing)
		}
		f.shows(out.Showing)
		out = f.reports(p.ID, ledger.Promoted)
		if out.Showing == nil || out.Showing.Reply {
			f.t.Fatalf("the success comes to %+v", out.Showing)
		}
		f.shows(out.Showing)
		if p := f.get(p.ID); p.Behind() || !p.DueAt.IsZero() {
			f.t.Errorf("in the end it is %+v", p)
		}
	}},
	{"P7: one shows it at a time, and then the changes of the meantime", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		first := f.reports(p.ID, ledger.Running).Showing
		if got := f.reports(p.ID, ledger.Promoted); got.Showing != nil || !got.Changed || !got.Promotion.Behind() {
			f.t.Fatalf("another comes to %+v", got)
		}
		next, err := f.Shown(f.t.Context(), *first, ledger.Result{Channel: "C1", TS: "1.1", Message: true, Reply: true}, outboxes)
		f.must(err)
		if next == nil || next.State != ledger.Promoted || next.TS != "1.1" {
			f.t.Fatalf("next is %+v", next)
		}
		_, err = f.Shown(f.t.Context(), *first, ledger.Result{Channel: "C1", TS: "9.9", Message: true, Reply: true}, outboxes)
		f.wantErr(err, ledger.ErrStale)
		f.shows(next)
		if p := f.get(p.ID); p.TS != "1.1" || p.Behind() {
			f.t.Errorf("it is %+v", p)
		}
	}},
	{"P7: a request that shows it and does not return is replaced at the lease's end", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		killed := f.reports(p.ID, ledger.Promoted).Showing
		if shown := f.tick(); len(shown) != 0 {
			f.t.Fatalf("the clock shows %+v", shown)
		}
		f.pass(outboxes.Lease)
		if shown := f.tick(); len(shown) != 1 {
			f.t.Fatalf("the clock shows %+v", shown)
		}
		_, err := f.Shown(f.t.Context(), *killed, ledger.Result{Channel: "C1", TS: "9.9", Message: true, Reply: true}, outboxes)
		f.wantErr(err, ledger.ErrStale)
	}},
	{"P7: after a refusal the clock tries again in a minute, doubling to an hour, and never gives up", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		showing := f.reports(p.ID, ledger.Promoted).Showing
		for i := range 12 {
			next, err := f.Shown(f.t.Context(), *showing, ledger.Result{}, outboxes)
			f.must(err)
			if next != nil {
				f.t.Fatal("it is tried again at once")
			}
			want := min(time.Minute<<i, time.Hour)
			f.pass(want - 5*time.Second)
			if due, _ := f.Due(f.t.Context(), 10); len(due) != 0 {
				f.t.Fatalf("refusal %d: due before %v", i+1, want)
			}
			f.pass(6 * time.Second)
			due, err := f.Due(f.t.Context(), 10)
			f.must(err)
			if len(due) != 1 {
				f.t.Fatalf("refusal %d: not due after %v", i+1, want)
			}
			showing, err = f.Tick(f.t.Context(), p.ID, outboxes)
			f.must(err)
			if showing == nil {
				f.t.Fatalf("refusal %d: not to be shown", i+1)
			}
		}
		f.shows(showing)
		if p := f.get(p.ID); p.Refusals != 0 || !p.RetryAt.IsZero() || p.Behind() {
			f.t.Errorf("it is %+v", p)
		}
	}},
	{"P7: Slack's own Retry-After is kept, and what was not asked for counts as no refusal", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		for _, c := range []struct {
			result ledger.Result
			wait   time.Duration
		}{{ledger.Result{RetryAfter: 20 * time.Minute}, 20 * time.Minute}, {ledger.Result{Busy: true}, time.Minute}, {ledger.Result{Busy: true}, time.Minute}} {
			f.pass(30 * time.Minute)
			showing := f.reports(p.ID, ledger.Promoted).Showing
			_, err := f.Shown(f.t.Context(), *showing, c.result, outboxes)
			f.must(err)
			if got := f.get(p.ID).RetryAt.Sub(f.now()); got > c.wait || got < c.wait-5*time.Second {
				f.t.Errorf("after %+v it is tried in %v", c.result, got)
			}
		}
		if got := f.get(p.ID).Refusals; got != 1 {
			f.t.Errorf("%d refusals", got)
		}
	}},
	{"P7: Slack's Retry-After is respected, even if something changes in the meantime", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		showing := f.reports(p.ID, ledger.Running).Showing
		_, err := f.Shown(f.t.Context(), *showing, ledger.Result{RetryAfter: 2 * outboxes.SilentAfter}, outboxes)
		f.must(err)
		f.pass(outboxes.SilentAfter + time.Minute)
		if shown := f.tick(); len(shown) != 0 {
			f.t.Fatalf("too soon the clock shows %+v", shown)
		}
		f.pass(outboxes.SilentAfter)
		if shown := f.tick(); len(shown) != 1 || !shown[0].Silent() {
			f.t.Errorf("the clock shows %+v", shown)
		}
	}},
	{"P7: where the reply alone is missing, it alone is sent", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		showing := f.reports(p.ID, ledger.Failed).Showing
		_, err := f.Shown(f.t.Context(), *showing, ledger.Result{Channel: "C1", TS: "1.1", Message: true}, outboxes)
		f.must(err)
		f.pass(time.Minute)
		showing, err = f.Tick(f.t.Context(), p.ID, outboxes)
		f.must(err)
		if showing == nil || showing.Message || !showing.Reply {
			f.t.Errorf("next is %+v", showing)
		}
	}},
	{"P7: two calls of the clock show it once", func(f fixture) {
		m := f.webhook("1")
		f.answer(f.starts(m, digestA), refused(m))
		due, err := f.Due(f.t.Context(), 10)
		f.must(err)
		if len(due) != 1 {
			f.t.Fatalf("due are %+v", due)
		}
		var (
			running sync.WaitGroup
			mu      sync.Mutex
			shown   int
		)
		for range 4 {
			running.Go(func() {
				showing, err := f.Tick(f.t.Context(), due[0].ID, outboxes)
				if err != nil {
					f.t.Error(err)
				}
				if showing != nil {
					mu.Lock()
					shown++
					mu.Unlock()
				}
			})
		}
		running.Wait()
		if shown != 1 {
			f.t.Errorf("it is shown by %d", shown)
		}
	}},
	{"the clock shows what waits: soon if a person must fix it, else after an hour", func(f fixture) {
		for reason, after := range map[string]time.Duration{
			"registry_denied": 10 * time.Minute, "reference_not_found": 10 * time.Minute, "forbidden": 10 * time.Minute,
			"gitlab_capacity": time.Hour, "gitlab_unavailable": time.Hour, "not_in_registry": time.Hour,
		} {
			f := f.at(ledger.Key{Repository: "acme/api", Tag: reason})
			m := f.webhook("1")
			look := func() {
				if strings.HasPrefix(reason, "registry") || strings.HasPrefix(reason, "not") {
					f.comes(blind(m, reason), ledger.Wait)
				} else {
					f.answer(f.starts(m, digestA), waits(m, reason))
				}
			}
			look()
			f.pass(after / 2)
			look() // it waits on
			f.pass(after/2 - 5*time.Second)
			if shown := f.tick(); len(shown) != 0 {
				f.t.Fatalf("%s is told of too soon: %+v", reason, shown)
			}
			f.pass(6 * time.Second)
			shown := f.tick()
			if len(shown) != 1 || shown[0].State != ledger.Waiting || shown[0].Hint != "fix "+reason || !shown[0].Bad() {
				f.t.Fatalf("%s: after %v the clock shows %+v", reason, after, shown)
			}
			look()
			f.pass(time.Hour)
			if shown := f.tick(); len(shown) != 0 {
				f.t.Fatalf("%s is told of again: %+v", reason, shown)
			}
			f.answer(f.starts(m, digestA), created(int64(len(reason))))
			if shown := f.tick(); len(shown) != 1 || shown[0].State != ledger.Triggered || shown[0].Bad() {
				f.t.Fatalf("%s: once it goes on the clock shows %+v", reason, shown)
			}
			f.reports(f.current().ID, ledger.Promoted)
			f.pass(2 * outboxes.Lease)
			f.tick()
		}
	}},
	{"a new reason of what waits is shown, and pings nobody again", func(f fixture) {
		m := f.webhook("1")
		f.comes(blind(m, "registry_denied"), ledger.Wait)
		f.pass(10 * time.Minute)
		f.tick()
		f.answer(f.starts(m, digestA), waits(m, "forbidden"))
		due, err := f.Due(f.t.Context(), 10)
		f.must(err)
		if len(due) != 1 {
			f.t.Fatalf("due are %+v", due)
		}
		showing, err := f.Tick(f.t.Context(), due[0].ID, outboxes)
		f.must(err)
		if showing == nil || showing.Reply || showing.Reason != "forbidden" {
			f.t.Errorf("it is shown as %+v", showing)
		}
	}},
	{"the clock shows a silent pipeline once, and fails it six hours later", func(f fixture) {
		m := f.webhook("1")
		p := f.triggered(m, digestA, 7)
		f.tick()
		f.pass(outboxes.SilentAfter - 5*time.Second)
		if shown := f.tick(); len(shown) != 0 {
			f.t.Fatalf("too soon: %+v", shown)
		}
		f.pass(6 * time.Second)
		if shown := f.tick(); len(shown) != 1 || !shown[0].Silent() || shown[0].State != ledger.Triggered {
			f.t.Fatalf("the clock shows %+v", shown)
		}
		f.pass(ledger.SilenceFails - 5*time.Second)
		if shown := f.tick(); len(shown) != 0 {
			f.t.Fatalf("too soon: %+v", shown)
		}
		f.pass(6 * time.Second)
		if shown := f.tick(); len(shown) != 1 || shown[0].State != ledger.Failed {
			f.t.Fatalf("the clock shows %+v", shown)
		}
		if p := f.is(p.ID, ledger.Failed, ledger.Silence); p.By != ledger.ByClock || p.Silent() {
			f.t.Errorf("it is %+v", p)
		}
		f.comes(saw(m, digestA), ledger.Ignore)
		f.starts(f.webhook("2"), digestA) // a push counts again
	}},
	{"a silent pipeline that reports is no longer silent, even after the clock has failed it", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		f.pass(outboxes.SilentAfter)
		f.tick()
		f.pass(ledger.SilenceFails)
		f.tick()
		f.is(p.ID, ledger.Failed, ledger.Silence)
		out := f.reports(p.ID, ledger.Running)
		if !out.Changed || out.Showing == nil || out.Showing.Bad() {
			f.t.Errorf("it comes to %+v", out)
		}
		f.shows(out.Showing)
		f.pass(outboxes.SilentAfter)
		if shown := f.tick(); len(shown) != 1 || !shown[0].Silent() {
			f.t.Errorf("when it falls silent again the clock shows %+v", shown)
		}
		f.shows(f.reports(p.ID, ledger.Promoted).Showing)
		f.pass(24 * time.Hour)
		if shown := f.tick(); len(shown) != 0 {
			f.t.Errorf("in the end the clock shows %+v", shown)
		}
	}},
	{"while others of the repository end, one that waits its turn is not silent; six hours at most", func(f fixture) {
		waits := f.triggered(f.webhook("1"), digestA, 7)
		for i := range 12 { // 40 minutes each, one at a time
			other := f.at(ledger.Key{Repository: "acme/api", Tag: fmt.Sprint(i)})
			p := other.triggered(f.webhook("1"), digestA, int64(100+i))
			f.pass(40 * time.Minute)
			f.shows(f.reports(p.ID, ledger.Promoted).Showing)
			silent := false
			for _, shown := range f.tick() {
				silent = silent || shown.ID == waits.ID
			}
			since := f.now().Sub(waits.UpdatedAt)
			if want := since > ledger.SilenceMax+outboxes.SilentAfter; silent != want {
				f.t.Fatalf("after %v it is told as silent: %t", since, silent)
			}
			if silent {
				return
			}
		}
		f.t.Error("it is never told as silent")
	}},
	{"the end of another repository's promotion does not postpone silence", func(f fixture) {
		silent := f.triggered(f.webhook("1"), digestA, 7)
		other := f.at(ledger.Key{Repository: "acme/web", Tag: "1"})
		p := other.triggered(f.webhook("1"), digestA, 8)
		f.pass(outboxes.SilentAfter)
		f.shows(f.reports(p.ID, ledger.Promoted).Showing)
		if shown := f.tick(); len(shown) != 1 || shown[0].ID != silent.ID {
			f.t.Errorf("the clock shows %+v", shown)
		}
	}},
	{"a note is shown, updated by its ID, and keeps its end", func(f fixture) {
		id := ledger.NewID()
		news := func(s ledger.State, text, pipeline string) ledger.Outcome {
			f.t.Helper()
			out, err := f.Note(f.t.Context(), ledger.Promotion{
				ID: id, Event: ledger.Release, Key: ledger.Key{Repository: "acme/api"}, Route: "acme/*",
				State: s, By: ledger.ByPipeline, Text: text, Pipelines: []string{pipeline},
			}, outboxes)
			f.must(err)
			return out
		}
		f.shows(news(ledger.Running, "", "42/7").Showing)
		out := news(ledger.Failed, "no disk", "42/7")
		if out.Showing == nil || out.Showing.TS != "1.1" || !out.Showing.Reply {
			f.t.Fatalf("it comes to %+v", out)
		}
		f.shows(out.Showing)
		if again := news(ledger.Failed, "no disk", "42/7"); again.Showing != nil || again.Changed {
			f.t.Errorf("again it comes to %+v", again)
		}
		out = news(ledger.Running, "", "42/8") // another pipeline of the same key
		if out.Showing == nil || out.Promotion.State != ledger.Running {
			f.t.Errorf("another pipeline comes to %+v", out)
		}
		if got := f.get(id); !got.Note || f.count() != 1 {
			f.t.Errorf("it is %+v", got)
		}
		if f.tag().Settled != "" {
			f.t.Error("it has a tag")
		}
	}},
}

var keeping = []scenario{
	{"a late report of the beginning does not change the end that was shown", func(f fixture) {
		id := ledger.NewID()
		news := func(s ledger.State, text string) ledger.Outcome {
			f.t.Helper()
			out, err := f.Note(f.t.Context(), ledger.Promotion{
				ID: id, Event: ledger.Release, Key: ledger.Key{Repository: "acme/api"}, State: s, By: ledger.ByPipeline, Text: text, Pipelines: []string{"42/7"},
			}, outboxes)
			f.must(err)
			return out
		}
		f.shows(news(ledger.Failed, "no disk").Showing)
		late := news(ledger.Running, "")
		if late.Changed || late.Showing != nil || late.Promotion.Text != "no disk" {
			f.t.Errorf("it comes to %+v", late)
		}
	}},
	{"promotions expire after 90 days, but none that is current, unfinished or not yet shown", func(f fixture) {
		old := f.triggered(f.webhook("1"), digestA, 7)
		f.triggered(f.webhook("2"), digestB, 8)
		newest := f.triggered(f.webhook("3"), digestC, 9)
		expires := func(id string) time.Time {
			f.t.Helper()
			return f.get(id).ExpiresAt
		}
		if !expires(old.ID).IsZero() {
			f.t.Error("an unfinished one expires")
		}
		showing := f.reports(old.ID, ledger.Promoted).Showing
		if !expires(old.ID).IsZero() {
			f.t.Error("one that is not shown expires")
		}
		f.shows(showing)
		p := f.get(old.ID)
		if !p.ExpiresAt.Equal(p.UpdatedAt.Add(ledger.Retention)) {
			f.t.Errorf("it expires at %v, and was updated at %v", p.ExpiresAt, p.UpdatedAt)
		}
		f.shows(f.reports(newest.ID, ledger.Failed).Showing)
		if !expires(newest.ID).IsZero() {
			f.t.Error("the newest expires")
		}
		if !f.tag().ExpiresAt.IsZero() {
			f.t.Error("the tag expires")
		}
		f.shows(f.reports(newest.ID, ledger.Promoted).Showing)
		f.pass(ledger.LoopWindow)
		f.starts(f.webhook("4"), digestA)
		if expires(newest.ID).IsZero() {
			f.t.Error("the newest of before does not expire")
		}
	}},
	{"what had nothing to do expires, and so does what a replay went on from", func(f fixture) {
		m := f.webhook("1")
		f.answer(f.starts(m, digestA), refused(m))
		dead := f.current()
		f.tick()
		f.answer(f.starts(f.replay(m), digestA), created(7))
		f.comes(blind(f.webhook("2"), "registry_denied"), ledger.Wait)
		pending := f.current()
		f.comes(saw(f.webhook("3"), digestA), ledger.Ignore)
		for _, id := range []string{dead.ID, pending.ID} {
			if p := f.get(id); p.ExpiresAt.IsZero() {
				f.t.Errorf("%s %s does not expire", p.State, p.Reason)
			}
		}
	}},
	{"a webhook's record expires, with its tag it does not", func(f fixture) {
		m := f.webhook("1")
		each := f.at(ledger.WebhookKey("acme/api", "1.4.0", m.ID, m.ReceivedAt))
		each.ends(m, digestA, 7, ledger.Promoted)
		if tag := each.tag(); tag.ExpiresAt.Before(f.now().Add(ledger.Retention - time.Minute)) {
			f.t.Errorf("it expires at %v", tag.ExpiresAt)
		}
		if !f.tag().ExpiresAt.IsZero() {
			f.t.Error("the tag expires")
		}
	}},
	{"all promotions are listed, the newest first", func(f fixture) {
		var ids []string
		for i := range 3 {
			ids = append(ids, f.triggered(f.webhook(fmt.Sprint(i)), digest(i), int64(i)).ID)
		}
		slices.Reverse(ids)
		var got []string
		for p, err := range f.All(f.t.Context()) {
			f.must(err)
			got = append(got, p.ID)
		}
		if !slices.Equal(got, ids) {
			f.t.Errorf("listed are %v, want %v", got, ids)
		}
		for range f.All(f.t.Context()) {
			break
		}
	}},
	{"of many concurrent looks one starts it", func(f fixture) {
		var (
			running sync.WaitGroup
			mu      sync.Mutex
			started int
		)
		for i := range 6 {
			m := f.webhook(fmt.Sprint(i))
			running.Go(func() {
				for range 20 {
					s, err := f.Read(f.t.Context(), f.key)
					if err != nil {
						f.t.Error(err)
						return
					}
					d, err := s.Settle(f.t.Context(), saw(m, digestA))
					if err == nil && d.Verdict == ledger.Start {
						mu.Lock()
						started++
						mu.Unlock()
					}
					if err == nil {
						return
					}
				}
				f.t.Error("it never came through")
			})
		}
		running.Wait()
		if started != 1 || f.count() != 1 {
			f.t.Errorf("%d have started it, and there are %d promotions", started, f.count())
		}
	}},
}

// registration tests whether Docker Hub calls at all.
var registration = []scenario{
	{"a repository without any webhook is shown once", func(f fixture) {
		news := func() (found []ledger.Promotion) {
			for p, err := range f.All(f.t.Context()) {
				f.must(err)
				if p.Event == ledger.Registration {
					found = append(found, p)
				}
			}
			return found
		}
		for _, want := range []int{0, 1, 1} {
			f.must(f.Found(f.t.Context(), "acme/api", "acme/*", "paste the URL"))
			if n := len(news()); n != want {
				f.t.Fatalf("%d pieces of news, want %d", n, want)
			}
		}
		p := news()[0]
		if p.Repository != "acme/api" || p.State != ledger.Waiting || p.Hint != "paste the URL" || !p.Note || !p.Behind() {
			f.t.Errorf("the news is %+v", p)
		}
		due, err := f.Due(f.t.Context(), 10)
		f.must(err)
		if len(due) != 1 || due[0].ID != p.ID {
			f.t.Errorf("due are %+v", due)
		}
	}},
	{"a repository with a webhook is not shown", func(f fixture) {
		f.must(f.HeardOf(f.t.Context(), "acme/api"))
		f.must(f.HeardOf(f.t.Context(), "acme/api"))
		for range 3 {
			f.must(f.Found(f.t.Context(), "acme/api", "acme/*", "paste the URL"))
		}
		if f.count() != 0 {
			f.t.Error("there is news")
		}
	}},
	{"Webhooks returns what is known of Docker Hub's webhook", func(f fixture) {
		wants := func(heard bool, found int) {
			f.t.Helper()
			gotHeard, gotFound, err := f.Webhooks(f.t.Context(), "acme/api")
			f.must(err)
			if gotHeard != heard || gotFound != found {
				f.t.Errorf("heard is %t and found %d, want %t and %d", gotHeard, gotFound, heard, found)
			}
		}
		wants(false, 0)
		f.must(f.Found(f.t.Context(), "acme/api", "acme/*", "paste the URL"))
		wants(false, 1)
		f.must(f.HeardOf(f.t.Context(), "acme/api"))
		wants(true, 1)
	}},
}
