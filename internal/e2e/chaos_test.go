package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/sandbox"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

var (
	chaosWebhooks = flag.Int("webhooks", 0, "how many webhooks TestChaos sends; 1,000 where CI is set, else 300")
	chaosSeed     = flag.Uint64("seed", 0, "of the choices that TestChaos makes; not of how the machine schedules them")
)

// Settings of the Google Cloud that the test plays.
const (
	chaosTopic      = "projects/demo/topics/hubrelay-pushes"
	chaosDead       = "projects/demo/topics/hubrelay-dead-letters"
	chaosLetters    = "projects/demo/subscriptions/hubrelay-dead-letters"
	chaosLedger     = "firestore:projects/demo/databases/chaos"
	chaosAttempts   = 20
	chaosRepos      = 50
	settleTime      = 8 * time.Minute
	restartEvery    = 400 * time.Millisecond
	ledgerAwayTime  = 6 * time.Second
	gitlabFails     = 0.30
	slackLimits     = 0.10
	imagesMissing   = 0.02
	pipelinesSilent = 0.02
)

const chaosRoutes = `{"acme/*": {"gitlab": {"project": "acme/{name}"}, "slack": {"channel": "C0IMAGES"}}}`

// chaos is hubrelay as eight processes, in a world that fails.
type chaos struct {
	t    *testing.T
	seed uint64

	registry, slack, gitlab      *httptest.Server // faulty
	pubsubHost                   string
	ledger                       *tcpProxy
	google                       *gitlabtest.Server // of which only the issuer of tokens is used
	slackFake                    *slacktest.Server
	webhooks, triggers, notifies *balancer
	instances                    []*instance
	http                         *http.Client

	mu        sync.Mutex
	rng       *rand.Rand
	well      bool                // nothing outside fails any more
	accepted  map[string]bool     // images of which a webhook was answered with 202
	calls     int                 // webhooks that were answered with 202
	pipelines map[string][]string // by image: the URLs of pipelines that GitLab created
	answered  map[string]bool     // by URL: Trigger has answered that it created it
	unsure    map[string]bool     // images of which the ledger could not be told
	dead      map[string]int      // by image: dead letters
	told      map[string]bool     // images of whose death Slack was told
	asked     map[string]int      // by image: questions to the registry
	reports   sync.WaitGroup
}

// chance tells whether something of a probability happens.
func (c *chaos) chance(p float64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.well && c.rng.Float64() < p
}

// always tells of an image whether it is among a part p of all, for the whole
// of a run.
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

func TestChaos(t *testing.T) {
	webhooks := *chaosWebhooks
	if webhooks == 0 {
		webhooks = 300
		if os.Getenv("CI") != "" {
			webhooks = 1000
		}
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d: go test ./internal/e2e -run TestChaos -args -webhooks %d -seed %d", seed, webhooks, seed)
	c := newChaos(t, seed)

	began := time.Now()
	stop := c.killAtRandom()
	c.send("a", webhooks/2)
	c.ledger.awayFor(ledgerAwayTime)
	c.send("b", webhooks/2)
	stop()
	c.settle()
	c.report("under faults", began)

	// A rolling restart of everything, while pushes go on.
	began = time.Now()
	var running sync.WaitGroup
	running.Go(func() { c.send("c", webhooks/10) })
	for _, i := range c.instances {
		i.restart(syscall.SIGTERM)
	}
	running.Wait()
	c.settle()
	c.report("and a rolling restart", began)

	// All is well again: every dead letter becomes a pipeline.
	c.mu.Lock()
	c.well = true
	c.mu.Unlock()
	began = time.Now()
	command := filepath.Join(t.TempDir(), "hubrelay")
	if out, err := exec.Command("go", "build", "-o", command, "../../cmd/hubrelay").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if said := c.replay(command); !strings.Contains(said, "queued again") {
		t.Errorf("replay says\n%s", said)
	}
	c.until("every image has a pipeline", func() error {
		for image := range c.accepted {
			if len(c.pipelines[image]) == 0 {
				return fmt.Errorf("%s has none", image)
			}
		}
		return nil
	})
	if said := c.replay(command); !strings.Contains(said, "\n0 dead letters seen") {
		t.Errorf("a second replay says\n%s", said)
	}
	c.report("and a replay, once all is well", began)
}

func (c *chaos) replay(command string) string {
	c.t.Helper()
	cmd := exec.Command(command, "replay", "-apply", "-subscription", chaosLetters)
	cmd.Env = append(os.Environ(), "PUBSUB_EMULATOR_HOST="+c.pubsubHost)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("replay: %v\n%s", err, out)
	}
	return "\n" + string(out)
}

