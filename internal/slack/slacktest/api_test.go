package slacktest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// send sends one body as it is.
func send(s *slacktest.Server, path, media, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	r.Header.Set("Authorization", "Bearer t")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestBodiesAreReadAsSlackDoes(t *testing.T) {
	t.Parallel()
	const form, asJSON = "application/x-www-form-urlencoded", "application/json; charset=utf-8"
	for _, c := range []struct{ name, path, media, body, want string }{
		{"a form", "/chat.postMessage", form, "channel=C1&text=x", `"ok":true`},
		{"JSON, below a prefix", "/any/prefix/chat.postMessage", asJSON, `{"channel":"C1","text":"x"}`, `"ok":true`},
		{"JSON with blocks as a list", "/api/chat.postMessage", asJSON, `{"channel":"C1","blocks":[{"type":"divider"}],"text":null}`, `"ok":true`},
		{"invalid JSON", "/api/chat.postMessage", asJSON, `{`, "invalid_json"},
		{"JSON that is a list", "/api/chat.postMessage", asJSON, `[]`, "json_not_object"},
		{"an invalid form", "/api/chat.postMessage", form, "%zz", "invalid_form_data"},
		{"a body of no type", "/api/chat.postMessage", "", "channel=C1&text=x", "missing_post_type"},
		{"a body of another type", "/api/chat.postMessage", "text/xml", "<x/>", "invalid_post_type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := send(slacktest.New("t"), c.path, c.media, c.body)
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("got %d %s, want %s", w.Code, w.Body, c.want)
			}
		})
	}
	if w := send(slacktest.New("t"), "/chat.postMessage", form, strings.Repeat("x", 2<<20)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of 2 MiB: %d", w.Code)
	}
}

func TestTokensInABodyCountInFormsOnly(t *testing.T) {
	t.Parallel()
	for media, want := range map[string]string{"application/x-www-form-urlencoded": `"ok":true`, "application/json": "not_authed"} {
		body := "token=t"
		if media == "application/json" {
			body = `{"token":"t"}`
		}
		s := slacktest.New("t")
		r := httptest.NewRequest("POST", "/api/auth.test", strings.NewReader(body))
		r.Header.Set("Content-Type", media)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: got %s, want %s", media, w.Body, want)
		}
		if calls := s.Calls(); len(calls) != 1 || calls[0].Values.Has("token") {
			t.Errorf("%s: the token is kept in %v", media, calls)
		}
	}
}

