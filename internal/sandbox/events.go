package sandbox

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Event is one thing that happened, for people to read.
type Event struct {
	At     time.Time
	Who    string // webhook, trigger, notify, docker hub, pub/sub, dead letter, pipeline 1, slack, clock
	Image  string // REPOSITORY:TAG, or ""
	What   string
	Detail string // a reason, a hint, a link
	Bad    bool   // somebody ought to look
	Talk   bool   // it is what Slack shows
}

// maxEvents is how many events are kept for the page.
const maxEvents = 500

type events struct {
	hear func(Event)

	mu   sync.Mutex
	last []Event // newest last
}

func (e *events) add(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ev.At = time.Now()
	e.last = append(e.last, ev)
	if len(e.last) > maxEvents {
		e.last = append(e.last[:0], e.last[len(e.last)-maxEvents:]...)
	}
	if e.hear != nil {
		e.hear(ev)
	}
}

// newest returns the events, newest first.
func (e *events) newest() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Event, 0, len(e.last))
	for i := len(e.last) - 1; i >= 0; i-- {
		out = append(out, e.last[i])
	}
	return out
}

// eventHandler makes events of a function's log lines, and hands the lines on.
type eventHandler struct {
	function string
	events   *events
	logs     *slog.Logger // may be nil
	attrs    []slog.Attr
}

func (h eventHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)
	return h
}

func (h eventHandler) WithGroup(string) slog.Handler { return h } // the functions have none

func (h eventHandler) Handle(ctx context.Context, r slog.Record) error {
	ev := Event{Who: h.function, What: r.Message, Bad: r.Level >= slog.LevelWarn}
	values := map[string]string{}
	for _, a := range h.attrs {
		values[a.Key] = a.Value.String()
	}
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
	// A clock that had nothing to do is no news.
	if ev.Bad || values["shown"] != "0" && values["queued"] != "0" {
		h.events.add(ev)
	}
	if h.logs == nil {
		return nil
	}
	r.AddAttrs(append(h.attrs[:len(h.attrs):len(h.attrs)], slog.String("function", h.function))...)
	return h.logs.Handler().Handle(ctx, r)
}
