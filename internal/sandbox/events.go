package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getto-systems/hubrelay/internal/gcplog"
)

// Stage is one part of the path of a push.
type Stage string

// The stages, in the order of the path.
const (
	Hub         Stage = "hub"
	Webhook     Stage = "webhook"
	Topic       Stage = "topic"
	Trigger     Stage = "trigger"
	Registry    Stage = "registry"
	GitLab      Stage = "gitlab"
	Pipeline    Stage = "pipeline"
	Notify      Stage = "notify"
	Slack       Stage = "slack"
	DeadLetters Stage = "dead-letters"
	Reconcile   Stage = "reconcile"
	Ledger      Stage = "ledger"
)

// AllStages are all of them, in their order.
var AllStages = []Stage{Hub, Webhook, Topic, Trigger, Registry, GitLab, Pipeline, Notify, Slack, DeadLetters, Reconcile, Ledger}

// Event is one thing that happened. It contains no secret. Everything else in
// it comes from outside, and can be anything.
type Event struct {
	ID          int64           `json:"id"` // increases by one, from 1
	At          time.Time       `json:"at"` // by the sandbox's clock; of a Call, when it ended
	Stage       Stage           `json:"stage,omitempty"`
	Who         string          `json:"who"`                    // webhook, trigger, notify, docker hub, pub/sub, dead letter, pipeline 1, slack, clock …
	Image       string          `json:"image,omitempty"`        // REPOSITORY:TAG
	PromotionID string          `json:"promotion_id,omitempty"` // if it is known
	MessageID   string          `json:"message_id,omitempty"`   // of Pub/Sub
	What        string          `json:"what"`
	Detail      string          `json:"detail,omitempty"` // a reason, a hint, a link
	Bad         bool            `json:"bad,omitempty"`    // people should look
	Talk        bool            `json:"talk,omitempty"`   // it is what Slack shows
	Log         json.RawMessage `json:"log,omitempty"`    // the log line of a function
	Call        *Call           `json:"call,omitempty"`   // a request and its answer

	digest string // of what was pushed
}

// Call is one request over HTTP, and its answer. Bodies are cut at 16 KiB, and
// say so; secrets in them are replaced.
type Call struct {
	Took    time.Duration `json:"took_ns"`
	Attempt int           `json:"attempt,omitempty"` // the number of Pub/Sub's delivery of the message
	Wait    time.Duration `json:"wait_ns,omitempty"` // until the next delivery, if there will be one
	Method  string        `json:"method"`
	URL     string        `json:"url"` // path and query
	Request string        `json:"request,omitempty"`
	Answer  string        `json:"answer,omitempty"`
	Status  int           `json:"status,omitempty"` // 0: there was no answer
	Fault   string        `json:"fault,omitempty"`  // the fault that was applied
}

// Bounds of what is stored: events, and the bytes of their bodies and log
// lines.
const (
	maxEvents     = 10_000
	maxEventBytes = 64 << 20
)

// events is the history: the newest events, each of which has an ID.
type events struct {
	hear func(Event) // of all but calls; may be nil
	now  func() time.Time
	hide *secrets
	said func(Event)

	mu     sync.Mutex
	last   []Event // oldest first, without a gap in their IDs
	newest int64
	bytes  int
	wake   chan struct{} // closed with the next event
}

func (e *events) add(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.newest++
	ev.ID, ev.At = e.newest, e.now()
	ev.Image, ev.What, ev.Detail = e.hide.hide(ev.Image), e.hide.hide(ev.What), e.hide.hide(ev.Detail)
	e.last = append(e.last, ev)
	for e.bytes += ev.size(); len(e.last) > maxEvents || e.bytes > maxEventBytes && len(e.last) > 1; {
		e.bytes -= e.last[0].size()
		e.last[0] = Event{}
		e.last = e.last[1:]
	}
	close(e.wake)
	e.wake = make(chan struct{})
	e.said(ev)
	if e.hear != nil && ev.Call == nil {
		e.hear(ev)
	}
}

func (ev Event) size() int {
	n := len(ev.Log) + len(ev.Detail) + len(ev.What)
	if ev.Call != nil {
		n += len(ev.Call.URL) + len(ev.Call.Request) + len(ev.Call.Answer)
	}
	return n
}

