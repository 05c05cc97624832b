package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
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
	out.wait(t, "/api/push")
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
	if got.Repository != "acme/api" || got.Tag != "1.4.0" || !strings.Contains(out.String(), "202 Accepted") || !strings.Contains(out.String(), "asks the registry for acme/api:1.4.0") {
		t.Errorf("sent %+v, wrote %s", got, out.String())
	}
}

// Each mistake is told in one line, which names what is wrong and what to do.
func TestMistakesOfTheCommandLine(t *testing.T) {
	t.Parallel()
	answering := func(status int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(s.Close)
		return s.URL
	}
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = occupied.Close() })
	const letters = "projects/p/subscriptions/hub-dead-letters"
	for _, c := range []struct {
		args  string
		wants []string
	}{
		{"nothing", []string{`no command "nothing"`, "hubrelay help"}},
		{"stauts", []string{`no command "stauts"`, "did you mean status?"}},
		{"pusch http://x/canary acme/api:1", []string{`"pusch"`, "did you mean push?"}},
		{"Replay", []string{"did you mean replay?"}},

		{"push", []string{"URL and REPOSITORY:TAG", "0 arguments"}},
		{"push x", []string{"URL and REPOSITORY:TAG", "1 arguments"}},
		{"push notaurl acme/api:1", []string{"first argument is no URL", "https://HOST/TOKEN"}},
		{"push hub.example/canary acme/api:1", []string{"first argument is no URL"}},
		{"push ftp://hub.example/canary acme/api:1", []string{"first argument is no URL"}},
		{"push https:///canary acme/api:1", []string{"first argument is no URL"}},
		{"push http://x/canary\x00 acme/api:1", []string{"first argument is no URL"}},
		{"push https://hub.example acme/api:1", []string{"the URL has no token", "https://HOST/TOKEN"}},
		{"push https://hub.example/ acme/api:1", []string{"the URL has no token"}},
		{"push acme/api:1 https://hub.example/canary", []string{"second argument is a URL"}},
		{"push http://x/canary acme/api", []string{`"acme/api" is not REPOSITORY:TAG`}},
		{"push http://x/canary A:1", []string{"is not a repository"}},
		{"push http://x/canary acme/api:a/b", []string{"is not a tag"}},
		{"push http://127.0.0.1:1/canary acme/api:1", []string{"send the webhook", "connection refused"}},
		{"push " + answering(401) + "/canary acme/api:1", []string{"was not accepted", "WEBHOOK_TOKENS"}},
		{"push " + answering(404) + "/canary acme/api:1", []string{"was not accepted", "no webhook of hubrelay"}},
		{"push " + answering(503) + "/canary acme/api:1", []string{"was not accepted"}},
		{"push -x http://x/canary acme/api:1", []string{"not defined: -x", "hubrelay push -h"}},

		{"local x", []string{`no arguments, and "x" is one`}},
		{"local -routes /does/not/exist", []string{"-routes", "/does/not/exist"}},
		{"local -addr 127.0.0.1:0 -language fr", []string{"LANGUAGE"}},
		{"local -addr " + occupied.Addr().String(), []string{"-addr", occupied.Addr().String(), "already listens"}},
		{"local -addr nowhere", []string{"-addr", "nowhere"}},
		{"local -runner nosuch.yml", []string{"-runner", "nosuch.yml", "templates/promote.yml"}},
		{"local -slack", []string{"-slack", "-routes"}},
		{"local -gitlab-url https://gitlab.example", []string{"-gitlab-url", "-routes"}},
		{"local -registry https://registry.example", []string{"-registry", "-gitlab-url"}},
		{"local -hub ACME/api", []string{"-hub", "ACME/api"}},
		{"local -hub acme/api,", []string{"-hub"}},
		{"local -hub acme/api -runner templates/promote.yml", []string{"-runner", "-hub"}},
		{"local -public-url https://hub.example", []string{"-public-url", "-gitlab-url"}},

		{"replay", []string{"-subscription is missing", "dead_letter_subscription"}},
		{"replay -subscription foo", []string{"-subscription", `"foo" is not the full name of a subscription`, "projects/PROJECT/subscriptions/"}},
		{"replay -subscription projects/p/topics/hub-dead-letters", []string{"-subscription", "is a topic"}},
		{"replay -subscription " + letters + "-notify", []string{"-subscription", "pushes dead letters to Notify", `"` + letters + `"`}},
		{"replay -subscription projects/p/subscriptions/mine", []string{"-topic is missing", "NAME-dead-letters"}},
		{"replay -subscription projects/p/subscriptions/mine -topic y", []string{"-topic", `"y" is not the full name of a topic`}},
		{"replay -subscription " + letters + " x", []string{`no arguments, and "x" is one`}},
		{"replay -subscription " + letters + " -match [", []string{"-match", `"["`, "acme/*:1.*"}},
		{"replay -subscription " + letters + " -match acme/api:[", []string{"-match"}},
		{"replay -subscription " + letters + " -limit -1", []string{"-limit is -1"}},
		{"replay -subscription " + letters + " -limit many", []string{"-limit", "many"}},
		{"replay -subscription " + letters + " -since yesterday", []string{"-since", `"yesterday"`, "48h"}},
		{"replay -subscription " + letters + " -since -1h", []string{"-since", "48h"}},
		{"replay -aply", []string{"not defined: -aply", "hubrelay replay -h"}},

		{"reconcile", []string{"-since is missing", "72h"}},
		{"reconcile -since 0s", []string{"-since is missing"}},
		{"reconcile -since yesterday", []string{"-since", `"yesterday"`}},
		{"reconcile -since 72h", []string{"-ledger is missing"}},
		{"reconcile -since 72h -ledger memory:x", []string{"-ledger", "firestore:projects/"}},
		{"reconcile -since 72h -ledger firestore:x", []string{"-routes is missing"}},
		{"reconcile -since 72h -ledger firestore:projects/p/databases/d -apply", []string{"-topic is missing"}},
		{"reconcile -since 72h -ledger firestore:projects/p/databases/d -topic x -apply", []string{"-routes is missing"}},
		{"reconcile -since 72h -ledger firestore:projects/p/databases/d -routes /does/not/exist", []string{"-routes", "/does/not/exist"}},
		{"reconcile -since 72h x", []string{`no arguments, and "x" is one`}},

		{"status -ledger projects/P", []string{"-ledger", `"projects/P" is not firestore:projects/PROJECT/databases/DATABASE`}},
		{"status -ledger memory:x", []string{"-ledger", "memory"}},
		{"status -ledger firestore:x", []string{"-ledger", "projects/PROJECT/databases/DATABASE"}},
		{"status -ledger firestore:projects/p/databases/d x", []string{`no arguments, and "x" is one`}},
		{"status -ledger firestore:projects/p/databases/d -match [", []string{"-match"}},
		{"status -ledger firestore:projects/p/databases/d -since garbage", []string{"-since", "garbage", "48h"}},
		{"status -ledger firestore:projects/p/databases/d -state dying", []string{"-state", "dying", "promoted"}},
	} {
		var out bytes.Buffer
		err := run(t.Context(), strings.Fields(c.args), &out)
		if err == nil {
			t.Errorf("%s: was taken", c.args)
			continue
		}
		for _, want := range c.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", c.args, err, want)
			}
		}
		if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", c.args, err)
		}
		if strings.Contains(out.String(), "Usage") {
			t.Errorf("%s: the help buries the mistake: %s", c.args, out.String())
		}
	}
}

func TestFlagsHaveOneDashOrTwo(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"replay -limit -1 -subscription x", "replay --limit -1 --subscription x", "replay --limit=-1 -subscription=x"} {
		if err := run(t.Context(), strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), "-limit is -1") {
			t.Errorf("%s: %v", args, err)
		}
	}
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

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"help"}, {"-h"}, {"local", "-h"}, {"push", "-h"}, {"replay", "--help"}, {"status", "-h"}, {"reconcile", "-h"}} {
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
