package sandbox_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/sandbox"
	"github.com/getto-systems/hubrelay/internal/skip"
)

const tools = "../../.tools"

// runner runs the real template. Where its tools are missing the test is
// skipped, and fails if CI is set.
func runner(t *testing.T) *sandbox.Runner {
	t.Helper()
	r, err := sandbox.NewRunner("../../templates/promote.yml", tools)
	if err != nil {
		skip.UnlessCI(t, err.Error())
	}
	t.Cleanup(r.Close)
	return r
}

// One pipeline, and its reports.
func TestARunSignsAndReports(t *testing.T) {
	t.Parallel()
	r := runner(t)
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	host := strings.TrimPrefix(images.URL, "http://")
	var mu sync.Mutex
	var reports []string
	notify := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		reports = append(reports, r.FormValue("promotion_id")[:1]+" "+r.FormValue("status"))
		if r.Header.Get("Authorization") != "Bearer a.b.c" {
			t.Errorf("the token is %q", r.Header.Get("Authorization"))
		}
	}))
	t.Cleanup(notify.Close)
	ref, err := name.ParseReference(host+"/acme/api:1.0.0", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(64, 1)
	if err == nil {
		err = remote.Write(ref, image)
	}
	if err != nil {
		t.Fatal(err)
	}
	for n, withoutKey := range []bool{false, false, true} {
		var said []string
		err := r.Run(t.Context(), sandbox.Run{
			Registry: host, NotifyURL: notify.URL, Token: "a.b.c", PipelineURL: fmt.Sprintf("https://gitlab.example/-/pipelines/%d", n+1), WithoutKey: withoutKey,
			Inputs: map[string]string{
				"image_repository": "acme/api", "image_tag": "1.0.0", "image_pushed_at": "2026-11-25T12:00:00Z", "promotion_id": strings.Repeat(fmt.Sprint(n+1), 32),
			},
		}, func(line string) { said = append(said, line) })
		if (err != nil) != withoutKey {
			t.Errorf("run %d: %v\n%s", n+1, err, strings.Join(said, "\n"))
		}
	}
	if want := "1 running, 1 success, 2 running, 2 skipped, 3 running, 3 failure"; strings.Join(reports, ", ") != want {
		t.Errorf("it reported %v", reports)
	}
	verify := exec.Command(tools+"/cosign", "verify", "--key", r.PublicKey(), "--insecure-ignore-tlog=true", "-a", "tag=1.0.0", host+"/acme/api:latest")
	if out, err := verify.CombinedOutput(); err != nil {
		t.Errorf("latest is not signed: %v\n%s", err, out)
	}
}

// One push leads to a signed latest, really signed by the real template. The
// webhooks of the pipeline's own pushes start nothing more.
func TestThePipelineIsTheRealOne(t *testing.T) {
	t.Parallel()
	r := runner(t)
	b := start(t, sandbox.Config{Runner: r})
	digest := b.build("acme/api:1.5.0")
	b.wait(1, "notify", "acme/api:1.5.0", "report recorded", "success")
	b.settle()

	host := strings.TrimPrefix(b.URL, "http://")
	latest, err := name.ParseReference(host+"/acme/api:latest", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := remote.Head(latest); err != nil || d.Digest.String() != digest {
		t.Errorf("latest is %v, %v, want %s", d, err, digest)
	}
	verify := exec.Command(tools+"/cosign", "verify", "--key", r.PublicKey(), "--insecure-ignore-tlog=true", "-a", "tag=1.5.0", latest.Name())
	if out, err := verify.CombinedOutput(); err != nil {
		t.Errorf("latest is not signed: %v\n%s", err, out)
	}
	if n := b.count("trigger", "acme/api:latest", "push ignored", "moving_tag"); n != 6 {
		t.Errorf("%d webhooks of latest were ignored", n)
	}

	b.tag("acme/api", digest, "1.5.0") // pushed once more, signed
	b.settle()
	if n := b.count("trigger", "", "pipeline created", ""); n != 1 {
		t.Errorf("there are %d pipelines", n)
	}
	if top, replies := b.messages(); len(top) != 1 || len(replies) != 0 || !strings.Contains(top[0].Text, ":white_check_mark:") {
		t.Errorf("Slack shows %+v %+v", top, replies)
	}
}

func TestTheRealPipelineHasNothingToDoOrFails(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{Runner: runner(t), Routes: `{"*": {
		"gitlab": {"project": "{namespace}/images/{name}", "pass": "variables"}, "once_per": "delivery", "slack": {"channel": "C0IMAGES"}
	}}`})
	b.goWrong(sandbox.Pipeline, "fails", 1)
	b.buildOneArch("acme/api:1.5.0")
	b.wait(1, "notify", "acme/api:1.5.0", "report recorded", "failure")
	digest := fmt.Sprint(b.GitLab.Pipelines()[0].Variables["IMAGE_DIGEST"])
	top, replies := b.messages()
	if len(top) != 1 || len(replies) != 1 {
		t.Errorf("Slack shows %+v %+v", top, replies)
	}
	b.tag("acme/api", digest, "1.5.0") // is how people try again
	b.wait(1, "notify", "acme/api:1.5.0", "report recorded", "success")
	b.tag("acme/api", digest, "1.5.0")
	b.wait(1, "notify", "acme/api:1.5.0", "report recorded", "skipped")
	b.settle()
	if n := b.count("trigger", "", "pipeline created", ""); n != 3 {
		t.Errorf("there are %d pipelines", n)
	}
}
