package console

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// fake is a system whose contents a test sets.
type fake struct {
	mu      sync.Mutex
	events  []sandbox.Event // oldest first
	changes int64
	gone    int64         // the newest one that is no longer stored
	rows    []sandbox.Row // newest first
	wake    chan struct{}
	story   map[string]sandbox.Story
	stages  []sandbox.StageNow
	ahead   time.Duration
}

func newFake() *fake {
	return &fake{wake: make(chan struct{}), story: map[string]sandbox.Story{}}
}

func (f *fake) Events(after int64) ([]sandbox.Event, int64, int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []sandbox.Event
	for _, ev := range f.events {
		if ev.ID > after {
			list = append(list, ev)
		}
	}
	return list, f.gone + 1, f.newest()
}

func (f *fake) newest() int64 { return f.gone + int64(len(f.events)) }

func (f *fake) Changed(after int64) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.newest() > after {
		done := make(chan struct{})
		close(done)
		return done
	}
	return f.wake
}

func (f *fake) Rows(q sandbox.Query) ([]sandbox.Row, int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var rows []sandbox.Row
	for _, r := range f.rows {
		if strings.Contains(r.Image+r.Reason, q.Text) && (len(q.States) == 0 || slices.Contains(q.States, r.State)) {
			rows = append(rows, r)
		}
	}
	total := len(rows)
	rows = rows[min(q.Offset, total):]
	return slices.Clone(rows[:min(q.Limit, len(rows))]), total, nil
}

func (f *fake) Revision() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changes
}

func (f *fake) Story(id string) (sandbox.Story, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, ok := f.story[id]
	return st, ok, nil
}

func (f *fake) Stages() []sandbox.StageNow {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.stages)
}

func (f *fake) Answers() []sandbox.Answer {
	return []sandbox.Answer{{Stage: sandbox.GitLab, Answer: "500", What: "GitLab answers 500."}}
}

func (f *fake) Routes() string { return `{"acme/*": {}}` }

func (f *fake) Ahead() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ahead
}

// say adds an event.
func (f *fake) say(events ...sandbox.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ev := range events {
		ev.ID = f.newest() + 1
		if ev.At.IsZero() {
			ev.At = time.Now()
		}
		f.events = append(f.events, ev)
	}
	close(f.wake)
	f.wake = make(chan struct{})
}

// put adds a row at the top, or changes the one with its ID.
func (f *fake) put(r sandbox.Row) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	if i := slices.IndexFunc(f.rows, func(o sandbox.Row) bool { return o.ID == r.ID }); i >= 0 {
		f.rows[i] = r
		return
	}
	f.rows = slices.Insert(f.rows, 0, r)
}

// forget drops the events up to one.
func (f *fake) forget(id int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events, f.gone = slices.Clone(f.events[id-f.gone:]), id
}

func rowOf(n int, state ledger.State) sandbox.Row {
	at := time.Date(2026, 3, 1, 12, 0, n, 0, time.UTC)
	return sandbox.Row{
		ID: fmt.Sprintf("%032x", n), Image: fmt.Sprintf("acme/api:1.%d.0", n), Digest: "sha256:" + strings.Repeat("ab", 32), Route: "acme/*",
		State: state, CreatedAt: at, UpdatedAt: at, Deliveries: 1, Shown: true,
	}
}

// sample is a story with everything in it, each text of which is text.
func sample(r sandbox.Row, text string) sandbox.Story {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	line, _ := json.Marshal(map[string]string{"message": text, "reason": text, "hint": text, "words": text})
	blocks, _ := json.Marshal([]any{
		map[string]any{"type": "section", "text": map[string]string{"type": "mrkdwn", "text": ":x: " + text + " `" + text + "` <https://gitlab.example/p/1|" + text + "> <javascript:alert(1)|run>"}},
		map[string]any{"type": "context", "elements": []any{map[string]string{"type": "mrkdwn", "text": "`" + text + "`"}}},
	})
	return sandbox.Story{
		Row: r, Promotion: ledger.Promotion{Words: text, By: "trigger"},
		Hints:  []sandbox.Hint{{MessageID: text, ID: text, Image: text, Data: text, Attributes: map[string]string{text: text}, Source: text, QueuedAt: at, Attempts: 3, Outcome: text, Reason: text, NextAt: at.Add(time.Hour)}},
		Bars:   []sandbox.Bar{{Stage: sandbox.Topic, Label: text, Start: at, End: at.Add(2 * time.Second)}, {Stage: sandbox.GitLab, Label: text, Start: at.Add(2 * time.Second), End: at.Add(3 * time.Second), Bad: true}},
		Inputs: map[string]string{text: text},
		Events: []sandbox.Event{
			{ID: 1, At: at, Who: text, Image: text, What: text, Detail: text, Log: line, Bad: true},
			{ID: 2, At: at, Who: text, What: text, Call: &sandbox.Call{Took: time.Second, Attempt: 2, Wait: time.Minute, Method: text, URL: text, Request: text, Answer: text, Status: 503, Fault: text}},
		},
		Messages: []slacktest.Message{
			{Channel: text, TS: "1", Text: ":x: " + text, Blocks: blocks, Edits: 2, PostedAt: at},
			{Channel: text, TS: "2", ThreadTS: "1", Text: text, PostedAt: at},
		},
		Curl: []string{text},
	}
}
