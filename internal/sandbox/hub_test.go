package sandbox_test

import (
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// Docker Hub calls no webhook, and lists the push in its API. In a fast sandbox
// a lost push counts as ten minutes old.
func TestAPushWhoseWebhooksAreLostIsFound(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.goWrong(sandbox.Hub, "lost", 1)
	digest := b.build("acme/web:1.0.0")
	b.wait(1, "docker hub", "acme/web:1.0.0", "pushed; its webhooks are lost", "")
	b.wait(1, "trigger", "acme/web:1.0.0", "missed push found", "")
	b.wait(1, "notify", "acme/web:1.0.0", "report recorded", "success")
	b.settle()
	if pipelines := b.GitLab.Pipelines(); len(pipelines) != 1 || pipelines[0].Inputs["image_digest"] != digest {
		t.Errorf("there are %+v", pipelines)
	}
	b.shows("acme/web:1.0.0", isDone)

	b.goWrong(sandbox.Hub, "lost", 1) // of a tag that was looked at just now
	digest = b.build("acme/web:1.0.0")
	b.wait(2, "trigger", "acme/web:1.0.0", "missed push found", "")
	b.wait(2, "notify", "acme/web:1.0.0", "report recorded", "success")
	if got := b.digest("acme/web", "latest").String(); got != digest {
		t.Errorf("latest is %s, want %s", got, digest)
	}
}

// The real Docker Hub, simulated by another fake, cannot reach the webhook.
func TestPushesToAHubElsewhereArrive(t *testing.T) {
	t.Parallel()
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	hub := hubtest.New()
	api := httptest.NewServer(hub)
	t.Cleanup(api.Close)
	push := func(image string) {
		t.Helper()
		pushTo(t, images.URL, hub, image, time.Time{})
	}
	push("acme/api:1.0.0") // before
	hub.AddRepository("acme/web", true)
	b := start(t, sandbox.Config{Registry: images.URL, Hub: []string{"acme/api", "acme/web"}, HubURL: api.URL})
	b.wait(1, "docker hub", "acme/api", "is watched from now on", "")
	b.wait(1, "docker hub", "acme/web", "cannot be asked", "REGISTRY_AUTH")
	push("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.shows("acme/api:2.0.0", isDone)
	hub.Push(hubtest.Push{Repository: "acme/api", Tag: "chart", MediaType: "application/vnd.cncf.helm.config.v1+json"})
	push("acme/api:2.0.0") // another image
	b.wait(2, "notify", "acme/api:2.0.0", "report recorded", "success")
	hub.AddRepository("acme/web", false)
	b.wait(1, "docker hub", "acme/web", "is watched from now on", "")
	hub.Away(hubtest.Page(502))
	b.wait(2, "docker hub", "", "cannot be asked", "hub_unavailable")
	hub.Back()
	push("acme/web:1")
	b.wait(1, "notify", "acme/web:1", "report recorded", "success")
	time.Sleep(1500 * time.Millisecond)
	if n := len(b.GitLab.Pipelines()); n != 3 {
		t.Errorf("there are %d pipelines", n)
	}
	if n := b.count("docker hub", "acme/web", "cannot be asked", "hub_not_found"); n != 1 {
		t.Errorf("a mistake is told %d times", n)
	}
}

// pushTo pushes an image to a registry, and has Docker Hub's API tell of it.
func pushTo(t *testing.T, images string, hub *hubtest.Server, image string, at time.Time) {
	t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(images, "http://")+"/"+image, name.Insecure)
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
	repository, tag, _ := strings.Cut(image, ":")
	hub.Push(hubtest.Push{Repository: repository, Tag: tag, Digest: "sha256:" + strings.Repeat("0", 64), At: at})
}

// On the real Docker Hub there are images of others, and those of before.
func TestOfAHubElsewhereOnlyWhatIsWatchedCounts(t *testing.T) {
	t.Parallel()
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	hub := hubtest.New()
	api := httptest.NewServer(hub)
	t.Cleanup(api.Close)
	for _, image := range []string{"team/app:1.0.0", "acme/api:1.0.0", "acme/web:1.0.0"} {
		pushTo(t, images.URL, hub, image, time.Now().Add(-2*time.Hour))
	}
	b := start(t, sandbox.Config{Registry: images.URL, Hub: []string{"team/app"}, HubURL: api.URL})
	b.wait(1, "docker hub", "team/app", "is watched from now on", "")
	pushTo(t, images.URL, hub, "team/app:2.0.0", time.Time{})
	b.wait(1, "notify", "team/app:2.0.0", "report recorded", "success")
	time.Sleep(2500 * time.Millisecond) // in which reconcile is called twice
	if pipelines := b.GitLab.Pipelines(); len(pipelines) != 1 {
		t.Errorf("there are %+v", pipelines)
	}
	for _, call := range hub.Calls() {
		if strings.Contains(call.Path, "/acme") {
			t.Fatalf("Docker Hub was asked %s", call.Path)
		}
	}
}
