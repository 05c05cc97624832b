package console

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

func TestBarsAreOnOneScale(t *testing.T) {
	t.Parallel()
	at := func(seconds float64) time.Time {
		return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
	}
	f := newFake()
	r := rowOf(1, ledger.Waiting)
	f.story[r.ID] = sandbox.Story{
		Row: r,
		Hints: []sandbox.Hint{
			{MessageID: "m1", QueuedAt: at(1), Outcome: "retry"},
			{MessageID: "m2", QueuedAt: at(2), Outcome: "ignored"},
		},
		Events: []sandbox.Event{
			{ID: 1, MessageID: "m1", Stage: sandbox.Trigger, Call: &sandbox.Call{}},
			{ID: 2, MessageID: "m2", Stage: sandbox.Trigger, Call: &sandbox.Call{}},
			{ID: 3, Stage: sandbox.Slack},
		},
		Bars: []sandbox.Bar{
			{Stage: sandbox.Topic, Label: "queued", Start: at(0), End: at(4)},
			{Stage: sandbox.Trigger, Label: "an attempt", Start: at(4), End: at(5), Bad: true, EventID: 1},
			{Stage: sandbox.Topic, Label: "queued, and ignored later", Start: at(2), End: at(3)},
			{Stage: sandbox.Trigger, Label: "ignored", Start: at(3), End: at(3), EventID: 2},
			{Stage: sandbox.Slack, Label: "at the very end", Start: at(10), End: at(10)},
			{Stage: sandbox.Topic, Label: "waits on", Start: at(5)},
		},
	}
	f.ahead = 24 * 365 * time.Hour
	c := newConsole(f, hints{})
	v, ok, err := c.storyOf(r.ID)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	for _, b := range v.Bars {
		if b.X < 0 || b.Width < 4 || b.X+b.Width > 1000 {
			t.Errorf("%s is drawn from %d, %d wide", b.Label, b.X, b.Width)
		}
	}
	type seen struct {
		Label, Mood string
		Open, Aside bool
	}
	var got []seen
	for _, b := range v.Bars {
		got = append(got, seen{b.Label, b.Mood, b.Open, b.Aside})
	}
	want := []seen{
		{Label: "queued", Mood: "wait"}, {Label: "an attempt", Mood: "bad"}, {Label: "queued, and ignored later", Mood: "wait", Aside: true},
		{Label: "ignored", Aside: true}, {Label: "at the very end", Mood: "good"}, {Label: "waits on", Mood: "wait", Open: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if v.Entries[0].Aside || !v.Entries[1].Aside || v.Entries[2].Aside {
		t.Error("not the entries of the ignored message stand aside")
	}
	if open := v.Bars[5]; open.X+open.Width != 1000 {
		t.Errorf("what goes on ends at %d, not at the edge", open.X+open.Width)
	}
}

func TestStoriesAreBounded(t *testing.T) {
	t.Parallel()
	f := newFake()
	r := rowOf(1, ledger.Waiting)
	st := sandbox.Story{Row: r}
	for n := range 2000 {
		st.Events = append(st.Events, sandbox.Event{ID: int64(n + 1)})
		st.Bars = append(st.Bars, sandbox.Bar{Start: r.CreatedAt})
	}
	f.story[r.ID] = st
	v, _, err := newConsole(f, hints{}).storyOf(r.ID)
	if err != nil || len(v.Entries) != maxEntries || v.Cut != 2000-maxEntries || len(v.Bars) != maxBars || v.Left != 2000-maxBars {
		t.Errorf("%d entries and %d left out, %d bars and %d left out: %v", len(v.Entries), v.Cut, len(v.Bars), v.Left, err)
	}
	if v.After != 2000 {
		t.Errorf("the news begin after %d", v.After)
	}
}

// That a message is about a promotion is known once its first attempt has
// ended: what was said of it before is older than what an open story shows.
func TestNewsHaveWhatIsOlderAndFoundLater(t *testing.T) {
	t.Parallel()
	f := newFake()
	r := rowOf(1, ledger.Waiting)
	f.story[r.ID] = sandbox.Story{
		Row:   r,
		Hints: []sandbox.Hint{{MessageID: "m2", Nth: 2}, {MessageID: "m1", Nth: 1}},
		Events: []sandbox.Event{
			{ID: 1, MessageID: "m2", What: "queued"}, {ID: 2, MessageID: "m1", What: "queued"}, {ID: 3, MessageID: "m2", What: "looked"},
			{ID: 4, MessageID: "m2", PromotionID: r.ID, What: "named it"}, {ID: 5, PromotionID: r.ID, What: "reported"}, {ID: 6, MessageID: "m2", PromotionID: r.ID, What: "ended"},
		},
	}
	h := serve(f, hints{})
	news := func(query string) string {
		t.Helper()
		return get(t, h, "/promotions/"+r.ID+"/news?"+query).Body.String()
	}
	for query, want := range map[string][]string{
		"after=5&known=1": {"afterbegin:#story-log", `id="event-1"`, "afterend:#event-2", `id="event-3"`, "beforeend:#story-log", `id="event-6"`},
		"after=5&known=2": {"beforeend:#story-log", `id="event-6"`},
		"after=6&known=2": nil,
	} {
		got := news(query)
		for _, part := range want {
			before, after, ok := strings.Cut(got, part)
			if !ok {
				t.Errorf("%s: no %s in its place in\n%s", query, part, before)
			}
			got = after
		}
		if n := strings.Count(news(query), `<li id="event-`); n != len(want)/2 {
			t.Errorf("%s: %d entries", query, n)
		}
	}
	if got := news("after=6&known=2"); !strings.Contains(got, `id="story-known" value="2"`) {
		t.Errorf("it does not say how many messages are known: %s", got)
	}
}

func TestRepliesAreInTheirThreads(t *testing.T) {
	t.Parallel()
	posts := postsOf([]slacktest.Message{
		{Channel: "C1", TS: "1", Text: ":x: failed", Edits: 1},
		{Channel: "C1", TS: "2", ThreadTS: "1", Text: "have a look"},
		{Channel: "C2", TS: "1", Text: "another"},
		{Channel: "C2", TS: "9", ThreadTS: "8", Text: "to what is gone"},
	})
	if len(posts) != 3 || len(posts[0].Replies) != 1 || len(posts[1].Replies) != 0 {
		t.Fatalf("%+v", posts)
	}
	if posts[0].Mood != "bad" || !posts[0].Edited || posts[1].Edited {
		t.Errorf("%+v", posts)
	}
}
