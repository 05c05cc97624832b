package slack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	Digest: "sha256:0123456789abcdef0123456789abcdef", PipelineURL: "https://gitlab.example/p/1", PromotionID: "d1d1d1d1d1d1",
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
		{"an unknown error", slacktest.Failure{Code: "brand_new"}, false, "brand_new", 0, true},
		{"an error that repeats the token", slacktest.Failure{Code: token}, false, "unknown_error", 0, true},
		{"limited, politely", slacktest.Failure{Code: "ratelimited"}, true, "ratelimited", 0, false},
		{"limited", slacktest.Failure{Status: 429, RetryAfter: 30 * time.Second}, true, "ratelimited", 30 * time.Second, false},
		{"limited, without a word of when", slacktest.Failure{Status: 429, Body: "slow down"}, true, "", 0, false},
		{"a page", slacktest.Failure{Status: 503, Body: "<html>" + token}, true, "", 0, false},
		{"a page that says 404", slacktest.Failure{Status: 404, Body: "<html>"}, false, "", 0, true},
		{"an answer that is not JSON", slacktest.Failure{Status: 200, Body: token}, false, "", 0, true},
		{"an answer without a message", slacktest.Failure{Status: 200, Body: `{"ok":true}`}, false, "", 0, true},
		{"an answer without end", slacktest.Failure{Status: 200, Body: strings.Repeat(" ", 5<<20)}, true, "", 0, false},
		{"limited, in a page", slacktest.Failure{Status: 429, RetryAfter: 1500 * time.Millisecond, Body: "<html>"}, true, "", 2 * time.Second, false},
		{"limited for days", slacktest.Failure{Status: 429, RetryAfter: 72 * time.Hour}, true, "ratelimited", time.Hour, false},
		{"limited, politely, with a time", slacktest.Failure{Code: "ratelimited", RetryAfter: 7 * time.Second}, true, "ratelimited", 7 * time.Second, false},
		{"a workspace that moves", slacktest.Failure{Code: "team_added_to_org"}, true, "team_added_to_org", 0, true},
		{"limited, with the message posted", slacktest.Failure{Status: 429, PostAnyway: true}, true, "ratelimited", 0, false},
		{"unavailable, with a time", slacktest.Failure{Status: 503, RetryAfter: 5 * time.Second}, true, "", 5 * time.Second, false},
		{"unavailable, in JSON", slacktest.Failure{Status: 503, Code: "service_unavailable"}, true, "service_unavailable", 0, false},
		{"a redirect", slacktest.Failure{Status: 302}, false, "", 0, true},
		{"a refusal without a reason that looks like a message", slacktest.Failure{Status: 200, Body: `{"ok":false,"channel":"C1","ts":"1.2"}`}, false, "unknown_error", 0, true},
		{"an answer that neither agrees nor refuses", slacktest.Failure{Status: 200, Body: `{"channel":"C1","ts":"1.2"}`}, false, "unknown_error", 0, true},
		{"a refusal with parts of other types", slacktest.Failure{Status: 200, Body: `{"ok":false,"errors":[{"x":1}],"response_metadata":[],"error":"not_in_channel"}`}, false, "not_in_channel", 0, true},
		{"a refusal that repeats the token in its words", slacktest.Failure{Status: 200,
			Body: `{"ok":false,"error":"invalid_blocks","response_metadata":{"messages":["[ERROR] ` + token + `"]}}`}, false, "invalid_blocks", 0, true},
		{"a list", slacktest.Failure{Status: 200, Body: `[]`}, false, "unknown_error", 0, true},
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
	if !errors.As(err, &e) || !e.Temporary() || !IsLost(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// documented are the errors that Slack's pages of chat.postMessage and
// chat.update list, but for those of files and drafts; some others have been
// seen.
var documented = map[string]struct{ temporary, gone bool }{
	"ratelimited": {temporary: true}, "rate_limited": {temporary: true}, "message_limit_exceeded": {temporary: true},
	"internal_error": {temporary: true}, "fatal_error": {temporary: true}, "service_unavailable": {temporary: true},
	"request_timeout": {temporary: true}, "update_failed": {temporary: true}, "streaming_state_conflict": {temporary: true},
	"team_added_to_org": {temporary: true}, "org_login_required": {temporary: true}, "external_channel_migrating": {temporary: true},

	"message_not_found": {gone: true}, "thread_not_found": {gone: true}, "cant_update_message": {gone: true}, "edit_window_closed": {gone: true},
	"is_archived": {gone: true}, "is_inactive": {gone: true}, "channel_not_found": {gone: true}, "not_in_channel": {gone: true},
	"team_not_found": {gone: true}, "no_permission": {gone: true}, "messages_tab_disabled": {gone: true},
	"access_denied": {gone: true}, "ekm_access_denied": {gone: true}, "posting_to_channel_denied": {gone: true},
	"restricted_action": {gone: true}, "restricted_action_read_only_channel": {gone: true}, "restricted_action_thread_only_channel": {gone: true},

	"restricted_action_non_threadable_channel": {}, "restricted_action_thread_locked": {}, "cannot_reply_to_message": {},
	"not_authed": {}, "invalid_auth": {}, "account_inactive": {}, "token_revoked": {}, "token_expired": {}, "not_allowed_token_type": {},
	"missing_scope": {}, "team_access_not_granted": {}, "enterprise_is_restricted": {}, "two_factor_setup_required": {},
	"accesslimited": {}, "app_access_restricted": {}, "deprecated_endpoint": {}, "method_deprecated": {}, "unknown_method": {},
	"no_text": {}, "msg_too_long": {}, "msg_blocks_too_long": {}, "invalid_blocks": {}, "invalid_blocks_format": {}, "invalid_attachments": {},
	"invalid_arguments": {}, "invalid_arg_name": {}, "invalid_array_arg": {}, "invalid_charset": {}, "invalid_form_data": {}, "invalid_json": {},
	"json_not_object": {}, "invalid_post_type": {}, "missing_post_type": {}, "upgrade_required": {},
	"invalid_metadata_format": {}, "invalid_metadata_schema": {}, "metadata_too_large": {}, "metadata_must_be_sent_from_app": {},
	"as_user_not_supported": {}, "attachment_payload_limit_exceeded": {}, "block_mismatch": {}, "cant_broadcast_message": {},
	"duplicate_channel_not_found": {}, "duplicate_message_not_found": {}, "markdown_text_conflict": {}, "no_dual_broadcast_content_update": {},
	"too_many_attachments": {}, "too_many_contact_cards": {}, "slack_connect_canvas_sharing_blocked": {},
	"slack_connect_file_link_sharing_blocked": {}, "slack_connect_lists_sharing_blocked": {},
}

func TestEveryDocumentedErrorHasItsClassAndAHint(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	ref, err := c.Post(t.Context(), "C1", built)
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range documented {
		fake.Fail(slacktest.Failure{Code: code})
		_, err := c.Update(t.Context(), ref, built)
		var e *Error
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("%s: got %v", code, err)
			continue
		}
		if e.Temporary() != want.temporary || IsGone(err) != want.gone || IsLost(err) {
			t.Errorf("%s: temporary %v, gone %v, lost %v", code, e.Temporary(), IsGone(err), IsLost(err))
		}
		if e.Hint == "" && !want.temporary || e.Hint == unknownHint {
			t.Errorf("%s: the hint is %q", code, e.Hint)
		}
	}
	if len(classes) != len(documented) {
		t.Errorf("%d errors have a class, and %d are documented", len(classes), len(documented))
	}
	if IsGone(nil) || IsLost(nil) || IsGone(io.EOF) || IsLost(io.EOF) || IsGone(&Error{Status: 404}) {
		t.Error("what Slack did not say is taken for its answer")
	}
}

