package slack

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

func TestIdentity(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	got, err := c.Identity(t.Context())
	want := Identity{Team: "Sandbox", User: "hubrelay", Bot: true, Scopes: []string{"chat:write", "channels:read", "groups:read"}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	fake.BelongToPerson()
	fake.SetScopes()
	if got, err := c.Identity(t.Context()); got.Bot || got.Scopes != nil || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhatTheBotSeesOfAChannel(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	for _, s := range []struct {
		change func()
		want   Channel
		code   string
	}{
		{func() {}, Channel{Name: "images", Member: true}, ""},
		{func() { fake.RemoveBot("C1") }, Channel{Name: "images"}, ""},
		{func() { fake.Archive("C1") }, Channel{Name: "images", Archived: true}, ""},
		{func() { fake.MakePrivate("C1") }, Channel{}, ChannelNotFound}, // the bot is not in it
		{func() { fake.SetScopes("chat:write", "channels:read") }, Channel{}, MissingScope},
	} {
		s.change()
		got, err := c.Channel(t.Context(), "C1")
		var e *Error
		if got != s.want || (err == nil) != (s.code == "") || err != nil && (!errors.As(err, &e) || e.Code != s.code) {
			t.Errorf("%+v, %v; want %+v %s", got, err, s.want, s.code)
		}
	}
	_, err := c.Channel(t.Context(), "C1")
	if err == nil || !strings.Contains(err.Error(), "needed is groups:read, provided chat:write,channels:read") {
		t.Errorf("got %v", err)
	}
}

func TestALineOfPlainText(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	if _, err := c.Say(t.Context(), "C1", "a <b> & c"); err != nil {
		t.Fatal(err)
	}
	if m := fake.Messages()[0]; m.Text != "a &lt;b&gt; &amp; c" || m.Blocks != nil {
		t.Errorf("Slack shows %+v", m)
	}
	fake.SetScopes("channels:read")
	var e *Error
	if _, err := c.Say(t.Context(), "C1", "x"); !errors.As(err, &e) || e.Code != MissingScope {
		t.Errorf("got %v", err)
	}
}

func TestQuestionsThatSlackDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]slacktest.Failure{
		"a code": {Code: "account_inactive"}, "a page": {Status: 404, Body: "<html>" + token}, "no JSON": {Body: token}, "nothing": {Body: " "},
		"not ok": {Body: `{"ok":false}`}, "a limit": {Status: 429}, "a failure": {Status: 503}, "no answer": {Reset: true},
		"a code with the token": {Code: token},
	} {
		fake, c := workspace(t)
		fake.Away(f)
		var e *Error
		if _, err := c.Identity(t.Context()); !errors.As(err, &e) || strings.Contains(err.Error(), "canary") || e.Hint == "" && !e.Temporary() {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.Channel(t.Context(), "C1"); !errors.As(err, &e) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"ok":true}`)) }))
	t.Cleanup(server.Close)
	var e *Error
	if _, err := New(server.URL, env.NewSecret(token)).Channel(t.Context(), "C1"); !errors.As(err, &e) {
		t.Errorf("an answer without a channel: %v", err)
	}
}
