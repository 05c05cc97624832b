package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// dockerHub calls the webhook for every push to the registry, and tells of it
// when it is asked.
type dockerHub struct {
	webhookURL string
	events     *events
	api        *hubtest.Server
	fast       bool         // what is lost is old enough to be missed
	losses     atomic.Int64 // pushes of which nobody is told

	mu   sync.Mutex
	last time.Time // of the last push
}

// tick returns the moment of a push. Docker Hub tells it in seconds, and no two
// are the same, as they are not where pushes take their time.
func (d *dockerHub) tick() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now().Truncate(time.Second)
	if !now.After(d.last) {
		now = d.last.Add(time.Second)
	}
	d.last = now
	return now
}

// pushed calls the webhook, several times for a multi-arch image, each time with
// another moment. As Docker Hub it never calls again.
func (d *dockerHub) pushed(repository, tag, digest string, webhooks int) {
	image := repository + ":" + tag
	push := hubtest.Push{Repository: repository, Tag: tag, Digest: digest, At: time.Now()}
	lost := take(&d.losses)
	if lost && d.fast {
		d.api.DeleteTag(repository, tag)
		push.At = push.At.Add(-ledger.RegistryLag)
	}
	d.api.Push(push)
	if lost {
		d.events.add(Event{Who: "docker hub", Image: image, What: "pushed; its webhooks are lost", Bad: true})
		return
	}
	what := "pushed; calls the webhook"
	if webhooks > 1 {
		what = fmt.Sprintf("pushed, multi-arch; calls the webhook %d times", webhooks)
	}
	d.events.add(Event{Who: "docker hub", Image: image, What: what})
	for range webhooks {
		body, err := dockerhub.Webhook(repository, tag, d.tick())
		if err != nil {
			d.events.add(Event{Who: "docker hub", Image: image, What: err.Error(), Bad: true})
			return
		}
		go d.call(image, body)
	}
}

func (d *dockerHub) call(image string, body []byte) {
	res, err := http.Post(d.webhookURL, "application/json", bytes.NewReader(body))
	if err != nil {
		d.events.add(Event{Who: "docker hub", Image: image, What: "the webhook does not answer", Bad: true})
		return
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		d.events.add(Event{Who: "docker hub", Image: image, What: "the webhook answers " + res.Status, Bad: true})
	}
}

// pipelines plays the runner of the fake GitLab. Without a Runner nothing is
// signed: it does what the real pipeline does to the registry and to Notify.
type pipelines struct {
	*Sandbox
	ctx      context.Context
	runner   *Runner
	stepTime time.Duration

	turns sync.Map // by repository: a *sync.Mutex, as the resource_group of the template
}

func (p *pipelines) run(created gitlabtest.Pipeline) {
	job := job{
		Sandbox:    p.Sandbox,
		pipeline:   created,
		repository: value(created, "image_repository"),
		tag:        value(created, "image_tag"),
		digest:     value(created, "image_digest"),
	}
	if take(&p.silences) {
		job.event("says nothing, as it was told to", "", true)
		return
	}
	turn, _ := p.turns.LoadOrStore(job.repository, &sync.Mutex{})
	turn.(*sync.Mutex).Lock()
	defer turn.(*sync.Mutex).Unlock()
	p.GitLab.SetStatus(created.Project, created.ID, "running")
	if p.runner != nil {
		status := "success"
		if err := job.runReally(p.ctx, p.runner); err != nil {
			job.event("ended", err.Error(), true)
			status = "failed"
		}
		p.GitLab.SetStatus(created.Project, created.ID, status)
		return
	}
	status, message := job.run(p.stepTime)
	if err := job.report(status, message); err != nil {
		job.event("could not report "+status, err.Error(), true)
	}
	if status == "failure" {
		p.GitLab.SetStatus(created.Project, created.ID, "failed")
		return
	}
	p.GitLab.SetStatus(created.Project, created.ID, "success")
}

// value reads an input or a variable of a pipeline.
func value(p gitlabtest.Pipeline, name string) string {
	if v, ok := p.Inputs[name].(string); ok {
		return v
	}
	return p.Variables[strings.ToUpper(name)]
}

type job struct {
	*Sandbox
	pipeline                gitlabtest.Pipeline
	repository, tag, digest string
}