// lost returns the images that were accepted and have neither a pipeline nor a
// dead letter of which Slack was told. The caller holds the lock.
func (c *chaos) lost() []string {
	var lost []string
	for image := range c.accepted {
		if len(c.pipelines[image]) == 0 && (c.dead[image] == 0 || !c.told[image]) {
			lost = append(lost, image)
		}
	}
	return lost
}

// settle waits until nothing is lost, and nothing more happens.
func (c *chaos) settle() {
	c.t.Helper()
	c.until("nothing is lost", func() error {
		if lost := c.lost(); len(lost) > 0 {
			return fmt.Errorf("%d images: %.300v", len(lost), lost)
		}
		return nil
	})
	c.reports.Wait()
}

// until waits until check, under the lock, is content.
func (c *chaos) until(what string, check func() error) {
	c.t.Helper()
	var err error
	for end := time.Now().Add(settleTime); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		c.mu.Lock()
		err = check()
		c.mu.Unlock()
		if err == nil {
			return
		}
	}
	c.mu.Lock()
	lost := c.lost()
	c.mu.Unlock()
	for _, image := range lost[:min(3, len(lost))] {
		c.logsOf(image)
	}
	c.t.Fatalf("%s: not within %v: %v", what, settleTime, err)
}

// logsOf shows what the processes said of an image.
func (c *chaos) logsOf(image string) {
	_, tag, _ := strings.Cut(image, ":")
	for _, i := range c.instances {
		text, _ := os.ReadFile(i.log.Name())
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, `"`+tag+`"`) {
				c.t.Logf("%s %s", i.name, line)
			}
		}
	}
}

