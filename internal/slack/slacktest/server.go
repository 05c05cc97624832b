// Package slacktest is a fake of Slack's Web API, for tests and for the
// sandbox. It behaves as Slack documents, and as Slack was seen to behave.
package slacktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Limits of Slack, in characters or items.
const (
	maxText     = 40_000 // of a post, which Slack would cut
	maxUpdate   = 4000   // of an update's text
	maxShown    = 13_200 // of all blocks together: not documented, but seen
	maxBlocks   = 50
	maxElements = 10 // of a context block, and fields of a section
	maxSection  = 3000
	maxField    = 2000
	maxHeader   = 150
)

// Bounds of a Server's own.
const (
	remembered = 10_000  // messages and calls that are kept
	maxBody    = 1 << 20 // bytes of a call
)

// Message is what a channel shows now.
type Message struct {
	Channel   string          `json:"channel"` // its ID
	TS        string          `json:"ts"`
	ThreadTS  string          `json:"thread_ts,omitempty"` // of the message that it replies to, or ""
	Broadcast bool            `json:"broadcast,omitempty"` // a reply that the channel shows, too
	Text      string          `json:"text"`
	Blocks    json.RawMessage `json:"blocks,omitempty"` // nil if there are none
	Edits     int             `json:"edits"`
	PostedAt  time.Time       `json:"posted_at"`
}

// Call is what the server was asked.
type Call struct {
	Method string     // such as chat.postMessage
	Values url.Values // without the token; values of JSON that are not strings are JSON
}

// Failure is how a call fails. A lost answer is a Reset or a Hang with
// PostAnyway.
type Failure struct {
	Code       string        // Slack's error; without a Status, in a 200
	Status     int           // 429 says ratelimited, unless Code or Body says otherwise
	Body       string        // instead of JSON: Slack sends a page with a 5xx
	RetryAfter time.Duration // the header of that name, in whole seconds
	Hang       bool          // no answer until the client disconnects
	Reset      bool          // the connection breaks
	PostAnyway bool          // the call takes effect nevertheless
}

// Server is a workspace with one bot. It is safe for concurrent use, and keeps
// the last 10,000 messages and calls.
type Server struct {
	token string

	mu        sync.Mutex
	channels  map[string]string // ID → name; empty: every channel exists
	archived  map[string]bool   // by ID, as are the next two
	left      map[string]bool   // the bot is not in it
	deleted   map[string]bool
	private   map[string]bool
	scopes    []string // of the token
	person    bool     // the token belongs to a user, not a bot
	messages  []Message
	calls     []Call
	failures  []Failure
	away      *Failure // of every call, nil if Slack works
	onMessage func(Message)
	perSecond int
	last      int64 // microseconds of the last ts
}

// New returns a workspace in which token is the only one that is valid.
func New(token string) *Server {
	return &Server{
		token: token, channels: map[string]string{},
		archived: map[string]bool{}, left: map[string]bool{}, deleted: map[string]bool{}, private: map[string]bool{},
		scopes: []string{writeScope, channelsScope, groupsScope},
	}
}

// AddChannel makes a channel. Without any, every channel exists.
func (s *Server) AddChannel(id, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels[id] = strings.TrimPrefix(name, "#")
}

// The scopes that the server's methods need.
const (
	writeScope    = "chat:write"
	channelsScope = "channels:read"
	groupsScope   = "groups:read"
)

// SetScopes gives the token only these scopes. By default it has all that the
// server knows: chat:write, channels:read and groups:read.
func (s *Server) SetScopes(scopes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scopes = scopes
}

// BelongToPerson makes the token a user's, not a bot's.
func (s *Server) BelongToPerson() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.person = true
}

// MakePrivate makes a channel private, by its ID.
func (s *Server) MakePrivate(id string) { s.set(s.private, id, true) }

// Archive archives a channel, by its ID: it accepts no posts and no updates.
func (s *Server) Archive(id string) { s.set(s.archived, id, true) }

// Unarchive undoes Archive.
func (s *Server) Unarchive(id string) { s.set(s.archived, id, false) }

// RemoveBot removes the bot from a channel, by its ID.
func (s *Server) RemoveBot(id string) { s.set(s.left, id, true) }

// InviteBot undoes RemoveBot.
func (s *Server) InviteBot(id string) { s.set(s.left, id, false) }

// DeleteChannel deletes a channel, by its ID. What was posted to it stays in
// Messages.
func (s *Server) DeleteChannel(id string) { s.set(s.deleted, id, true) }