func (j job) event(what, detail string, bad bool) {
	j.events.add(Event{
		Who: fmt.Sprintf("pipeline %d", j.pipeline.ID), Image: j.repository + ":" + j.tag, What: what, Detail: detail, Bad: bad,
	})
}

// run returns what is to be reported in the end.
func (j job) run(stepTime time.Duration) (status, message string) {
	if err := j.report("running", ""); err != nil {
		j.event("could not report that it runs", err.Error(), true)
	}
	time.Sleep(stepTime)
	if j.elsewhere {
		return j.pretend(stepTime)
	}
	now, err := j.registry.digest(j.repository, j.tag)
	switch {
	case take(&j.failures):
		j.event("fails, as it was told to", "", true)
		return "failure", "It was told to fail."
	case isNotFound(err):
		j.event("finds that the tag is gone", "", false)
		return "superseded", "The tag is gone."
	case err != nil:
		j.event("failed", err.Error(), true)
		return "failure", "The registry did not tell what the tag is."
	case now != j.digest:
		j.event("finds another image under the tag", "", false)
		return "superseded", "The tag is " + now + " by now."
	case j.registry.signed(j.repository, now):
		j.event("finds the image signed already, and moves latest", "", false)
		if err := j.moveLatest(now); err != nil {
			j.event("failed", err.Error(), true)
			return "failure", "The registry refused a push."
		}
		return "skipped", "The image is signed already."
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"signs the image (pretended)", func() error { return j.registry.pretendSignature(j.repository, now) }},
		{"pushes the tag again", func() error { return j.registry.retag(j.repository, now, j.tag) }},
		{"moves latest", func() error { return j.moveLatest(now) }},
	}
	for _, step := range steps {
		j.event(step.what, "", false)
		if err := step.do(); err != nil {
			j.event("failed", err.Error(), true)
			return "failure", "The registry refused a push."
		}
		time.Sleep(stepTime)
	}
	return "success", ""
}

// pretend does nothing to an image that is in a registry elsewhere.
func (j job) pretend(stepTime time.Duration) (status, message string) {
	if take(&j.failures) {
		j.event("fails, as it was told to", "", true)
		return "failure", "It was told to fail."
	}
	for _, what := range []string{"would sign the image", "would move latest"} {
		j.event(what, "", false)
		time.Sleep(stepTime)
	}
	return "success", "Nothing was signed: this pipeline is pretended."
}

// moveLatest pushes latest, if it is another image.
func (j job) moveLatest(digest string) error {
	if now, err := j.registry.digest(j.repository, "latest"); err == nil && now == digest {
		return nil
	}
	return j.registry.retag(j.repository, digest, "latest")
}

// runReally runs the real template.
func (j job) runReally(ctx context.Context, runner *Runner) error {
	token, err := j.idToken()
	if err != nil {
		return err
	}
	return runner.Run(ctx, Run{
		Registry: j.registry.host, NotifyURL: j.URL + "/notify/", Token: token, PipelineURL: j.pipeline.WebURL,
		Inputs:     j.inputs(),
		WithoutKey: take(&j.failures),
	}, func(line string) {
		if _, said, ok := strings.Cut(line, "hubrelay: "); ok {
			j.event(said, "", false)
		}
	})
}

// inputs are what Trigger gave to the pipeline.
func (j job) inputs() map[string]string {
	inputs := map[string]string{}
	for _, name := range []string{"image_repository", "image_tag", "image_digest", "image_pushed_at", "promotion_id"} {
		inputs[name] = value(j.pipeline, name)
	}
	return inputs
}

func (j job) idToken() (string, error) {
	return j.GitLab.IDToken(gitlabtest.Claims{
		Project: j.pipeline.Project, Audience: audience, Ref: j.pipeline.Ref, RefProtected: true,
		PipelineID: j.pipeline.ID, PipelineSource: j.pipeline.Source, JobID: j.pipeline.JobID,
		Expiry: time.Hour, // the job's time-out
	})
}

// reportAttempts is how often a report is sent, as by curl --retry.
const reportAttempts = 5

