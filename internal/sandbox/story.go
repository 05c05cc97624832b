package sandbox

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// Row is a promotion in a list.
type Row struct {
	ID          string       `json:"id"`
	Image       string       `json:"image"`
	Digest      string       `json:"digest,omitempty"`
	Route       string       `json:"route,omitempty"`
	State       ledger.State `json:"state"`
	Reason      string       `json:"reason,omitempty"`
	Hint        string       `json:"hint,omitempty"`
	PipelineURL string       `json:"pipeline_url,omitempty"`
	CreatedAt   time.Time    `json:"created_at"`
	UpdatedAt   time.Time    `json:"updated_at"` // of the state
	Deliveries  int          `json:"deliveries"` // of messages that were about it
	Shown       bool         `json:"shown"`      // Slack shows the newest revision
	Silent      bool         `json:"silent,omitempty"`
	Revision    int64        `json:"revision"` // increases with each change of any row
}

// Query says which rows are requested.
type Query struct {
	Text   string         // a part of the image, the id, the route or the reason
	States []ledger.State // none: all
	Since  int64          // only those that changed after this revision
	Offset int
	Limit  int // 50 if it is 0, 500 at most
}

// Story is all that is known of one promotion.
type Story struct {
	Row
	Promotion ledger.Promotion    `json:"promotion"`
	Hints     []Hint              `json:"hints"`    // every message that was about it, oldest first
	Bars      []Bar               `json:"bars"`     // in the order of their beginnings
	Events    []Event             `json:"events"`   // those that are stored
	Inputs    map[string]string   `json:"inputs"`   // of the pipeline
	Messages  []slacktest.Message `json:"messages"` // in Slack: the message and its thread
	Curl      []string            `json:"curl"`     // commands that do the same again
}

// Hint is a Pub/Sub message that led to a look at the tag.
type Hint struct {
	MessageID  string            `json:"message_id"` // of Pub/Sub
	ID         string            `json:"id"`         // of the push
	Image      string            `json:"image"`
	Source     string            `json:"source"` // webhook, reconcile or replay
	Data       string            `json:"data"`
	Attributes map[string]string `json:"attributes"`
	QueuedAt   time.Time         `json:"queued_at"`
	Attempts   int               `json:"attempts"`
	Outcome    string            `json:"outcome,omitempty"` // of the last attempt: triggered, ignored, retry or dead
	Reason     string            `json:"reason,omitempty"`
	NextAt     time.Time         `json:"next_at,omitzero"` // of the next attempt, if it waits for one
	Nth        int               `json:"-"`                // its number in the story, from 1, in the order in which they were found

	promotion string // the promotion that it was about
}

// Bar is a period in a story.
type Bar struct {
	Stage   Stage     `json:"stage"`
	Label   string    `json:"label"`
	Start   time.Time `json:"start"`
	End     time.Time `json:"end,omitzero"` // zero: it has not ended
	Bad     bool      `json:"bad,omitempty"`
	EventID int64     `json:"event_id,omitempty"`
}

// Story returns all that is known of a promotion, false if it is not known. Its
// events are those of the stored history; older ones are gone.
func (s *Sandbox) Story(id string) (Story, bool, error) {
	s.index.mu.Lock()
	e, ok := s.index.rows[id]
	if !ok {
		s.index.mu.Unlock()
		return Story{}, false, nil
	}
	story := Story{Row: e.row(), Promotion: e.Promotion, Inputs: map[string]string{}}
	ids := slices.Clone(e.messages)
	s.index.mu.Unlock()

	known := map[string]bool{}
	for n, message := range ids {
		known[message] = true
		if h, ok := s.hints.get(message); ok {
			h.Nth = n + 1
			story.Hints = append(story.Hints, h)
		}
	}
	slices.SortStableFunc(story.Hints, func(a, b Hint) int { return a.QueuedAt.Compare(b.QueuedAt) })
	all, _, _ := s.Events(0)
	for _, ev := range all {
		pushed := ev.digest != "" && ev.Image == story.Image && (ev.digest == story.Digest || story.Digest == "" && !ev.At.After(story.CreatedAt))
		if pushed || ev.PromotionID == id || ev.PromotionID == "" && known[ev.MessageID] {
			story.Events = append(story.Events, ev)
		}
	}
	for _, p := range s.GitLab.Pipelines() {
		if value(p, "promotion_id") == id {
			for _, name := range inputNames {
				story.Inputs[name] = value(p, name)
			}
		}
	}
	if p := story.Promotion; p.TS != "" {
		for _, m := range s.Slack.Messages() {
			if m.Channel == p.Channel && (m.TS == p.TS || m.ThreadTS == p.TS) {
				story.Messages = append(story.Messages, m)
			}
		}
	}
	story.Bars = s.bars(story)
	story.Curl = s.curl(story)
	return story, true, nil
}

