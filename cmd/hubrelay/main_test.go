package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

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

func TestWhichCommandWasMeant(t *testing.T) {
	t.Parallel()
	words := []string{"check", "local", "push", "reconcile", "replay", "status"}
	for typed, want := range map[string]string{
		"stats": "status", "lokal": "local", "relpay": "replay", "reply": "replay", "pus": "push", "chekc": "check",
		"x": "", "": "", "upgrade": "", "pull": "push", "help": "",
	} {
		if got := nearest(typed, words); got != want {
			t.Errorf("%q: got %q, want %q", typed, got, want)
		}
	}
}

func TestRepeatedLinesAreCounted(t *testing.T) {
	t.Parallel()
	var out screen
	p := &printer{out: &out, start: time.Now()}
	tag := "sha256-" + strings.Repeat("a", 64) + ".sig"
	for range 6 {
		p.print(sandbox.Event{At: time.Now(), Who: "webhook", Image: "acme/api:" + tag, What: "push queued"})
	}
	out.wait(t, "(5 more)")
	p.print(sandbox.Event{At: time.Now(), Who: "slack", What: "shows a message", Detail: "a\nb"})
	out.wait(t, "shows a message: a b")
	if n := strings.Count(out.String(), "\n"); n != 3 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
	if !strings.Contains(out.String(), "acme/api:sha256-aaaaaaaaaaaa….sig") {
		t.Errorf("a long tag is not shortened:\n%s", out.String())
	}
}
