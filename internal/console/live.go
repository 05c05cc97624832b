package console

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// The pace of a stream.
const (
	pause = 250 * time.Millisecond // between two patches, at least
	// look is how often to look for changes without an event: setting a fault
	// makes no event, and a record may be written just after its event.
	look = 500 * time.Millisecond
	// beat is how often a comment is sent, to show a proxy and the browser that
	// the stream is alive.
	beat = 15 * time.Second
	// slowest is how long a browser may take to read a patch.
	slowest = 30 * time.Second
)

// maxStreams bounds the concurrent streams. Each keeps what its browser shows.
const maxStreams = 100

// maxPatched bounds the stories that one patch names.
const maxPatched = 50

// stream is what one browser shows, as far as the server knows.
type stream struct {
	c      *console
	list   list
	after  int64             // the newest event that was sent to it
	rows   []string          // the table's, in their order
	prints map[string]uint64 // by row
	total  int
	feed   []int64 // the events of the feed, the newest first
	known  bool    // rows are what the browser has
	// revision is that of the rows when they were read last.
	revision int64
	stages   map[sandbox.Stage]string
	faults   string
	ahead    time.Duration
	states   map[string]ledger.State // of rows, to tell when one ends
}

// live keeps an open page up to date. Each patch has the number of its newest
// event. A browser that reconnects sends that number, and gets what it missed.
// If that is no longer stored, or the sandbox was restarted, the browser loads
// the page again.
func (c *console) live(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	after, err := strconv.ParseInt(query.Get("after"), 10, 64)
	if err != nil {
		http.Error(w, "after: want the number of an event", http.StatusBadRequest)
		return
	}
	if c.streams.Add(1) > maxStreams {
		c.streams.Add(-1)
		http.Error(w, "too many pages are open: close some", http.StatusServiceUnavailable)
		return
	}
	defer c.streams.Add(-1)
	returns := false
	if id, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		after, returns = id, true
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(w)
	send := func(message string) bool {
		_ = control.SetWriteDeadline(time.Now().Add(slowest))
		if _, err := w.Write([]byte(message)); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	_, oldest, newest := c.sandbox.Events(after)
	if query.Get("run") != c.run || after > newest || after+1 < oldest {
		send("retry: 1000\nevent: reload\ndata: reload\n\n")
		return
	}
	s := &stream{c: c, list: listOf(query), after: after, prints: map[string]uint64{}, stages: map[sandbox.Stage]string{}, ahead: -1, states: map[string]ledger.State{}}
	if !send("retry: 1000\n\n") {
		return
	}
	// If a browser has loaded its page again, and not just reconnected, it is
	// unknown how far its feed goes.
	first, err := s.first(query.Get("have"), returns)
	if err != nil || !send(first) {
		return
	}
	looked, sent := time.Now(), time.Now()
	for {
		timer := time.NewTimer(look)
		select {
		case <-r.Context().Done():
			timer.Stop()
			return
		case <-c.sandbox.Changed(s.after):
		case <-timer.C:
		}
		timer.Stop()
		if wait := pause - time.Since(looked); wait > 0 {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(wait):
			}
		}
		looked = time.Now()
		message, err := s.next()
		if err != nil {
			return // the browser will reconnect
		}
		if message == "" && time.Since(sent) >= beat {
			message = ": still here\n\n"
		}
		if message == "" {
			continue
		}
		if !send(message) {
			return
		}
		sent = time.Now()
	}
}

// first brings a browser to the point where the stream continues. A browser
// that reconnects has the feed as it was at that point. A browser that opens a
// stream with an old address may have more than that, and gets the whole feed
// again.
func (s *stream) first(have string, returns bool) (string, error) {
	s.revision = s.c.sandbox.Revision()
	table, err := s.c.table(s.list)
	if err != nil {
		return "", err
	}
	s.known = table.Print == have && !returns
	if s.known {
		s.remember(table)
	}
	feed, newest := s.c.feed(s.after)
	s.keep(feed)
	_, oldest, _ := s.c.sandbox.Events(math.MaxInt64 - 1)
	if newest == s.after || returns && (len(feed) == maxFeed || oldest == 1) {
		return s.next()
	}
	events, _, _ := s.c.sandbox.Events(s.after)
	feed, s.after = s.c.feed(math.MaxInt64 - 1)
	s.keep(feed)
	var out bytes.Buffer
	if err := s.c.template.ExecuteTemplate(&out, "feed-all", feed); err != nil {
		return "", err
	}
	patch, err := s.patch()
	if err != nil {
		return "", err
	}
	return s.stories(events, nil) + event(s.after, "patch", append(out.Bytes(), patch...)), nil
}

// keep records what the browser's feed shows.
func (s *stream) keep(feed []sandbox.Event) {
	s.feed = s.feed[:0]
	for _, ev := range feed {
		s.feed = append(s.feed, ev.ID)
	}
}

// next returns what has changed since the last time, "" if nothing has.
func (s *stream) next() (string, error) {
	events, oldest, newest := s.c.sandbox.Events(s.after)
	if s.after+1 < oldest {
		return event(newest, "reload", []byte("reload")), nil
	}
	s.after = newest
	var out bytes.Buffer
	if err := s.patchFeed(feedOf(events), &out); err != nil {
		return "", err
	}
	before := maps.Clone(s.prints)
	patch, err := s.patch()
	if err != nil {
		return "", err
	}
	out.Write(patch)
	message := s.stories(events, before)
	if out.Len() > 0 {
		message += event(s.after, "patch", out.Bytes())
	}
	return message, nil
}

// many is the number of changes from which it is less work to replace
// everything.
const many = 30

