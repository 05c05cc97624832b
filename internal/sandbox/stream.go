package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// heartbeat is how often a stream sends something, so that each side
	// notices if the other is gone.
	heartbeat = 15 * time.Second
	// writeTime bounds how long a client may take to read.
	writeTime = 10 * time.Second
	// maxSent is about how much is written at once, in bytes: with many streams,
	// the whole history for each would not fit into memory.
	maxSent = 1 << 20
	// maxStreams bounds the concurrent streams.
	maxStreams = 100
	// atMost bounds the events of one answer in JSON.
	atMost = 1000
)

// apiEvents answers GET /api/events with a stream of server-sent events, or
// with the history as JSON if that is requested.
func (s *Sandbox) apiEvents(w http.ResponseWriter, r *http.Request) {
	f, err := queryOf(r, "after", "limit")
	if err != nil {
		refuse(w, r, http.StatusBadRequest, err.Error())
		return
	}
	asked := f["after"]
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		asked = last // a browser that reconnects keeps its URL
	}
	after, ours := int64(0), true
	if asked != "" {
		number, life, whole := strings.Cut(asked, "-")
		ours = !whole || life == s.life
		if after, err = strconv.ParseInt(number, 10, 64); err != nil || after < 0 {
			refuse(w, r, http.StatusBadRequest, "after is the ID of an event, a number, or what the stream gave as its id")
			return
		}
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		limit, err := number(f, "limit", atMost)
		if err != nil || limit < 1 {
			refuse(w, r, http.StatusBadRequest, "limit is a number over 0")
			return
		}
		if !ours {
			after = 0
		}
		list, oldest, newest := s.Events(after)
		list = append([]Event{}, list[:min(len(list), limit, atMost)]...)
		answerCall(w, r, done{value: map[string]any{"events": list, "oldest": oldest, "newest": newest}, sentence: fmt.Sprintf("There are %d events.", len(list))})
		return
	}
	if f["limit"] != "" {
		refuse(w, r, http.StatusBadRequest, "a stream has no limit; the history, with Accept: application/json, has one")
		return
	}
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		refuse(w, r, http.StatusServiceUnavailable, "too many streams are open: close some")
		return
	}
	defer s.streams.Add(-1)
	s.stream(w, r, after, ours)
}

// stream sends events until the client disconnects. If events that the client
// has not seen are gone, it first gets a gap, and must ask for the rest. The
// same happens if after is from an earlier run of the sandbox.
func (s *Sandbox) stream(w http.ResponseWriter, r *http.Request, after int64, ours bool) {
	out := http.NewResponseController(w)
	send := func(text string) bool {
		_ = out.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := w.Write([]byte(text)); err != nil {
			return false
		}
		return out.Flush() == nil
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !send("retry: 1000\n\n") {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		list, oldest, newest := s.Events(after)
		if after > newest || !ours {
			after, ours = 0, true
			list, oldest, newest = s.Events(after)
			if !send(gap(oldest)) {
				return
			}
		} else if oldest > after+1 && !send(gap(oldest)) {
			return
		}
		var text strings.Builder
		for _, ev := range list {
			data, err := json.Marshal(ev)
			if err != nil {
				continue // every event can be encoded
			}
			fmt.Fprintf(&text, "id: %d-%s\ndata: %s\n\n", ev.ID, s.life, data)
			if text.Len() < maxSent {
				continue
			}
			if !send(text.String()) {
				return
			}
			text.Reset()
		}
		if text.Len() > 0 && !send(text.String()) {
			return
		}
		after = newest
		select {
		case <-s.Changed(after):
		case <-beat.C:
			if !send(": still here\n\n") {
				return
			}
		case <-r.Context().Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

func gap(oldest int64) string {
	return fmt.Sprintf("event: gap\ndata: {\"oldest\":%d}\n\n", oldest)
}
