package ledger_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

// These hold for every store.
var stores = []struct {
	name string
	test func(*testing.T, ledger.Store)
}{
	{"what is not there is nil, beside what is", func(t *testing.T, s ledger.Store) {
		commit(t, s, nil, ledger.Batch{Tags: []*ledger.Tag{{Key: tagKey}}, Promotions: []*ledger.Promotion{{ID: "p"}}})
		tags, at, err := s.Tags(t.Context(), "acme~api:none", tagKey.ID())
		if err != nil || tags[0] != nil || tags[1] == nil || tags[1].Key != tagKey {
			t.Errorf("got %v, %v", tags, err)
		}
		if d := time.Since(at); d.Abs() > time.Minute {
			t.Errorf("the store's time is %v off", d)
		}
		found, _, err := s.Promotions(t.Context(), "p", "none")
		if err != nil || found[0] == nil || found[0].ID != "p" || found[1] != nil {
			t.Errorf("got %v, %v", found, err)
		}
		if r, err := s.Repository(t.Context(), "acme/api"); err != nil || r != nil {
			t.Errorf("got %v, %v", r, err)
		}
		if none, at, err := s.Tags(t.Context()); err != nil || len(none) != 0 || at.IsZero() {
			t.Errorf("asked for nothing, it says %v, %v, %v", none, at, err)
		}
	}},
	{"what was read and has not changed is written", func(t *testing.T, s ledger.Store) {
		commit(t, s, nil, ledger.Batch{Tags: []*ledger.Tag{{Key: tagKey}}})
		for i := range 3 {
			tag := readTag(t, s)
			tag.Row = i
			commit(t, s, nil, ledger.Batch{Tags: []*ledger.Tag{tag}})
		}
		if tag := readTag(t, s); tag.Row != 2 {
			t.Errorf("it is %+v", tag)
		}
	}},
	{"nothing of a batch is written if one document has changed since it was read", func(t *testing.T, s ledger.Store) {
		commit(t, s, nil, ledger.Batch{
			Tags: []*ledger.Tag{{Key: tagKey}}, Promotions: []*ledger.Promotion{{ID: "p"}}, Repositories: []*ledger.Repository{{Name: "acme/api"}},
		})
		tag, p, r := readTag(t, s), readPromotion(t, s, "p"), readRepository(t, s)
		now := time.UnixMicro(time.Now().UnixMicro()).UTC()
		for _, c := range []struct {
			name         string
			first, later ledger.Batch
		}{
			{"a tag", ledger.Batch{Tags: []*ledger.Tag{with(tag, func(t *ledger.Tag) { t.Row = 1 })}},
				ledger.Batch{Tags: []*ledger.Tag{with(tag, func(t *ledger.Tag) { t.Row = 9 })}, Promotions: []*ledger.Promotion{{ID: "new"}}}},
			{"a promotion", ledger.Batch{Promotions: []*ledger.Promotion{with(p, func(p *ledger.Promotion) { p.Text = "first" })}},
				ledger.Batch{Promotions: []*ledger.Promotion{{ID: "new"}, with(p, func(p *ledger.Promotion) { p.Text = "later" })}}},
			{"a repository", ledger.Batch{Repositories: []*ledger.Repository{with(r, func(r *ledger.Repository) { r.EndedAt = now })}},
				ledger.Batch{Promotions: []*ledger.Promotion{{ID: "new"}}, Repositories: []*ledger.Repository{with(r, func(r *ledger.Repository) { r.EndedAt = now.Add(time.Hour) })}}},
		} {
			commit(t, s, nil, c.first)
			commit(t, s, ledger.ErrConflict, c.later)
			if found, _, err := s.Promotions(t.Context(), "new"); err != nil || found[0] != nil {
				t.Errorf("%s was written in part: %v, %v", c.name, found, err)
			}
		}
		if tag, p, r := readTag(t, s), readPromotion(t, s, "p"), readRepository(t, s); tag.Row != 1 || p.Text != "first" || !r.EndedAt.Equal(now) {
			t.Errorf("they are %+v, %+v, %+v", tag, p, r)
		}
	}},
	{"a document that was created since it was read is not written", func(t *testing.T, s ledger.Store) {
		for name, b := range map[string]ledger.Batch{
			"a tag": {Tags: []*ledger.Tag{{Key: tagKey}}}, "a promotion": {Promotions: []*ledger.Promotion{{ID: "p"}}},
			"a repository": {Repositories: []*ledger.Repository{{Name: "acme/api"}}},
		} {
			t.Log(name)
			commit(t, s, nil, b)
			commit(t, s, ledger.ErrConflict, b)
		}
	}},
	{"what was read once is written once: what a commit wrote has to be read again", func(t *testing.T, s ledger.Store) {
		p := &ledger.Promotion{ID: "p"}
		commit(t, s, nil, ledger.Batch{Promotions: []*ledger.Promotion{p}})
		p.Text = "again"
		commit(t, s, ledger.ErrConflict, ledger.Batch{Promotions: []*ledger.Promotion{p}})
	}},
	{"a record comes back as it was", func(t *testing.T, s ledger.Store) {
		at := time.UnixMicro(time.Now().UnixMicro()).UTC()
		m := ledger.Message{ID: "d1", QueuedAt: at, PushedAt: at.Add(-time.Second), ReceivedAt: at.Add(time.Second), ReplayedAt: at, Reconcile: true}
		p := ledger.Promotion{
			ID: "p", Event: ledger.Deploy, Note: true, Key: ledger.WebhookKey("acme/api", "1.4.0", "d1", at), Digest: digestA, Route: "acme/*",
			State: ledger.Failed, By: ledger.ByClock, Reason: "r", Hint: "h\n<b>", Words: "w\U0001f600", Message: m, CreatedAt: at, UpdatedAt: at, Current: true,
			Attempts: 1, Requests: 2, Unrecognized: 3, Lost: true, Token: 4, LeaseEnds: at, ProjectID: "42", Pipelines: []string{"42/7", "42/8"},
			PipelineURL: "https://gitlab.example/p", Subscription: "s", Text: "t", Version: "v", Project: "acme/images/api",
			Outbox: ledger.Outbox{
				Revision: 5, Shown: 6, Replied: 7, Channel: "C", TS: "1.1", WaitsSince: at, ToldWaiting: true, SilentSince: at, AskedAt: at,
				Refusals: 8, RetryAt: at, ShowToken: 9, ShowEnds: at,
			},
			DueAt: at, ExpiresAt: at.Add(time.Hour),
		}
		tag := ledger.Tag{
			Key: tagKey, Settled: "s", Pending: "p", Digest: digestB, Waiting: m, LookedAt: at, DiedAt: at, LookBy: at, Look: m,
			Row: 3, EndedAt: at, RowOpen: true,
		}
		commit(t, s, nil, ledger.Batch{Tags: []*ledger.Tag{&tag}, Promotions: []*ledger.Promotion{&p}})
		versions := cmpopts.IgnoreUnexported(ledger.Promotion{}, ledger.Tag{}) // are the store's
		if diff := cmp.Diff(&p, readPromotion(t, s, "p"), versions); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(&tag, readTag(t, s), versions); diff != "" {
			t.Error(diff)
		}
	}},
	{"due is what has a time that has come, the oldest first, up to a limit", func(t *testing.T, s ledger.Store) {
		now := time.Now()
		var b ledger.Batch
		for i, due := range []time.Duration{-time.Minute, -time.Hour, 0, time.Hour, -time.Second} {
			p := &ledger.Promotion{ID: fmt.Sprint(i), DueAt: now.Add(due)}
			if i == 4 {
				p.DueAt = time.Time{} // never
			}
			b.Promotions = append(b.Promotions, p)
		}
		commit(t, s, nil, b)
		ids := func(limit int) (ids []string) {
			found, err := s.Due(t.Context(), now, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range found {
				ids = append(ids, p.ID)
			}
			return ids
		}
		if got := ids(10); !slices.Equal(got, []string{"1", "0", "2"}) {
			t.Errorf("due are %v", got)
		}
		if got := ids(1); !slices.Equal(got, []string{"1"}) {
			t.Errorf("the one that is due for longest is %v", got)
		}
		p := readPromotion(t, s, "1")
		p.DueAt = time.Time{}
		commit(t, s, nil, ledger.Batch{Promotions: []*ledger.Promotion{p}})
		if got := ids(10); !slices.Equal(got, []string{"0", "2"}) {
			t.Errorf("once it is never due, due are %v", got)
		}
	}},
	{"what was found as due or overdue is written under the same condition", func(t *testing.T, s ledger.Store) {
		now := time.Now()
		commit(t, s, nil, ledger.Batch{
			Tags: []*ledger.Tag{{Key: tagKey, LookBy: now}}, Promotions: []*ledger.Promotion{{ID: "p", DueAt: now}},
		})
		due, err := s.Due(t.Context(), now, 1)
		if err != nil || len(due) != 1 {
			t.Fatal(due, err)
		}
		overdue, err := s.Overdue(t.Context(), now, 1)
		if err != nil || len(overdue) != 1 {
			t.Fatal(overdue, err)
		}
		b := ledger.Batch{
			Tags:       []*ledger.Tag{with(overdue[0], func(t *ledger.Tag) { t.Row = 7 })},
			Promotions: []*ledger.Promotion{with(due[0], func(p *ledger.Promotion) { p.Text = "x" })},
		}
		commit(t, s, nil, b)
		commit(t, s, ledger.ErrConflict, b)
	}},
	{"overdue is a tag that has a time that has come, the oldest first, up to a limit", func(t *testing.T, s ledger.Store) {
		now := time.Now()
		var b ledger.Batch
		for i, by := range []time.Duration{-time.Minute, -time.Hour, 0, time.Hour, 0} {
			tag := &ledger.Tag{Key: ledger.Key{Repository: "acme/api", Tag: fmt.Sprint(i)}, LookBy: now.Add(by)}
			if i == 4 {
				tag.LookBy = time.Time{}
			}
			b.Tags = append(b.Tags, tag)
		}
		commit(t, s, nil, b)
		for limit, want := range map[int][]string{10: {"1", "0", "2"}, 2: {"1", "0"}} {
			found, err := s.Overdue(t.Context(), now, limit)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, tag := range found {
				got = append(got, tag.Tag)
			}
			if !slices.Equal(got, want) {
				t.Errorf("overdue are %v, want %v", got, want)
			}
		}
	}},
	{"a promotion is found by each of its pipelines", func(t *testing.T, s ledger.Store) {
		commit(t, s, nil, ledger.Batch{Promotions: []*ledger.Promotion{{ID: "none"}, {ID: "p", Pipelines: []string{"42/7"}}}})
		p := readPromotion(t, s, "p")
		p.Pipelines = append(p.Pipelines, "42/8")
		commit(t, s, nil, ledger.Batch{Promotions: []*ledger.Promotion{p}})
		for pipeline, want := range map[string]string{"42/7": "p", "42/8": "p", "42/9": "", "43/7": "", "": ""} {
			if got, err := s.OfPipeline(t.Context(), pipeline); err != nil || got != want {
				t.Errorf("pipeline %q is of %q, %v", pipeline, got, err)
			}
		}
	}},
	{"names that look alike are different documents", func(t *testing.T, s ledger.Store) {
		at := time.UnixMilli(1)
		var b ledger.Batch
		for i, key := range []ledger.Key{
			tagKey, {Repository: "acme/api.1", Tag: "4.0"}, {Repository: "acme/api", Tag: "1.4"}, {Repository: "library/acme-api", Tag: "1.4.0"},
			{Repository: "acme/a__p--i", Tag: "_x"}, ledger.WebhookKey("acme/api", "1.4.0", "d1", at), ledger.WebhookKey("acme/api", "1.4.0", "d1", at.Add(time.Millisecond)),
			ledger.WebhookKey("acme/api", "1.4.0", "d2", at),
		} {
			b.Tags = append(b.Tags, &ledger.Tag{Key: key, Row: i + 1})
		}
		commit(t, s, nil, b)
		for _, want := range b.Tags {
			found, _, err := s.Tags(t.Context(), want.ID())
			if err != nil || found[0] == nil || found[0].Row != want.Row || found[0].Key != want.Key {
				t.Errorf("%v is %+v, %v", want.Key, found, err)
			}
		}
	}},
}

func commit(t *testing.T, s ledger.Store, want error, b ledger.Batch) {
	t.Helper()
	fixture{t: t}.wantErr(s.Commit(t.Context(), b), want)
}

func readTag(t *testing.T, s ledger.Store) *ledger.Tag {
	t.Helper()
	found, _, err := s.Tags(t.Context(), tagKey.ID())
	if err != nil || found[0] == nil {
		t.Fatalf("read tag: %v, %v", found, err)
	}
	return found[0]
}

func readPromotion(t *testing.T, s ledger.Store, id string) *ledger.Promotion {
	t.Helper()
	found, _, err := s.Promotions(t.Context(), id)
	if err != nil || found[0] == nil {
		t.Fatalf("read promotion: %v, %v", found, err)
	}
	return found[0]
}

func readRepository(t *testing.T, s ledger.Store) *ledger.Repository {
	t.Helper()
	r, err := s.Repository(t.Context(), "acme/api")
	if err != nil || r == nil {
		t.Fatalf("read repository: %v, %v", r, err)
	}
	return r
}

// with is a changed copy of what was read.
func with[T any](document *T, change func(*T)) *T {
	changed := *document
	change(&changed)
	return &changed
}

func TestMemoryIsAStore(t *testing.T) {
	t.Parallel()
	for _, c := range stores {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, ledger.NewMemory())
		})
	}
}

// A machine's ledger must not grow without end.
func TestMemoryForgetsTheOldest(t *testing.T) {
	t.Parallel()
	s := ledger.NewMemory()
	const many = 10_100
	for i := range many {
		commit(t, s, nil, ledger.Batch{Promotions: []*ledger.Promotion{{ID: fmt.Sprint(i), Pipelines: []string{fmt.Sprintf("42/%d", i)}}}})
	}
	found, _, err := s.Promotions(t.Context(), "0", fmt.Sprint(many-1))
	if err != nil || found[0] != nil || found[1] == nil {
		t.Errorf("it remembers %v, %v", found, err)
	}
	if id, err := s.OfPipeline(context.Background(), "42/0"); err != nil || id != "" {
		t.Errorf("the pipeline of one that is forgotten is of %q, %v", id, err)
	}
	n := 0
	for range s.All(t.Context()) {
		n++
	}
	if n != 10_000 {
		t.Errorf("it remembers %d", n)
	}
}