// after returns the stored events after an ID, oldest first, and the IDs of the
// oldest and newest stored event.
func (e *events) after(id int64) (list []Event, oldest, newest int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	oldest = e.newest - int64(len(e.last)) + 1
	if from := max(0, id+1-oldest); from < int64(len(e.last)) {
		list = slices.Clone(e.last[from:])
	}
	return list, oldest, e.newest
}

// changed returns a channel that is closed once there is an event after an ID.
func (e *events) changed(id int64) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.newest > id {
		done := make(chan struct{})
		close(done)
		return done
	}
	return e.wake
}

// Events returns the stored events after an ID, oldest first, and the IDs of
// the oldest and the newest stored event. 10,000 are stored: if oldest is
// greater than after+1, those in between are gone.
func (s *Sandbox) Events(after int64) (list []Event, oldest, newest int64) {
	return s.events.after(after)
}

// Changed returns a channel that is closed once there is an event whose ID is
// higher.
func (s *Sandbox) Changed(after int64) <-chan struct{} { return s.events.changed(after) }

// eventHandler makes events of a function's log lines, and passes the lines on.
type eventHandler struct {
	function Stage
	events   *events
	hide     *secrets
	logs     *slog.Logger // may be nil
	starts   *atomic.Bool // what is logged now is not shown
	attrs    []slog.Attr
}

func (h eventHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)
	return h
}

func (h eventHandler) WithGroup(string) slog.Handler { return h } // the functions have none

func (h eventHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.starts.Load() {
		return nil
	}
	r = r.Clone()
	r.AddAttrs(h.attrs...)
	h.tell(ctx, r)
	if h.logs == nil {
		return nil
	}
	r.AddAttrs(slog.String("function", string(h.function)))
	return h.logs.Handler().Handle(ctx, r)
}

// tell makes an event of a log line.
func (h eventHandler) tell(ctx context.Context, r slog.Record) {
	ev := Event{Stage: h.function, Who: string(h.function), What: r.Message, Bad: r.Level >= slog.LevelWarn}
	values := map[string]string{}
	r.Attrs(func(a slog.Attr) bool {
		values[a.Key] = a.Value.String()
		return true
	})
	if values["repository"] != "" {
		ev.Image = strings.TrimSuffix(values["repository"]+":"+values["tag"], ":")
	}
	ev.Detail = values["reason"]
	switch {
	case values["outcome"] == "recorded":
		ev.Detail += "; Slack shows it later"
	case r.Message == "dead letter recorded" && values["outcome"] == "ignored":
		ev.Detail += "; the tag has not died of it"
	case values["shown"] != "":
		ev.Detail = values["shown"] + " shown in Slack"
	case values["queued"] != "":
		ev.Detail = values["queued"] + " queued to be looked at again"
	}
	ev.Detail = strings.TrimPrefix(ev.Detail, "; ")
	switch text := values["error"]; {
	case strings.Contains(text, ev.Detail): // an error often begins with its reason
		ev.Detail = text
	case text != "":
		ev.Detail += ": " + text
	}
	ev.Detail = strings.TrimSpace(ev.Detail + "  " + values["pipeline_url"])
	ev.PromotionID, ev.MessageID = values["promotion_id"], values["message_id"]
	if x := exchangeOf(ctx); x != nil {
		ev.Stage = x.stage
		if x.clock {
			ev.Stage = Reconcile
		} else {
			x.names(ev.Image, ev.PromotionID, ev.MessageID)
			x.became(values["state"])
			ev.PromotionID = cmp.Or(ev.PromotionID, x.about())
		}
		ev.MessageID = cmp.Or(ev.MessageID, x.message)
	}
	// A call of a clock that had nothing to do is not shown.
	if !ev.Bad && (values["shown"] == "0" || values["queued"] == "0") {
		return
	}
	exchangeOf(ctx).happened()
	var line bytes.Buffer
	if gcplog.New(&line, "").Handler().Handle(ctx, r) == nil {
		if text := h.hide.hide(strings.TrimSpace(line.String())); json.Valid([]byte(text)) {
			ev.Log = json.RawMessage(text)
		}
	}
	h.events.add(ev)
}
