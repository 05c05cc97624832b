package sandbox_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/sandbox"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// box is a sandbox, and its events.
type box struct {
	*sandbox.Sandbox
	t        *testing.T
	replayed int // dead letters
	mu       sync.Mutex
	events   []sandbox.Event
}

// start starts a fast sandbox.
func start(t *testing.T, c sandbox.Config) *box {
	t.Helper()
	c.Backoff = sandbox.Backoff{Min: 10 * time.Millisecond, Max: 100 * time.Millisecond}
	return startAs(t, c)
}

func startAs(t *testing.T, c sandbox.Config) *box {
	t.Helper()
	b := &box{t: t}
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

// goWrong sets a fault.
func (b *box) goWrong(stage sandbox.Stage, answer string, times int) sandbox.Fault {
	b.t.Helper()
	f, err := b.SetFault(sandbox.Fault{Stage: stage, Answer: answer, Times: times})
	if err != nil {
		b.t.Fatal(err)
	}
	return f
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

// settle waits until every message that was queued is decided.
func (b *box) settle() {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		queued := b.count("webhook", "", "push queued", "")
		decided := b.count("trigger", "", "pipeline created", "") + b.count("trigger", "", "push ignored", "") + b.count("trigger", "", "push given up", "")
		called, again := 0, b.replayed
		b.mu.Lock()
		for _, e := range b.events {
			switch {
			case e.Who == "docker hub" && strings.HasPrefix(e.What, "pushed, multi-arch"):
				called += 6
			case e.Who == "docker hub" && strings.HasPrefix(e.What, "pushed; calls"):
				called++
			case e.Who == "trigger" && e.What == "missed push found":
				again++
			case e.Who == "trigger" && e.What == "tags reconciled":
				n := 0
				_, _ = fmt.Sscan(e.Detail, &n)
				again += n
			}
		}
		b.mu.Unlock()
		if queued >= called && decided == queued+again {
			return
		}
	}
	b.t.Fatal("the queue does not become empty")
}

// shows waits until the newest message of an image begins with an emoji, and
// returns it with its replies.
func (b *box) shows(image, emoji string) (m slacktest.Message, replies []slacktest.Message) {
	b.t.Helper()
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		m, replies = slacktest.Message{}, nil
		for _, each := range b.Slack.Messages() {
			switch {
			case each.ThreadTS != "" && each.ThreadTS == m.TS:
				replies = append(replies, each)
			case each.ThreadTS == "" && strings.Contains(each.Text, image):
				m, replies = each, nil
			}
		}
		if strings.HasPrefix(m.Text, emoji) {
			return m, replies
		}
	}
	b.t.Fatalf("Slack shows %q of %s, want %s", m.Text, image, emoji)
	return m, replies
}

// The beginnings of the messages.
const (
	runs     = ":hourglass_flowing_sand:"
	isDone   = ":white_check_mark:"
	hasFail  = ":x:"
	isOver   = ":fast_forward:"
	isDead   = ":rotating_light:"
	isSilent = ":grey_question:"
)

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

// The webhook that Docker Hub documents, and everything that follows from it.
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
	b.wait(1, "notify", "acme/api:1.4.0", "report recorded", "success")
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
	if len(top) != 1 || top[0].Edits != 1 || len(replies) != 0 || !strings.HasPrefix(top[0].Text, isDone) {
		t.Errorf("Slack shows %+v and replies %+v", top, replies)
	}
	given := b.GitLab.Pipelines()[0].Inputs
	if at, err := time.Parse(time.RFC3339, fmt.Sprint(given["image_pushed_at"])); err != nil || time.Since(at) > time.Minute ||
		len(fmt.Sprint(given["promotion_id"])) != 32 || given["image_digest"] != b.digest("acme/api", "1.4.0").String() {
		t.Errorf("the pipeline got %v", given)
	}
}

// Each webhook has a different time.
func TestSixWebhooksArePromotedOnce(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.build("acme/web:1.0.0")
	b.wait(1, "notify", "acme/web:1.0.0", "report recorded", "success")
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 1 {
		t.Errorf("there are %d pipelines", n)
	}
	if top, _ := b.messages(); len(top) != 1 {
		t.Errorf("Slack shows %+v", top)
	}
}