// report says how it went, and fails the test where a promise was broken.
func (c *chaos) report(when string, began time.Time) {
	c.t.Helper()
	for _, i := range c.instances { // what the ledger could not be told
		text, err := os.ReadFile(i.log.Name())
		if err != nil {
			c.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var said struct{ Message, Repository, Tag string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Message == "ledger not updated" {
				c.mu.Lock()
				c.unsure[said.Repository+":"+said.Tag] = true
				c.mu.Unlock()
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	created, unanswered, unrecorded, unexplained, letters, told, lost := 0, 0, 0, 0, 0, 0, len(c.lost())
	for image, urls := range c.pipelines {
		created += len(urls)
		more := len(urls) - 1
		for _, url := range urls {
			if more > 0 && !c.answered[url] {
				unanswered++
				more--
			}
		}
		switch {
		case more > 0 && c.unsure[image]:
			unrecorded += more
		case more > 0:
			unexplained += more
			c.t.Logf("%s has %v", image, urls)
		}
	}
	for image, n := range c.dead {
		letters += n
		if c.told[image] {
			told++
		}
	}
	c.t.Logf("%s (%v):\n"+
		"  accepted    %6d webhooks, of %d images\n"+
		"  pipelines   %6d\n"+
		"  duplicates  %6d whose answer never arrived, %d that the ledger could not be told of, %d without a reason\n"+
		"  dead letters%6d, of %d images; Slack was told of %d\n"+
		"  lost        %6d",
		when, time.Since(began).Round(time.Second), c.calls, len(c.accepted), created,
		unanswered, unrecorded, unexplained, letters, len(c.dead), told, lost)
	if lost > 0 || unexplained > 0 {
		c.t.Error("a promise was broken")
	}
}

// send sends about n webhooks in bursts: each push once, or six times at once,
// with the same body. What is not accepted is sent again, as a person would.
func (c *chaos) send(series string, n int) {
	var running sync.WaitGroup
	for sent, i := 0, 0; sent < n; i++ {
		image := fmt.Sprintf("acme/r%02d:%s-%d", i%chaosRepos, series, i)
		times := 1
		if c.always(image, "multi-arch", 0.3) {
			times = 6
		}
		for range times {
			running.Go(func() { c.push(image, i) })
		}
		if sent += times; i%50 == 49 {
			running.Wait()
		}
	}
	running.Wait()
}

func (c *chaos) push(image string, at int) {
	repository, tag, _ := strings.Cut(image, ":")
	for range 100 {
		res, err := c.http.Post(c.webhooks.URL+"/"+webhookToken, "application/json", strings.NewReader(webhookBody(repository, tag, 1_700_000_000+at)))
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusAccepted {
				c.mu.Lock()
				c.accepted[image] = true
				c.calls++
				c.mu.Unlock()
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Errorf("%s is not accepted", image)
}

// killAtRandom kills processes and starts them again until stop is called.
func (c *chaos) killAtRandom() (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		rng := rand.New(rand.NewPCG(c.seed, 1))
		for {
			select {
			case <-done:
				return
			case <-time.After(rand.N(2 * restartEvery)):
				c.instances[rng.IntN(len(c.instances))].restart(syscall.SIGKILL)
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
	}
}

func newChaos(t *testing.T, seed uint64) *chaos {
	t.Helper()
	c := &chaos{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), http: &http.Client{Timeout: 30 * time.Second},
		accepted: map[string]bool{}, pipelines: map[string][]string{}, answered: map[string]bool{}, unsure: map[string]bool{},
		dead: map[string]int{}, told: map[string]bool{}, asked: map[string]int{},
	}
	serve := func(h http.HandlerFunc) *httptest.Server {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s
	}
	c.registry = serve(c.fakeRegistry)
	c.slackFake = slacktest.New(botToken)
	c.slackFake.AddChannel("C0IMAGES", "images")
	c.slackFake.OnMessage(c.heard)
	c.slack = serve(c.faultySlack)
	var fake *gitlabtest.Server
	c.gitlab = serve(func(w http.ResponseWriter, r *http.Request) { c.faultyGitLab(fake, w, r) })
	fake = gitlabtest.New(c.gitlab.URL)
	fake.AnyProject(triggerToken)
	google := serve(func(w http.ResponseWriter, r *http.Request) { c.google.ServeHTTP(w, r) })
	c.google = gitlabtest.New(google.URL)

	c.webhooks, c.triggers, c.notifies = newBalancer(t), newBalancer(t), newBalancer(t)
	c.triggers.heard = c.heardTrigger
	c.ledger = newTCPProxy(t, gcptest.Firestore(t))
	c.startPubSub()

	project := map[string]string{"GOOGLE_CLOUD_PROJECT": "demo", "PUBSUB_EMULATOR_HOST": c.pubsubHost, "FIRESTORE_EMULATOR_HOST": c.ledger.addr}
	for _, kind := range []struct {
		target   string
		n        int
		before   *balancer
		settings map[string]string
	}{
		{"Webhook", 3, c.webhooks, map[string]string{"WEBHOOK_TOKENS": webhookToken, "TOPIC": chaosTopic}},
		{"Trigger", 3, c.triggers, map[string]string{
			"ROUTES": chaosRoutes, "GITLAB_TRIGGER_TOKENS": fmt.Sprintf(`{"*": %q}`, triggerToken), "GITLAB_URL": c.gitlab.URL,
			"DEAD_LETTER_TOPIC": chaosDead, "REGISTRY": c.registry.URL, "LEDGER": chaosLedger,
		}},
		{"Notify", 2, c.notifies, map[string]string{
			"ROUTES": chaosRoutes, "SLACK_BOT_TOKEN": botToken, "SLACK_API_URL": c.slack.URL + "/api/", "NOTIFY_TOKENS": notifyToken,
			"LEDGER": chaosLedger, "PUSH_ISSUER": google.URL, "PUSH_AUDIENCE": pushAudience, "PUSH_SERVICE_ACCOUNT": pushAccount,
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

// startPubSub makes what terraform/pubsub.tf makes, with shorter waits.
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

// googleToken is what Google shows with a push.
func (c *chaos) googleToken() (string, error) {
	return c.google.IDToken(gitlabtest.Claims{
		Project: "none/none", Audience: pushAudience, Extra: map[string]any{"email": pushAccount, "email_verified": true},
	})
}

// heardTrigger hears what Trigger answers to Pub/Sub.
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

// heard hears what Slack shows.
func (c *chaos) heard(m slacktest.Message) {
	rest, ok := strings.CutPrefix(m.Text, ":rotating_light:")
	if !ok {
		return
	}
	for word := range strings.FieldsSeq(rest) {
		if word = strings.TrimRight(word, ".!"); strings.HasPrefix(word, "acme/") {
			c.mu.Lock()
			c.told[word] = true
			c.mu.Unlock()
		}
	}
}

// fakeRegistry has every image, some of them late, and some not before all is
// well. A digest is made of the image's name.
func (c *chaos) fakeRegistry(w http.ResponseWriter, r *http.Request) {
	repository, tag, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	if !ok {
		return // /v2/ itself
	}
	image := repository + ":" + tag
	c.mu.Lock()
	c.asked[image]++
	asked := c.asked[image]
	c.mu.Unlock()
	if c.always(image, "missing", imagesMissing) && !c.isWell() || asked < 3 && c.always(image, "late", 0.05) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Docker-Content-Digest", fmt.Sprintf("sha256:%064x", []byte(tag)))
	w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
}

func (c *chaos) faultySlack(w http.ResponseWriter, r *http.Request) {
	if c.chance(slackLimits) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	c.slackFake.ServeHTTP(w, r)
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
func (c *chaos) faultyGitLab(fake *gitlabtest.Server, w http.ResponseWriter, r *http.Request) {
	fails := c.chance(gitlabFails)
	after := fails && c.chance(0.2)
	if fails && !after {
		c.refuse(w, r)
		return
	}
	answer := httptest.NewRecorder()
	fake.ServeHTTP(answer, r)
	var p struct {
		URL string `json:"web_url"`
	}
	if answer.Code == http.StatusCreated && json.Unmarshal(answer.Body.Bytes(), &p) == nil {
		c.created(fake, p.URL)
	}
	switch {
	case after && c.chance(0.5):
		panic(http.ErrAbortHandler)
	case after:
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
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

// created counts a pipeline, and has it report.
func (c *chaos) created(fake *gitlabtest.Server, url string) {
	id, _ := strconv.Atoi(url[strings.LastIndex(url, "/")+1:])
	pipelines := fake.Pipelines()
	for i := len(pipelines) - 1; i >= 0; i-- {
		if p := pipelines[i]; p.ID == id {
			image := fmt.Sprintf("%s:%s", p.Inputs["image_repository"], p.Inputs["image_tag"])
			c.mu.Lock()
			c.pipelines[image] = append(c.pipelines[image], url)
			c.mu.Unlock()
			if !c.always(image, "silent", pipelinesSilent) {
				c.reports.Go(func() { c.reportPipeline(p) })
			}
			return
		}
	}
	c.t.Errorf("GitLab has forgotten %s", url)
}

// reportPipeline does what the template's curl does.
func (c *chaos) reportPipeline(p gitlabtest.Pipeline) {
	for _, status := range []string{"running", "success"} {
		body := fmt.Sprintf("status=%s&repository=%s&tag=%s&digest=%s&delivery_id=%s&pipeline_url=%s",
			status, p.Inputs["image_repository"], p.Inputs["image_tag"], p.Inputs["image_digest"], p.Inputs["delivery_id"], p.WebURL)
		for range 30 {
			req, err := http.NewRequest(http.MethodPost, c.notifies.URL, strings.NewReader(body))
			if err != nil {
				return
			}
			req.Header.Set("Authorization", "Bearer "+notifyToken)
			res, err := c.http.Do(req)
			if err == nil {
				_ = res.Body.Close()
				if res.StatusCode < http.StatusInternalServerError {
					break
				}
			}
			time.Sleep(time.Second)
		}
	}
}

// instance is a process that is killed and started again, at the same address.
type instance struct {
	t            *testing.T
	name, target string
	url          string
	env          []string
	log          *os.File

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

func newInstance(t *testing.T, name, target string, settings map[string]string) *instance {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), strings.ReplaceAll(name, " ", "-")+".log"))
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	i := &instance{t: t, name: name, target: target, url: "http://127.0.0.1:" + port, log: log}
	i.env = []string{"FUNCTION_TARGET=" + target, "PORT=" + port, "HOME=" + t.TempDir()}
	for name, value := range settings {
		i.env = append(i.env, name+"="+value)
	}
	i.start()
	t.Cleanup(func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		_ = i.cmd.Process.Kill()
		<-i.done
		_ = log.Close()
	})
	return i
}

// start starts it and waits until it listens.
func (i *instance) start() {
	binary, err := program()
	if err != nil {
		i.t.Error(err)
		return
	}
	i.cmd, i.done = exec.Command(binary), make(chan struct{})
	i.cmd.Env, i.cmd.Stdout, i.cmd.Stderr = i.env, i.log, i.log
	if err := i.cmd.Start(); err != nil {
		i.t.Error(err)
		return
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(i.cmd, i.done)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get(i.url + "/ready"); err == nil {
			_ = res.Body.Close()
			return
		}
	}
	i.t.Errorf("%s does not listen", i.name)
}

func (i *instance) restart(signal syscall.Signal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = i.cmd.Process.Signal(signal)
	<-i.done
	i.start()
}
