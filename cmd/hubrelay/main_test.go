package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// screen is what the command wrote so far.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *screen) wait(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(s.String(), want) {
			return
		}
	}
	t.Fatalf("%q does not come:\n%s", want, s)
}

// The curl that is printed works as it stands, in a shell.
func TestLocalPrintsACurlThatWorks(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var (
		out  screen
		done = make(chan error)
	)
	go func() { done <- run(ctx, []string{"local", "-addr", "127.0.0.1:0", "-language", "ja", "-fast"}, &out) }()
	out.wait(t, "/fail")
	curl := regexp.MustCompile(`(?s)curl -d .*?\n.*?\n`).FindString(out.String())
	if msg, err := exec.Command("sh", "-c", curl).CombinedOutput(); err != nil || !strings.Contains(string(msg), "message_id") {
		t.Errorf("%s: %v %s", curl, err, msg)
	}
	out.wait(t, "pipeline created")
	out.wait(t, "⏳")
	out.wait(t, "✅")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPushSendsWhatDockerHubSends(t *testing.T) {
	t.Parallel()
	var got dockerhub.Push
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var err error
		if got, err = dockerhub.Parse(body, time.Now()); err != nil || r.URL.Path != "/canary" {
			http.Error(w, fmt.Sprint(err), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"id":"1"}`)
	}))
	t.Cleanup(server.Close)
	var out bytes.Buffer
	if err := run(t.Context(), []string{"push", server.URL + "/canary", "acme/api:1.4.0"}, &out); err != nil {
		t.Fatal(err)
	}
	if got.Repository != "acme/api" || got.Tag != "1.4.0" || !strings.Contains(out.String(), "202 Accepted") {
		t.Errorf("sent %+v, wrote %s", got, out.String())
	}
}

func TestMistakesOfTheCommandLine(t *testing.T) {
	t.Parallel()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }))
	t.Cleanup(refusing.Close)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"nothing"}, `no command "nothing"`},
		{[]string{"push", "x"}, "takes a URL and REPOSITORY:TAG"},
		{[]string{"push", "http://x/canary", "acme/api"}, "is not REPOSITORY:TAG"},
		{[]string{"push", "http://x/canary", "A:1"}, "is not a repository"},
		{[]string{"push", "http://x/canary", "acme/api:a b"}, "is not a tag"},
		{[]string{"push", "http://x/canary\x00", "acme/api:1"}, "the URL cannot be read"},
		{[]string{"push", "http://127.0.0.1:1/canary", "acme/api:1"}, "send the webhook"},
		{[]string{"push", refusing.URL + "/canary", "acme/api:1"}, "was not accepted"},
		{[]string{"local", "x"}, `local takes no "x"`},
		{[]string{"local", "-routes", "/does/not/exist"}, "read the routes"},
		{[]string{"local", "-addr", "127.0.0.1:0", "-language", "fr"}, "LANGUAGE"},
	} {
		err := run(t.Context(), c.args, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: got %v, want %q", c.args, err, c.want)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"help"}, {"-h"}, {"local", "-h"}, {"push", "-h"}} {
		var out bytes.Buffer
		if err := run(t.Context(), args, &out); err != nil && !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%q: %v", args, err)
		}
		if !strings.Contains(out.String(), "Usage: hubrelay") {
			t.Errorf("%q says %q", args, out.String())
		}
	}
}

func TestWhatComesAgainIsCounted(t *testing.T) {
	t.Parallel()
	var out screen
	p := &printer{out: &out, start: time.Now()}
	tag := "sha256-" + strings.Repeat("a", 64) + ".sig"
	for range 6 {
		p.print(sandbox.Event{At: time.Now(), Who: "webhook", Image: "acme/api:" + tag, What: "push queued"})
	}
	out.wait(t, "(5 more)")
	p.print(sandbox.Event{At: time.Now(), Who: "slack", What: "hears", Detail: "a\nb"})
	out.wait(t, "hears: a b")
	if n := strings.Count(out.String(), "\n"); n != 3 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
	if !strings.Contains(out.String(), "acme/api:sha256-aaaaaaaaaaaa….sig") {
		t.Errorf("a long tag is not shortened:\n%s", out.String())
	}
}