// report does what the pipeline's curl does.
func (j job) report(status, message string) error {
	form := url.Values{
		"status": {status}, "repository": {j.repository}, "tag": {j.tag}, "digest": {j.digest},
		"promotion_id": {value(j.pipeline, "promotion_id")}, "pipeline_url": {j.pipeline.WebURL}, "message": {message},
	}
	for attempt := 1; ; attempt++ {
		wait, err := j.send(form.Encode())
		if err == nil || wait == 0 || attempt == reportAttempts {
			return err
		}
		time.Sleep(wait)
	}
}

// send reports once. It returns how long to wait before the next attempt, 0
// where there shall be none.
func (j job) send(form string) (wait time.Duration, err error) {
	token, err := j.idToken()
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequest(http.MethodPost, j.URL+"/notify/", strings.NewReader(form))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	client := http.Client{Timeout: time.Minute}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK, http.StatusAccepted: // it is recorded
		return 0, nil
	}
	body, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
	if res.StatusCode == http.StatusServiceUnavailable {
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		wait = time.Duration(seconds) * time.Second
	}
	return wait, errors.New(res.Status + ": " + string(body))
}

// take takes one of what was asked for, if any is left.
func take(n *atomic.Int64) bool {
	for {
		left := n.Load()
		if left == 0 {
			return false
		}
		if n.CompareAndSwap(left, left-1) {
			return true
		}
	}
}

// heardInSlack tells of a message that was posted, updated or replied.
func (s *Sandbox) heardInSlack(m slacktest.Message) {
	what := "hears"
	switch {
	case m.ThreadTS != "":
		what = "hears, in the thread"
	case m.Edits > 0:
		what = "sees the message change"
	}
	s.events.add(Event{Who: "slack", What: what, Detail: emoji.Replace(m.Text), Talk: true})
}

// emoji are those that hubrelay uses, as Slack shows them.
var emoji = strings.NewReplacer(
	":hourglass_flowing_sand:", "⏳", ":white_check_mark:", "✅", ":x:", "❌", ":fast_forward:", "⏩", ":rotating_light:", "🚨", ":grey_question:", "❔",
	"&lt;", "<", "&gt;", ">", "&amp;", "&",
)

// willDeliverAgain tells that Pub/Sub waits.
func (s *Sandbox) willDeliverAgain(m *pubsubapi.Message, wait time.Duration) {
	s.events.add(Event{Who: "pub/sub", Image: imageOf(m), What: fmt.Sprintf("delivers again in %s", wait)})
}

// sawDeadLetter tells of a message that was given up.
func (s *Sandbox) sawDeadLetter(m *pubsubapi.Message) {
	death := pubsub.Message{Attributes: m.Attributes}.Death()
	what := death.Reason
	if what == "" {
		what = fmt.Sprintf("gave up after %d attempts", death.Attempts)
	}
	detail := death.Hint
	if death.Words != "" {
		detail += " GitLab says: " + death.Words
	}
	s.events.add(Event{Who: "dead letter", Image: imageOf(m), What: what, Detail: strings.TrimSpace(detail), Bad: true})
}

func imageOf(m *pubsubapi.Message) string {
	return m.Attributes["repository"] + ":" + m.Attributes["tag"]
}

// anyProject makes every project of the fake GitLab exist, with one token.
func (s *Sandbox) anyProject() string {
	token := secret("glptt")
	s.GitLab.AnyProject(token)
	return token
}

// googleToken makes the token with which Google calls Notify.
func (s *Sandbox) googleToken() (string, error) {
	return s.google.IDToken(gitlabtest.Claims{
		Project: "none/none", Audience: pushAudience, Extra: map[string]any{"email": pushAccount, "email_verified": true},
	})
}

// clock is one job of Cloud Scheduler: it calls a path now and again.
func (s *Sandbox) clock(ctx context.Context, every time.Duration, path string) {
	for {
		if pause(ctx, every); ctx.Err() != nil {
			return
		}
		token, err := s.googleToken()
		if err != nil {
			s.events.add(Event{Who: "clock", What: "has no token: " + err.Error(), Bad: true})
			continue
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, nil)
		if err != nil {
			continue
		}
		req.Header.Set("Authorization", "Bearer "+token)
		if res, err := s.queue.http.Do(req); err == nil {
			_ = res.Body.Close()
		}
	}
}
