package slack

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

const token = "xoxb-canary-0123"

func workspace(t *testing.T) (*slacktest.Server, *Client) {
	t.Helper()
	fake := slacktest.New(token)
	fake.AddChannel("C1", "images")
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	return fake, New(server.URL+"/api/", env.NewSecret(token))
}

var built = Message{
	Language: En, Event: Promote, Status: Running, Repository: "acme/api", Tag: "1.4.0",
	Digest: "sha256:0123456789abcdef0123456789abcdef", PipelineURL: "https://gitlab.example/p/1", DeliveryID: "d1d1d1d1d1d1",
}

func TestPostUpdateReply(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	ref, err := c.Post(t.Context(), "#images", built)
	if err != nil || ref.Channel != "C1" || ref.TS == "" {
		t.Fatalf("got %+v, %v", ref, err)
	}
	failed := built
	failed.Status, failed.Text = Failure, "no disk"
	again, err := c.Update(t.Context(), ref, failed)
	if err != nil || again != ref {
		t.Fatalf("got %+v, %v", again, err)
	}
	if err := c.Reply(t.Context(), ref, failed); err != nil {
		t.Fatal(err)
	}
	messages := fake.Messages()
	if len(messages) != 2 || messages[0].Edits != 1 || messages[1].ThreadTS != ref.TS {
		t.Fatalf("Slack shows %+v", messages)
	}
	for _, want := range []string{"acme/api:1.4.0", "sha256:0123456789ab", "https://gitlab.example/p/1", "d1d1d1d1", "no disk"} {
		if !strings.Contains(string(messages[0].Blocks), want) {
			t.Errorf("%q is not in %s", want, messages[0].Blocks)
		}
	}
	if len(fake.Calls()) != 3 {
		t.Errorf("three calls were %d requests", len(fake.Calls()))
	}
}