func (s *Server) set(channels map[string]bool, id string, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	channels[id] = is
}

// Delete deletes a message, and reports whether there was one. Replies to it
// stay.
func (s *Server) Delete(channel, ts string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(channel, ts)
	if i < 0 {
		return false
	}
	s.messages = slices.Delete(s.messages, i, i+1)
	return true
}

// Away makes every call fail until Back is called. Failures that were set with
// Fail come first.
func (s *Server) Away(f Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = &f
}

// Back undoes Away.
func (s *Server) Back() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = nil
}

// RateLimit makes a channel accept perSecond messages in a second, and answer
// 429 to more. 0, the default, is no limit. Slack's own limit is about 1.
func (s *Server) RateLimit(perSecond int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.perSecond = perSecond
}

// OnMessage calls f with every message that was posted or changed, before the
// answer is sent.
func (s *Server) OnMessage(f func(Message)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onMessage = f
}

// Fail makes the next calls fail, one call for each failure.
func (s *Server) Fail(f ...Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, f...)
}

// Messages returns all messages, oldest first.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Calls returns the calls to the server, oldest first.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// ServeHTTP serves the method that the last part of the path names.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the request could not be read, or is too large", http.StatusRequestEntityTooLarge)
		return
	}
	method := path.Base(r.URL.Path)
	values, code := read(r, body)
	token := token(r, values)
	values.Del("token")
	failure, fails := s.begin(Call{method, values})

	var answer map[string]any
	if !fails || failure.PostAnyway {
		switch {
		case code != "":
		case token == "":
			code = "not_authed"
		case token != s.token:
			code = "invalid_auth"
		default:
			s.mu.Lock()
			scopes := slices.Clone(s.scopes)
			s.mu.Unlock()
			// Not documented, but seen.
			w.Header().Set("X-OAuth-Scopes", strings.Join(scopes, ","))
			if needed := s.missing(method, values, scopes); needed != "" {
				if !fails {
					reply(w, http.StatusOK, map[string]any{"ok": false, "error": "missing_scope", "needed": needed, "provided": strings.Join(scopes, ",")})
					return
				}
				break
			}
			answer, code = s.do(method, values)
		}
	}
	switch {
	case fails:
		failure.answer(w, r)
	case code == "ratelimited":
		Failure{Status: http.StatusTooManyRequests, RetryAfter: time.Second}.answer(w, r)
	case code != "":
		refuse(w, http.StatusOK, code)
	default:
		answer["ok"] = true
		reply(w, http.StatusOK, answer)
	}
}

// begin records a call, and takes the next failure.
func (s *Server) begin(c Call) (Failure, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = appendBounded(s.calls, c)
	switch {
	case len(s.failures) > 0:
		f := s.failures[0]
		s.failures = s.failures[1:]
		return f, true
	case s.away != nil:
		return *s.away, true
	}
	return Failure{}, false
}

func (f Failure) answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case f.Hang:
		<-r.Context().Done()
		return
	case f.Reset:
		panic(http.ErrAbortHandler)
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	if f.Status == 0 {
		f.Status = http.StatusOK
	}
	if f.Status == http.StatusTooManyRequests && f.Code == "" && f.Body == "" {
		f.Code = "ratelimited"
	}
	if f.Body == "" && f.Code != "" {
		refuse(w, f.Status, f.Code)
		return
	}
	w.WriteHeader(f.Status)
	_, _ = io.WriteString(w, f.Body)
}

// read reads a form or JSON, as Slack does.
func read(r *http.Request, body []byte) (values url.Values, code string) {
	values = url.Values{}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case media == "application/json":
		var fields map[string]json.RawMessage
		if !json.Valid(body) {
			return values, "invalid_json"
		}
		if json.Unmarshal(body, &fields) != nil {
			return values, "json_not_object"
		}
		for name, raw := range fields {
			var text string // stays "" for null
			if json.Unmarshal(raw, &text) != nil {
				text = string(raw)
			}
			values.Set(name, text)
		}
		return values, ""
	case media == "application/x-www-form-urlencoded", len(body) == 0:
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return values, "invalid_form_data"
		}
		for name, given := range r.URL.Query() {
			form[name] = append(form[name], given...)
		}
		return form, ""
	case media == "":
		return values, "missing_post_type"
	}
	return values, "invalid_post_type"
}

// token finds the token in the header or, of a form only, in the body.
func token(r *http.Request, values url.Values) string {
	if t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return t
	}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == "application/json" {
		return ""
	}
	return values.Get("token")
}

