package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// dockerHub calls the webhook for every push to the registry, and lists the
// pushes in its API.
type dockerHub struct {
	webhookURL string
	events     *events
	stages     *stages
	faults     *faults
	clock      *clock
	api        *hubtest.Server
	fast       bool // a push whose webhook is lost counts as old enough to be missed

	mu   sync.Mutex
	last time.Time // of the last push
}

// tick returns the time of a push. Docker Hub gives it in seconds. No two are
// the same here, because real pushes take more than a second.
func (d *dockerHub) tick() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.clock.now().Truncate(time.Second)
	if !now.After(d.last) {
		now = d.last.Add(time.Second)
	}
	d.last = now
	return now
}

// pushed calls the webhook, several times for a multi-arch image, each with a
// different time. Like Docker Hub, it never repeats a call.
func (d *dockerHub) pushed(m pushedManifest) {
	ev := Event{Stage: Hub, Who: "docker hub", Image: m.repository + ":" + m.tag, digest: m.digest}
	push := hubtest.Push{Repository: m.repository, Tag: m.tag, Digest: m.digest, At: d.clock.now()}
	if m.artifact != "" {
		push.MediaType, push.ContentType = m.artifact, "artifact"
	}
	_, loses := d.faults.take(Hub, lost)
	if loses && d.fast {
		d.api.DeleteTag(m.repository, m.tag)
		push.At = push.At.Add(-ledger.RegistryLag)
	}
	d.api.Push(push)
	d.stages.begin(Hub)
	defer d.stages.end(Hub, loses)
	if loses {
		ev.What, ev.Bad = "pushed; its webhooks are lost", true
		d.events.add(ev)
		return
	}
	ev.What = "pushed; calls the webhook"
	if m.webhooks > 1 {
		ev.What = fmt.Sprintf("pushed, multi-arch; calls the webhook %d times", m.webhooks)
	}
	d.events.add(ev)
	for range m.webhooks {
		body, err := webhookBody(m, d.tick())
		if err != nil {
			ev.What, ev.Bad = err.Error(), true
			d.events.add(ev)
			return
		}
		go d.clock.work(func() { d.call(ev.Image, body) })
	}
}

