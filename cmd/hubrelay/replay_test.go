package main

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
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
		s.GitLab.Fail(gitlabtest.Failure{Status: 404, Body: `{"message":"404 Not Found"}`})
		before := len(s.Slack.Messages())
		pushOnce(t, s, image)
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

// pushOnce pushes an image of one architecture, for which Docker Hub calls once:
// of several webhooks one may come after the first has failed, and is a push of
// its own then.
func pushOnce(t *testing.T, s *sandbox.Sandbox, image string) {
	t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://")+"/"+image, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
}

func TestReplayChooses(t *testing.T) {
	server := pstest.NewServer()
	t.Cleanup(func() { _ = server.Close() })
	const topic, subscription = "projects/demo/topics/hub-dead-letters", "projects/demo/subscriptions/hub-dead-letters"
	if _, err := server.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	if _, err := server.GServer.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: subscription, Topic: topic}); err != nil {
		t.Fatal(err)
	}
	for _, letter := range []struct {
		tag        string
		age        time.Duration
		attributes map[string]string
	}{
		{"1", 8 * time.Minute, map[string]string{"reason": "not_found", "hint": "Check it."}},
		{"2", 0, map[string]string{"reason": "not_found", "hint": "Check it."}},
		{"3", 0, map[string]string{"reason": "unauthorized"}},
		{"4", 0, map[string]string{"CloudPubSubDeadLetterSourceDeliveryCount": "50"}},
		{"5", 0, map[string]string{"reason": "not_found", "replayed_at": "2026-11-22T10:00:00Z", "CloudPubSubDeadLetterSourceDeliveryCount": "50"}},
	} {
		at := time.Now().Add(-letter.age)
		server.SetTimeNowFunc(func() time.Time { return at })
		server.Publish(topic, fmt.Appendf(nil, `{"id":"%s","repository":"acme/api","tag":"%[1]s"}`, letter.tag), letter.attributes)
	}
	server.SetTimeNowFunc(time.Now)
	server.Publish(topic, []byte("no push"), map[string]string{"reason": "malformed"})
	t.Setenv("PUBSUB_EMULATOR_HOST", server.Addr)
	for args, wants := range map[string][]string{
		"-reason not_found -limit 2":             {"acme/api:1", "acme/api:2", "not_found: Check it.", "2 chosen"},
		"-reason not_found -since 5m -match *:2": {"acme/api:2", "6 dead letters seen, 1 chosen", server.Addr},
		"-reason gave_up --limit=2":              {"acme/api:4", "acme/api:5", "gave_up after 50 attempts", "2 chosen"},
		"-since 5m -match */api -limit 4":        {"acme/api:2", "acme/api:3", "acme/api:4", "acme/api:5", "4 chosen"},
		"-reason nosuch":                         {"Their reasons: gave_up (2), malformed (1), not_found (2), unauthorized (1)", "6 dead letters seen, 0 chosen"},
	} {
		got := said(t, append([]string{"replay", "-subscription", subscription}, strings.Fields(args)...)...)
		contains(t, got, wants...)
		for _, tag := range []string{"1", "2", "3", "4", "5"} {
			image := "acme/api:" + tag
			if shown := strings.Contains(got, image); shown != slices.Contains(wants, image) {
				t.Errorf("%s: %s is shown: %t\n%s", args, image, shown, got)
			}
		}
	}
}

func TestNothingIsSaidOfAPubSubThatDoesNotAnswer(t *testing.T) {
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
	var out bytes.Buffer
	err := run(t.Context(), []string{"replay", "-subscription", "projects/p/subscriptions/hub-dead-letters"}, &out)
	if err == nil || !strings.Contains(err.Error(), "does not answer") || !strings.Contains(err.Error(), "PUBSUB_EMULATOR_HOST, 127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
	if out.Len() > 0 {
		t.Errorf("it says %s", out.String())
	}
}

func TestStatusOfAFirestoreThatDoesNotAnswer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for _, host := range []string{"127.0.0.1:1", silent.Addr().String()} {
		t.Setenv("FIRESTORE_EMULATOR_HOST", host)
		begun := time.Now()
		var out bytes.Buffer
		err := run(t.Context(), []string{"status", "-ledger", "firestore:projects/p/databases/d"}, &out)
		if err == nil || !strings.Contains(err.Error(), "FIRESTORE_EMULATOR_HOST, "+host) || !strings.Contains(err.Error(), "has not answered for 15s") {
			t.Errorf("%s: got %v", host, err)
		}
		if took := time.Since(begun); took > 25*time.Second || out.Len() > 0 {
			t.Errorf("%s: after %s it says %s", host, took, out.String())
		}
	}
}
