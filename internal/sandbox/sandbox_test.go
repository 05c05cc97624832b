package sandbox_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/sandbox"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// box is a sandbox, and what was heard of it.
type box struct {
	*sandbox.Sandbox
	t      *testing.T
	mu     sync.Mutex
	events []sandbox.Event
}

func start(t *testing.T, c sandbox.Config) *box {
	t.Helper()
	b := &box{t: t}
	c.Backoff = sandbox.Backoff{Min: 10 * time.Millisecond, Max: 100 * time.Millisecond}
	c.Events = func(e sandbox.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e)
	}
	s, err := sandbox.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	b.Sandbox = s
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			for _, e := range b.events {
				t.Logf("%s %s %s: %s", e.Who, e.Image, e.What, e.Detail)
			}
		}
	})
	return b
}

// count returns how many events there were of that kind.
func (b *box) count(who, image, what, detail string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, e := range b.events {
		if e.Who == who && (image == "" || e.Image == image) && strings.HasPrefix(e.What, what) && strings.Contains(e.Detail, detail) {
			n++
		}
	}
	return n
}

// wait waits until there were that many events of a kind.
func (b *box) wait(n int, who, image, what, detail string) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if b.count(who, image, what, detail) >= n {
			return
		}
	}
	b.t.Fatalf("%d times %q %q %q %q: there were %d", n, who, image, what, detail, b.count(who, image, what, detail))
}

// settle waits until every webhook that was queued is decided.
func (b *box) settle() {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		queued := b.count("webhook", "", "push queued", "")
		decided := b.count("trigger", "", "pipeline created", "") + b.count("trigger", "", "push ignored", "") + b.count("trigger", "", "push given up", "")
		called := 0
		b.mu.Lock()
		for _, e := range b.events {
			if e.Who == "docker hub" && strings.HasPrefix(e.What, "pushed, multi-arch") {
				called += 6
			} else if e.Who == "docker hub" && strings.HasPrefix(e.What, "pushed") {
				called++
			}
		}
		b.mu.Unlock()
		if queued >= called && decided == queued {
			return
		}
	}
	b.t.Fatal("the queue does not become empty")
}

func (b *box) build(image string) string {
	b.t.Helper()
	digest, err := b.Build(image)
	if err != nil {
		b.t.Fatal(err)
	}
	return digest
}

// buildOneArch pushes an image for which Docker Hub calls once.
func (b *box) buildOneArch(image string) {
	b.t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(b.URL, "http://")+"/"+image, name.Insecure)
	if err != nil {
		b.t.Fatal(err)
	}
	img, err := random.Image(64, 1)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		b.t.Fatal(err)
	}
}

// tag moves a tag, as docker push of an image that is there does.
func (b *box) tag(repository, digest, tag string) {
	b.t.Helper()
	host := strings.TrimPrefix(b.URL, "http://")
	from, err := name.NewDigest(host+"/"+repository+"@"+digest, name.Insecure)
	if err != nil {
		b.t.Fatal(err)
	}
	image, err := remote.Get(from)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := remote.Tag(from.Context().Tag(tag), image); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) digest(repository, tag string) v1.Hash {
	b.t.Helper()
	ref, err := name.NewTag(strings.TrimPrefix(b.URL, "http://")+"/"+repository+":"+tag, name.Insecure)
	if err != nil {
		b.t.Fatal(err)
	}
	d, err := remote.Head(ref)
	if err != nil {
		b.t.Fatal(err)
	}
	return d.Digest
}

func (b *box) messages() (top, replies []slacktest.Message) {
	for _, m := range b.Slack.Messages() {
		if m.ThreadTS == "" {
			top = append(top, m)
		} else {
			replies = append(replies, m)
		}
	}
	return top, replies
}

// The webhook that Docker Hub documents, and all that follows from it.
func TestTheLoop(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	body, err := os.ReadFile("../dockerhub/testdata/documented-today.json")
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(b.WebhookURL, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	b.wait(1, "notify", "acme/api:1.4.0", "report taken", "success")
	b.settle()

	if n := len(b.GitLab.Pipelines()); n != 1 {
		t.Errorf("there are %d pipelines", n)
	}
	if b.digest("acme/api", "latest") != b.digest("acme/api", "1.4.0") {
		t.Error("latest is not on the image")
	}
	// The signed push and the push of latest are multi-arch: six webhooks each.
	for reason, want := range map[string]int{"duplicate": 6, "moving_tag": 6, "artifact_tag": 1} {
		if n := b.count("trigger", "", "push ignored", reason); n != want {
			t.Errorf("%s: %d, want %d", reason, n, want)
		}
	}
	top, replies := b.messages()
	if len(top) != 1 || top[0].Edits != 1 || len(replies) != 0 || !strings.Contains(top[0].Text, ":white_check_mark:") {
		t.Errorf("Slack shows %+v and replies %+v", top, replies)
	}
}

func TestSixWebhooksAtOnce(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.build("acme/web:1.0.0")
	b.wait(1, "notify", "acme/web:1.0.0", "report taken", "success")
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 1 {
		t.Errorf("there are %d pipelines", n)
	}
}

func TestOncePerDelivery(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{Routes: `{"*": {"gitlab": {"project": "{namespace}/{name}", "pass": "variables"}, "once_per": "delivery", "slack": {"channel": "C1"}}}`})
	b.build("acme/api:2.0.0")
	// The signed push starts a second pipeline, which finds the signature.
	b.wait(1, "notify", "acme/api:2.0.0", "report taken", "success")
	b.wait(1, "notify", "acme/api:2.0.0", "report taken", "skipped")
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 2 {
		t.Errorf("there are %d pipelines", n)
	}
}

