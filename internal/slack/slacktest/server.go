// Package slacktest is a fake of Slack's Web API, for tests and for a machine
// without an account. It behaves as Slack documents and as it was seen to
// behave.
package slacktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Limits of Slack, in characters or blocks.
const (
	maxText    = 40_000
	maxBlocks  = 50
	maxSection = 3000
)

// remembered is how many messages and calls a Server keeps.
const remembered = 1000

// maxBody bounds what is read of a call, in bytes.
const maxBody = 1 << 20

// Message is what a channel shows now.
type Message struct {
	Channel  string // its ID
	TS       string
	ThreadTS string // of the message that it replies to, or ""
	Text     string
	Blocks   json.RawMessage // nil where there are none
	Edits    int
	PostedAt time.Time
}

// Call is what the server was asked.
type Call struct {
	Method string // such as chat.postMessage
	Values url.Values
}

// Failure is how one call goes wrong.
type Failure struct {
	Code       string        // 200 with ok false and this error
	Status     int           // this status, and Body
	Body       string        // of an answer with a Status; Slack sends HTML with a 5xx
	RetryAfter time.Duration // the header of that name
	PostAnyway bool          // the call is done all the same
	Hang       bool          // no answer until the client goes away
	Reset      bool          // the connection breaks
}

// Server is a workspace with one bot. It is safe for concurrent use, and keeps
// the last 1,000 messages and calls.
type Server struct {
	token string

	mu        sync.Mutex
	channels  map[string]string // name → ID; empty: every channel exists
	messages  []Message
	calls     []Call
	failures  []Failure
	onMessage func(Message)
	last      int64 // microseconds of the last ts
}

// New returns a workspace in which token is the only one that is valid.
func New(token string) *Server {
	return &Server{token: token, channels: map[string]string{}}
}

// AddChannel makes a channel. Without any, every channel exists.
func (s *Server) AddChannel(id, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels[name] = id
}

// OnMessage has f called with every message that was posted or changed, before
// the answer is sent.
func (s *Server) OnMessage(f func(Message)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onMessage = f
}

// Fail makes the next calls go wrong, one each.
func (s *Server) Fail(f ...Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, f...)
}

// Messages returns what there is to read, oldest first.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Calls returns what the server was asked, oldest first.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// ServeHTTP answers the method that the last part of the path names.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	values, err := read(r)
	if err != nil {
		refuse(w, "invalid_post_type")
		return
	}
	method := path.Base(r.URL.Path)
	failure, fails := s.begin(Call{method, values})
	switch {
	case fails && failure.Hang:
		<-r.Context().Done()
		return
	case fails && failure.Reset:
		panic(http.ErrAbortHandler)
	case fails && !failure.PostAnyway:
		failure.answer(w)
		return
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		token = values.Get("token")
	}
	var (
		code   string
		answer map[string]any
	)
	switch {
	case token == "":
		code = "not_authed"
	case token != s.token:
		code = "invalid_auth"
	default:
		answer, code = s.do(method, values)
	}
	switch {
	case fails:
		failure.answer(w)
	case code != "":
		refuse(w, code)
	default:
		answer["ok"] = true
		reply(w, answer)
	}
}

// begin remembers a call, and takes the failure that is due.
func (s *Server) begin(c Call) (Failure, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = appendBounded(s.calls, c)
	if len(s.failures) == 0 {
		return Failure{}, false
	}
	f := s.failures[0]
	s.failures = s.failures[1:]
	return f, true
}

func (f Failure) answer(w http.ResponseWriter) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter.Seconds())))
	}
	if f.Status == 0 {
		refuse(w, f.Code)
		return
	}
	w.WriteHeader(f.Status)
	_, _ = io.WriteString(w, f.Body)
}

// read takes a form or JSON, as Slack does.
func read(r *http.Request) (url.Values, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return url.ParseQuery(string(body))
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	values := url.Values{}
	for name, raw := range fields {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			text = string(raw)
		}
		values.Set(name, text)
	}
	return values, nil
}