// What Slack itself does, as far as the fake imitates it.
func TestMessagesThatAreGone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(*slacktest.Server, Ref)
		code string
	}{
		{"the message was deleted", func(s *slacktest.Server, r Ref) { s.Delete(r.Channel, r.TS) }, "message_not_found"},
		{"the channel was archived", func(s *slacktest.Server, r Ref) { s.Archive(r.Channel) }, "is_archived"},
		{"the channel was deleted", func(s *slacktest.Server, r Ref) { s.DeleteChannel(r.Channel) }, "channel_not_found"},
		{"the bot was removed", func(s *slacktest.Server, r Ref) { s.RemoveBot(r.Channel) }, "not_in_channel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := workspace(t)
			fake.AddChannel("C2", "other")
			ref, err := client.Post(t.Context(), "C1", built)
			if err != nil {
				t.Fatal(err)
			}
			c.end(fake, ref)
			_, err = client.Update(t.Context(), ref, built)
			var e *Error
			if !errors.As(err, &e) || e.Code != c.code || !IsGone(err) || e.Temporary() {
				t.Errorf("got %v", err)
			}
			if moved, err := client.Post(t.Context(), "C2", built); err != nil || moved.Channel != "C2" {
				t.Errorf("in another channel: got %+v, %v", moved, err)
			}
		})
	}
}

