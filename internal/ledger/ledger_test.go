package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func push(id, digest string) ledger.Push {
	return ledger.Push{ID: id, Route: "acme/*", Repository: "acme/api", Tag: "1.4.0", Digest: digest}
}

// fixture is a ledger and the time that it lives in.
type fixture struct {
	*ledger.Ledger
	now  func() time.Time
	pass func(time.Duration)
}

// claim, and the like, say what a test takes for granted.
func claim(t *testing.T, l fixture, p ledger.Push) ledger.Claim {
	t.Helper()
	c, err := l.Claim(t.Context(), p)
	if err != nil {
		t.Fatalf("claim of %s: %v", p.ID, err)
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

func state(t *testing.T, l fixture, id string) ledger.State {
	t.Helper()
	p, err := l.Get(t.Context(), id)
	must(t, err)
	return p.State
}

func report(t *testing.T, l fixture, id string, s ledger.State) ledger.Telling {
	t.Helper()
	telling, err := l.Report(t.Context(), ledger.Report{ID: id, State: s})
	if err != nil {
		t.Fatalf("report %s of %s: %v", s, id, err)
	}
	return telling
}

func bury(t *testing.T, l fixture, letter ledger.Letter) ledger.Telling {
	t.Helper()
	telling, err := l.Bury(t.Context(), letter)
	if err != nil {
		t.Fatalf("bury %s: %v", letter.ID, err)
	}
	return telling
}

// untold gives back the lease to tell: Slack was not told.
func untold(t *testing.T, l fixture, telling ledger.Telling) {
	t.Helper()
	must(t, l.Told(t.Context(), telling, telling.Promotion.Message))
}

// conformance is what a ledger does whatever its store.
var conformance = []struct {
	name string
	test func(*testing.T, fixture)
}{
	{"a push of what is on its way or done is a duplicate", func(t *testing.T, l fixture) {
		c := claim(t, l, push("1", digestA))
		must(t, l.Triggered(t.Context(), c, "https://gitlab.example/1"))
		for _, s := range []ledger.State{ledger.Triggered, ledger.Running, ledger.Promoted} {
			if s != ledger.Triggered {
				untold(t, l, report(t, l, "1", s))
			}
			for _, id := range []string{"1", "2"} {
				_, err := l.Claim(t.Context(), push(id, digestA))
				wantErr(t, err, ledger.ErrDuplicate)
			}
		}
		if p, _ := l.Get(t.Context(), "1"); p.PipelineURL != "https://gitlab.example/1" || p.Attempts != 1 {
			t.Errorf("the record is %+v", p)
		}
	}},
	{"a skipped promotion is done", func(t *testing.T, l fixture) {
		must(t, l.Settle(t.Context(), claim(t, l, push("1", digestA)), ledger.Skipped, "signed"))
		_, err := l.Claim(t.Context(), push("2", digestA))
		wantErr(t, err, ledger.ErrDuplicate)
	}},
	{"while a lease runs another delivery waits, and then takes over", func(t *testing.T, l fixture) {
		first := claim(t, l, push("1", digestA))
		_, err := l.Claim(t.Context(), push("2", digestA))
		wantErr(t, err, ledger.ErrInProgress)
		_, err = l.Claim(t.Context(), push("1", digestA))
		wantErr(t, err, ledger.ErrInProgress)

		l.pass(ledger.Lease)
		second := claim(t, l, push("2", digestA))
		wantErr(t, l.Triggered(t.Context(), first, "late"), ledger.ErrStale)
		wantErr(t, l.Release(t.Context(), first, "late", false), ledger.ErrStale)
		wantErr(t, l.Settle(t.Context(), first, ledger.Failed, "late"), ledger.ErrStale)
		if got := state(t, l, "2"); got != ledger.Claimed {
			t.Errorf("a late answer made it %s", got)
		}
		if got := state(t, l, "1"); got != ledger.Failed {
			t.Errorf("the one that was taken over is %s", got)
		}
		must(t, l.Triggered(t.Context(), second, "u"))
	}},
	{"the same delivery takes its own claim over, fenced", func(t *testing.T, l fixture) {
		first := claim(t, l, push("1", digestA))
		l.pass(ledger.Lease)
		second := claim(t, l, push("1", digestA))
		wantErr(t, l.Triggered(t.Context(), first, "late"), ledger.ErrStale)
		must(t, l.Triggered(t.Context(), second, "u"))
		if p, _ := l.Get(t.Context(), "1"); p.Attempts != 2 || p.PipelineURL != "u" {
			t.Errorf("the record is %+v", p)
		}
	}},
	{"one that was taken over turns out to have a pipeline", func(t *testing.T, l fixture) {
		must(t, l.Release(t.Context(), claim(t, l, push("1", digestA)), "gitlab_unavailable", true))
		claim(t, l, push("2", digestA))
		if got := report(t, l, "1", ledger.Running); got.Tell != ledger.Running || got.Promotion.State != ledger.Running {
			t.Errorf("got %+v", got)
		}
	}},
	{"a released claim is free at once, and remembers why", func(t *testing.T, l fixture) {
		must(t, l.Release(t.Context(), claim(t, l, push("1", digestA)), "gitlab_unavailable", false))
		if p, _ := l.Get(t.Context(), "1"); p.Reason != "gitlab_unavailable" || p.State != ledger.Claimed {
			t.Errorf("the record is %+v", p)
		}
		claim(t, l, push("2", digestA))
	}},
	{"what failed is started again by a push", func(t *testing.T, l fixture) {
		must(t, l.Triggered(t.Context(), claim(t, l, push("1", digestA)), "u"))
		report(t, l, "1", ledger.Failed)
		claim(t, l, push("2", digestA))
		if got := state(t, l, "1"); got != ledger.Failed {
			t.Errorf("the failed one is %s", got)
		}
	}},
	{"a push that waited while a promotion failed is no new attempt", func(t *testing.T, l fixture) {
		waited := push("2", digestA)
		waited.QueuedAt = l.now()
		l.pass(time.Second)
		must(t, l.Settle(t.Context(), claim(t, l, push("1", digestA)), ledger.Failed, "not_found"))
		_, err := l.Claim(t.Context(), waited)
		wantErr(t, err, ledger.ErrDuplicate)
		own := waited
		own.ID = "1"
		_, err = l.Claim(t.Context(), own)
		wantErr(t, err, ledger.ErrDuplicate)
		l.pass(time.Second)
		own.QueuedAt = l.now() // replayed
		claim(t, l, own)
	}},
	{"what was settled as failed is started again by its own delivery", func(t *testing.T, l fixture) {
		must(t, l.Settle(t.Context(), claim(t, l, push("1", digestA)), ledger.Failed, "not_found"))
		claim(t, l, push("1", digestA))
	}},
	{"what fell silent is started again by a push", func(t *testing.T, l fixture) {
		must(t, l.Triggered(t.Context(), claim(t, l, push("1", digestA)), "u"))
		l.pass(ledger.Silence - time.Second)
		_, err := l.Claim(t.Context(), push("2", digestA))
		wantErr(t, err, ledger.ErrDuplicate)
		report(t, l, "1", ledger.Running) // it lives: the clock starts anew
		l.pass(2 * time.Second)
		_, err = l.Claim(t.Context(), push("2", digestA))
		wantErr(t, err, ledger.ErrDuplicate)
		l.pass(ledger.Silence)
		claim(t, l, push("2", digestA))
	}},
	{"a tag that moved, or moved back, is a new promotion", func(t *testing.T, l fixture) {
		for i, digest := range []string{digestA, digestB, digestA} {
			p := push(fmt.Sprint(i), digest)
			must(t, l.Triggered(t.Context(), claim(t, l, p), "u"))
			report(t, l, p.ID, ledger.Promoted)
			_, err := l.Claim(t.Context(), push("again", digest))
			wantErr(t, err, ledger.ErrDuplicate)
		}
	}},
	{"the same delivery may find the tag moved", func(t *testing.T, l fixture) {
		first := claim(t, l, push("1", digestA))
		second := claim(t, l, push("1", digestB))
		wantErr(t, l.Triggered(t.Context(), first, "late"), ledger.ErrStale)
		must(t, l.Triggered(t.Context(), second, "u"))
	}},
	{"other tags, repositories and routes are other promotions", func(t *testing.T, l fixture) {
		claim(t, l, push("1", digestA))
		for i, change := range []func(*ledger.Push){
			func(p *ledger.Push) { p.Tag = "1.4.1" },
			func(p *ledger.Push) { p.Repository = "acme/web" },
			func(p *ledger.Push) { p.Route = "acme/api" },
		} {
			p := push(fmt.Sprintf("other %d", i), digestA)
			change(&p)
			claim(t, l, p)
		}
	}},
	{"once per delivery, only the delivery counts", func(t *testing.T, l fixture) {
		for _, id := range []string{"1", "2"} {
			p := push(id, digestA)
			p.PerDelivery = true
			must(t, l.Triggered(t.Context(), claim(t, l, p), "u"))
			p.Digest = digestB
			_, err := l.Claim(t.Context(), p)
			wantErr(t, err, ledger.ErrDuplicate)
		}
	}},
	{"a pipeline may report before Trigger has recorded it", func(t *testing.T, l fixture) {
		c := claim(t, l, push("1", digestA))
		report(t, l, "1", ledger.Running)
		must(t, l.Triggered(t.Context(), c, "u"))
		if p, _ := l.Get(t.Context(), "1"); p.State != ledger.Running || p.PipelineURL != "u" {
			t.Errorf("the record is %+v", p)
		}
	}},
	{"reports that are late, repeated or of another digest change nothing", func(t *testing.T, l fixture) {
		must(t, l.Triggered(t.Context(), claim(t, l, push("1", digestA)), "u"))
		if telling := report(t, l, "1", ledger.Triggered); telling.Needed || telling.Promotion.State != ledger.Triggered {
			t.Errorf("got %+v", telling)
		}
		_, err := l.Report(t.Context(), ledger.Report{ID: "1", State: ledger.Failed, Digest: digestB})
		must(t, err)
		for _, r := range []struct{ report, want ledger.State }{
			{ledger.Running, ledger.Running},
			{ledger.Failed, ledger.Failed},
			{ledger.Running, ledger.Failed}, // late
			{ledger.Promoted, ledger.Promoted},
			{ledger.Promoted, ledger.Promoted},
			{ledger.Running, ledger.Promoted},
			{ledger.Failed, ledger.Promoted},
			{ledger.Skipped, ledger.Promoted},
		} {
			telling := report(t, l, "1", r.report)
			if telling.Promotion.State != r.want {
				t.Errorf("after %s it is %s, want %s", r.report, telling.Promotion.State, r.want)
			}
			if telling.Needed {
				untold(t, l, telling)
			}
		}
	}},
	{"one at a time tells Slack, and each state once", func(t *testing.T, l fixture) {
		must(t, l.Triggered(t.Context(), claim(t, l, push("1", digestA)), "u"))
		running := report(t, l, "1", ledger.Running)
		if !running.Needed {
			t.Fatal("Slack is not to be told")
		}
		_, err := l.Report(t.Context(), ledger.Report{ID: "1", State: ledger.Promoted})
		wantErr(t, err, ledger.ErrInProgress)
		must(t, l.Told(t.Context(), running, ledger.Message{Channel: "C1", TS: "1.1", Tells: ledger.Running}))

		promoted := report(t, l, "1", ledger.Promoted)
		if !promoted.Needed || promoted.Promotion.Message.TS != "1.1" {
			t.Fatalf("got %+v", promoted)
		}
		untold(t, l, promoted)
		promoted = report(t, l, "1", ledger.Promoted)
		if !promoted.Needed {
			t.Fatal("what could not be told is forgotten")
		}
		must(t, l.Told(t.Context(), promoted, ledger.Message{Channel: "C1", TS: "1.1", Tells: ledger.Promoted}))
		if again := report(t, l, "1", ledger.Promoted); again.Needed {
			t.Error("Slack is to be told twice")
		}
	}},
	{"who lost the lease to tell changes nothing", func(t *testing.T, l fixture) {
		must(t, l.Triggered(t.Context(), claim(t, l, push("1", digestA)), "u"))
		first := report(t, l, "1", ledger.Running)
		l.pass(ledger.TellLease)
		second := report(t, l, "1", ledger.Running)
		if !second.Needed {
			t.Fatal("the lease did not run out")
		}
		wantErr(t, l.Told(t.Context(), first, ledger.Message{TS: "late"}), ledger.ErrStale)
		must(t, l.Told(t.Context(), second, ledger.Message{TS: "2.2", Tells: ledger.Running}))
	}},
	{"a promotion that starts again tells again", func(t *testing.T, l fixture) {
		must(t, l.Triggered(t.Context(), claim(t, l, push("1", digestA)), "u"))
		must(t, l.Told(t.Context(), report(t, l, "1", ledger.Failed), ledger.Message{TS: "1.1", Tells: ledger.Failed}))
		must(t, l.Triggered(t.Context(), claim(t, l, push("1", digestA)), "u2"))
		if telling := report(t, l, "1", ledger.Running); !telling.Needed || telling.Promotion.Message.TS != "1.1" {
			t.Errorf("got %+v", telling)
		}
	}},
	{"what is not there is unknown", func(t *testing.T, l fixture) {
		_, err := l.Report(t.Context(), ledger.Report{ID: "none", State: ledger.Running})
		wantErr(t, err, ledger.ErrUnknown)
		_, err = l.Get(t.Context(), "none")
		wantErr(t, err, ledger.ErrUnknown)
	}},
	{"a dead letter makes its push failed, and is told once", func(t *testing.T, l fixture) {
		letter := ledger.Letter{Push: push("1", ""), Reason: "not_found"}
		telling := bury(t, l, letter)
		if !telling.Needed || telling.Tell != ledger.Failed || telling.Promotion.State != ledger.Failed || telling.Promotion.Reason != "not_found" {
			t.Fatalf("got %+v", telling)
		}
		_, err := l.Bury(t.Context(), letter)
		wantErr(t, err, ledger.ErrInProgress)
		untold(t, l, telling)
		telling = bury(t, l, letter)
		if !telling.Needed {
			t.Fatal("what could not be told is forgotten")
		}
		must(t, l.Told(t.Context(), telling, ledger.Message{TS: "1.1", Tells: ledger.Failed}))
		if bury(t, l, letter).Needed {
			t.Error("Slack is to be told twice")
		}
	}},
	{"a dead letter of a claim that still runs waits, unless its claimant sent it", func(t *testing.T, l fixture) {
		c := claim(t, l, push("1", digestA))
		l.pass(time.Second)
		letter := ledger.Letter{Push: push("1", "")}
		letter.QueuedAt = l.now()
		_, err := l.Bury(t.Context(), letter)
		wantErr(t, err, ledger.ErrInProgress)
		letter.Reason = "not_found"
		if !bury(t, l, letter).Needed {
			t.Error("Slack is not to be told")
		}
		must(t, l.Settle(t.Context(), c, ledger.Failed, "not_found"))
		if got := state(t, l, "1"); got != ledger.Failed {
			t.Errorf("it is %s", got)
		}
	}},
	{"what Pub/Sub gave up keeps its last reason", func(t *testing.T, l fixture) {
		must(t, l.Release(t.Context(), claim(t, l, push("1", digestA)), "gitlab_unavailable", false))
		if got := bury(t, l, ledger.Letter{Push: push("1", "")}); got.Promotion.Reason != "gitlab_unavailable" || got.Promotion.State != ledger.Failed {
			t.Errorf("got %+v", got)
		}
		must(t, l.PutOff(t.Context(), push("2", ""), "not_in_registry"))
		if got := bury(t, l, ledger.Letter{Push: push("2", "")}); got.Promotion.Reason != "not_in_registry" {
			t.Errorf("got %+v", got)
		}
	}},
	{"a dead letter of what is on its way or done, or of before a replay, changes nothing", func(t *testing.T, l fixture) {
		letter := ledger.Letter{Push: push("1", ""), Reason: "not_found"}
		letter.QueuedAt = l.now()
		l.pass(time.Second)
		c := claim(t, l, push("1", digestA))
		for _, s := range []ledger.State{ledger.Claimed, ledger.Triggered, ledger.Running, ledger.Promoted} {
			switch s {
			case ledger.Triggered:
				must(t, l.Triggered(t.Context(), c, "u"))
			case ledger.Running, ledger.Promoted:
				telling := report(t, l, "1", s)
				must(t, l.Told(t.Context(), telling, ledger.Message{TS: "1.1", Tells: s}))
			}
			if bury(t, l, letter).Needed {
				t.Errorf("Slack is to be told of one that is %s", s)
			}
			if got := state(t, l, "1"); got != s {
				t.Errorf("it is %s, was %s", got, s)
			}
		}
	}},
	{"a replay starts what died, also before everybody knows", func(t *testing.T, l fixture) {
		first := claim(t, l, push("1", digestA))
		l.pass(time.Second)
		replayed := push("1", digestA)
		replayed.Replayed, replayed.QueuedAt = true, l.now()
		l.pass(time.Second)
		must(t, l.Settle(t.Context(), first, ledger.Failed, "not_found")) // after the replay was queued
		again := replayed
		again.Replayed = false
		_, err := l.Claim(t.Context(), again)
		wantErr(t, err, ledger.ErrDuplicate)
		second := claim(t, l, replayed)
		l.pass(time.Second)
		must(t, l.Settle(t.Context(), second, ledger.Failed, "not_found"))
		_, err = l.Claim(t.Context(), replayed) // delivered twice
		wantErr(t, err, ledger.ErrDuplicate)
	}},
	{"a replay that fails again is told again", func(t *testing.T, l fixture) {
		letter := ledger.Letter{Push: push("1", ""), Reason: "not_found"}
		must(t, l.Told(t.Context(), bury(t, l, letter), ledger.Message{TS: "1.1", Tells: ledger.Failed}))
		l.pass(time.Second)
		replayed := push("1", digestA)
		replayed.Replayed, replayed.QueuedAt = true, l.now()
		must(t, l.Settle(t.Context(), claim(t, l, replayed), ledger.Failed, "not_found"))
		if got := bury(t, l, letter); !got.Needed || got.Promotion.Message.TS != "1.1" {
			t.Errorf("got %+v", got)
		}
	}},
	{"a claim says where a pipeline may have been left", func(t *testing.T, l fixture) {
		first := claim(t, l, push("1", digestA))
		if first.Uncertain {
			t.Error("the first is uncertain")
		}
		must(t, l.Release(t.Context(), first, "gitlab_unavailable", true))
		second := claim(t, l, push("1", digestA))
		if !second.Uncertain {
			t.Error("after a release in doubt it is certain")
		}
		must(t, l.Release(t.Context(), second, "gitlab_rate_limited", false))
		if c := claim(t, l, push("1", digestA)); !c.Uncertain {
			t.Error("the doubt is forgotten")
		} else {
			must(t, l.Triggered(t.Context(), c, "u"))
		}

		other := push("2", digestB)
		other.Tag = "2"
		must(t, l.Release(t.Context(), claim(t, l, other), "gitlab_rate_limited", false))
		if claim(t, l, other).Uncertain {
			t.Error("after a refusal it is uncertain")
		}
		l.pass(ledger.Lease) // and the claimant is gone
		if !claim(t, l, other).Uncertain {
			t.Error("after a claimant that vanished it is certain")
		}
	}},
	{"what is put off starts nothing and disturbs nobody", func(t *testing.T, l fixture) {
		must(t, l.PutOff(t.Context(), push("1", ""), "not_in_registry"))
		if p, _ := l.Get(t.Context(), "1"); p.State != ledger.Claimed || p.Reason != "not_in_registry" || p.Attempts != 0 {
			t.Errorf("the record is %+v", p)
		}
		c := claim(t, l, push("1", digestA))
		must(t, l.PutOff(t.Context(), push("1", ""), "registry_unavailable"))
		must(t, l.Triggered(t.Context(), c, "u"))
		must(t, l.PutOff(t.Context(), push("1", ""), "registry_unavailable"))
		if p, _ := l.Get(t.Context(), "1"); p.State != ledger.Triggered || p.Reason != "" || p.Digest != digestA {
			t.Errorf("the record is %+v", p)
		}
	}},
	{"what reports nothing is found once it was told", func(t *testing.T, l fixture) {
		must(t, l.Triggered(t.Context(), claim(t, l, push("1", digestA)), "u"))
		telling, err := l.ReportSilence(t.Context(), "1", time.Hour)
		must(t, err)
		if telling.Needed {
			t.Error("it is young")
		}
		l.pass(time.Hour)
		telling, err = l.ReportSilence(t.Context(), "1", time.Hour)
		must(t, err)
		if !telling.Needed || telling.Tell != ledger.Silent || telling.Promotion.State != ledger.Triggered {
			t.Fatalf("got %+v", telling)
		}
		if ids, err := l.Silent(t.Context(), -time.Second, 10); err != nil || len(ids) != 1 || ids[0] != "1" {
			t.Errorf("open are %v, %v", ids, err)
		}
		must(t, l.Told(t.Context(), telling, ledger.Message{TS: "1.1", Tells: ledger.Silent}))
		if ids, err := l.Silent(t.Context(), -time.Second, 10); err != nil || len(ids) != 0 {
			t.Errorf("open are %v, %v", ids, err)
		}
		running := report(t, l, "1", ledger.Running)
		if !running.Needed {
			t.Error("that it lives is not told")
		}
		untold(t, l, running)
		untold(t, l, report(t, l, "1", ledger.Promoted))
		if ids, err := l.Silent(t.Context(), -time.Second, 10); err != nil || len(ids) != 0 {
			t.Errorf("done, but open are %v, %v", ids, err)
		}
	}},
	{"all are listed, the newest first", func(t *testing.T, l fixture) {
		for _, id := range []string{"1", "2", "3"} {
			p := push(id, digestA)
			p.Tag = id
			claim(t, l, p)
			l.pass(time.Second)
		}
		var got []string
		for p, err := range l.All(t.Context()) {
			must(t, err)
			got = append(got, p.ID+" "+p.Tag)
		}
		if fmt.Sprint(got) != "[3 3 2 2 1 1]" {
			t.Errorf("got %v", got)
		}
		for range l.All(t.Context()) {
			break
		}
	}},
	{"of many claimants at once one wins", func(t *testing.T, l fixture) {
		var (
			wg  sync.WaitGroup
			won atomic.Int32
		)
		for i := range 50 {
			wg.Go(func() {
				_, err := l.Claim(context.Background(), push(fmt.Sprint(i), digestA))
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, ledger.ErrInProgress):
					t.Errorf("claimant %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d claimants won", won.Load())
		}
	}},
}

// inMemory is for a bubble of synctest.
func inMemory() fixture { return fixture{ledger.NewMemory(), time.Now, time.Sleep} }

func TestMemory(t *testing.T) {
	t.Parallel()
	for _, c := range conformance {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { c.test(t, inMemory()) })
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	l := inMemory()
	const pushes = 10_001
	for i := range pushes {
		p := push(fmt.Sprint(i), digestA)
		p.Tag = fmt.Sprint(i)
		claim(t, l, p)
	}
	_, err := l.Get(t.Context(), "0")
	wantErr(t, err, ledger.ErrUnknown)
	if _, err := l.Get(t.Context(), "1"); err != nil {
		t.Errorf("more was forgotten than the oldest: %v", err)
	}
}

func TestPromotionsExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := inMemory()
		claim(t, l, push("1", digestA))
		l.pass(ledger.Retention + time.Second)
		p := push("2", digestA)
		p.Tag = "other"
		claim(t, l, p)
		_, err := l.Get(t.Context(), "1")
		wantErr(t, err, ledger.ErrUnknown)
	})
}

func TestOpen(t *testing.T) {
	t.Parallel()
	a, err := ledger.Open("memory:shared-by-name")
	must(t, err)
	b, err := ledger.Open("memory:shared-by-name")
	must(t, err)
	other, err := ledger.Open("memory:another")
	must(t, err)
	if a != b || a == other {
		t.Error("a ledger in memory is not shared by its name")
	}
	for _, name := range []string{"", "redis:x", "memory"} {
		if _, err := ledger.Open(name); err == nil {
			t.Errorf("%q was opened", name)
		}
	}
}