// maxBars bounds the bars of a story.
const maxBars = 500

// bars are the periods of which a story consists.
func (s *Sandbox) bars(story Story) []Bar {
	var bars []Bar
	now := s.clock.now()
	first := map[string]time.Time{} // by message: when it was first delivered
	last := map[string]int{}        // by message: the bar of its last wait
	for _, ev := range story.Events {
		c := ev.Call
		if c == nil {
			continue
		}
		bar := Bar{Stage: ev.Stage, Label: ev.What, Start: ev.At.Add(-c.Took), End: ev.At, Bad: ev.Bad, EventID: ev.ID}
		if ev.Detail != "" {
			bar.Label = ev.Detail
		}
		if ev.Stage == Trigger && c.Attempt > 0 {
			bar.Label = fmt.Sprintf("attempt %d: %s", c.Attempt, bar.Label)
			if at, ok := first[ev.MessageID]; !ok || bar.Start.Before(at) {
				first[ev.MessageID] = bar.Start
			}
			if i, waits := last[ev.MessageID]; waits && bars[i].End.After(bar.Start) {
				bars[i].End = bar.Start
			} else if waits && bars[i].End.IsZero() {
				bars[i].End = bar.Start
			}
		}
		bars = append(bars, bar)
		if c.Wait > 0 {
			wait := Bar{Stage: Topic, Label: "waits " + c.Wait.String(), Start: ev.At, End: ev.At.Add(c.Wait), EventID: ev.ID}
			if wait.End.After(now) {
				wait.End = time.Time{}
			}
			last[ev.MessageID] = len(bars)
			bars = append(bars, wait)
		}
	}
	for _, h := range story.Hints {
		if at, ok := first[h.MessageID]; ok {
			bars = append(bars, Bar{Stage: Topic, Label: "queued by " + h.Source, Start: h.QueuedAt, End: at})
		}
	}
	bars = append(bars, s.pipelineBars(story.Promotion)...)
	slices.SortStableFunc(bars, func(a, b Bar) int { return a.Start.Compare(b.Start) })
	return bars[:min(len(bars), maxBars)]
}

// pipelineBars are the bars of the promotion's pipelines that are simulated
// here.
func (s *Sandbox) pipelineBars(p ledger.Promotion) (bars []Bar) {
	for _, name := range p.Pipelines {
		_, text, _ := strings.Cut(name, "/")
		id, err := strconv.Atoi(text)
		if err != nil {
			continue
		}
		if took, ok := s.runs.get(id); ok {
			bars = append(bars, Bar{Stage: Pipeline, Label: fmt.Sprintf("pipeline %d", id), Start: took.began, End: took.ended, Bad: took.bad})
		}
	}
	return bars
}

// curl returns commands that do the same again.
func (s *Sandbox) curl(story Story) []string {
	commands := []string{fmt.Sprintf("curl %s/api/promotions/%s", s.URL, story.ID)}
	if !s.elsewhere {
		commands = append(commands, fmt.Sprintf("curl -d image=%s %s/api/push", quote(story.Image), s.URL))
	}
	if body, err := dockerhub.Webhook(story.Promotion.Repository, story.Promotion.Tag, story.CreatedAt); err == nil {
		commands = append(commands, fmt.Sprintf("curl -H 'Content-Type: application/json' -d %s %s/api/webhook", quote(string(body)), s.URL))
	}
	if story.State == ledger.Dead {
		commands = append(commands, fmt.Sprintf("curl -d match=%s %s/api/replay", quote(story.Image), s.URL))
	}
	return commands
}

// quote makes one word of a text, for a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