func TestAnswersThatAreLost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		failure slacktest.Failure
		lost    bool
	}{
		{"a reset", slacktest.Failure{Reset: true}, true},
		{"a reset after it was done", slacktest.Failure{Reset: true, PostAnyway: true}, true},
		{"a page with a 502", slacktest.Failure{Status: 502, Body: "<html>"}, true},
		{"a 503 in JSON", slacktest.Failure{Status: 503, Code: "service_unavailable"}, true},
		{"half an answer", slacktest.Failure{Status: 200, Body: `{"ok":true,"channel":"C1`}, true},
		{"an answer that names no message", slacktest.Failure{Status: 200, Body: `{"ok":true}`}, true},
		{"an answer without end", slacktest.Failure{Status: 200, Body: strings.Repeat(" ", 5<<20)}, true},
		{"a limit", slacktest.Failure{Status: 429}, false},
		{"a limit in a page", slacktest.Failure{Status: 429, Body: "<html>"}, false},
		{"a limit that says ok:false", slacktest.Failure{Code: "ratelimited"}, false},
		{"an internal error that says ok:false", slacktest.Failure{Code: "internal_error"}, false},
		{"a refusal", slacktest.Failure{Code: "is_archived"}, false},
		{"a redirect", slacktest.Failure{Status: 302}, false},
		{"a page that is not Slack's", slacktest.Failure{Status: 404, Body: "<html>"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := workspace(t)
			fake.Fail(c.failure)
			_, err := client.Post(t.Context(), "C1", built)
			if err == nil || IsLost(err) != c.lost || IsGone(err) && c.failure.Code != "is_archived" {
				t.Errorf("got %v, lost %v", err, IsLost(err))
			}
		})
	}
}

func TestAWarningIsNoRefusal(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	fake.Fail(slacktest.Failure{Status: 200, Body: `{"ok":true,"channel":"C1","ts":"1.1","warning":"missing_charset","response_metadata":{"warnings":["missing_charset"],"messages":["x"]}}`})
	if ref, err := c.Post(t.Context(), "C1", built); err != nil || ref != (Ref{"C1", "1.1"}) {
		t.Errorf("got %+v, %v", ref, err)
	}
}

func TestAFailurePingsOnceAndASuccessNever(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mention, ping string
		broadcast     bool
	}{
		{"U0123ABCD", "<@U0123ABCD>", false},
		{"W0123ABCD", "<@W0123ABCD>", false},
		{"S0123ABCD", "<!subteam^S0123ABCD>", false},
		{"@here", "<!here>", true},
		{"@channel", "<!channel>", true},
		{"", "", false},
		{"@everyone", "", false},
		{"C0123ABCD", "", false},
		{"U1> <!channel", "", false},
		{"U1\n", "", false},
		{"here", "", false},
	} {
		for _, status := range []Status{Running, Success, Failure, Skipped, Superseded, Waiting, Dead, Silent} {
			t.Run(c.mention+" "+string(status), func(t *testing.T) {
				t.Parallel()
				fake, client := workspace(t)
				m := built
				m.Status, m.Mention = status, c.mention
				ref, err := client.Post(t.Context(), "C1", m)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := client.Update(t.Context(), ref, m); err != nil {
					t.Fatal(err)
				}
				if err := client.Reply(t.Context(), ref, m); err != nil {
					t.Fatal(err)
				}
				shown := fake.Messages()
				top, reply := shown[0].Text+unescaped(t, shown[0].Blocks), shown[1].Text+unescaped(t, shown[1].Blocks)
				if strings.Contains(top, "<!") || strings.Contains(top, "<@") {
					t.Errorf("the message itself pings: %s", top)
				}
				want, times := c.ping, 2 // in the text, and in the blocks
				if !status.Bad() || want == "" {
					want, times = "<!", 0
				}
				if strings.Count(reply, want) != times || strings.Count(reply, "<!")+strings.Count(reply, "<@") != times {
					t.Errorf("the reply is %s", reply)
				}
				if shown[1].Broadcast != (c.broadcast && status.Bad()) {
					t.Errorf("the channel shows the reply: %v", shown[1].Broadcast)
				}
			})
		}
	}
}

