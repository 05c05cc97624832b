package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/functions/webhook"
	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/gcplog"
)

const (
	token    = "canary-token-5f1c9d7ab2"
	oldToken = "canary-token-0e44d7c1f9"
)

// queue keeps what was published.
type queue struct {
	data       [][]byte
	attributes []map[string]string
	err        error
	cancelled  bool
}

func (q *queue) Publish(ctx context.Context, data []byte, attributes map[string]string) (string, error) {
	q.cancelled = ctx.Err() != nil
	if q.err != nil {
		return "", q.err
	}
	q.data = append(q.data, data)
	q.attributes = append(q.attributes, attributes)
	return fmt.Sprintf("m%d", len(q.data)), nil
}

func handler(t *testing.T, q *queue, log io.Writer) http.Handler {
	t.Helper()
	tokens, err := auth.ParseTokens(token + "\n" + oldToken)
	if err != nil {
		t.Fatal(err)
	}
	return webhook.New(tokens, q, gcplog.New(log, "p"))
}

func payload(t testing.TB) []byte {
	t.Helper()
	body, err := os.ReadFile("../../internal/dockerhub/testdata/documented-today.json")
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// unread fails the test if the body is read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestEveryRowOfTheTable(t *testing.T) {
	t.Parallel()
	push := string(payload(t))
	for _, c := range []struct {
		name         string
		method, path string
		body         io.Reader
		queueErr     error
		status       int
		answer       string // a part of it
		logged       string // a part of the line
		header       string
		value        string
		published    int
	}{
		{name: "ready", method: "GET", path: "/ready", status: 200, answer: "ok"},
		{name: "a push", path: "/" + token, body: strings.NewReader(push), status: 202,
			answer: `{"id":"02aa2ad732a2997ef912ca44a69013ab67707a727b9de3e42a86bb9f8c35f94f","message_id":"m1"}`, published: 1},
		{name: "a push with the other token", path: "/" + oldToken, body: strings.NewReader(push), status: 202, answer: `"message_id":"m1"`, published: 1},
		{name: "a push without a tag", path: "/" + token, body: strings.NewReader(`{"repository":{"repo_name":"acme/api"}}`),
			status: 202, answer: `{"ignored":"no_tag"}`},
		{name: "a push with a digest as its tag", path: "/" + token,
			body:   strings.NewReader(`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"sha256:` + strings.Repeat("a", 64) + `"}}`),
			status: 202, answer: `{"ignored":"no_tag"}`},
		{name: "a push of a Helm chart", path: "/" + token,
			body:   strings.NewReader(`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"0.1.12","media_type":"application/vnd.cncf.helm.config.v1+json"}}`),
			status: 202, answer: `{"ignored":"not_an_image"}`, logged: `"repository":"acme/api","tag":"0.1.12","outcome":"ignored","reason":"not_an_image"`},
		{name: "a signature's tag", path: "/" + token,
			body:   strings.NewReader(`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"sha256-` + strings.Repeat("a", 64) + `.sig","media_type":"application/vnd.oci.image.config.v1+json"}}`),
			status: 202, answer: `"message_id":"m1"`, published: 1},
		{name: "a push after a byte order mark", path: "/" + token, body: strings.NewReader("\ufeff" + push), status: 202, answer: `"message_id":"m1"`, published: 1},
		{name: "a slash after the token", path: "/" + token + "/", body: strings.NewReader(push), status: 202, answer: `"message_id":"m1"`, published: 1},
		{name: "two slashes after the token", path: "/" + token + "//", body: unread{t}, status: 401, answer: "error"},
		{name: "another method", method: "GET", path: "/" + token, status: 405, answer: "error", header: "Allow", value: "POST"},
		{name: "another method on the root", method: "PUT", path: "/", status: 405, answer: "error", header: "Allow", value: "POST"},
		{name: "no token", path: "/", body: unread{t}, status: 401, answer: `{"error":"the URL has no valid token"}`},
		{name: "a wrong token", path: "/wrong", body: unread{t}, status: 401, answer: `{"error":"the URL has no valid token"}`},
		{name: "a token and more", path: "/" + token + "/x", body: unread{t}, status: 401, answer: `{"error":"the URL has no valid token"}`},
		{name: "ready is no token", path: "/ready", body: unread{t}, status: 401, answer: "error"},
		{name: "a body over 1 MiB", path: "/" + token, body: strings.NewReader(strings.Repeat(" ", 2<<20) + push), status: 413, answer: "over 1048576 bytes"},
		{name: "not JSON", path: "/" + token, body: strings.NewReader("tag=1"), status: 400, answer: "not a JSON object"},
		{name: "no repository", path: "/" + token, body: strings.NewReader(`{"push_data":{"tag":"1"}}`), status: 400, answer: "repository is missing"},
		{name: "a name outside the grammar", path: "/" + token, body: strings.NewReader(`{"repository":{"repo_name":"../x"},"push_data":{"tag":"1"}}`), status: 400, answer: "is not a repository"},
		{name: "a tag outside the grammar", path: "/" + token, body: strings.NewReader(`{"repository":{"repo_name":"a/b"},"push_data":{"tag":"$(x)"}}`), status: 400, answer: "is not a tag"},
		{name: "Pub/Sub refuses", path: "/" + token, body: strings.NewReader(push), queueErr: errors.New("private cause"), status: 503,
			answer: "could not be queued", header: "Retry-After", value: "30"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.method == "" {
				c.method = "POST"
			}
			var log bytes.Buffer
			q := &queue{err: c.queueErr}
			w := httptest.NewRecorder()
			handler(t, q, &log).ServeHTTP(w, httptest.NewRequest(c.method, c.path, c.body))
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.answer) || w.Header().Get(c.header) != c.value {
				t.Errorf("got %d %s %v", w.Code, w.Body, w.Header())
			}
			if !strings.Contains(log.String(), c.logged) {
				t.Errorf("logged %s", log.String())
			}
			if len(q.data) != c.published {
				t.Errorf("%d messages were published", len(q.data))
			}
			if strings.Contains(w.Body.String()+log.String(), "canary") {
				t.Errorf("the token shows in %s or %s", w.Body, log.String())
			}
			if strings.Contains(w.Body.String(), "private") {
				t.Errorf("the cause shows in %s", w.Body)
			}
		})
	}
}