func TestEveryError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		failure   slacktest.Failure
		temporary bool
		code      string
		wait      time.Duration
		hint      bool
	}{
		{"the bot is not in the channel", slacktest.Failure{Code: "not_in_channel"}, false, "not_in_channel", 0, true},
		{"there is no such channel", slacktest.Failure{Code: "channel_not_found"}, false, "channel_not_found", 0, true},
		{"the channel is archived", slacktest.Failure{Code: "is_archived"}, false, "is_archived", 0, true},
		{"the token is revoked", slacktest.Failure{Code: "token_revoked"}, false, "token_revoked", 0, true},
		{"a scope is missing", slacktest.Failure{Code: "missing_scope"}, false, "missing_scope", 0, true},
		{"the blocks are invalid", slacktest.Failure{Code: "invalid_blocks"}, false, "invalid_blocks", 0, true},
		{"an error that nobody knows", slacktest.Failure{Code: "brand_new"}, false, "brand_new", 0, false},
		{"an error that repeats the token", slacktest.Failure{Code: token}, false, "unknown_error", 0, false},
		{"limited, politely", slacktest.Failure{Code: "ratelimited"}, true, "ratelimited", 0, false},
		{"an internal error", slacktest.Failure{Code: "internal_error"}, true, "internal_error", 0, false},
		{"a fatal error", slacktest.Failure{Code: "fatal_error"}, true, "fatal_error", 0, false},
		{"unavailable", slacktest.Failure{Code: "service_unavailable"}, true, "service_unavailable", 0, false},
		{"a time-out of theirs", slacktest.Failure{Code: "request_timeout"}, true, "request_timeout", 0, false},
		{"limited", slacktest.Failure{Status: 429, RetryAfter: 30 * time.Second}, true, "ratelimited", 30 * time.Second, false},
		{"limited, without a word of when", slacktest.Failure{Status: 429, Body: "slow down"}, true, "", 0, false},
		{"a page", slacktest.Failure{Status: 503, Body: "<html>" + token}, true, "", 0, false},
		{"a page that says 404", slacktest.Failure{Status: 404, Body: "<html>"}, false, "", 0, true},
		{"an answer that is no JSON", slacktest.Failure{Status: 200, Body: token}, false, "", 0, true},
		{"an answer without a message", slacktest.Failure{Status: 200, Body: `{"ok":true}`}, false, "", 0, true},
		{"an answer without end", slacktest.Failure{Status: 200, Body: strings.Repeat(" ", 2<<20)}, true, "", 0, false},
		{"limited, in a page", slacktest.Failure{Status: 429, RetryAfter: 1500 * time.Millisecond, Body: "<html>"}, true, "", 2 * time.Second, false},
		{"limited, by its other name", slacktest.Failure{Code: "rate_limited"}, true, "rate_limited", 0, false},
		{"limited for days", slacktest.Failure{Status: 429, RetryAfter: 72 * time.Hour}, true, "ratelimited", time.Hour, false},
		{"limited, with the message posted", slacktest.Failure{Status: 429, PostAnyway: true}, true, "ratelimited", 0, false},
		{"unavailable, with a time", slacktest.Failure{Status: 503, RetryAfter: 5 * time.Second}, true, "", 5 * time.Second, false},
		{"unavailable, in JSON", slacktest.Failure{Status: 503, Code: "service_unavailable"}, true, "service_unavailable", 0, false},
		{"a redirect", slacktest.Failure{Status: 302}, false, "", 0, true},
		{"a refusal without a reason that looks like a message", slacktest.Failure{Status: 200, Body: `{"ok":false,"channel":"C1","ts":"1.2"}`}, false, "unknown_error", 0, false},
		{"an answer that neither agrees nor refuses", slacktest.Failure{Status: 200, Body: `{"channel":"C1","ts":"1.2"}`}, false, "unknown_error", 0, false},
		{"a refusal with parts of other types", slacktest.Failure{Status: 200, Body: `{"ok":false,"errors":[{"x":1}],"response_metadata":[],"error":"not_in_channel"}`}, false, "not_in_channel", 0, true},
		{"a refusal that repeats the token in its words", slacktest.Failure{Status: 200,
			Body: `{"ok":false,"error":"invalid_blocks","response_metadata":{"messages":["[ERROR] ` + token + `"]}}`}, false, "invalid_blocks", 0, true},
		{"a list", slacktest.Failure{Status: 200, Body: `[]`}, false, "unknown_error", 0, false},
		{"a reset", slacktest.Failure{Reset: true}, true, "", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := workspace(t)
			fake.Fail(c.failure)
			_, err := client.Post(t.Context(), "C1", built)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Temporary() != c.temporary || e.Code != c.code || e.RetryAfter != c.wait || (e.Hint != "") != c.hint {
				t.Errorf("got %+v, temporary %v", e, e.Temporary())
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v %v", err, e, e, e.Cause), "canary") {
				t.Errorf("the token shows in %+v", e)
			}
			if n := len(fake.Calls()); n != 1 {
				t.Errorf("one call was %d requests", n)
			}
		})
	}
}

func TestASlackThatHangs(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	fake.Fail(slacktest.Failure{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Post(ctx, "C1", built)
	var e *Error
	if !errors.As(err, &e) || !e.Temporary() || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsGone(t *testing.T) {
	t.Parallel()
	_, c := workspace(t)
	_, err := c.Update(t.Context(), Ref{"C1", "1.000001"}, built)
	if !IsGone(err) {
		t.Errorf("got %v", err)
	}
	if IsGone(nil) || IsGone(&Error{Code: "not_in_channel"}) {
		t.Error("what is there is gone")
	}
}

func TestEverythingHasWords(t *testing.T) {
	t.Parallel()
	for _, event := range []Event{Promote, Release, Deploy} {
		for _, status := range []Status{Running, Success, Failure, Skipped} {
			if emoji[status] == "" {
				t.Errorf("%s has no emoji", status)
			}
			for language, w := range words {
				ways := w.sentences[event][status]
				if len(ways) == 0 {
					t.Errorf("%s %s %s has no words", language, event, status)
				}
				for _, way := range ways {
					if strings.Count(way, "{}") != 1 {
						t.Errorf("%q does not name its subject once", way)
					}
					japanese := strings.ContainsFunc(way, func(r rune) bool { return r >= 'ぁ' && r <= 'ヿ' })
					if japanese != (language == Ja) {
						t.Errorf("%q is not %s", way, language)
					}
				}
			}
		}
	}
}

func TestTheVoiceStays(t *testing.T) {
	t.Parallel()
	m := built
	first := m.fallback()
	m.Text, m.PipelineURL = "more", ""
	if m.fallback() != first {
		t.Errorf("%q became %q", first, m.fallback())
	}
	voices := map[string]bool{}
	for i := range 20 {
		m.DeliveryID = fmt.Sprint("delivery ", i)
		voices[m.fallback()] = true
	}
	if len(voices) < 2 {
		t.Errorf("there is one voice: %v", voices)
	}
}

func TestWhatItHappenedTo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		message Message
		want    string
	}{
		{Message{Event: Promote, Repository: "acme/api", Tag: "1.4.0"}, "acme/api:1.4.0"},
		{Message{Event: Promote, Repository: "acme/api"}, "acme/api"},
		{Message{Event: Promote, Project: "acme/images/api", Version: "1"}, "acme/images/api 1"},
		{Message{Event: Release, Repository: "acme/api", Tag: "1.4.0", Version: "2.0"}, "acme/api 2.0"},
		{Message{Event: Deploy, Repository: "acme/api", Tag: "1.4.0"}, "acme/api:1.4.0"},
		{Message{Event: Release, Version: "2.0"}, "2.0"},
	} {
		if got := c.message.subject(); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.message, got, c.want)
		}
	}
}

