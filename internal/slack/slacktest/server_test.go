package slacktest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

func call(t *testing.T, s *slacktest.Server, token, method string, pairs ...string) map[string]any {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	r := httptest.NewRequest("POST", "/api/"+method, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	answer := map[string]any{}
	if w.Code != http.StatusOK || json.Unmarshal(w.Body.Bytes(), &answer) != nil {
		t.Fatalf("%s: %d %s", method, w.Code, w.Body)
	}
	return answer
}

func TestErrorsAreThoseOfSlack(t *testing.T) {
	t.Parallel()
	s := slacktest.New("t")
	s.AddChannel("C1", "images")
	posted := call(t, s, "t", "chat.postMessage", "channel", "#images", "text", "x")
	ts, _ := posted["ts"].(string)
	if posted["ok"] != true || posted["channel"] != "C1" || ts == "" {
		t.Fatalf("got %v", posted)
	}
	for _, c := range []struct {
		name, token, method, code string
		pairs                     []string
	}{
		{"no token", "", "auth.test", "not_authed", nil},
		{"another token", "x", "auth.test", "invalid_auth", nil},
		{"no such method", "t", "chat.nothing", "unknown_method", nil},
		{"nothing to say", "t", "chat.postMessage", "no_text", []string{"channel", "C1"}},
		{"too much to say", "t", "chat.postMessage", "msg_too_long", []string{"channel", "C1", "text", strings.Repeat("x", 40_001)}},
		{"no such thread", "t", "chat.postMessage", "thread_not_found", []string{"channel", "C1", "text", "x", "thread_ts", "1.1"}},
		{"an update by the channel's name", "t", "chat.update", "channel_not_found", []string{"channel", "#images", "ts", ts, "text", "y"}},
		{"an update of nothing", "t", "chat.update", "message_not_found", []string{"channel", "C1", "ts", "1.1", "text", "y"}},
		{"an update with too much to say", "t", "chat.update", "msg_too_long", []string{"channel", "C1", "ts", ts, "text", strings.Repeat("x", 4001)}},
		{"blocks that are too long together", "t", "chat.postMessage", "msg_blocks_too_long", []string{"channel", "C1", "blocks",
			"[" + strings.Repeat(`{"type":"section","text":{"type":"mrkdwn","text":"`+strings.Repeat("x", 3000)+`"}},`, 4) +
				`{"type":"section","text":{"type":"mrkdwn","text":"` + strings.Repeat("x", 1201) + `"}}]`}},
	} {
		if got := call(t, s, c.token, c.method, c.pairs...); got["ok"] != false || got["error"] != c.code {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
	if got := call(t, s, "t", "chat.update", "channel", "C1", "ts", ts, "text", "y"); got["ok"] != true || got["ts"] != ts {
		t.Errorf("an update: %v", got)
	}
	if m := s.Messages(); len(m) != 1 || m[0].Text != "y" || m[0].Edits != 1 {
		t.Errorf("it shows %+v", m)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	s := slacktest.New("t")
	for range 10_100 {
		call(t, s, "t", "chat.postMessage", "channel", "C1", "text", "x")
	}
	if len(s.Messages()) != 10_000 || len(s.Calls()) != 10_000 {
		t.Errorf("%d messages and %d calls", len(s.Messages()), len(s.Calls()))
	}
}