func TestATagThatMoves(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	first := b.build("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report taken", "success")
	b.settle()
	b.build("acme/api:2.0.0")
	b.wait(2, "notify", "acme/api:2.0.0", "report taken", "success")
	b.settle()
	b.tag("acme/api", first, "2.0.0") // back
	b.wait(1, "notify", "acme/api:2.0.0", "report taken", "skipped")
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 3 {
		t.Errorf("there are %d pipelines", n)
	}
}

func TestAFailedPromotionIsStartedAgainByAPush(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{Language: "ja"})
	b.FailNextPipeline()
	digest := b.build("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report taken", "failure")
	b.settle()
	if top, replies := b.messages(); len(top) != 1 || len(replies) != 1 {
		t.Errorf("Slack shows %+v and replies %+v", top, replies)
	}
	b.tag("acme/api", digest, "2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report taken", "success")
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 2 {
		t.Errorf("there are %d pipelines", n)
	}
	if top, _ := b.messages(); len(top) != 2 {
		t.Errorf("Slack shows %+v", top)
	}
}

func TestGitLabFailsInEveryWay(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	for i, f := range []gitlabtest.Failure{
		{Status: 500}, {Status: 503}, {Status: 403}, {Reset: true},
		{Status: 429, Header: http.Header{"Retry-After": {"1"}}, Body: "Retry later"},
		{Status: 400, Body: `{"message":{"base":["Reference not found"]}}`},
	} {
		image := fmt.Sprintf("acme/api:3.0.%d", i)
		b.GitLab.Fail(f)
		b.buildOneArch(image)
		b.wait(1, "notify", image, "report taken", "success")
	}
	for i, c := range []struct {
		failure gitlabtest.Failure
		reason  string
	}{
		{gitlabtest.Failure{Status: 401, Body: `{"message":"401 Unauthorized"}`}, "unauthorized"},
		{gitlabtest.Failure{Status: 404, Body: `{"message":"404 Not Found"}`}, "not_found"},
		{gitlabtest.Failure{Status: 422, Body: `{"message":{"base":["jobs:x config is bad"]}}`}, "pipeline_invalid"},
		{gitlabtest.Failure{Status: 400, Body: `{"message":"Insufficient permissions to set pipeline variables"}`}, "variables_forbidden"},
		{gitlabtest.Failure{Status: 400, Body: `{"message":{"base":["Pipeline filtered out by workflow rules."]}}`}, "no_jobs"},
		{gitlabtest.Failure{Status: 400, Body: `{"error":"something else"}`}, "rejected"},
	} {
		image := fmt.Sprintf("acme/api:4.0.%d", i)
		b.GitLab.Fail(c.failure)
		b.build(image) // six webhooks, one dead letter
		b.wait(1, "dead letter", image, c.reason, "")
		b.settle()
		if n := b.count("trigger", image, "push given up", ""); n != 1 {
			t.Errorf("%s: %d dead letters", c.reason, n)
		}
	}
}

func TestSlackLimits(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.Slack.Fail(slacktest.Failure{Status: 429, RetryAfter: time.Second})
	b.build("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report taken", "success")
	if top, _ := b.messages(); len(top) != 1 || top[0].Edits != 1 {
		t.Errorf("Slack shows %+v", top)
	}
}

func TestAnImageThatNeverComes(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	res, err := http.Post(b.WebhookURL, "", strings.NewReader(`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"9.9.9"}}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	b.wait(1, "dead letter", "acme/api:9.9.9", "gave up after 20 attempts", "")
	if n := b.count("trigger", "acme/api:9.9.9", "push put off", "not_in_registry"); n != sandbox.MaxDeliveryAttempts {
		t.Errorf("it was delivered %d times", n)
	}
}

func TestPageAndBuild(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	res, err := http.Post(b.URL+"/build/acme/api:2.0.0", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	b.wait(1, "notify", "acme/api:2.0.0", "report taken", "success")
	res, err = http.Get(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var page bytes.Buffer
	if _, err := page.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"acme/api:2.0.0", "✅", "acme/images/api", "/build/acme/api:1.5.0"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page does not show %s", want)
		}
	}
	for _, bad := range []string{"/build/acme", "/build/A:1", "/build/acme/api:b@d"} {
		res, err := http.Post(b.URL+bad, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", bad, res.Status)
		}
	}
}

func TestBadSettingsAreTold(t *testing.T) {
	t.Parallel()
	for _, c := range []sandbox.Config{
		{Routes: `{"a/b":{}}`}, {Language: "fr"}, {Addr: "nowhere:x"}, {GitLabURL: "gitlab"},
	} {
		s, err := sandbox.Start(context.Background(), c)
		if err == nil {
			s.Close()
			t.Errorf("%+v was taken", c)
		}
	}
}