func TestHostileTexts(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	for _, text := range []string{
		`"quotes" \ and 'more'`, "<!channel> <@U123> <https://evil.example|click>", "a\nb\r\n\tc", "🎉\x00", strings.Repeat("&", 2000), strings.Repeat("あ", 2000), "   ",
	} {
		m := built
		m.Status, m.Text = Failure, text
		if len(text) < 200 { // what Notify lets through
			m.Version, m.Repository, m.Project = text, "", text
		}
		m.PipelineURL = "https://gitlab.example/<!channel>|x>"
		ref, err := c.Post(t.Context(), "C1", m)
		if err != nil {
			t.Errorf("%.40q: %v", text, err)
			continue
		}
		if err := c.Reply(t.Context(), ref, m); err != nil {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	for _, m := range fake.Messages() {
		all := m.Text + string(m.Blocks)
		for _, bad := range []string{"<!", "<@", "\\u003c!", "\\u003c@"} {
			if strings.Contains(all, bad) {
				t.Errorf("%q is in %s", bad, all)
			}
		}
	}
}

func TestASuccessThatTheLibraryCannotReadIsOne(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	fake.Fail(slacktest.Failure{Status: 200, Body: `{"ok":true,"channel":"C1","ts":"1.2","message":{"blocks":"none"},"errors":[{"x":1}]}`})
	if ref, err := c.Post(t.Context(), "C1", built); err != nil || ref != (Ref{"C1", "1.2"}) {
		t.Errorf("got %+v, %v", ref, err)
	}
}

func TestWhatSlackSaysMoreIsInTheError(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	fake.Fail(slacktest.Failure{Status: 200, Body: `{"ok":false,"error":"invalid_blocks","response_metadata":{"messages":["[ERROR] must be\n less"]}}`})
	_, err := c.Post(t.Context(), "C1", built)
	if want := "post to C1: slack: invalid_blocks: [ERROR] must be less"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(nil)
	server.Close()
	_, err := New(server.URL, env.NewSecret(token)).Post(t.Context(), "C1", built)
	var e *Error
	if !errors.As(err, &e) || !e.Temporary() || e.Status != 0 || strings.Contains(fmt.Sprintf("%v %+v", err, *e), "canary") {
		t.Errorf("got %v", err)
	}
}

func TestALimitWithTheMessagePostedIsMendedByAnUpdate(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	ref, err := c.Post(t.Context(), "C1", built)
	if err != nil {
		t.Fatal(err)
	}
	fake.Fail(slacktest.Failure{Status: 429, PostAnyway: true})
	for range 2 {
		_, err = c.Update(t.Context(), ref, built)
	}
	if err != nil || len(fake.Messages()) != 1 {
		t.Errorf("got %v, and %d messages", err, len(fake.Messages()))
	}
}

// The call that Slack gets, and what it does not do with it.
func TestWhatIsSent(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	if _, err := c.Post(t.Context(), "C1", built); err != nil {
		t.Fatal(err)
	}
	sent := fake.Calls()[0]
	for name, want := range map[string]string{
		"channel": "C1", "text": built.fallback(), "parse": "none", "unfurl_links": "false", "unfurl_media": "false",
	} {
		if sent.Method != "chat.postMessage" || sent.Values.Get(name) != want {
			t.Errorf("%s: %s is %q, want %q", sent.Method, name, sent.Values.Get(name), want)
		}
	}
}