// patchFeed renders new entries of the feed, and removes as many from its end.
func (s *stream) patchFeed(news []sandbox.Event, out *bytes.Buffer) error {
	if len(news) == 0 {
		return nil
	}
	was := slices.Clone(s.feed)
	s.feed = s.feed[:0]
	for _, ev := range news {
		s.feed = append(s.feed, ev.ID)
	}
	room := min(maxFeed-len(news), len(was))
	s.feed = append(s.feed, was[:room]...)
	if len(was)-room > many {
		feed, _ := s.c.feed(s.after)
		s.keep(feed)
		return s.c.template.ExecuteTemplate(out, "feed-all", feed)
	}
	if err := s.c.template.ExecuteTemplate(out, "feed-more", news); err != nil {
		return err
	}
	for _, id := range was[room:] {
		if err := s.c.template.ExecuteTemplate(out, "feed-gone", id); err != nil {
			return err
		}
	}
	return nil
}

// stories names the stories that have changed: those of the events, and of the
// rows that have changed. If there are very many, each open story asks.
func (s *stream) stories(events []sandbox.Event, before map[string]uint64) string {
	ids := map[string]bool{}
	for _, ev := range events {
		if ev.PromotionID != "" {
			ids[ev.PromotionID] = true
		}
	}
	for id, print := range s.prints {
		if was, ok := before[id]; ok && was != print {
			ids[id] = true
		}
	}
	if len(ids) > maxPatched {
		return event(0, "promotions", []byte("news"))
	}
	var out strings.Builder
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		out.WriteString(event(0, "promotion-"+id, []byte("news")))
	}
	return out.String()
}

// patch renders everything that differs from what the browser shows.
func (s *stream) patch() ([]byte, error) {
	var out bytes.Buffer
	render := func(name string, v any) error { return s.c.template.ExecuteTemplate(&out, name, v) }
	stages := s.c.stages()
	for _, stage := range stages.Stages {
		if print := stage.print(); s.stages[stage.Stage] != print {
			s.stages[stage.Stage] = print
			if err := render("stage-patch", stage); err != nil {
				return nil, err
			}
		}
	}
	if faults := printFaults(stages.Faults); s.faults != faults {
		s.faults = faults
		if err := render("faults-now-patch", stages); err != nil {
			return nil, err
		}
	}
	if ahead := s.c.ahead(); s.ahead != ahead {
		s.ahead = ahead
		if err := render("ahead-patch", ahead); err != nil {
			return nil, err
		}
	}
	revision := s.c.sandbox.Revision() // before the rows: a change in the meantime is seen the next time
	if s.known && revision == s.revision {
		return out.Bytes(), nil
	}
	table, err := s.c.table(s.list)
	if err != nil {
		return nil, err
	}
	s.revision = revision
	if err := s.patchRows(table, render); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// patchRows renders the rows that are new, changed or gone, and announces the
// promotions that have ended.
func (s *stream) patchRows(table tableView, render func(string, any) error) error {
	var ended []rowView
	for _, r := range table.Rows {
		if was, ok := s.states[r.ID]; r.State.Ended() && was != r.State && (ok || s.known) {
			ended = append(ended, r)
		}
	}
	defer s.remember(table)
	if len(ended) > 0 {
		if err := render("ended", ended[:min(len(ended), 3)]); err != nil {
			return err
		}
	}
	now := make([]string, 0, len(table.Rows))
	for _, r := range table.Rows {
		now = append(now, r.ID)
	}
	if !s.known || len(s.rows) == 0 || len(now) == 0 || s.differing(table) > many || !inOrder(s.rows, now) {
		if s.known && slices.Equal(s.rows, now) && s.total == table.Total {
			return nil
		}
		return render("rows-all", table)
	}
	for _, id := range s.rows {
		if !slices.Contains(now, id) {
			if err := render("row-gone", id); err != nil {
				return err
			}
		}
	}
	above := "" // the row that is above the next one
	for _, r := range table.Rows {
		print, there := s.prints[r.ID]
		var err error
		switch {
		case !there:
			r.New = true
			err = render("row-new", map[string]any{"Row": r, "Above": above})
		case print != printOf(r.Row):
			err = render("row-patch", r)
		}
		if err != nil {
			return err
		}
		above = r.ID
	}
	if s.total != table.Total || len(s.rows) != len(now) {
		return render("foot-patch", table)
	}
	return nil
}

// differing counts the rows that would have to be patched.
func (s *stream) differing(table tableView) (n int) {
	for _, r := range table.Rows {
		if print, there := s.prints[r.ID]; !there || print != printOf(r.Row) {
			n++
		}
	}
	return n
}

// inOrder reports whether the rows that stay keep their order.
func inOrder(was, now []string) bool {
	last := -1
	for _, id := range now {
		if i := slices.Index(was, id); i >= 0 {
			if i < last {
				return false
			}
			last = i
		}
	}
	return true
}

func (s *stream) remember(table tableView) {
	s.known, s.total = true, table.Total
	s.rows = s.rows[:0]
	clear(s.prints)
	clear(s.states)
	for _, r := range table.Rows {
		s.rows = append(s.rows, r.ID)
		s.prints[r.ID] = printOf(r.Row)
		s.states[r.ID] = r.State
	}
}

// event writes an event of a stream. One without an ID leaves the browser's
// last ID unchanged.
func event(id int64, name string, data []byte) string {
	var out bytes.Buffer
	if id > 0 {
		fmt.Fprintf(&out, "id: %d\n", id)
	}
	fmt.Fprintf(&out, "event: %s\n", name)
	data = bytes.ReplaceAll(data, []byte("\r"), nil)
	for line := range bytes.SplitSeq(bytes.TrimSpace(data), []byte("\n")) {
		out.WriteString("data: ")
		out.Write(line)
		out.WriteByte('\n')
	}
	out.WriteByte('\n')
	return out.String()
}