func TestOncePerDelivery(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{Routes: `{"*": {"gitlab": {"project": "{namespace}/{name}", "pass": "variables"}, "once_per": "delivery", "slack": {"channel": "C1"}}}`})
	b.buildOneArch("acme/api:2.0.0")
	// The signed push starts a second pipeline, which finds the signature.
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "skipped")
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 2 {
		t.Errorf("there are %d pipelines", n)
	}
}

func TestATagThatMovesAndMovesBack(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	first := b.build("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.settle()
	b.build("acme/api:2.0.0")
	b.wait(2, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.settle()
	b.tag("acme/api", first, "2.0.0") // back
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "skipped")
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 3 {
		t.Errorf("there are %d pipelines", n)
	}
	if got := b.digest("acme/api", "latest").String(); got != first {
		t.Errorf("latest is %s, want %s", got, first)
	}
	b.shows("acme/api:2.0.0", isOver)
}

// The image in between has no pipeline any more, and the first one has another.
func TestATagThatMovesBackWhileItsWebhookWaits(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	first := b.build("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.settle()
	var full []gitlabtest.Failure
	for range 30 {
		full = append(full, gitlabtest.Failure{Status: 400, Body: `{"message":{"base":["Project exceeded the allowed number of jobs in active pipelines. Retry later."]}}`})
	}
	b.GitLab.Fail(full...)
	b.buildOneArch("acme/api:2.0.0")
	b.wait(1, "trigger", "acme/api:2.0.0", "push put off", "gitlab_capacity")
	b.tag("acme/api", first, "2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "skipped")
	b.settle()
	pipelines := b.GitLab.Pipelines()
	if len(pipelines) != 2 || pipelines[1].Inputs["image_digest"] != first {
		t.Errorf("there are %+v", pipelines)
	}
	if n := b.count("dead letter", "", "", ""); n != 0 {
		t.Errorf("there are %d dead letters", n)
	}
}

// There is no webhook for the new image of the tag.
func TestASupersededTagIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	b := startAs(t, sandbox.Config{StepTime: 500 * time.Millisecond}) // in a fast one Docker Hub's API tells of it at once
	b.buildOneArch("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "running")
	b.goWrong(sandbox.Hub, "lost", 1)
	b.buildOneArch("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "superseded")
	b.good("POST", "/api/reconcile")
	b.wait(1, "trigger", "", "tags reconciled", "1 queued")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.settle()
	now := b.digest("acme/api", "2.0.0")
	if pipelines := b.GitLab.Pipelines(); len(pipelines) != 2 || pipelines[1].Inputs["image_digest"] != now.String() {
		t.Errorf("there are %+v", pipelines)
	}
	top, _ := b.messages()
	if len(top) != 2 || !strings.HasPrefix(top[0].Text, isOver) || !strings.HasPrefix(top[1].Text, isDone) {
		t.Errorf("Slack shows %+v", top)
	}
}

func TestATagThatIsDeletedIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{StepTime: 500 * time.Millisecond})
	b.buildOneArch("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "running")
	ref, err := name.NewTag(strings.TrimPrefix(b.URL, "http://")+"/acme/api:2.0.0", name.Insecure)
	if err == nil {
		err = remote.Delete(ref)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "superseded")
	b.wait(1, "trigger", "acme/api:2.0.0", "push ignored", "duplicate") // by reconcile
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 1 {
		t.Errorf("there are %d pipelines", n)
	}
}

func TestAFailedPromotionIsFixedByRetryingItsJob(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{Language: "ja"})
	b.goWrong(sandbox.Pipeline, "fails", 1)
	digest := b.build("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "failure")
	b.settle()
	failed, replies := b.shows("acme/api:2.0.0", hasFail)
	if len(replies) != 1 {
		t.Errorf("Slack shows the replies %+v", replies)
	}
	b.tag("acme/api", digest, "2.0.0") // a sibling of the push that has just failed
	b.settle()
	pipeline := b.GitLab.Pipelines()[0]
	for end := time.Now().Add(10 * time.Second); !b.GitLab.Retry(pipeline.Project, pipeline.ID); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the job cannot be retried: %+v", b.GitLab.Pipelines())
		}
	}
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 1 {
		t.Errorf("there are %d pipelines", n)
	}
	if done, _ := b.shows("acme/api:2.0.0", isDone); done.TS != failed.TS {
		t.Errorf("the message of %s is another than that of %s", done.TS, failed.TS)
	}
}

func TestAFailedPromotionIsStartedAgainByALaterPush(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.goWrong(sandbox.Pipeline, "fails", 1)
	digest := b.build("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "failure")
	b.settle()
	b.forward(time.Minute) // until then it would be a sibling
	b.tag("acme/api", digest, "2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 2 {
		t.Errorf("there are %d pipelines", n)
	}
	if top, _ := b.messages(); len(top) != 2 {
		t.Errorf("Slack shows %+v", top)
	}
}

func TestAPipelineThatReportsNothing(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.goWrong(sandbox.Pipeline, "silent", 1)
	b.buildOneArch("acme/api:2.0.0")
	b.wait(1, "trigger", "acme/api:2.0.0", "pipeline created", "")
	b.forward(time.Minute)
	silent, replies := b.shows("acme/api:2.0.0", isSilent)
	if len(replies) > 1 {
		t.Errorf("Slack shows the replies %+v", replies)
	}
	pipeline := b.GitLab.Pipelines()[0]
	if !b.GitLab.Cancel(pipeline.Project, pipeline.ID) || !b.GitLab.Retry(pipeline.Project, pipeline.ID) {
		t.Fatal("the job cannot be canceled and retried")
	}
	if done, _ := b.shows("acme/api:2.0.0", isDone); done.TS != silent.TS {
		t.Errorf("the message of %s is another than that of %s", done.TS, silent.TS)
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
		b.wait(1, "notify", image, "report recorded", "success")
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
		{gitlabtest.Failure{Status: 405, Body: `{"message":"Non GET methods are not allowed for moved projects"}`}, "rejected"},
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
	// An unknown refusal is retried three times.
	unknown := gitlabtest.Failure{Status: 400, Body: `{"error":"something else"}`}
	b.GitLab.Fail(unknown, unknown, unknown, unknown)
	b.buildOneArch("acme/api:5.0.0")
	b.wait(1, "dead letter", "acme/api:5.0.0", "rejected", "GitLab says: something else")
	if n := b.count("trigger", "acme/api:5.0.0", "push put off", "rejected"); n != 3 {
		t.Errorf("it was put off %d times", n)
	}
}

func TestGitLabIsOutOfCapacity(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	full := gitlabtest.Failure{Status: 422, Body: `{"message":{"base":["Project exceeded the allowed number of jobs in active pipelines. Retry later."]}}`}
	b.GitLab.Fail(full, full, full, full, full)
	b.build("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.settle()
	if n := b.count("trigger", "acme/api:2.0.0", "push put off", "gitlab_capacity"); n != 5 {
		t.Errorf("it was put off %d times for want of capacity", n)
	}
	if n := b.count("dead letter", "", "", ""); n != 0 || len(b.GitLab.Pipelines()) != 1 {
		t.Errorf("there are %d dead letters and %d pipelines", n, len(b.GitLab.Pipelines()))
	}
}

// What died is promoted by a replay, and its message says so.
func TestADeadLetterThatIsReplayed(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.GitLab.Fail(gitlabtest.Failure{Status: 404, Body: `{"message":"404 Not Found"}`})
	b.build("acme/api:2.0.0") // six webhooks die one death
	b.wait(1, "dead letter", "acme/api:2.0.0", "not_found", "GitLab says: 404 Not Found")
	b.settle()
	dead, replies := b.shows("acme/api:2.0.0", isDead)
	if len(replies) > 1 {
		t.Errorf("Slack shows the replies %+v", replies)
	}
	b.replay(1)
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.settle()
	if done, _ := b.shows("acme/api:2.0.0", isDone); done.TS != dead.TS {
		t.Errorf("the message of %s is another than that of %s", done.TS, dead.TS)
	}
	top, _ := b.messages()
	if len(top) != 1 || len(b.GitLab.Pipelines()) != 1 || b.count("dead letter", "", "", "") != 1 {
		t.Errorf("Slack shows %+v, of %d pipelines", top, len(b.GitLab.Pipelines()))
	}
}

// replay queues n dead letters again, as the command does.
func (b *box) replay(n int) {
	b.t.Helper()
	command := strings.Fields(b.ReplayCommand)
	host, subscription := strings.TrimPrefix(command[0], "PUBSUB_EMULATOR_HOST="), command[len(command)-1]
	client, err := pubsubapi.NewClient(b.t.Context(), "sandbox", pubsub.EmulatorOptions(host)...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer client.Close()
	pulled, err := client.SubscriptionAdminClient.Pull(b.t.Context(), &pubsubpb.PullRequest{Subscription: subscription, MaxMessages: 10})
	if err != nil || len(pulled.ReceivedMessages) != n {
		b.t.Fatalf("there are %v, %v", pulled, err)
	}
	for _, m := range pulled.ReceivedMessages {
		attributes := maps.Clone(m.Message.Attributes)
		attributes[pubsub.ReplayedAttribute] = time.Now().UTC().Format(time.RFC3339Nano)
		if _, err := client.TopicAdminClient.Publish(b.t.Context(), &pubsubpb.PublishRequest{
			Topic: "projects/sandbox/topics/hubrelay-pushes", Messages: []*pubsubpb.PubsubMessage{{Data: m.Message.Data, Attributes: attributes}},
		}); err != nil {
			b.t.Fatal(err)
		}
		b.replayed++
	}
}

func TestSlackLimits(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.Slack.Fail(slacktest.Failure{Status: 429, RetryAfter: time.Second})
	b.build("acme/api:2.0.0")
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success")
	b.shows("acme/api:2.0.0", isDone)
	if top, _ := b.messages(); len(top) != 1 {
		t.Errorf("Slack shows %+v", top)
	}
}

// The pipeline ends while Slack is down; the clock shows it later.
func TestSlackIsDownAndComesBack(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{StepTime: 500 * time.Millisecond})
	b.buildOneArch("acme/api:2.0.0")
	running, _ := b.shows("acme/api:2.0.0", runs)
	b.Slack.Away(slacktest.Failure{Status: 503})
	b.wait(1, "notify", "acme/api:2.0.0", "report recorded", "success; Slack shows it later")
	if now, _ := b.shows("acme/api:2.0.0", runs); now.Edits != running.Edits {
		t.Errorf("Slack shows %+v", now)
	}
	if rows, _, _ := b.Rows(sandbox.Query{Text: "acme/api:2.0.0"}); len(rows) != 1 || rows[0].State != ledger.Promoted || rows[0].Shown {
		t.Errorf("the rows do not say that Slack is behind: %+v", rows)
	}
	b.Slack.Back()
	if err := b.Forward(t.Context(), 2*time.Minute); err != nil { // the clock tries again after one
		t.Fatal(err)
	}
	if done, _ := b.shows("acme/api:2.0.0", isDone); done.TS != running.TS {
		t.Errorf("the message of %s is another than that of %s", done.TS, running.TS)
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
	b.wait(1, "dead letter", "acme/api:9.9.9", fmt.Sprintf("gave up after %d attempts", sandbox.MaxDeliveryAttempts), "")
	dead, _ := b.shows("acme/api:9.9.9", isDead)
	if !strings.Contains(string(dead.Blocks), "not_in_registry") {
		t.Errorf("Slack does not say what it waited for: %s", dead.Blocks)
	}
	if n := b.count("trigger", "acme/api:9.9.9", "push put off", "not_in_registry"); n != sandbox.MaxDeliveryAttempts {
		t.Errorf("it was delivered %d times", n)
	}
}

func TestBadSettingsAreReported(t *testing.T) {
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