func TestTheMessage(t *testing.T) {
	t.Parallel()
	q := &queue{}
	r := httptest.NewRequest("POST", "/"+token, bytes.NewReader(payload(t)))
	const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	r.Header.Set("Traceparent", traceparent)
	ctx, cancel := context.WithCancel(r.Context())
	cancel() // Docker Hub hung up
	w := httptest.NewRecorder()
	handler(t, q, io.Discard).ServeHTTP(w, r.WithContext(ctx))
	if q.cancelled {
		t.Error("a caller that hangs up takes its push along")
	}
	var message map[string]string
	if err := json.Unmarshal(q.data[0], &message); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"repository": "acme/api", "tag": "1.4.0", "pusher": "trustedbuilder", "pushed_at": "2014-12-03T00:22:41Z",
	} {
		if message[key] != want {
			t.Errorf("%s is %q, want %q", key, message[key], want)
		}
	}
	if len(message) != 6 || message["received_at"] == "" {
		t.Errorf("the message is %v", message)
	}
	push, err := dockerhub.Decode(q.data[0])
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"id": push.ID, "repository": "acme/api", "tag": "1.4.0", "source": "webhook", "traceparent": traceparent} {
		if got := q.attributes[0][key]; got != want {
			t.Errorf("attribute %s is %q, want %q", key, got, want)
		}
	}
	if len(q.attributes[0]) != 5 {
		t.Errorf("the attributes are %v", q.attributes[0])
	}
}

func TestARepeatedDeliveryHasTheSameID(t *testing.T) {
	t.Parallel()
	q := &queue{}
	h := handler(t, q, io.Discard)
	for range 2 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/"+token, bytes.NewReader(payload(t))))
	}
	if q.attributes[0]["id"] != q.attributes[1]["id"] {
		t.Errorf("got %v", q.attributes)
	}
	if _, ok := q.attributes[0]["traceparent"]; ok {
		t.Error("a request without a trace has one")
	}
}

func TestEverySettingIsChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		settings map[string]string
		want     []string
	}{
		{"nothing is set", nil, []string{"WEBHOOK_TOKENS: is required", "TOPIC: is required"}},
		{"a short token and a bad topic", map[string]string{"WEBHOOK_TOKENS": "canary", "TOPIC": "pushes"},
			[]string{"WEBHOOK_TOKENS: line 1 is shorter", "TOPIC: "}},
		{"a placeholder among good ones", map[string]string{"WEBHOOK_TOKENS": token + "\nchange-me-change-me-change-me", "TOPIC": "projects/p/topics/abc"},
			[]string{"WEBHOOK_TOKENS: line 2 is a placeholder"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := webhook.FromEnv(t.Context(), func(name string) string { return c.settings[name] })
			if err == nil {
				t.Fatal("the settings were taken")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in\n%v", want, err)
				}
			}
			if strings.Count(err.Error(), "\n") != len(c.want)-1 || strings.Contains(err.Error(), "canary") {
				t.Errorf("got\n%v", err)
			}
		})
	}
}

// BenchmarkHandler is the webhook's own time, with nothing behind it.
func BenchmarkHandler(b *testing.B) {
	tokens, err := auth.ParseTokens(token)
	if err != nil {
		b.Fatal(err)
	}
	h := webhook.New(tokens, instant{}, gcplog.New(io.Discard, "p"))
	body := payload(b)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/"+token, bytes.NewReader(body)))
	}
}

type instant struct{}

func (instant) Publish(context.Context, []byte, map[string]string) (string, error) { return "1", nil }
