package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// The faults outside of hubrelay, and their probabilities.
const (
	gitlabFails     = 0.30
	registryFails   = 0.03
	slackFails      = 0.03
	messagesDeleted = 0.02 // by people, while a pipeline runs
	imagesMissing   = 0.02 // until the faults end
	imagesLate      = 0.05
	pipelinesSilent = 0.03 // until the faults end
	pipelinesFail   = 0.10
	jobsRetried     = 0.60 // of those that failed, soon
	reportsDoubled  = 0.10
	tagsMove        = 0.12
	multiArch       = 0.30
	webhooksLost    = 0.05 // by Docker Hub, where the run is long

	moveStep = 1500 * time.Millisecond // at most, between two moves of a tag
)

// chaos is hubrelay as eight processes, while everything around them fails.
type chaos struct {
	t    *testing.T
	seed uint64
	http *http.Client

	registry, slack, gitlab      *httptest.Server // faulty
	hub                          *hubtest.Server
	loses                        bool // Docker Hub loses webhooks, and reconcile asks it
	gitlabFake, google           *gitlabtest.Server
	slackFake                    *slacktest.Server
	pubsubHost                   string
	ledger                       *tcpProxy
	book                         *ledger.Ledger // read without that
	webhooks, triggers, notifies *balancer
	instances                    []*instance
	jobs                         sync.WaitGroup // of pipelines
	turns                        sync.Map       // by repository: a *sync.Mutex, as its resource_group

	mu      sync.Mutex
	rng     *rand.Rand
	well    bool            // the faults have ended
	tags    map[string]int  // by image: the version that its tag points to
	moves   map[string]int  // by image: how often it was pushed
	signed  map[string]bool // by digest
	asked   map[string]int  // by image: questions to the registry
	stopped []gitlabtest.Pipeline

	accepted     map[string]bool     // images of which a webhook was answered with 202
	calls        int                 // webhooks that were answered with 202
	pipelines    map[string][]string // by promotion_id: the URLs of pipelines that GitLab created
	answered     map[string]bool     // by URL: Trigger has answered that it created it
	dead         map[string]int      // by image: dead letters
	kills        int                 // of processes
	notifyKilled []time.Time
	replayed     int // dead letters
	overdue      int // tags that reconcile has queued
	found        int // pushes that it has found
	reconciled   int // times that it has answered
	lostCalls    int // webhooks
	retried      int // jobs, by hand
	silences     int // pipelines that reported nothing, or not their end
	refused      int // reports
	lostPosts    int // messages whose answer was lost on the way
}

// chance reports whether something of a probability happens.
func (c *chaos) chance(p float64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.well && c.rng.Float64() < p
}

// always reports whether an image is in a fraction p of all images, the same
// for a whole run.
func (c *chaos) always(image, what string, p float64) bool {
	var h uint64 = c.seed
	for _, b := range []byte(image + what) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return rand.New(rand.NewPCG(h, c.seed)).Float64() < p
}

func (c *chaos) isWell() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.well
}

// getWell ends all faults, and retries every job that is not done.
func (c *chaos) getWell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.well = true
	for _, p := range c.stopped {
		c.retried++
		c.jobs.Go(func() { c.play(p, true) })
	}
	c.stopped = nil
}

