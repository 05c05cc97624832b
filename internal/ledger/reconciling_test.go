package ledger_test

import (
	"maps"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

// rules are those of two routes.
var rules = map[string]string{"acme/api": "v*", "acme/*": "*"}

// resumes takes the lease for asking Docker Hub, and gives it back.
func (f fixture) resumes(rules map[string]string) ledger.Progress {
	f.t.Helper()
	p, err := f.Resume(f.t.Context(), lease, rules)
	f.must(err)
	f.must(f.Pause(f.t.Context(), p, 0))
	return p
}

// missed decides about a push that was made now, without a message.
func (f fixture) missed(digest string, want bool) {
	f.t.Helper()
	m := f.webhook("missed")
	f.pass(ledger.RegistryLag)
	f.wasMissed(m, digest, want)
}

func (f fixture) wasMissed(m ledger.Message, digest string, want bool) {
	f.t.Helper()
	m.QueuedAt, m.Reconcile = time.Time{}, true
	s, err := f.Read(f.t.Context(), f.key)
	f.must(err)
	before := f.tag()
	look := ledger.Look{Message: m, Digest: digest}
	if got := s.Misses(look); got != want || f.tag() != before {
		f.t.Errorf("it is missed: %t, want %t", got, want)
	}
	got, err := s.Missed(f.t.Context(), look)
	f.must(err)
	if got != want {
		f.t.Errorf("it was missed: %t, want %t", got, want)
	}
	if s, err = f.Read(f.t.Context(), f.key); err != nil || !s.Looked(m.PushedAt) || s.Busy() != want {
		f.t.Errorf("it was looked at: %t, somebody will look: %t", s.Looked(m.PushedAt), s.Busy())
	}
}

// unheard are the promotions that reconcile may ask GitLab about.
func (f fixture) unheard(want int) []ledger.Promotion {
	f.t.Helper()
	found, err := f.Unheard(f.t.Context(), 10)
	f.must(err)
	if len(found) != want {
		f.t.Fatalf("%d pipelines say nothing, want %d", len(found), want)
	}
	return found
}

var reconciling = []scenario{
	{"Progress: one has the lease at a time, and continues where the last one stopped", func(f fixture) {
		p, err := f.Resume(f.t.Context(), lease, rules)
		f.must(err)
		if p.Source != "" || p.Cursor != "" {
			f.t.Errorf("it begins at %+v", p)
		}
		_, err = f.Resume(f.t.Context(), lease, rules)
		f.wantErr(err, ledger.ErrLeased)
		p.Source, p.Cursor = "acme", "log 2"
		f.must(f.Pause(f.t.Context(), p, 0))
		if p = f.resumes(rules); p.Source != "acme" || p.Cursor != "log 2" {
			f.t.Errorf("it goes on at %+v", p)
		}
	}},
	{"Progress: the right of one that was killed runs out, and is not given back by it any more", func(f fixture) {
		killed, err := f.Resume(f.t.Context(), lease, rules)
		f.must(err)
		f.pass(lease)
		p, err := f.Resume(f.t.Context(), lease, rules)
		f.must(err)
		killed.Source = "late"
		f.must(f.Pause(f.t.Context(), killed, time.Hour))
		_, err = f.Resume(f.t.Context(), lease, rules)
		f.wantErr(err, ledger.ErrLeased)
		p.Source = "acme"
		f.must(f.Pause(f.t.Context(), p, 0))
		if p = f.resumes(rules); p.Source != "acme" {
			f.t.Errorf("it goes on at %+v", p)
		}
	}},
	{"Progress: Docker Hub is left alone for as long as it asks", func(f fixture) {
		p, err := f.Resume(f.t.Context(), lease, rules)
		f.must(err)
		f.must(f.Pause(f.t.Context(), p, 10*time.Minute))
		f.pass(9 * time.Minute)
		_, err = f.Resume(f.t.Context(), lease, rules)
		f.wantErr(err, ledger.ErrLeased)
		f.pass(2 * time.Minute)
		f.resumes(rules)
	}},
	{"Rules: they are known since they were first seen", func(f fixture) {
		began := f.now()
		since := f.resumes(rules).Rules["acme/api"].Since
		if since.Before(began.Add(-time.Second)) || since.After(f.now().Add(time.Second)) {
			f.t.Errorf("they are known since %v, and it is %v", since, f.now())
		}
		f.pass(time.Hour)
		if p := f.resumes(rules); !p.Rules["acme/api"].Since.Equal(since) || !p.Rules["acme/*"].Since.Equal(since) {
			f.t.Errorf("an hour later they are %+v", p.Rules)
		}
	}},
	{"Rules: those that change are new, and the others are not", func(f fixture) {
		first := f.resumes(rules)
		f.pass(time.Hour)
		p := f.resumes(map[string]string{"acme/api": "*", "acme/*": "*"})
		if p.Rules["acme/api"].Since.Sub(first.Rules["acme/api"].Since) < time.Hour || !p.Rules["acme/*"].Since.Equal(first.Rules["acme/*"].Since) {
			f.t.Errorf("they were %+v, and are %+v", first.Rules, p.Rules)
		}
	}},
	{"Rules: a route that comes back is new", func(f fixture) {
		without := map[string]string{"acme/*": "*"}
		first := f.resumes(rules)
		f.pass(time.Hour)
		f.resumes(without)
		f.pass(time.Hour)
		if since := f.resumes(rules).Rules["acme/api"].Since; since.Sub(first.Rules["acme/api"].Since) < 2*time.Hour {
			f.t.Errorf("it is known since %v", since)
		}
	}},
	{"Rules: where a route goes, another one with other rules has its repositories from now on", func(f fixture) {
		first := f.resumes(rules)
		f.pass(time.Hour)
		if since := f.resumes(map[string]string{"acme/*": "*"}).Rules["acme/*"].Since; since.Sub(first.Rules["acme/*"].Since) < time.Hour {
			f.t.Errorf("it is known since %v", since)
		}
	}},
	{"Rules: one with the same rules has them since the later of the two", func(f fixture) {
		f.resumes(map[string]string{"acme/*": "*"})
		f.pass(time.Hour)
		both := f.resumes(map[string]string{"acme/*": "*", "acme/a*": "*"})
		f.pass(time.Hour)
		if since := f.resumes(map[string]string{"acme/*": "*"}).Rules["acme/*"].Since; !since.Equal(both.Rules["acme/a*"].Since) {
			f.t.Errorf("it is known since %v, the other was since %v", since, both.Rules["acme/a*"].Since)
		}
	}},
	{"Rules: where a route goes, one that cannot have its repositories keeps its own", func(f fixture) {
		most := map[string]string{"acme/api": "v*", "beta/*": "v*", "*/api": "v*"}
		all := map[string]string{"other/gone": "*"}
		maps.Copy(all, most)
		first := f.resumes(all)
		f.pass(time.Hour)
		p := f.resumes(most)
		for key := range most {
			if !p.Rules[key].Since.Equal(first.Rules[key].Since) {
				f.t.Errorf("%s was known since %v, and is since %v", key, first.Rules[key].Since, p.Rules[key].Since)
			}
		}
	}},
	{"Rules: a repository that gets a route of its own, with the rules that it had, has them since then", func(f fixture) {
		old := map[string]string{"*": "*", "acme/*": "v*", "acme/a*": "1*"}
		first := f.resumes(old)
		f.pass(time.Hour)
		now := map[string]string{"acme/web": "v*", "beta/web": "*", "acme/api": "v*", "gamma/web": "v*"}
		maps.Copy(now, old)
		p := f.resumes(now)
		for key, of := range map[string]string{"acme/web": "acme/*", "beta/web": "*"} {
			if !p.Rules[key].Since.Equal(first.Rules[of].Since) {
				f.t.Errorf("%s was known since %v, and is since %v", key, first.Rules[of].Since, p.Rules[key].Since)
			}
		}
		for _, key := range []string{"acme/api", "gamma/web"} { // had others
			if p.Rules[key].Since.Sub(first.Rules["*"].Since) < time.Hour {
				f.t.Errorf("%s is known since %v", key, p.Rules[key].Since)
			}
		}
	}},
	{"Rules: they are noted while another asks, who keeps the right", func(f fixture) {
		p, err := f.Resume(f.t.Context(), 2*time.Hour, nil)
		f.must(err)
		_, err = f.Resume(f.t.Context(), lease, rules)
		f.wantErr(err, ledger.ErrLeased)
		noted := f.now()
		f.pass(time.Hour)
		p.Source = "acme"
		f.must(f.Pause(f.t.Context(), p, 0))
		if p = f.resumes(rules); p.Source != "acme" || p.Rules["acme/api"].Since.Sub(noted) > time.Minute {
			f.t.Errorf("it is %+v", p)
		}
	}},
	{"Missed: an unknown push begins a promotion, and must be looked at", func(f fixture) {
		f.missed(digestA, true)
		tag := f.lookBy(ledger.StartingLookBy)
		if tag.Look.ID != "missed" || f.count() != 0 {
			f.t.Errorf("the record is %+v", tag)
		}
	}},
	{"Missed: of what is done, under way, failed or dead nothing begins", func(f fixture) {
		for i, s := range []ledger.State{ledger.Promoted, ledger.Skipped, ledger.Running, ledger.Failed} {
			f := f.at(ledger.Key{Repository: "acme/api", Tag: string(s)})
			m := f.webhook("1")
			f.ends(m, digestA, int64(i+1), s)
			f.pass(ledger.RegistryLag)
			if s == ledger.Failed { // and another look was due
				f.comes(saw(f.reconciled(m), digestA), ledger.Ignore)
			}
			f.wasMissed(m, digestA, false)
		}
		f = f.at(ledger.Key{Repository: "acme/api", Tag: "dead"})
		m := f.webhook("1")
		f.answer(f.starts(m, digestA), refused(m))
		f.comes(saw(f.reconciled(m), digestA), ledger.Ignore)
		f.pass(ledger.RegistryLag)
		f.wasMissed(m, digestA, false)
	}},
	{"Missed: a push after a failure or a death begins one, and so does another image", func(f fixture) {
		for i, digest := range []string{digestA, digestB} {
			f := f.at(ledger.Key{Repository: "acme/api", Tag: digest[7:10]})
			m := f.webhook("1")
			f.ends(m, digestA, int64(i+1), ledger.Failed)
			f.pass(2 * time.Minute)
			f.comes(saw(f.reconciled(m), digestA), ledger.Ignore)
			f.missed(digest, true)
		}
	}},
	{"Missed: a death without a digest covers the pushes before it, and not one after", func(f fixture) {
		m := f.webhook("1")
		f.comes(blind(m, "registry_denied"), ledger.Wait)
		f.pass(time.Minute)
		f.dies(m)
		f.pass(2 * time.Minute)
		after := f.webhook("2")
		f.pass(ledger.RegistryLag)
		f.wasMissed(m, digestA, false)
		s, err := f.Read(f.t.Context(), f.key)
		f.must(err)
		if s.Looked(after.PushedAt) {
			f.t.Error("the push after it counts as looked at")
		}
		f.wasMissed(after, digestA, true)
	}},
	{"Missed: once per delivery the tag's last image counts, and its last death", func(f fixture) {
		webhook := f.at(ledger.WebhookKey(f.key.Repository, f.key.Tag, "1", f.now()))
		m := webhook.webhook("1")
		webhook.ends(m, digestA, 7, ledger.Failed)
		decides := func(m ledger.Message, digest string, want bool) {
			f.t.Helper()
			s, err := f.Read(f.t.Context(), f.key)
			f.must(err)
			if got := s.Misses(ledger.Look{Message: m, Digest: digest, PerDelivery: true}); got != want {
				f.t.Errorf("it is missed: %t, want %t", got, want)
			}
		}
		decides(m, digestA, false)
		decides(m, digestB, true)
		m = webhook.webhook("2")
		blindly := f.at(ledger.WebhookKey(f.key.Repository, f.key.Tag, "2", m.ReceivedAt))
		blindly.comes(blind(m, "registry_denied"), ledger.Wait)
		blindly.dies(m)
		decides(m, digestB, false)
		f.pass(time.Second)
		decides(f.webhook("3"), digestB, true)
	}},
	{"Missed: it meets another look", func(f fixture) {
		s, err := f.Read(f.t.Context(), f.key)
		f.must(err)
		m := f.webhook("1")
		f.starts(m, digestA)
		_, err = s.Missed(f.t.Context(), ledger.Look{Message: m, Digest: digestA})
		f.wantErr(err, ledger.ErrConflict)
	}},
	{"Busy: a promotion that waits or is being started will be looked at", func(f fixture) {
		busy := func(want bool) {
			f.t.Helper()
			s, err := f.Read(f.t.Context(), f.key)
			f.must(err)
			if s.Busy() != want {
				f.t.Errorf("somebody will look: %t, want %t", s.Busy(), want)
			}
		}
		busy(false)
		m := f.webhook("1")
		f.comes(blind(m, "not_in_registry"), ledger.Wait)
		busy(true)
		f.pass(2 * ledger.WaitingLookBy)
		busy(true) // reconcile queues it by its LookBy
		c := f.starts(m, digestA)
		busy(true)
		f.answer(c, created(7))
		busy(false)
	}},
	{"Unheard: a pipeline of one's own that says nothing for some minutes, and none that has ended", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		f.unheard(0)
		f.pass(9 * time.Minute)
		if got := f.unheard(1)[0]; got.ID != p.ID || got.PipelineID() != "7" || got.ProjectID != "42" {
			f.t.Errorf("it is %+v", got)
		}
		f.reports(p.ID, ledger.Running)
		f.unheard(0)
		f.pass(9 * time.Minute)
		f.unheard(1)
		f.reports(p.ID, ledger.Promoted)
		f.unheard(0)
	}},
	{"Unheard: one whose pipeline is not known cannot be asked about", func(f fixture) {
		m := f.webhook("1")
		f.answer(f.starts(m, digestA), ledger.Answer{Created: true})
		f.pass(time.Hour)
		f.unheard(0)
	}},
	{"Asked: a failed job makes it failed, so that the next push starts immediately, and a later report counts", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		f.pass(9 * time.Minute)
		f.must(f.Asked(f.t.Context(), f.unheard(1)[0], ledger.JobState{State: ledger.Failed, Reason: ledger.Canceled, Hint: "h"}))
		if got := f.is(p.ID, ledger.Failed, ledger.Canceled); got.By != ledger.ByReconcile || got.Hint != "h" {
			f.t.Errorf("it is %+v", got)
		}
		if shown := f.tick(); len(shown) != 1 {
			f.t.Errorf("%d are shown", len(shown))
		}
		f.pass(time.Second)
		next := f.starts(f.webhook("2"), digestA)
		if next.ID == p.ID {
			f.t.Error("it is the same promotion")
		}
		f.reports(p.ID, ledger.Promoted)
		f.is(p.ID, ledger.Promoted, "")
	}},
	{"Asked: one that runs is not silent, for as long as GitLab's word is new", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		for range 20 {
			f.pass(9 * time.Minute)
			f.must(f.Asked(f.t.Context(), f.unheard(1)[0], ledger.JobState{State: ledger.Running}))
			f.unheard(0)
			f.tick()
		}
		if p := f.get(p.ID); p.Silent() {
			f.t.Error("it is silent")
		}
		f.pass(20 * time.Minute)
		f.tick()
		if p := f.get(p.ID); !p.Silent() {
			f.t.Error("nobody asks any more, and it is not silent")
		}
		f.must(f.Asked(f.t.Context(), f.unheard(1)[0], ledger.JobState{State: ledger.Running}))
		if p := f.get(p.ID); p.Silent() || !p.Behind() {
			f.t.Errorf("it runs, and is shown as silent: %+v", p)
		}
	}},
	{"Asked: a job that waits is shown as waiting after some time, and not as silent", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		for range 8 {
			f.pass(9 * time.Minute)
			f.must(f.Asked(f.t.Context(), f.unheard(1)[0], ledger.JobState{State: ledger.Running, Reason: "pending", Hint: "no runner"}))
			f.tick()
		}
		if got := f.get(p.ID); got.Silent() || !got.ToldJob || got.JobWaits != "pending" || got.Hint != "no runner" || got.Behind() {
			f.t.Errorf("it is %+v", got)
		}
		f.reports(p.ID, ledger.Running)
		if got := f.get(p.ID); got.ToldJob || got.JobWaits != "" {
			f.t.Errorf("it runs, and waits: %+v", got)
		}
	}},
	{"Asked: what GitLab does not tell leaves silence as it is, and is asked again later", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		f.pass(9 * time.Minute)
		f.must(f.Asked(f.t.Context(), f.unheard(1)[0], ledger.JobState{Unknown: true}))
		f.unheard(0)
		f.pass(9 * time.Minute)
		f.unheard(1)
		f.pass(time.Hour)
		f.tick()
		if p := f.get(p.ID); !p.Silent() {
			f.t.Error("it is not silent")
		}
	}},
	{"Asked: a report in the meantime wins", func(f fixture) {
		p := f.triggered(f.webhook("1"), digestA, 7)
		f.pass(9 * time.Minute)
		asked := f.unheard(1)[0]
		f.reports(p.ID, ledger.Running)
		f.must(f.Asked(f.t.Context(), asked, ledger.JobState{State: ledger.Failed, Reason: ledger.NoJob}))
		f.is(p.ID, ledger.Running, "")
	}},
}