func TestBlocks(t *testing.T) {
	t.Parallel()
	text := func(n int) string { return fmt.Sprintf(`{"type":"mrkdwn","text":%q}`, strings.Repeat("あ", n)) }
	list := func(n int, item string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
	}
	section := func(n int) string { return `{"type":"section","text":` + text(n) + `}` }
	for _, c := range []struct {
		name, blocks string
		valid        bool
	}{
		{"a section at the limit", list(1, section(3000)), true},
		{"a section over it", list(1, section(3001)), false},
		{"an empty section", list(1, section(0)), false},
		{"a section of fields", `[{"type":"section","fields":[` + text(1) + `]}]`, true},
		{"a section of nothing", `[{"type":"section"}]`, false},
		{"a text of no type", `[{"type":"section","text":{"text":"x"}}]`, false},
		{"fifty blocks", list(50, section(1)), true},
		{"one more", list(51, section(1)), false},
		{"a context", `[{"type":"context","elements":` + list(10, text(1)) + `}]`, true},
		{"a context of too much", `[{"type":"context","elements":` + list(11, text(1)) + `}]`, false},
		{"a context of nothing", `[{"type":"context","elements":[]}]`, false},
		{"a long header", `[{"type":"header","text":` + text(151) + `}]`, false},
		{"a block without a type", `[{}]`, false},
		{"an object", section(1), false},
		{"strings", `["x"]`, false},
		{"null", `null`, false},
		{"no JSON", `[`, false},
		{"none", `[]`, true},
	} {
		got := call(t, slacktest.New("t"), "t", "chat.postMessage", "channel", "C1", "text", "x", "blocks", c.blocks)
		if got["ok"] != c.valid || !c.valid && got["error"] != "invalid_blocks" {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestChannels(t *testing.T) {
	t.Parallel()
	some := slacktest.New("t")
	some.AddChannel("C1", "#images")
	every := slacktest.New("t")
	for _, c := range []struct {
		name    string
		server  *slacktest.Server
		channel string
		id      string // "" for channel_not_found
	}{
		{"by ID", some, "C1", "C1"},
		{"by name", some, "images", "C1"},
		{"by # and name", some, "#images", "C1"},
		{"of nobody", some, "#other", ""},
		{"any, by ID", every, "C0OTHER", "C0OTHER"},
		{"any, by name", every, "#other", "CC87D8DF5"},
		{"none", every, "", ""},
	} {
		got := call(t, c.server, "t", "chat.postMessage", "channel", c.channel, "text", "x")
		id, _ := got["channel"].(string)
		if id != c.id || c.id == "" && got["error"] != "channel_not_found" {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
	info := call(t, some, "t", "conversations.info", "channel", "C1")
	if channel, _ := info["channel"].(map[string]any); channel["name"] != "images" {
		t.Errorf("got %v", info)
	}
	if got := call(t, some, "t", "conversations.info", "channel", "images"); got["error"] != "channel_not_found" {
		t.Errorf("got %v", got)
	}
}

func TestATextWithoutBlocksRemovesTheBlocks(t *testing.T) {
	t.Parallel()
	s := slacktest.New("t")
	posted := call(t, s, "t", "chat.postMessage", "channel", "C1", "text", "x", "blocks", `[{"type":"divider"}]`)
	ts, _ := posted["ts"].(string)
	call(t, s, "t", "chat.update", "channel", "C1", "ts", ts, "blocks", `[{"type":"divider"},{"type":"divider"}]`)
	if m := s.Messages()[0]; string(m.Blocks) != `[{"type":"divider"},{"type":"divider"}]` || m.Text != "x" {
		t.Errorf("got %+v", m)
	}
	call(t, s, "t", "chat.update", "channel", "C1", "ts", ts, "text", "y")
	if m := s.Messages()[0]; m.Blocks != nil || m.Text != "y" {
		t.Errorf("got %+v", m)
	}
}

func TestChannelsThatTakeNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, code   string
		shut, open   func(*slacktest.Server, string)
		info, shown  string // of conversations.info, and its answer while shut
		any, forever bool   // without AddChannel; without a way back
	}{
		{name: "an archived channel", code: "is_archived", shut: (*slacktest.Server).Archive, open: (*slacktest.Server).Unarchive, info: "is_archived", shown: "true"},
		{name: "an archived one of any", code: "is_archived", shut: (*slacktest.Server).Archive, open: (*slacktest.Server).Unarchive, info: "is_archived", shown: "true", any: true},
		{name: "a channel that the bot was removed from", code: "not_in_channel", shut: (*slacktest.Server).RemoveBot, open: (*slacktest.Server).InviteBot, info: "is_member", shown: "false"},
		{name: "a deleted channel", code: "channel_not_found", shut: (*slacktest.Server).DeleteChannel, forever: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := slacktest.New("t")
			if !c.any {
				s.AddChannel("C1", "images")
				s.AddChannel("C2", "other")
			}
			posted := call(t, s, "t", "chat.postMessage", "channel", "C1", "text", "x")
			ts, _ := posted["ts"].(string)
			update := []string{"channel", "C1", "ts", ts, "text", "y"}
			c.shut(s, "C1")
			for method, pairs := range map[string][]string{
				"chat.postMessage": {"channel", "C1", "text", "x"}, "chat.update": update,
			} {
				if got := call(t, s, "t", method, pairs...); got["error"] != c.code {
					t.Errorf("%s: got %v", method, got)
				}
			}
			if got := call(t, s, "t", "chat.postMessage", "channel", "C2", "text", "x"); got["ok"] != true {
				t.Errorf("another channel: got %v", got)
			}
			info := call(t, s, "t", "conversations.info", "channel", "C1")
			if c.forever {
				if info["error"] != c.code {
					t.Errorf("got %v", info)
				}
				return
			}
			if channel, _ := info["channel"].(map[string]any); fmt.Sprint(channel[c.info]) != c.shown {
				t.Errorf("got %v", info)
			}
			c.open(s, "C1")
			if got := call(t, s, "t", "chat.update", update...); got["ok"] != true {
				t.Errorf("opened again: got %v", got)
			}
		})
	}
}

func TestADeletedMessageAcceptsNoUpdate(t *testing.T) {
	t.Parallel()
	s := slacktest.New("t")
	posted := call(t, s, "t", "chat.postMessage", "channel", "C1", "text", "x")
	ts, _ := posted["ts"].(string)
	if s.Delete("C2", ts) || !s.Delete("C1", ts) || s.Delete("C1", ts) || len(s.Messages()) != 0 {
		t.Errorf("it shows %v", s.Messages())
	}
	if got := call(t, s, "t", "chat.update", "channel", "C1", "ts", ts, "text", "y"); got["error"] != "message_not_found" {
		t.Errorf("an update: got %v", got)
	}
	if got := call(t, s, "t", "chat.postMessage", "channel", "C1", "thread_ts", ts, "text", "y"); got["error"] != "thread_not_found" {
		t.Errorf("a reply: got %v", got)
	}
}

func TestRepliesThatTheChannelShows(t *testing.T) {
	t.Parallel()
	s := slacktest.New("t")
	posted := call(t, s, "t", "chat.postMessage", "channel", "C1", "text", "x", "reply_broadcast", "true")
	ts, _ := posted["ts"].(string)
	call(t, s, "t", "chat.postMessage", "channel", "C1", "thread_ts", ts, "text", "y", "reply_broadcast", "true")
	call(t, s, "t", "chat.postMessage", "channel", "C1", "thread_ts", ts, "text", "z")
	var shown []bool
	for _, m := range s.Messages() {
		shown = append(shown, m.Broadcast)
	}
	if !slices.Equal(shown, []bool{false, true, false}) {
		t.Errorf("got %v", shown)
	}
}

func TestAChannelIsLimited(t *testing.T) {
	t.Parallel()
	s := slacktest.New("t")
	s.RateLimit(1)
	post := func(channel string) *httptest.ResponseRecorder {
		return send(s, "/chat.postMessage", "application/json", `{"channel":"`+channel+`","text":"x"}`)
	}
	for i, want := range []int{200, 429} {
		if w := post("C1"); w.Code != want || want == 429 && w.Header().Get("Retry-After") != "1" {
			t.Errorf("message %d: %d %s", i, w.Code, w.Body)
		}
	}
	if w := post("C2"); w.Code != 200 {
		t.Errorf("another channel: %d %s", w.Code, w.Body)
	}
	s.RateLimit(0)
	if w := post("C1"); w.Code != 200 {
		t.Errorf("without the limit: %d %s", w.Code, w.Body)
	}
}

func TestMessagesAtOnce(t *testing.T) {
	t.Parallel()
	s := slacktest.New("t")
	var (
		mu    sync.Mutex
		heard int
		all   sync.WaitGroup
	)
	s.OnMessage(func(slacktest.Message) {
		_ = s.Messages() // no lock is held
		mu.Lock()
		defer mu.Unlock()
		heard++
	})
	for range 20 {
		all.Go(func() {
			w := send(s, "/chat.postMessage", "application/json", `{"channel":"C1","text":"x"}`)
			var posted struct{ TS string }
			if err := json.Unmarshal(w.Body.Bytes(), &posted); err != nil {
				t.Error(err)
			}
			send(s, "/chat.update", "application/json", `{"channel":"C1","text":"y","ts":"`+posted.TS+`"}`)
		})
	}
	all.Wait()
	messages := s.Messages()
	if len(messages) != 20 || heard != 40 {
		t.Fatalf("%d messages, %d heard", len(messages), heard)
	}
	for i, m := range messages {
		if m.Edits != 1 || m.Text != "y" || i > 0 && m.TS <= messages[i-1].TS {
			t.Errorf("message %d is %+v", i, m)
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	s := slacktest.New("t")
	s.AddChannel("C1", "images")
	s.AddChannel("C2", "secret")
	s.MakePrivate("C2")
	for _, c := range []struct {
		scopes          []string
		method, channel string
		needed          string // "" where it is answered
	}{
		{[]string{"chat:write"}, "auth.test", "", ""},
		{[]string{"chat:write"}, "chat.postMessage", "C1", ""},
		{[]string{"chat:write"}, "conversations.info", "C1", "channels:read"},
		{[]string{"channels:read"}, "conversations.info", "C1", ""},
		{[]string{"channels:read"}, "conversations.info", "C2", "groups:read"},
		{[]string{"channels:read", "groups:read"}, "conversations.info", "C2", ""},
		{[]string{"channels:read"}, "chat.postMessage", "C1", "chat:write"},
		{[]string{"channels:read"}, "chat.update", "C1", "chat:write"},
	} {
		s.SetScopes(c.scopes...)
		got := call(t, s, "t", c.method, "channel", c.channel, "text", "x")
		if c.needed == "" && got["ok"] != true || c.needed != "" && (got["error"] != "missing_scope" || got["needed"] != c.needed || got["provided"] != strings.Join(c.scopes, ",")) {
			t.Errorf("%s of %s with %v: got %v", c.method, c.channel, c.scopes, got)
		}
	}
	res := send(s, "/auth.test", "application/x-www-form-urlencoded", "token=t")
	if got := res.Header().Get("X-OAuth-Scopes"); got != "channels:read" {
		t.Errorf("the scopes are %q", got)
	}
}
