package sandbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/sandbox"
)

const tools = "../../.tools"

// runner runs the real template. Where its tools are missing the test is
// skipped, and fails where CI is set.
func runner(t *testing.T) *sandbox.Runner {
	t.Helper()
	r, err := sandbox.NewRunner("../../templates/promote.yml", tools)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(r.Close)
	return r
}

// One push ends in a signed latest, signed for real by the real template; every
// webhook of the loop starts nothing more.
func TestThePipelineIsTheRealOne(t *testing.T) {
	t.Parallel()
	r := runner(t)
	b := start(t, sandbox.Config{Runner: r})
	digest := b.build("acme/api:1.5.0")
	b.wait(1, "notify", "acme/api:1.5.0", "report taken", "success")
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
	b.FailNextPipeline()
	b.buildOneArch("acme/api:1.5.0")
	b.wait(1, "notify", "acme/api:1.5.0", "report taken", "failure")
	digest := fmt.Sprint(b.GitLab.Pipelines()[0].Variables["IMAGE_DIGEST"])
	top, replies := b.messages()
	if len(top) != 1 || len(replies) != 1 {
		t.Errorf("Slack shows %+v %+v", top, replies)
	}
	b.tag("acme/api", digest, "1.5.0") // is how people try again
	b.wait(1, "notify", "acme/api:1.5.0", "report taken", "success")
	b.tag("acme/api", digest, "1.5.0")
	b.wait(1, "notify", "acme/api:1.5.0", "report taken", "skipped")
	b.settle()
	if n := b.count("trigger", "", "pipeline created", ""); n != 3 {
		t.Errorf("there are %d pipelines", n)
	}
}