func (s *Server) do(method string, v url.Values) (answer map[string]any, code string) {
	switch method {
	case "auth.test":
		who := map[string]any{
			"url": "https://sandbox.slack.com/", "team": "Sandbox", "team_id": "T0SANDBOX",
			"user": "hubrelay", "user_id": "U0HUBRELAY",
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.person {
			who["bot_id"] = "B0HUBRELAY"
		}
		return who, ""
	case "conversations.info":
		return s.info(v)
	case "chat.postMessage":
		return s.told(s.post(v))
	case "chat.update":
		return s.told(s.update(v))
	}
	return nil, "unknown_method"
}

// missing returns the scope that a call needs and the token lacks, or "".
func (s *Server) missing(method string, v url.Values, scopes []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	needed := ""
	switch method {
	case "chat.postMessage", "chat.update":
		needed = writeScope
	case "conversations.info":
		needed = channelsScope
		if s.private[v.Get("channel")] {
			needed = groupsScope
		}
	}
	if needed == "" || slices.Contains(scopes, needed) {
		return ""
	}
	return needed
}

func (s *Server) info(v url.Values) (map[string]any, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.byID(v.Get("channel"))
	if !ok || s.deleted[id] || s.private[id] && s.left[id] {
		return nil, "channel_not_found"
	}
	name := s.channels[id]
	if name == "" {
		name = strings.ToLower(id)
	}
	return map[string]any{"channel": map[string]any{
		"id": id, "name": name, "is_channel": true, "is_private": s.private[id], "is_archived": s.archived[id], "is_member": !s.left[id],
	}}, ""
}

func (s *Server) post(v url.Values) (Message, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.channel(v.Get("channel"))
	if code := s.closed(id, ok); code != "" {
		return Message{}, code
	}
	if code := check(v, maxText); code != "" {
		return Message{}, code
	}
	thread := v.Get("thread_ts")
	if thread != "" && s.find(id, thread) < 0 {
		return Message{}, "thread_not_found"
	}
	now := time.Now()
	if s.perSecond > 0 && s.since(id, now.Add(-time.Second)) >= s.perSecond {
		return Message{}, "ratelimited"
	}
	s.last = max(s.last+1, now.UnixMicro())
	m := Message{
		Channel: id, TS: fmt.Sprintf("%d.%06d", s.last/1e6, s.last%1e6), ThreadTS: thread,
		Broadcast: thread != "" && v.Get("reply_broadcast") == "true",
		Text:      v.Get("text"), Blocks: blocks(v), PostedAt: now,
	}
	s.messages = appendBounded(s.messages, m)
	return m, ""
}

func (s *Server) update(v url.Values) (Message, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.byID(v.Get("channel"))
	if code := s.closed(id, ok); code != "" {
		return Message{}, code
	}
	i := s.find(id, v.Get("ts"))
	if i < 0 {
		return Message{}, "message_not_found"
	}
	if code := check(v, maxUpdate); code != "" {
		return Message{}, code
	}
	m := &s.messages[i]
	if v.Get("text") != "" { // otherwise the text stays
		m.Text = v.Get("text")
	}
	m.Blocks = blocks(v) // a text without blocks removes them
	m.Edits++
	return *m, ""
}

// told passes on a message that was posted or changed, and makes the answer.
func (s *Server) told(m Message, code string) (map[string]any, string) {
	if code != "" {
		return nil, code
	}
	s.mu.Lock()
	hear := s.onMessage
	s.mu.Unlock()
	if hear != nil {
		hear(m)
	}
	message := map[string]any{"type": "message", "bot_id": "B0HUBRELAY", "ts": m.TS, "text": m.Text}
	if m.ThreadTS != "" {
		message["thread_ts"] = m.ThreadTS
	}
	if m.Blocks != nil {
		message["blocks"] = m.Blocks
	}
	return map[string]any{"channel": m.Channel, "ts": m.TS, "text": m.Text, "message": message}, ""
}

var channelID = regexp.MustCompile(`^[CDG][A-Z0-9]+$`)

// closed says why a channel accepts no messages of the bot, "" if it does.
func (s *Server) closed(id string, exists bool) (code string) {
	switch {
	case !exists, s.deleted[id]:
		return "channel_not_found"
	case s.archived[id]:
		return "is_archived"
	case s.left[id]:
		return "not_in_channel"
	}
	return ""
}

// byID finds a channel by its ID alone.
func (s *Server) byID(id string) (string, bool) {
	if len(s.channels) == 0 {
		return id, channelID.MatchString(id)
	}
	_, ok := s.channels[id]
	return id, ok
}

// channel finds a channel by its ID or name, and returns its ID.
func (s *Server) channel(name string) (id string, ok bool) {
	if id, ok := s.byID(name); ok {
		return id, true
	}
	name = strings.TrimPrefix(name, "#")
	if name == "" {
		return "", false
	}
	if len(s.channels) == 0 {
		hash := fnv.New32a()
		_, _ = io.WriteString(hash, name)
		return fmt.Sprintf("C%08X", hash.Sum32()), true
	}
	for id, n := range s.channels {
		if n == name {
			return id, true
		}
	}
	return "", false
}

// find returns the index of a message, or -1. Most are looked up soon after
// they were posted.
func (s *Server) find(channel, ts string) int {
	for i, m := range slices.Backward(s.messages) {
		if m.Channel == channel && m.TS == ts {
			return i
		}
	}
	return -1
}

// since counts the messages of a channel that were posted after a time.
func (s *Server) since(channel string, after time.Time) int {
	n := 0
	for _, m := range slices.Backward(s.messages) {
		if !m.PostedAt.After(after) {
			break
		}
		if m.Channel == channel {
			n++
		}
	}
	return n
}

// blocks returns the blocks of a call that was checked.
func blocks(v url.Values) json.RawMessage {
	var list []json.RawMessage
	if json.Unmarshal([]byte(v.Get("blocks")), &list) != nil || len(list) == 0 {
		return nil
	}
	return json.RawMessage(v.Get("blocks"))
}

type textObject struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// is reports whether the object is text of at most limit characters.
func (t textObject) is(limit int) bool {
	n := utf8.RuneCountInString(t.Text)
	return (t.Type == "mrkdwn" || t.Type == "plain_text") && n > 0 && n <= limit
}

type block struct {
	Type     string          `json:"type"`
	Text     json.RawMessage `json:"text"` // a string in some types
	Fields   []textObject    `json:"fields"`
	Elements json.RawMessage `json:"elements"` // other things in other types
}

// check says what Slack would refuse.
func check(v url.Values, maxText int) (code string) {
	text, raw := v.Get("text"), v.Get("blocks")
	var list []block
	if raw != "" && (json.Unmarshal([]byte(raw), &list) != nil || list == nil || len(list) > maxBlocks) {
		return "invalid_blocks"
	}
	switch {
	case text == "" && len(list) == 0:
		return "no_text"
	case utf8.RuneCountInString(text) > maxText:
		return "msg_too_long"
	}
	for _, b := range list {
		if !b.valid() {
			return "invalid_blocks"
		}
	}
	if utf8.RuneCountInString(texts(json.RawMessage(raw))) > maxShown {
		return "msg_blocks_too_long"
	}
	return ""
}

// texts returns all texts of blocks that people read.
func texts(raw json.RawMessage) string {
	var (
		all  strings.Builder
		walk func(any)
	)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, each := range v {
				walk(each)
			}
		case map[string]any:
			if text, ok := v["text"].(string); ok {
				all.WriteString(text)
			}
			for _, each := range v {
				walk(each)
			}
		}
	}
	var list any
	if json.Unmarshal(raw, &list) == nil {
		walk(list)
	}
	return all.String()
}