// webhookBody is the body of Docker Hub's webhook. It has the media type if the
// push is not an image.
func webhookBody(m pushedManifest, at time.Time) ([]byte, error) {
	body, err := dockerhub.Webhook(m.repository, m.tag, at)
	if err != nil || m.artifact == "" {
		return body, err
	}
	var fields, data map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(fields["push_data"], &data); err != nil {
		return nil, err
	}
	if data["media_type"], err = json.Marshal(m.artifact); err != nil {
		return nil, err
	}
	if fields["push_data"], err = json.Marshal(data); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

func (d *dockerHub) call(image string, body []byte) {
	res, err := http.Post(d.webhookURL, "application/json", bytes.NewReader(body))
	if err != nil {
		d.events.add(Event{Stage: Hub, Who: "docker hub", Image: image, What: "the webhook does not answer", Bad: true})
		return
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		d.events.add(Event{Stage: Hub, Who: "docker hub", Image: image, What: "the webhook answers " + res.Status, Bad: true})
	}
}

// pipelines is the runner of the fake GitLab. Without a Runner it simulates the
// real pipeline: it makes the same changes in the registry and the same
// reports, and signs nothing.
type pipelines struct {
	*Sandbox
	ctx      context.Context
	runner   *Runner
	stepTime time.Duration

	turns sync.Map // by repository: a *sync.Mutex, as the resource_group of the template
}

func (p *pipelines) run(created gitlabtest.Pipeline) {
	p.clock.work(func() {
		p.stages.begin(Pipeline)
		took := run{began: p.clock.now()}
		p.runs.add(created.ID, took)
		good := p.play(created)
		p.stages.end(Pipeline, !good)
		took.ended, took.bad = p.clock.now(), !good
		p.runs.add(created.ID, took)
	})
}

// play simulates a pipeline, and reports whether it succeeded.
func (p *pipelines) play(created gitlabtest.Pipeline) (good bool) {
	job := job{
		Sandbox:    p.Sandbox,
		ctx:        p.ctx,
		pipeline:   created,
		repository: value(created, "image_repository"),
		tag:        value(created, "image_tag"),
		digest:     value(created, "image_digest"),
	}
	fault, _ := p.faults.take(Pipeline)
	p.mute.Delete(created.ID)
	switch fault.Answer {
	case silent:
		p.mute.Store(created.ID, true)
		job.event("reports nothing, because a fault is set", "", true)
		return false
	case stuck:
		p.GitLab.SetStatus(created.Project, created.ID, "pending")
		job.event("waits, because no runner takes its job", "", true)
		return false
	}
	turn, _ := p.turns.LoadOrStore(job.repository, &sync.Mutex{})
	p.clock.count(-1) // it waits for another's turn
	turn.(*sync.Mutex).Lock()
	p.clock.count(1)
	defer turn.(*sync.Mutex).Unlock()
	p.GitLab.SetStatus(created.Project, created.ID, "running")
	switch fault.Answer {
	case slow:
		job.event("takes longer, because a fault is set", "", false)
		p.clock.sleep(p.ctx, fault.Latency)
	case canceled:
		p.GitLab.Cancel(created.Project, created.ID)
		job.event("was canceled in GitLab", "", true)
		return false
	}
	job.fails, job.mute = fault.Answer == fails, fault.Answer == unreported
	if p.runner != nil {
		status := "success"
		if err := job.runReally(p.ctx, p.runner); err != nil {
			job.event("ended", err.Error(), true)
			status = "failed"
		}
		p.GitLab.SetStatus(created.Project, created.ID, status)
		return status == "success"
	}
	status, message := job.run(p.stepTime)
	if err := job.report(status, message); err != nil {
		job.event("could not report "+status, err.Error(), true)
	}
	if status == "failure" {
		p.GitLab.SetStatus(created.Project, created.ID, "failed")
		return false
	}
	p.GitLab.SetStatus(created.Project, created.ID, "success")
	return true
}

// run is the time that a pipeline took: the last run, if its job was retried.
type run struct {
	began, ended time.Time // ended is zero while it runs
	bad          bool
}

// runs are those of the newest pipelines, by ID.
type runs struct {
	mu    sync.Mutex
	all   map[int]run
	order []int
}

func (r *runs) add(id int, took run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[int]run{}
	}
	if _, again := r.all[id]; !again {
		r.order = append(r.order, id)
	}
	r.all[id] = took
	if len(r.order) > maxRows {
		delete(r.all, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *runs) get(id int) (run, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	took, ok := r.all[id]
	return took, ok
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
	ctx                     context.Context
	fails, mute             bool
	pipeline                gitlabtest.Pipeline
	repository, tag, digest string
}

func (j job) event(what, detail string, bad bool) {
	j.events.add(Event{
		Stage: Pipeline, Who: fmt.Sprintf("pipeline %d", j.pipeline.ID), Image: j.repository + ":" + j.tag, PromotionID: value(j.pipeline, "promotion_id"),
		What: what, Detail: detail, Bad: bad,
	})
}

// run returns what must be reported at the end.
func (j job) run(stepTime time.Duration) (status, message string) {
	if err := j.report("running", ""); err != nil {
		j.event("could not report that it runs", err.Error(), true)
	}
	j.clock.sleep(j.ctx, stepTime)
	if j.elsewhere {
		return j.pretend(stepTime)
	}
	now, err := j.registry.digest(j.repository, j.tag)
	switch {
	case j.fails:
		j.event("fails, because a fault is set", "", true)
		return "failure", "A fault is set."
	case isNotFound(err):
		j.event("finds that the tag is gone", "", false)
		return "superseded", "The tag is gone."
	case err != nil:
		j.event("failed", err.Error(), true)
		return "failure", "The registry did not say what the tag is."
	case now != j.digest:
		j.event("finds that the tag is another image", "", false)
		return "superseded", "The tag is now " + now + "."
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
		{"signs the image (simulated)", func() error { return j.registry.pretendSignature(j.repository, now) }},
		{"pushes the tag again", func() error { return j.registry.retag(j.repository, now, j.tag) }},
		{"moves latest", func() error { return j.moveLatest(now) }},
	}
	for _, step := range steps {
		j.event(step.what, "", false)
		if err := step.do(); err != nil {
			j.event("failed", err.Error(), true)
			return "failure", "The registry refused a push."
		}
		j.clock.sleep(j.ctx, stepTime)
	}
	return "success", ""
}

// pretend changes nothing, because the image is in another registry.
func (j job) pretend(stepTime time.Duration) (status, message string) {
	if j.fails {
		j.event("fails, because a fault is set", "", true)
		return "failure", "A fault is set."
	}
	for _, what := range []string{"would sign the image", "would move latest"} {
		j.event(what, "", false)
		j.clock.sleep(j.ctx, stepTime)
	}
	return "success", "Nothing was signed: this pipeline is simulated."
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
	notify := j.URL + "/notify/"
	if j.mute {
		notify = j.URL + "/nothing-is-here/"
	}
	return runner.Run(ctx, Run{
		Registry: j.registry.host, NotifyURL: notify, Token: token, PipelineURL: j.pipeline.WebURL,
		Inputs:     j.inputs(),
		WithoutKey: j.fails,
	}, func(line string) {
		if _, said, ok := strings.Cut(line, "hubrelay: "); ok {
			j.event(said, "", false)
		}
	})
}

var inputNames = []string{"image_repository", "image_tag", "image_digest", "image_pushed_at", "promotion_id"}

// inputs are what Trigger gave to the pipeline.
func (j job) inputs() map[string]string {
	inputs := map[string]string{}
	for _, name := range inputNames {
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
	if j.mute {
		return nil
	}
	form := url.Values{
		"status": {status}, "repository": {j.repository}, "tag": {j.tag}, "digest": {j.digest},
		"promotion_id": {value(j.pipeline, "promotion_id")}, "pipeline_url": {j.pipeline.WebURL}, "message": {message},
	}
	for attempt := 1; ; attempt++ {
		wait, err := j.send(form.Encode())
		if err == nil || wait == 0 || attempt == reportAttempts {
			return err
		}
		j.clock.sleep(j.ctx, wait)
	}
}

// send reports once. It returns how long to wait before the next attempt, 0 if
// there must be none.
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
		return time.Second, err // Google answers 503 for an instance that has gone
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

// heardInSlack adds an event for a message that was posted, updated or replied.
func (s *Sandbox) heardInSlack(m slacktest.Message) {
	what := "shows a message"
	switch {
	case m.ThreadTS != "":
		what = "shows a reply"
	case m.Edits > 0:
		what = "updates the message"
	}
	promotion, _ := s.index.mentioned(string(m.Blocks))
	s.events.add(Event{Stage: Slack, Who: "slack", PromotionID: promotion, What: what, Detail: emoji.Replace(m.Text), Talk: true})
}

// emoji are hubrelay's emoji, as Slack shows them.
var emoji = strings.NewReplacer(
	":hourglass_flowing_sand:", "⏳", ":white_check_mark:", "✅", ":x:", "❌", ":fast_forward:", "⏩", ":rotating_light:", "🚨", ":grey_question:", "❔",
	"&lt;", "<", "&gt;", ">", "&amp;", "&",
)

// willDeliverAgain adds an event when Pub/Sub waits for the next delivery.
func (s *Sandbox) willDeliverAgain(m *pubsubapi.Message, wait time.Duration) {
	s.events.add(Event{Stage: Topic, Who: "pub/sub", Image: imageOf(m), MessageID: m.ID, What: fmt.Sprintf("delivers again in %s", wait)})
}

// sawDeadLetter adds an event for a message that was given up.
func (s *Sandbox) sawDeadLetter(m *pubsubapi.Message) {
	letter := pubsub.Message{Attributes: m.Attributes}
	death := letter.Death()
	what := death.Reason
	if what == "" {
		what = fmt.Sprintf("gave up after %d attempts", death.Attempts)
	}
	detail := death.Hint
	if death.Words != "" {
		detail += " GitLab says: " + death.Words
	}
	message, promotion := s.hints.of(letter)
	s.stages.begin(DeadLetters)
	s.stages.end(DeadLetters, true)
	s.events.add(Event{
		Stage: DeadLetters, Who: "dead letter", Image: imageOf(m), PromotionID: cmp.Or(death.PromotionID, promotion), MessageID: cmp.Or(message, m.ID),
		What: what, Detail: strings.TrimSpace(detail), Bad: true,
	})
}

func imageOf(m *pubsubapi.Message) string {
	return m.Attributes["repository"] + ":" + m.Attributes["tag"]
}

// sawMessage records a message that Pub/Sub is about to deliver.
func (s *Sandbox) sawMessage(m *pubsubapi.Message) {
	s.stages.begin(Topic)
	attributes := map[string]string{}
	for name, value := range m.Attributes {
		attributes[name] = s.keep(value, maxRead)
	}
	s.hints.taken(m, imageOf(m), s.keep(string(m.Data), maxRead), attributes)
}

// googleToken makes the token with which Google calls Notify.
func (s *Sandbox) googleToken() (string, error) {
	return s.google.IDToken(gitlabtest.Claims{
		Project: "none/none", Audience: pushAudience, Extra: map[string]any{"email": pushAccount, "email_verified": true},
	})
}

// schedule is one job of Cloud Scheduler: it calls a path at regular intervals.
func (s *Sandbox) schedule(ctx context.Context, every time.Duration, path string) {
	s.clock.work(func() {
		for {
			if s.clock.sleep(ctx, every); ctx.Err() != nil {
				return
			}
			_, _ = s.ring(ctx, path) // the functions log what is wrong
		}
	})
}

// ring calls a path as Cloud Scheduler does, and returns the answer.
func (s *Sandbox) ring(ctx context.Context, path string) (json.RawMessage, error) {
	token, err := s.googleToken()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	status, answer, err := s.ask(req)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s answered %d: %s", path, status, answer)
	}
	return answer, err
}

// ask sends a request of the sandbox itself, and returns the answer as JSON.
func (s *Sandbox) ask(req *http.Request) (status int, answer json.RawMessage, err error) {
	res, err := s.queue.http.Do(req)
	if err != nil {
		var unanswered *url.Error
		if errors.As(err, &unanswered) {
			err = unanswered.Err // the URL may have a token
		}
		return 0, nil, fmt.Errorf("%s gave no answer: %w", strings.Split(req.URL.Path, "/")[1], err)
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxKept))
	if err == nil && !json.Valid(answer) {
		answer, err = json.Marshal(string(answer))
	}
	return res.StatusCode, bytes.TrimSpace(answer), err
}
