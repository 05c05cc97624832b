package httpclient_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/httpclient"
)

func TestClientIsBoundedAndFollowsNothing(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, httpclient.MaxAnswer+1)) })
	mux.HandleFunc("/fits", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, httpclient.MaxAnswer)) })
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/fits", http.StatusTemporaryRedirect)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	get := func(path string) (int, int, error) {
		res, err := httpclient.New(time.Minute).Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, len(body), err
	}
	if _, n, err := get("/fits"); err != nil || n != httpclient.MaxAnswer {
		t.Errorf("an answer at the limit: %d bytes, %v", n, err)
	}
	if _, _, err := get("/large"); err == nil {
		t.Error("an answer over the limit was cut or taken")
	}
	if status, _, _ := get("/redirect"); status != http.StatusTemporaryRedirect {
		t.Errorf("a redirect ended with %d", status)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{
		"": 0, "42": 42 * time.Second, "-1": 0, "x": 0, "7200": time.Hour, "99999999999999999999": 0,
		time.Now().Add(30*time.Minute + 400*time.Millisecond).UTC().Format(http.TimeFormat): 30 * time.Minute,
		"Mon, 02 Jan 2006 15:04:05 GMT": 0,
	} {
		got := httpclient.RetryAfter(http.Header{"Retry-After": {value}})
		if got < want-2*time.Second || got > want {
			t.Errorf("RetryAfter(%q) = %v, want %v", value, got, want)
		}
	}
}

func TestUnansweredShowsNoURL(t *testing.T) {
	t.Parallel()
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(hanging.Close)
	breaking := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(breaking.Close)
	encrypted := httptest.NewUnstartedServer(nil)
	encrypted.Config.ErrorLog = log.New(io.Discard, "", 0)
	encrypted.StartTLS()
	t.Cleanup(encrypted.Close)
	for _, c := range []struct {
		url, want string
		timeout   time.Duration
	}{
		{hanging.URL, "no answer in time", 50 * time.Millisecond},
		{breaking.URL, "the connection was closed", time.Minute},
		{encrypted.URL, "certificate", time.Minute},
		{"http://127.0.0.1:1", "connection refused", time.Minute},
		{"http://\x7f", "no answer that can be read", time.Minute},
	} {
		_, err := httpclient.New(c.timeout).Get(c.url + "/canary?canary")
		if got := httpclient.Unanswered(err); !strings.Contains(got.Error(), c.want) || strings.Contains(got.Error(), "canary") {
			t.Errorf("%s: got %v, want %q", c.url, got, c.want)
		}
	}
}