func newChaos(t *testing.T, seed uint64, loses bool) *chaos {
	t.Helper()
	c := &chaos{
		t: t, seed: seed, loses: loses, hub: hubtest.New(), rng: rand.New(rand.NewPCG(seed, 0)), http: &http.Client{Timeout: time.Minute},
		tags: map[string]int{}, moves: map[string]int{}, signed: map[string]bool{}, asked: map[string]int{},
		accepted: map[string]bool{}, pipelines: map[string][]string{}, answered: map[string]bool{}, dead: map[string]int{},
	}
	serve := func(h http.HandlerFunc) *httptest.Server {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s
	}
	c.registry = serve(c.fakeRegistry)
	c.slackFake = slacktest.New(botToken)
	routes := map[string]any{}
	for n := range chaosRepos {
		name, channel := fmt.Sprintf("r%02d", n), fmt.Sprintf("C0IMAGES%02d", n)
		c.slackFake.AddChannel(channel, name)
		routes["acme/"+name] = map[string]any{"gitlab": map[string]string{"project": "acme/images/" + name}, "slack": map[string]string{"channel": channel}}
	}
	c.slackFake.AddChannel("C0DEFAULT", "default")
	table, err := json.Marshal(routes)
	if err != nil {
		t.Fatal(err)
	}
	c.slack = serve(c.faultySlack)
	c.gitlab = serve(c.faultyGitLab)
	c.gitlabFake = gitlabtest.New(c.gitlab.URL)
	c.gitlabFake.AnyProject(triggerToken)
	c.gitlabFake.OnPipeline(c.created)
	google := serve(func(w http.ResponseWriter, r *http.Request) { c.google.ServeHTTP(w, r) })
	c.google = gitlabtest.New(google.URL)

	c.webhooks, c.triggers, c.notifies = newBalancer(t), newBalancer(t), newBalancer(t)
	c.triggers.heard = c.heardTrigger
	firestore := gcptest.Firestore(t)
	t.Setenv("FIRESTORE_EMULATOR_HOST", firestore)
	if c.book, err = ledger.Open(chaosLedger); err != nil {
		t.Fatal(err)
	}
	c.ledger = newTCPProxy(t, firestore)
	c.startPubSub()

	hub := map[string]string{"RECONCILE": "off"}
	if loses {
		hub = map[string]string{"HUB_URL": serve(c.hub.ServeHTTP).URL}
	}
	project := map[string]string{
		"GOOGLE_CLOUD_PROJECT": "demo", "PUBSUB_EMULATOR_HOST": c.pubsubHost, "FIRESTORE_EMULATOR_HOST": c.ledger.addr,
		"TOPIC": chaosTopic, "ROUTES": string(table), "LEDGER": chaosLedger,
	}
	for _, kind := range []struct {
		target   string
		n        int
		before   *balancer
		settings map[string]string
	}{
		{"Webhook", 3, c.webhooks, map[string]string{"WEBHOOK_TOKENS": webhookToken}},
		{"Trigger", 3, c.triggers, with(hub, map[string]string{
			"GITLAB_TRIGGER_TOKENS": fmt.Sprintf(`{"*": %q}`, triggerToken), "GITLAB_URL": c.gitlab.URL,
			"DEAD_LETTER_TOPIC": chaosDead, "REGISTRY": c.registry.URL,
		})},
		{"Notify", 2, c.notifies, map[string]string{
			"SLACK_BOT_TOKEN": botToken, "SLACK_API_URL": c.slack.URL + "/api/", "DEFAULT_CHANNEL": "C0DEFAULT", "SILENT_AFTER": "1m",
			"OIDC_ISSUER": c.gitlab.URL, "OIDC_AUDIENCE": audience,
			"PUSH_ISSUER": google.URL, "PUSH_AUDIENCE": pushAudience, "PUSH_SERVICE_ACCOUNT": pushAccount,
		}},
	} {
		for n := range kind.n {
			i := newInstance(t, fmt.Sprintf("%s %d", kind.target, n+1), kind.target, with(project, with(kind.settings, map[string]string{})))
			kind.before.add(i.url)
			c.instances = append(c.instances, i)
		}
	}
	return c
}

// startPubSub creates the same as terraform/pubsub.tf, with shorter waits.
func (c *chaos) startPubSub() {
	t := c.t
	c.pubsubHost = gcptest.PubSub(t)
	ctx, cancel := context.WithCancel(context.Background())
	letters := map[string]bool{}
	var (
		q   *sandbox.Queue
		err error
	)
	eventually(t, "Pub/Sub is ready", func() error {
		q, err = sandbox.StartQueue(ctx, sandbox.QueueConfig{
			Host: c.pubsubHost, Topic: chaosTopic, DeadLetterTopic: chaosDead, MaxDeliveryAttempts: chaosAttempts,
			Backoff:  sandbox.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second},
			Endpoint: c.triggers.URL, DeadLetterEndpoint: c.notifies.URL + "/dead-letter", Token: c.googleToken,
			Dead: func(m *pubsubapi.Message) {
				c.mu.Lock()
				defer c.mu.Unlock()
				if !letters[m.ID] {
					letters[m.ID] = true
					c.dead[m.Attributes["repository"]+":"+m.Attributes["tag"]]++
				}
			},
		})
		return err
	})
	var running sync.WaitGroup
	running.Go(func() { q.Deliver(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		q.Close()
	})
}

// googleToken is what Google shows with a push, and with a clock's call.
func (c *chaos) googleToken() (string, error) {
	return c.google.IDToken(gitlabtest.Claims{
		Project: "none/none", Audience: pushAudience, Extra: map[string]any{"email": pushAccount, "email_verified": true},
	})
}

// heardTrigger reads Trigger's answers to Pub/Sub.
func (c *chaos) heardTrigger(body []byte) {
	var said struct {
		Outcome string
		URL     string `json:"pipeline_url"`
	}
	if json.Unmarshal(body, &said) == nil && said.Outcome == "triggered" {
		c.mu.Lock()
		c.answered[said.URL] = true
		c.mu.Unlock()
	}
}

// moveTag points a tag to a version of its image.
func (c *chaos) moveTag(image string, version int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tags[image] = version
	c.moves[image]++
	repository, tag, _ := strings.Cut(image, ":")
	c.hub.Push(hubtest.Push{Repository: repository, Tag: tag, Digest: digestOf(image, version)})
}

