package slack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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
		c := &Client{api.New(token, api.OptionAPIURL("https://slack.example/api/"),
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
		if !e.Temporary() && (status == 429 || status >= 500) || e.Temporary() && status == 200 && e.Hint != "" {
			t.Errorf("%d: temporary %v, %+v", status, e.Temporary(), e)
		}
		if text := fmt.Sprintf("%v %+v %v", err, *e, e.Cause); strings.Contains(text, token) {
			t.Errorf("the token shows: %s", text)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add("promote", "failure", "ja", "acme/api", "1.4.0", "sha256:0123456789abcdef", "v1", "acme", "<!channel> & \"x\"", "https://gitlab.example/p/1|<>", "d1d1d1d1d1")
	f.Add("release", "success", "en", "", "", "", "", "", strings.Repeat("&", 2000), "", "")
	f.Add("deploy", "odd", "fr", "`", " ", "\x00", "\xff", "<@U1>", "\u200b\n\t ", "http://[::1]:7/%zz?<a|b>#`", "\u3042\u3042")
	f.Fuzz(func(t *testing.T, event, status, language, repository, tag, digest, version, project, text, url, id string) {
		m := Message{
			Event: Event(event), Status: Status(status), Language: Language(language),
			Repository: repository, Tag: tag, Digest: digest, Version: version, Project: project,
			Text: text, PipelineURL: url, DeliveryID: id,
		}
		checkBlocks(t, m.blocks())
		checkBlocks(t, m.replyBlocks())
		for _, fallback := range []string{m.fallback(), m.replyFallback()} {
			if strings.TrimSpace(fallback) == "" || strings.ContainsAny(fallback, "<>") {
				t.Errorf("the fallback is %q", fallback)
			}
		}
	})
}
