package console

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// Bounds of what a story shows. It says if something is left out.
const (
	maxBars    = 300
	maxEntries = 400
)

// storyView is the story of one promotion.
type storyView struct {
	sandbox.Story
	List    list // of the table next to it
	Posts   []post
	Bars    []barView
	Left    int      // bars that are left out
	Axis    []string // the times under the bars
	Grid    []int    // their positions, of 1000
	Span    string
	Entries []entry // oldest first
	Late    []late  // of news: what is older than what is shown, and is known to belong here only now
	Cut     int     // entries that are left out
	Inputs  []pair
	Asides  int   // bars and entries of messages without a new result
	After   int64 // the newest event that is shown
	Known   int   // how many messages are
	Now     time.Time
}

type pair struct{ Name, Value string }

// barView is a period, drawn from X to X+Width of 1000.
type barView struct {
	sandbox.Bar
	X, Width int
	Mood     string
	From     string
	Took     string
	Open     bool
	Aside    bool
}

// entry is an event in a story.
type entry struct {
	sandbox.Event
	Line   string // the log line, indented
	Reason string // of the log line's decision
	Hint   string
	Words  string
	Aside  bool // it is about a message without a new result
}

// late is an entry that belongs after another one, or at the very beginning
// where After is 0.
type late struct {
	entry
	After int64
}

func (c *console) storyOf(id string) (*storyView, bool, error) {
	st, ok, err := c.sandbox.Story(id)
	if err != nil || !ok {
		return nil, ok, err
	}
	v := &storyView{Story: st, Posts: postsOf(st.Messages), Now: time.Now().Add(c.sandbox.Ahead())}
	idle := asides(st.Hints)
	for _, h := range st.Hints {
		v.Known = max(v.Known, h.Nth)
	}
	for _, ev := range st.Events {
		e := entryOf(ev)
		e.Aside = idle.messages[ev.MessageID]
		v.Entries = append(v.Entries, e)
		v.After = max(v.After, ev.ID)
		if e.Aside {
			v.Asides++
			idle.events[ev.ID] = true
		}
	}
	if n := len(v.Entries) - maxEntries; n > 0 {
		v.Entries, v.Cut = v.Entries[n:], n
	}
	for name, value := range st.Inputs {
		v.Inputs = append(v.Inputs, pair{name, value})
	}
	slices.SortFunc(v.Inputs, func(a, b pair) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	v.draw(idle)
	return v, true, nil
}

// idle are the messages without a new result: a multi-arch push has six
// webhooks, and the signed image is pushed once more.
type idle struct {
	messages map[string]bool
	events   map[int64]bool
	queued   map[time.Time]bool // when the messages were
}

func asides(hints []sandbox.Hint) idle {
	i := idle{map[string]bool{}, map[int64]bool{}, map[time.Time]bool{}}
	for _, h := range hints {
		if h.Outcome == "ignored" && h.MessageID != "" {
			i.messages[h.MessageID], i.queued[h.QueuedAt] = true, true
		}
	}
	return i
}

// draw puts the bars on one scale, from the first start to the last end.
func (v *storyView) draw(idle idle) {
	bars := v.Story.Bars
	if len(bars) > maxBars {
		bars, v.Left = bars[:maxBars], len(bars)-maxBars
	}
	if len(bars) == 0 {
		return
	}
	first, last := bars[0].Start, bars[0].Start
	for _, b := range bars {
		if b.Start.Before(first) {
			first = b.Start
		}
		end := b.End
		if end.IsZero() {
			end = v.Now
		}
		if end.After(last) {
			last = end
		}
	}
	span := max(last.Sub(first), time.Millisecond)
	at := func(t time.Time) int { return int(1000 * (t.Sub(first).Seconds() / span.Seconds())) } // in this order the end is 1000, not 999.9…
	for _, b := range bars {
		end := b.End
		if end.IsZero() {
			end = last
		}
		const least = 4 // so that a bar without a duration is visible
		x := min(at(b.Start), 1000-least)
		view := barView{
			Bar: b, X: x, Width: max(at(end)-x, least), From: "+" + took(b.Start.Sub(first)), Took: took(max(0, end.Sub(b.Start))), Open: b.End.IsZero(),
			Aside: idle.events[b.EventID] || b.EventID == 0 && b.Stage == sandbox.Topic && idle.queued[b.Start],
		}
		if view.Aside {
			v.Asides++
		}
		switch {
		case b.Bad:
			view.Mood = "bad"
		case b.Stage == sandbox.Topic:
			view.Mood = "wait"
		case b.Stage == sandbox.Slack:
			view.Mood = "good"
		}
		v.Bars = append(v.Bars, view)
	}
	for i := range 5 {
		v.Grid = append(v.Grid, 250*i)
		v.Axis = append(v.Axis, took(span*time.Duration(i)/4))
	}
	v.Span = took(span)
}

func entryOf(ev sandbox.Event) entry {
	e := entry{Event: ev}
	if len(ev.Log) > 0 {
		e.Line = pretty(string(ev.Log))
		var line struct {
			Reason string `json:"reason"`
			Hint   string `json:"hint"`
			Words  string `json:"words"`
		}
		if json.Unmarshal(ev.Log, &line) == nil {
			e.Reason, e.Hint, e.Words = line.Reason, line.Hint, line.Words
		}
	}
	return e
}

// Inside reports whether there is more to an entry than its line.
func (e entry) Inside() bool { return e.Call != nil || e.Line != "" }

// storyNews answers with the changes of an open story since an event: all its
// parts, and the entries that were added to its log.
func (c *console) storyNews(w http.ResponseWriter, r *http.Request) {
	st, ok, err := c.storyOf(r.PathValue("id"))
	if err != nil || !ok {
		w.WriteHeader(http.StatusNoContent) // what is shown stays
		return
	}
	st.List = listOf(r.URL.Query())
	after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	known, _ := strconv.Atoi(r.URL.Query().Get("known"))
	st.since(after, known)
	c.render(w, http.StatusOK, "story-news", st)
}

// since leaves the entries that a page does not show yet which shows the events
// up to after, and the first known messages. What was logged of a message before
// the end of its first attempt belongs to the story only from then on: it is Late.
func (v *storyView) since(after int64, known int) {
	found := map[string]bool{}
	for _, h := range v.Hints {
		found[h.MessageID] = h.Nth > known
	}
	n, above := 0, int64(0)
	for ; n < len(v.Entries) && v.Entries[n].ID <= after; n++ {
		e := v.Entries[n]
		if e.PromotionID == "" && found[e.MessageID] {
			v.Late = append(v.Late, late{e, above})
		}
		above = e.ID
	}
	v.Entries = v.Entries[n:]
}

// Address is the address of the story, with the table as it is.
func (v *storyView) Address() string {
	return "/promotions/" + url.PathEscape(v.ID) + strings.TrimPrefix(v.List.At(v.List.Page), "/")
}

// Retry is the pipeline whose job may be run again, "" if none may.
func (v *storyView) Retry() string {
	at := strings.LastIndex(v.PipelineURL, "/pipelines/")
	if v.State != ledger.Failed && !v.Silent || at < 0 {
		return ""
	}
	number := v.PipelineURL[at+len("/pipelines/"):]
	if _, err := strconv.ParseUint(number, 10, 63); err != nil {
		return ""
	}
	return number
}
