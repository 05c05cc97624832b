package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
)

// elsewhere is a Docker Hub and its registry, which are not the sandbox's.
type elsewhere struct {
	t        *testing.T
	hub      *hubtest.Server
	api      string
	registry string
}

func newElsewhere(t *testing.T) elsewhere {
	t.Helper()
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	hub := hubtest.New()
	api := httptest.NewServer(hub)
	t.Cleanup(api.Close)
	return elsewhere{t, hub, api.URL, images.URL}
}

// push pushes an image, and says that this was some time ago.
func (e elsewhere) push(image string, ago time.Duration) {
	e.t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(e.registry, "http://")+"/"+image, name.Insecure)
	if err != nil {
		e.t.Fatal(err)
	}
	img, err := random.Image(64, 1)
	if err != nil {
		e.t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		e.t.Fatal(err)
	}
	repository, tag, _ := strings.Cut(image, ":")
	e.hub.Push(hubtest.Push{Repository: repository, Tag: tag, Digest: "sha256:" + strings.Repeat("0", 64), At: time.Now().Add(-ago)})
}

func TestReconcile(t *testing.T) {
	e := newElsewhere(t)
	pushes := pstest.NewServer()
	t.Cleanup(func() { _ = pushes.Close() })
	const topic, database = "projects/demo/topics/hub-pushes", "firestore:projects/demo/databases/reconcile"
	if _, err := pushes.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"PUBSUB_EMULATOR_HOST": pushes.Addr, "FIRESTORE_EMULATOR_HOST": gcptest.Firestore(t), "HUB_URL": e.api, "REGISTRY": e.registry, "REGISTRY_AUTH": "",
		"LEDGER": database, "TOPIC": topic, "ROUTES": `{
			"acme/*": {"gitlab": {"project": "acme/{name}"}, "slack": {"channel": "C1"}, "tags": {"exclude": ["*-rc*"]}},
			"*": {"gitlab": {"project": "acme/all"}, "slack": {"channel": "C1"}}
		}`,
	} {
		t.Setenv(name, value)
	}
	promotions, err := ledger.Open(database)
	if err != nil {
		t.Fatal(err)
	}
	e.push("acme/api:1.0.0", 200*time.Hour)
	e.push("acme/api:1.1.0", 50*time.Hour)
	e.push("acme/web:1", 2*time.Hour)
	e.push("acme/api:2-rc1", 2*time.Hour)
	e.push("acme/api:3", time.Minute) // its webhook may come
	e.push("acme/api:is-dead", time.Hour)
	promotionIn(t, promotions, "is-dead", "dead")
	e.push("acme/api:is-failed", time.Hour)
	digest, err := remote.Head(must(name.ParseReference(strings.TrimPrefix(e.registry, "http://")+"/acme/api:is-failed", name.Insecure)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := promotions.Read(t.Context(), ledger.Key{Repository: "acme/api", Tag: "is-failed"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Settle(t.Context(), ledger.Look{Message: ledger.Message{ID: "1", QueuedAt: time.Now()}, NewID: ledger.NewID(), Lease: time.Minute, Digest: digest.Digest.String()})
	if err != nil {
		t.Fatal(err)
	}
	if err := promotions.Answered(t.Context(), d.Claim, ledger.Answer{Created: true, Pipeline: ledger.Pipeline{ProjectID: 7, ID: 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := promotions.Report(t.Context(), d.Claim.ID, ledger.Report{State: ledger.Failed}, ledger.Outboxes{Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}

	shows := func(shown string, want ...string) {
		t.Helper()
		var images []string
		for line := range strings.Lines(shown) {
			if words := strings.Fields(line); len(words) > 4 && strings.HasPrefix(words[3], "sha256:") {
				images = append(images, words[0]) // beside the day, the time, the digest and the route
			}
		}
		if !slices.Equal(images, want) {
			t.Errorf("it shows %v, want %v\n%s", images, want, shown)
		}
	}
	for range 2 { // a dry run changes nothing
		shown := said(t, "reconcile", "-since", "72h")
		shows(shown, "acme/api:1.1.0", "acme/web:1")
		contains(t, shown, "IMAGE", "PUSHED", "DIGEST", "ROUTE", "acme/*", "2 pushes were missed: nothing was changed; -apply queues them",
			"the namespaces acme.", "What * matches elsewhere is not looked for")
	}
	shows(said(t, "reconcile", "-since", "1h30m"))
	shows(said(t, "reconcile", "-since", "1000h"), "acme/api:1.0.0", "acme/api:1.1.0", "acme/web:1")
	if n := len(pushes.Messages()); n != 0 {
		t.Errorf("%d messages were queued", n)
	}

	contains(t, said(t, "reconcile", "-since", "72h", "-apply"), "2 pushes were missed: 2 queued")
	queued := pushes.Messages()
	if len(queued) != 2 || queued[0].Attributes["tag"] != "1.1.0" || queued[1].Attributes["repository"] != "acme/web" || queued[1].Attributes["source"] != "reconcile" {
		t.Errorf("queued are %+v", queued)
	}
	contains(t, said(t, "reconcile", "-since", "72h", "-apply"), "0 pushes were missed: 0 queued")

	// By flags, and for what cannot be asked.
	file := filepath.Join(t.TempDir(), "routes.json")
	if err := os.WriteFile(file, []byte(`{"acme/none": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}}, "acme/api": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name := range map[string]bool{"ROUTES": true, "LEDGER": true, "TOPIC": true} {
		t.Setenv(name, "")
	}
	fails := func(args string, wants ...string) string {
		t.Helper()
		var out bytes.Buffer
		err := run(t.Context(), strings.Fields("reconcile "+args+" -ledger "+database+" -routes "+file), &out)
		if err == nil {
			t.Fatalf("%s: it fails to fail\n%s", args, out.String())
		}
		contains(t, err.Error(), wants...)
		return out.String()
	}
	shows(fails("-since 1000h", "not everybody could be asked, and there may be more", "acme/none", "REGISTRY_AUTH"), "acme/api:1.0.0", "acme/api:2-rc1")
	fails("-since 1000h -apply -topic x", "-topic", `"x"`)
	t.Setenv("HUB_URL", "hub.docker.com")
	t.Setenv("REGISTRY_AUTH", "canary")
	if said := fails("-since 1000h", "HUB_URL", "REGISTRY_AUTH"); strings.Contains(said, "canary") {
		t.Error(said)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Pushes to a Docker Hub that does not reach this machine.
func TestLocalWatchesAHub(t *testing.T) {
	e := newElsewhere(t)
	t.Setenv("HUB_URL", e.api)
	t.Setenv("REGISTRY_AUTH", "")
	e.push("acme/api:1.0.0", time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	var (
		out  screen
		done = make(chan error)
	)
	go func() {
		done <- run(ctx, []string{"local", "-addr", "127.0.0.1:0", "-fast", "-registry", e.registry, "-hub", "acme/api"}, &out)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	out.wait(t, "Push to acme/api on Docker Hub")
	out.wait(t, "is watched from now on")
	e.push("acme/api:2.0.0", 0)
	out.wait(t, "acme/api:2.0.0  was pushed to; calls the webhook")
	out.wait(t, "would sign the image")
	out.wait(t, "✅")
	if strings.Contains(out.String(), "acme/api:1.0.0  was pushed") {
		t.Errorf("what was there before is called for:\n%s", out.String())
	}
}