func (b block) valid() bool {
	switch b.Type {
	case "":
		return false
	case "section":
		for _, f := range b.Fields {
			if !f.is(maxField) {
				return false
			}
		}
		return len(b.Fields) <= maxElements && (b.hasText(maxSection) || b.Text == nil && len(b.Fields) > 0)
	case "header":
		return b.hasText(maxHeader)
	case "context":
		var elements []textObject
		if json.Unmarshal(b.Elements, &elements) != nil || len(elements) == 0 || len(elements) > maxElements {
			return false
		}
		for _, e := range elements {
			if e.Type != "image" && !e.is(maxSection) {
				return false
			}
		}
	}
	return true
}

func (b block) hasText(limit int) bool {
	var t textObject
	return json.Unmarshal(b.Text, &t) == nil && t.is(limit)
}

func refuse(w http.ResponseWriter, status int, code string) {
	reply(w, status, map[string]any{"ok": false, "error": code})
}

func reply(w http.ResponseWriter, status int, v any) {
	var out bytes.Buffer
	_ = json.NewEncoder(&out).Encode(v) // strings, booleans, and JSON that was checked
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes())
}

func appendBounded[T any](list []T, item T) []T {
	if len(list) >= remembered {
		list = slices.Delete(list, 0, len(list)-remembered+1)
	}
	return append(list, item)
}
