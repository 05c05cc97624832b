package ledger_test

import (
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

func init() { conformance = append(conformance, reviewed...) }

// reviewed are sequences that a review of the rules has found.
var reviewed = []scenario{
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
	{"a late report of the beginning takes back nothing of the end that was told", func(f fixture) {
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
	{"P5: a replay that waits goes on, whoever sees the image first", func(f fixture) {
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
}