// manifestOf is a version of an image, as far as the registry shows it.
func manifestOf(image string, version int) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"version":"%s@%d"}}`, indexType, image, version)
}

const indexType = "application/vnd.oci.image.index.v1+json"

func digestOf(image string, version int) string {
	sum := sha256.Sum256(manifestOf(image, version))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// fakeRegistry has every image, some of them late, and some only after the
// faults have ended.
func (c *chaos) fakeRegistry(w http.ResponseWriter, r *http.Request) {
	repository, tag, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	if !ok {
		return // /v2/ itself
	}
	if c.chance(registryFails) {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	image := repository + ":" + tag
	c.mu.Lock()
	c.asked[image]++
	asked, version := c.asked[image], c.tags[image]
	c.mu.Unlock()
	if c.always(image, "missing", imagesMissing) && !c.isWell() || asked < 3 && c.always(image, "late", imagesLate) {
		http.NotFound(w, r)
		return
	}
	manifest := manifestOf(image, version)
	w.Header().Set("Docker-Content-Digest", digestOf(image, version))
	w.Header().Set("Content-Type", indexType)
	w.Header().Set("Content-Length", strconv.Itoa(len(manifest)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(manifest)
	}
}

// faultySlack limits, is down, or loses its answer once the message is posted.
func (c *chaos) faultySlack(w http.ResponseWriter, r *http.Request) {
	if !c.chance(slackFails) {
		c.slackFake.ServeHTTP(w, r)
		return
	}
	c.mu.Lock()
	how := c.rng.IntN(3)
	c.mu.Unlock()
	switch how {
	case 0:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case 1:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		c.slackFake.ServeHTTP(httptest.NewRecorder(), r)
		if strings.HasSuffix(r.URL.Path, "chat.postMessage") {
			c.mu.Lock()
			c.lostPosts++
			c.mu.Unlock()
		}
		panic(http.ErrAbortHandler)
	}
}

// refusals are the rows of GitLab's table before a pipeline is created, and how
// likely each is beside the others.
var refusals = []struct {
	weight int
	status int
	body   string
}{
	{20, 500, ""}, {15, 502, "<html>"}, {15, 503, ""}, {10, 403, "Forbidden"}, {20, 429, "Retry later"},
	{1, 400, `{"message":{"base":["Too many pipelines created in the last minute. Try again later."]}}`},
	{8, 422, `{"message":{"base":["Project exceeded the allowed number of jobs in active pipelines. Retry later."]}}`},
	{4, 400, `{"message":{"base":["The moon is in the wrong phase"]}}`},
	{10, 400, `{"message":{"base":["Reference not found"]}}`},
	{4, 400, `{"message":{"base":["Insufficient permissions to set pipeline variables"]}}`},
	{4, 400, `{"message":{"base":["Pipeline filtered out by workflow rules."]}}`},
	{4, 400, `{"message":{"base":["given inputs not defined in the spec section"]}}`},
	{4, 401, `{"message":"401 Unauthorized"}`}, {6, 404, `{"message":"404 Not Found"}`},
	{4, 422, `{"message":{"base":["jobs config should contain at least one visible job"]}}`},
	{10, resetsConnection, ""}, {3, hangs, ""},
}

// What is no status.
const (
	resetsConnection = -1
	hangs            = -2
)

// faultyGitLab creates pipelines, unless it fails before, or after.
func (c *chaos) faultyGitLab(w http.ResponseWriter, r *http.Request) {
	fails := r.Method == http.MethodPost && c.chance(gitlabFails)
	after := fails && c.chance(0.2)
	if fails && !after {
		c.refuse(w, r)
		return
	}
	if !fails {
		c.gitlabFake.ServeHTTP(w, r)
		return
	}
	c.gitlabFake.ServeHTTP(httptest.NewRecorder(), r)
	if c.chance(0.5) {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusBadGateway)
}

func (c *chaos) refuse(w http.ResponseWriter, r *http.Request) {
	total := 0
	for _, f := range refusals {
		total += f.weight
	}
	c.mu.Lock()
	at := c.rng.IntN(total)
	c.mu.Unlock()
	for _, f := range refusals {
		if at -= f.weight; at >= 0 {
			continue
		}
		switch f.status {
		case resetsConnection:
			panic(http.ErrAbortHandler)
		case hangs:
			select {
			case <-r.Context().Done():
			case <-time.After(3 * time.Second):
			}
			panic(http.ErrAbortHandler)
		case http.StatusTooManyRequests:
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(f.status)
		_, _ = w.Write([]byte(f.body))
		return
	}
}

// created counts a pipeline, and runs it.
func (c *chaos) created(p gitlabtest.Pipeline) {
	c.mu.Lock()
	id := fmt.Sprint(p.Inputs["promotion_id"])
	c.pipelines[id] = append(c.pipelines[id], p.WebURL)
	c.jobs.Go(func() { c.play(p, false) })
	c.mu.Unlock()
}

// saysRunning reports whether more will be said in a message of Slack: another
// pipeline of the promotion may have ended it.
func (c *chaos) saysRunning(channel, ts string) bool {
	return slices.ContainsFunc(c.slackFake.Messages(), func(m slacktest.Message) bool {
		return m.Channel == channel && m.TS == ts && strings.HasPrefix(m.Text, emoji[ledger.Running])
	})
}

// play does what the template's job does, one at a time for each repository.
// One that is retried does not fail.
func (c *chaos) play(p gitlabtest.Pipeline, retried bool) {
	repository, tag, digest := fmt.Sprint(p.Inputs["image_repository"]), fmt.Sprint(p.Inputs["image_tag"]), fmt.Sprint(p.Inputs["image_digest"])
	image := repository + ":" + tag
	turn, _ := c.turns.LoadOrStore(repository, &sync.Mutex{})
	turn.(*sync.Mutex).Lock()
	defer turn.(*sync.Mutex).Unlock()
	if !retried && c.chance(pipelinesSilent/2) {
		c.stop(p, true)
		return
	}
	channel, ts := c.reportPipeline(p, "running", "")
	if ts != "" && c.chance(messagesDeleted) && c.saysRunning(channel, ts) {
		c.slackFake.Delete(channel, ts)
	}
	if !retried && c.chance(pipelinesSilent/2) {
		c.stop(p, true)
		return
	}
	time.Sleep(rand.N(300 * time.Millisecond))
	fails := !retried && c.chance(pipelinesFail)
	c.mu.Lock()
	status, message := "success", ""
	switch {
	case digestOf(image, c.tags[image]) != digest:
		status, message = "superseded", "The tag is another image by now."
	case c.signed[digest]:
		status, message = "skipped", "The image is signed already."
	case fails && c.rng.IntN(2) == 0:
		status = "canceled"
	case fails:
		status, message = "failure", "The runner has lost its way."
	default:
		c.signed[digest] = true
	}
	c.mu.Unlock()
	c.reportPipeline(p, status, message)
	if c.chance(reportsDoubled) {
		c.reportPipeline(p, "running", "") // late
		c.reportPipeline(p, status, message)
	}
	if status == "failure" || status == "canceled" {
		c.stop(p, false)
	}
}

// stop records a job that is not done. Some of those that failed are retried
// soon.
func (c *chaos) stop(p gitlabtest.Pipeline, silent bool) {
	soon := !silent && c.chance(jobsRetried)
	c.mu.Lock()
	defer c.mu.Unlock()
	if silent {
		c.silences++
	}
	if !soon && !c.well {
		c.stopped = append(c.stopped, p)
		return
	}
	c.retried++
	c.jobs.Go(func() {
		time.Sleep(rand.N(4 * time.Second))
		c.play(p, true)
	})
}

// reportPipeline does what the template's curl does, and returns the message
// that shows it.
func (c *chaos) reportPipeline(p gitlabtest.Pipeline, status, message string) (channel, ts string) {
	form := url.Values{
		"status": {status}, "promotion_id": {fmt.Sprint(p.Inputs["promotion_id"])}, "message": {message}, "pipeline_url": {p.WebURL},
		"repository": {fmt.Sprint(p.Inputs["image_repository"])}, "tag": {fmt.Sprint(p.Inputs["image_tag"])}, "digest": {fmt.Sprint(p.Inputs["image_digest"])},
	}.Encode()
	for range 60 {
		code, answer := c.sendReport(p, form)
		switch {
		case code == http.StatusOK || code == http.StatusAccepted:
			var told struct{ Channel, TS string }
			_ = json.Unmarshal([]byte(answer), &told)
			return told.Channel, told.TS
		case code != 0 && code < 500:
			c.mu.Lock()
			c.refused++
			c.mu.Unlock()
			c.t.Logf("%s is refused: %d %s", form, code, answer)
			return "", ""
		}
		time.Sleep(time.Second)
	}
	c.t.Errorf("nobody takes %s", form)
	return "", ""
}

func (c *chaos) sendReport(p gitlabtest.Pipeline, form string) (code int, answer string) {
	token, err := c.gitlabFake.IDToken(gitlabtest.Claims{
		Project: p.Project, Audience: audience, Ref: p.Ref, RefProtected: true, PipelineID: p.ID, PipelineSource: p.Source, JobID: p.JobID,
	})
	if err != nil {
		c.t.Error(err)
		return 0, ""
	}
	req, err := http.NewRequest(http.MethodPost, c.notifies.URL, strings.NewReader(form))
	if err != nil {
		c.t.Error(err)
		return 0, ""
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.http.Do(req)
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, ""
	}
	return res.StatusCode, string(body)
}
