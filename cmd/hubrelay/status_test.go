package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/ledger"
)

// promotionIn makes a promotion of acme/api with the tag, in a state that the
// rules of the ledger have led it to.
func promotionIn(t *testing.T, l *ledger.Ledger, tag, state string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	m := ledger.Message{ID: "id-" + tag, QueuedAt: time.Now(), ReceivedAt: time.Now()}
	look := ledger.Look{Message: m, Route: "acme/*", NewID: ledger.NewID(), Lease: time.Minute, Digest: "sha256:" + strings.Repeat("a", 64)}
	if state == "waiting" {
		look.Digest, look.Reason, look.Hint = "", "registry_denied", "Let the account read the repository."
	}
	s, err := l.Read(ctx, ledger.Key{Repository: "acme/api", Tag: tag})
	must(err)
	d, err := s.Settle(ctx, look)
	must(err)
	switch state {
	case "waiting", "starting":
		return
	case "dead":
		must(l.Answered(ctx, d.Claim, ledger.Answer{Message: m, Dead: true, Reason: "not_found", Hint: "Check the project path.", Words: "404 Not Found"}))
		return
	}
	must(l.Answered(ctx, d.Claim, ledger.Answer{Created: true, Pipeline: ledger.Pipeline{ProjectID: 7, ID: 42, URL: "https://gitlab.example/p/" + tag}}))
	o := ledger.Outboxes{Lease: time.Minute, SilentAfter: time.Nanosecond}
	switch state {
	case "triggered":
	case silent:
		showing, err := l.Tick(ctx, d.Claim.ID, o)
		must(err)
		if showing == nil {
			t.Fatal("there is no silence to show")
		}
	default:
		out, err := l.Report(ctx, d.Claim.ID, ledger.Report{State: ledger.State(state)}, o)
		must(err)
		if state == "promoted" { // and Slack shows it
			_, err = l.Shown(ctx, *out.Showing, ledger.Result{Channel: "C0IMAGES", TS: "1.000001", Message: true, Reply: true}, o)
			must(err)
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
	states := []string{silent}
	for _, s := range ledger.States {
		states = append(states, string(s))
	}
	for _, state := range states {
		promotionIn(t, l, "is-"+state, state)
	}
	if _, err := l.Note(t.Context(), ledger.Promotion{
		ID: ledger.NewID(), Event: ledger.Release, Key: ledger.Key{Repository: "acme/api"}, State: ledger.Promoted, Version: "1.0",
	}, ledger.Outboxes{Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}

	shown := said(t, "status", "-ledger", name)
	contains(t, shown, "IMAGE", "STATE", "FOR", "REQUESTS", "REASON", "PIPELINE",
		"https://gitlab.example/p/is-silent", "pipeline_failed",
		"\nregistry_denied: Let the account read the repository.\n", "\nnot_found: Check the project path.\n")
	for _, state := range states {
		if !slices.ContainsFunc(strings.Split(shown, "\n"), func(line string) bool {
			words := strings.Fields(line)
			return len(words) == 6 && words[0] == "acme/api:is-"+state && words[1] == state
		}) {
			t.Errorf("%s is not shown as that in\n%s", state, shown)
		}
	}
	if strings.Contains(shown, "release") {
		t.Errorf("a note is shown that nobody asked for:\n%s", shown)
	}
	contains(t, said(t, "status", "-ledger", name, "-notes"), "release acme/api ")

	var found []promotion
	list := func(args ...string) []promotion {
		t.Helper()
		found = nil
		if err := json.Unmarshal([]byte(said(t, append([]string{"status", "-ledger", name, "-json"}, args...)...)), &found); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if list("-state", "failed,silent", "-match", "acme/*:is-*"); len(found) != 2 || found[0].State != "failed" || found[1].State != silent {
		t.Errorf("got %+v", found)
	}
	if list("-state", "dead"); len(found) != 1 || len(found[0].PromotionID) != 32 || found[0].Digest == "" || found[0].Requests != 1 ||
		found[0].Reason != "not_found" || found[0].Hint != "Check the project path." || found[0].Words != "404 Not Found" || found[0].Shown {
		t.Errorf("got %+v", found)
	}
	if list("-state", "promoted"); len(found) != 1 || !found[0].Shown || found[0].PipelineURL != "https://gitlab.example/p/is-promoted" {
		t.Errorf("got %+v", found)
	}
	contains(t, said(t, "status", "-ledger", name, "-match", "other/*"), "no such promotions")
	contains(t, said(t, "status", "-ledger", name, "-match", "other/*", "-json"), "[]")
	contains(t, said(t, "status", "-ledger", name, "-since", "0s"), "no such promotions")
	// What reconcile does not cover.
	contains(t, said(t, "status", "-ledger", name), "Docker Hub has never been asked")
	for keys, want := range map[string]string{
		"acme/* acme/web":       "",
		"acme/* * */api */web*": "\nMissed pushes of *, */api, */web* are looked for in the namespaces that other routes name only: acme.\n",
		"*":                     "\nMissed pushes of * are looked for in the namespaces that other routes name only: none.\n",
	} {
		rules := map[string]string{}
		for _, key := range strings.Fields(keys) {
			rules[key] = "[]"
		}
		if p, err := l.Resume(t.Context(), time.Minute, rules); err != nil {
			t.Fatal(err)
		} else if err = l.Pause(t.Context(), p, 0); err != nil {
			t.Fatal(err)
		}
		shown := said(t, "status", "-ledger", name)
		contains(t, shown, want)
		if want == "" && strings.Contains(shown, "Missed pushes") {
			t.Errorf("everything is covered, and it says\n%s", shown)
		}
	}
	for _, args := range [][]string{
		{"status"}, {"status", "-ledger", "memory:"}, {"status", "-ledger", "firestore:x"}, {"status", "-ledger", name, "-state", "x"},
		{"status", "-ledger", name, "-match", "["}, {"status", "-ledger", name, "x"},
	} {
		if err := run(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

func TestHowLongIsSaidInTwoUnits(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 3*time.Hour + 5*time.Minute: "3h5m", 167 * time.Hour: "6d23h",
	} {
		if got := howLong(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}
