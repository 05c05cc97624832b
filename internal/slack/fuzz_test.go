package slack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	api "github.com/slack-go/slack"

	"github.com/getto-systems/hubrelay/internal/env"
)

// answering is a transport that gives every request one answer.
type answering struct {
	status           int
	retryAfter, body string
}

func (a answering) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: a.status, Status: fmt.Sprint(a.status),
		Header: http.Header{"Retry-After": {a.retryAfter}}, Body: io.NopCloser(strings.NewReader(a.body)),
	}, nil
}

func FuzzAnswer(f *testing.F) {
	for _, seed := range []answering{
		{200, "", `{"ok":true,"channel":"C1","ts":"1.2"}`},
		{200, "", `{"ok":true,"channel":"C1","ts":"1.2","message":[]}`},
		{200, "", `{"ok":false,"channel":"C1","ts":"1.2"}`},
		{200, "", `{"ok":"true","channel":"C1","ts":"1.2"}`},
		{200, "", `{"ok":false,"error":"not_in_channel"}`},
		{200, "", `{"ok":true,"error":"internal_error","channel":"C1","ts":"1.2"}`},
		{200, "", `{"ok":false,"error":"invalid_blocks","response_metadata":{"messages":["[ERROR] xoxb-canary-0123"]}}`},
		{200, "", `{"ok":false,"error":"xoxb-canary-0123"}`},
		{200, "", `{"ok":true`},
		{201, "", `{"ok":true,"channel":"C1","ts":"1.2"}`},
		{302, "", ""},
		{429, "30", `{"ok":false,"error":"ratelimited"}`},
		{429, "9223372036854775807", ""},
		{429, "Mon, 23 Nov 2099 00:00:00 GMT", "xoxb-canary-0123"},
		{503, "-1", "<html>"},
	} {
		f.Add(seed.status, seed.retryAfter, seed.body)
	}
	f.Fuzz(func(t *testing.T, status int, after, body string) {
		c := &Client{api: api.New(token, api.OptionAPIURL("https://slack.example/api/"),
			api.OptionHTTPClient(caller{&http.Client{Transport: answering{status, after, body}}, env.NewSecret(token)}))}
		var said struct {
			OK          bool
			Channel, TS string
		}
		_ = json.Unmarshal([]byte(body), &said)

		ref, err := c.Post(t.Context(), "C1", built)
		if err == nil {
			if status != 200 || !said.OK || ref == (Ref{}) || ref != (Ref{said.Channel, said.TS}) {
				t.Errorf("%d %q was taken for a message: %+v", status, body, ref)
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || ref != (Ref{}) {
			t.Fatalf("got %+v, %v", ref, err)
		}
		if e.RetryAfter < 0 || e.RetryAfter > time.Hour {
			t.Errorf("wait %v", e.RetryAfter)
		}
		if !e.Temporary() && (status == 429 || status >= 500 || e.Hint == "") || IsGone(err) && e.Temporary() && status == 200 {
			t.Errorf("%d: temporary %v, gone %v, %+v", status, e.Temporary(), IsGone(err), e)
		}
		if said.OK && status == 200 && e.Code == "" && !IsLost(err) || IsLost(err) && e.Code != "" && status < 500 {
			t.Errorf("%d: lost %v, %+v", status, IsLost(err), e)
		}
		if text := fmt.Sprintf("%v %+v %v", err, *e, e.Cause); strings.Contains(text, token) {
			t.Errorf("the token shows: %s", text)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add("promote", "failure", "ja", "acme/api", "1.4.0", "sha256:0123456789abcdef", "v1", "acme", "<!channel> & \"x\"", "https://gitlab.example/p/1|<>", "d1d1d1d1d1", "@here", 0)
	f.Add("release", "success", "en", "", "", "", "", "", strings.Repeat("&", 1100), "", "", "U0123", 3600)
	f.Add("promote", "waiting", "en", "a", "b", "", "", "", strings.Repeat("<", 1100), "", "", "S0123", 600)
	f.Add("promote", "dead", "ja", "`", "``", "", "", "", "```\n`", "", "", "U1> <!here", -1)
	f.Add("deploy", "odd", "fr", "`", " ", "\x00", "\xff", "<@U1>", "\u200b\n\t ", "http://[::1]:7/%zz?<a|b>#`", "\u3042\u3042", "W1", 1<<40)
	f.Fuzz(func(t *testing.T, event, status, language, repository, tag, digest, version, project, text, url, id, mention string, seconds int) {
		m := Message{
			Event: Event(event), Status: Status(status), Language: Language(language),
			Repository: repository, Tag: tag, Digest: digest, Version: version, Project: project,
			Text: text, PipelineURL: url, PromotionID: id, Mention: mention,
			Reason: tag, Hint: text, Words: text, Command: text, Attempts: seconds,
			Since: time.Duration(seconds) * time.Second, Silence: time.Duration(seconds) * time.Second,
		}
		checkBlocks(t, m.blocks())
		reply := m.replyBlocks()
		if ping := m.mention(); ping != "" {
			first := reply[0].(*api.SectionBlock)
			if strings.Count(first.Text.Text, ping) != 1 || !mentions.MatchString(ping) || !m.Status.Bad() {
				t.Errorf("%q pings in %q", ping, first.Text.Text)
			}
			first.Text.Text = strings.Replace(first.Text.Text, ping, "", 1)
		}
		checkBlocks(t, reply)
		for _, fallback := range []string{m.fallback(), strings.Replace(m.replyFallback(), m.mention(), "", 1)} {
			if strings.TrimSpace(fallback) == "" || strings.ContainsAny(fallback, "<>") || length(fallback) > 4000 {
				t.Errorf("the fallback is %q", fallback)
			}
		}
	})
}

var mentions = regexp.MustCompile(`^<(!here|!channel|@[UW][A-Z0-9]+|!subteam\^S[A-Z0-9]+)>$`)
