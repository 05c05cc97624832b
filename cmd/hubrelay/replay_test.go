package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("%s: that does not come", what)
}

// said runs the command and returns what it writes.
func said(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("hubrelay %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

func contains(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

// What died is told in Slack with the command that replays it; the command
// shows it, and makes a pipeline of it once GitLab is well.
func TestReplay(t *testing.T) {
	s, err := sandbox.Start(t.Context(), sandbox.Config{Backoff: sandbox.Backoff{Min: 10 * time.Millisecond, Max: 100 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for _, image := range []string{"acme/api:2.0.0", "acme/api:2.1.0", "acme/web:1.0.0"} {
		// Whichever of the webhooks asks first is refused; the others wait for
		// it, and are its duplicates.
		s.GitLab.Fail(gitlabtest.Failure{Status: 404, Body: `{"message":"404 Not Found"}`})
		before := len(s.Slack.Messages())
		if _, err := s.Build(image); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the dead letter of "+image+" in Slack", func() bool { return len(s.Slack.Messages()) > before })
	}
	command := strings.Fields(s.ReplayCommand)
	host, ok := strings.CutPrefix(command[0], "PUBSUB_EMULATOR_HOST=")
	if !ok {
		t.Fatalf("the command is %q", s.ReplayCommand)
	}
	t.Setenv("PUBSUB_EMULATOR_HOST", host)
	args := command[4:] // after go run ./cmd/hubrelay

	for range 2 { // a dry run changes nothing
		contains(t, said(t, args...), "acme/api:2.0.0", "acme/api:2.1.0", "acme/web:1.0.0", "not_found",
			"Check the project path", "3 dead letters seen, 3 chosen: nothing was changed")
	}
	contains(t, said(t, append(args, "-match", "acme/api:2.*", "-limit", "1")...), "1 chosen: nothing was changed")
	contains(t, said(t, append(args, "-match", "acme/api", "-apply")...), "2 chosen: 2 queued again")
	left := said(t, append(args, "-apply", "-match", "acme/web:1.0.0")...)
	contains(t, left, "1 dead letters seen, 1 chosen: 1 queued again")
	contains(t, said(t, append(args, "-apply")...), "0 dead letters seen")

	eventually(t, "three signed images", func() bool {
		signed := 0
		for _, m := range s.Slack.Messages() {
			if strings.Contains(m.Text, "signed") && strings.Contains(m.Text, ":white_check_mark:") && m.ThreadTS == "" {
				signed++
			}
		}
		return signed == 3
	})
	if n := len(s.GitLab.Pipelines()); n != 3 {
		t.Errorf("there are %d pipelines", n)
	}
}

func TestReplayRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, says string }{
		{"", "-subscription"},
		{"-subscription x", "-topic"},
		{"-subscription projects/p/subscriptions/dead-letters x", "no arguments"},
		{"-subscription projects/p/subscriptions/x -topic y", "-topic"},
		{"-subscription projects/p/topics/x -topic projects/p/topics/y12", "not the full name of a subscription"},
		{"-subscription projects/p/subscriptions/dead-letters -match [", "-match"},
		{"-subscription projects/p/subscriptions/dead-letters -limit -1", "-subscription"},
	} {
		err := run(t.Context(), append([]string{"replay"}, strings.Fields(c.args)...), &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v", c.args, err)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Setenv("FIRESTORE_EMULATOR_HOST", gcptest.Firestore(t))
	const name = "firestore:projects/demo/databases/status"
	l, err := ledger.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, state := range []ledger.State{ledger.Claimed, ledger.Triggered, ledger.Running, ledger.Promoted, ledger.Failed, ledger.Silent} {
		id := fmt.Sprint("d", i)
		c, err := l.Claim(t.Context(), ledger.Push{ID: id, Route: "acme/*", Repository: "acme/api", Tag: "1." + fmt.Sprint(i)})
		must(err)
		if state == ledger.Claimed {
			continue
		}
		must(l.Triggered(t.Context(), c, "https://gitlab.example/p/"+id))
		switch state {
		case ledger.Silent:
			telling, err := l.ReportSilence(t.Context(), id, 0)
			must(err)
			must(l.Told(t.Context(), telling, ledger.Message{TS: "1.1", Tells: ledger.Silent}))
		case ledger.Triggered:
		default:
			_, err := l.Report(t.Context(), ledger.Report{ID: id, State: state})
			must(err)
		}
	}
	contains(t, said(t, "status", "-ledger", name),
		"acme/api:1.0", "claimed", "triggered", "running", "promoted", "failed", "pipeline_failed", "silent", "https://gitlab.example/p/d5")

	var found []struct{ Tag, State string }
	must(json.Unmarshal([]byte(said(t, "status", "-ledger", name, "-json", "-state", "failed,silent", "-match", "acme/*:1.*")), &found))
	if len(found) != 2 || found[0].Tag != "1.5" || found[0].State != "silent" || found[1].State != "failed" {
		t.Errorf("got %+v", found)
	}
	contains(t, said(t, "status", "-ledger", name, "-match", "other/*"), "no such promotions")
	contains(t, said(t, "status", "-ledger", name, "-match", "other/*", "-json"), "[]")
	contains(t, said(t, "status", "-ledger", name, "-since", "0s"), "no such promotions")
	for _, args := range [][]string{
		{"status"}, {"status", "-ledger", "memory:"}, {"status", "-ledger", "firestore:x"}, {"status", "-ledger", name, "-state", "x"},
		{"status", "-ledger", name, "-match", "["}, {"status", "-ledger", name, "x"},
	} {
		if err := run(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}