func (s *Server) do(method string, v url.Values) (answer map[string]any, code string) {
	switch method {
	case "auth.test":
		return map[string]any{"url": "https://sandbox.slack.com/", "team": "Sandbox", "user": "hubrelay", "bot_id": "B0HUBRELAY"}, ""
	case "chat.postMessage":
		return s.post(v)
	case "chat.update":
		return s.update(v)
	}
	return nil, "unknown_method"
}

func (s *Server) post(v url.Values) (map[string]any, string) {
	s.mu.Lock()
	id, ok := s.channel(v.Get("channel"), true)
	if !ok {
		s.mu.Unlock()
		return nil, "channel_not_found"
	}
	if code := check(v); code != "" {
		s.mu.Unlock()
		return nil, code
	}
	thread := v.Get("thread_ts")
	if thread != "" && s.find(id, thread) < 0 {
		s.mu.Unlock()
		return nil, "thread_not_found"
	}
	now := time.Now()
	s.last = max(s.last+1, now.UnixMicro())
	m := Message{
		Channel: id, TS: fmt.Sprintf("%d.%06d", s.last/1e6, s.last%1e6), ThreadTS: thread,
		Text: v.Get("text"), Blocks: blocks(v), PostedAt: now,
	}
	s.messages = appendBounded(s.messages, m)
	return s.tell(m), ""
}

func (s *Server) update(v url.Values) (map[string]any, string) {
	s.mu.Lock()
	id, ok := s.channel(v.Get("channel"), false)
	if !ok {
		s.mu.Unlock()
		return nil, "channel_not_found"
	}
	i := s.find(id, v.Get("ts"))
	if i < 0 {
		s.mu.Unlock()
		return nil, "message_not_found"
	}
	if code := check(v); code != "" {
		s.mu.Unlock()
		return nil, code
	}
	m := &s.messages[i]
	m.Text, m.Blocks = v.Get("text"), blocks(v)
	m.Edits++
	return s.tell(*m), ""
}

// tell unlocks the server, and says what a message is now.
func (s *Server) tell(m Message) map[string]any {
	hear := s.onMessage
	s.mu.Unlock()
	if hear != nil {
		hear(m)
	}
	return map[string]any{"channel": m.Channel, "ts": m.TS, "text": m.Text}
}

// channel finds a channel by its ID, and where that is allowed by its name.
func (s *Server) channel(name string, byName bool) (id string, ok bool) {
	if name == "" {
		return "", false
	}
	if len(s.channels) == 0 {
		return name, true
	}
	for n, id := range s.channels {
		if name == id || byName && strings.TrimPrefix(name, "#") == n {
			return id, true
		}
	}
	return "", false
}

func (s *Server) find(channel, ts string) int {
	return slices.IndexFunc(s.messages, func(m Message) bool { return m.Channel == channel && m.TS == ts })
}

func blocks(v url.Values) json.RawMessage {
	if v.Get("blocks") == "" {
		return nil
	}
	return json.RawMessage(v.Get("blocks"))
}

// check says what Slack would not show.
func check(v url.Values) (code string) {
	text, raw := v.Get("text"), v.Get("blocks")
	switch {
	case text == "" && raw == "":
		return "no_text"
	case utf8.RuneCountInString(text) > maxText:
		return "msg_too_long"
	case raw == "":
		return ""
	}
	var list []struct {
		Type string `json:"type"`
		Text struct {
			Text string `json:"text"`
		} `json:"text"`
	}
	if json.Unmarshal([]byte(raw), &list) != nil || len(list) > maxBlocks {
		return "invalid_blocks"
	}
	for _, b := range list {
		n := utf8.RuneCountInString(b.Text.Text)
		if b.Type == "" || n > maxSection || b.Type == "section" && n == 0 {
			return "invalid_blocks"
		}
	}
	return ""
}

func refuse(w http.ResponseWriter, code string) {
	reply(w, map[string]any{"ok": false, "error": code})
}

func reply(w http.ResponseWriter, v any) {
	var out bytes.Buffer
	_ = json.NewEncoder(&out).Encode(v) // maps of strings and booleans
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write(out.Bytes())
}

func appendBounded[T any](list []T, item T) []T {
	if len(list) >= remembered {
		list = slices.Delete(list, 0, len(list)-remembered+1)
	}
	return append(list, item)
}