// unescaped returns JSON without its own escapes.
func unescaped(t *testing.T, data []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(v)
}

func TestEveryStatusHasItsOwnWords(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for language, w := range words {
		for event, statuses := range statusesOf {
			for _, status := range statuses {
				where := fmt.Sprint(language, " ", event, " ", status)
				ways := w.sentences[event][status]
				if len(ways) == 0 || emoji[status] == "" {
					t.Errorf("%s has no words, or no emoji", where)
				}
				for i, way := range ways {
					if strings.Count(way, "{}") != 1 || seen[way] != "" {
						t.Errorf("%s, voice %d: %q does not name its subject once, or is that of %s", where, i, way, seen[way])
					}
					seen[way] = where
					japanese := strings.ContainsFunc(way, func(r rune) bool { return r >= 'ぁ' && r <= 'ヿ' })
					if japanese != (language == Ja) {
						t.Errorf("%s, voice %d: %q", where, i, way)
					}
				}
			}
		}
		for _, way := range w.reply {
			if strings.Count(way, "{}") != 1 {
				t.Errorf("%q does not name its subject once", way)
			}
		}
		if w.pipeline == "" || w.unnamed == "" {
			t.Errorf("%+v lacks a word", w)
		}
	}
}

func TestSubjects(t *testing.T) {
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

// Whatever the texts are, Slack takes the message, and they do nothing.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	fake, c := workspace(t)
	for _, text := range []string{
		`"quotes" \ and 'more'`, "<!channel> <@U123> <https://evil.example|click>", "a\nb\r\n\tc", "🎉\x00", "   ", "\u200b", "\u202egnp.exe",
		"caf\xe9", "\ufeffstatus", "%s%d", "a;b", "$CI_JOB_STATUS", "{}", "```\n`", "@here #general mailto:a@b.c",
		strings.Repeat("&", 2000), strings.Repeat("あ", 2001), strings.Repeat("<!here>", 2000), strings.Repeat("`", 10_000), strings.Repeat("🎉", 6000),
	} {
		for _, status := range []Status{Running, Failure, Skipped, Waiting, Dead, Silent, Status(text)} {
			for _, language := range []Language{En, Ja} {
				m := Message{
					Language: language, Event: Event(text), Status: status, Repository: text, Tag: text, Digest: text, Version: text,
					Project: text, Text: text, PipelineURL: "https://gitlab.example/<!channel>|x>" + text, PromotionID: text,
					Reason: text, Hint: text, Words: text, Attempts: 1, Command: text, Since: 1 << 62, Silence: -1, Mention: text,
				}
				ref, err := c.Post(t.Context(), "C1", m)
				if err != nil {
					t.Fatalf("%.40q, %.20q: %v", text, status, err)
				}
				if _, err := c.Update(t.Context(), ref, m); err != nil {
					t.Errorf("%.40q, %.20q: %v", text, status, err)
				}
				if err := c.Reply(t.Context(), ref, m); err != nil {
					t.Errorf("%.40q, %.20q: %v", text, status, err)
				}
			}
		}
	}
	for _, m := range fake.Messages() {
		all := m.Text + unescaped(t, m.Blocks)
		for _, bad := range []string{"<!", "<@", "<#", "<mailto", "\u202e", "\x00"} {
			if strings.Contains(all, bad) {
				t.Errorf("%q is in %.400s", bad, all)
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

func TestSlacksDetailsAreInTheError(t *testing.T) {
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
	if !errors.As(err, &e) || !e.Temporary() || IsLost(err) || e.Status != 0 || strings.Contains(fmt.Sprintf("%v %+v", err, *e), "canary") {
		t.Errorf("got %v", err)
	}
}

func TestARateLimitAfterPostingIsFixedByAnUpdate(t *testing.T) {
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
