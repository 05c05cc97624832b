package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
	"github.com/getto-systems/hubrelay/internal/version"
)

// Every secret contains this word. No log and no answer may contain it.
const canary = "canary"

const (
	webhookToken = canary + "-webhook-77d1c0ab31"
	triggerToken = "glptt-" + canary + "-4f1d"
	botToken     = "xoxb-" + canary + "-91ab"
	notifyToken  = canary + "-notify-30e8c52d9f"
	password     = canary + "-registry-5be20c" // of the account "user"
	audience     = "https://notify.example"

	pushAudience = audience + "/google"
	pushAccount  = "hubrelay-push@demo.iam.gserviceaccount.com"
)

const routes = `{
  "acme/api": {"gitlab": {"project": "acme/images/api"}, "slack": {"channel": "C0IMAGES"}},
  "acme/each": {"gitlab": {"project": "acme/images/each", "pass": "variables"}, "once_per": "delivery", "slack": {"channel": "C0IMAGES"}},
  "acme/gone": {"gitlab": {"project": "acme/images/gone"}, "slack": {"channel": "C0IMAGES"}},
  "acme/missing": {"gitlab": {"project": "acme/images/api"}, "slack": {"channel": "C0IMAGES"}}
}`

// system is hubrelay as three processes, with everything around it.
type system struct {
	t        *testing.T
	gitlab   *gitlabtest.Server
	google   *gitlabtest.Server // its issuer replaces Google's: the protocol is the same
	slack    *slacktest.Server
	registry string // host and port
	pubsub   *pubSub

	shared                   bool // Trigger and Notify have one ledger
	door                     *door
	webhook, trigger, notify *process
	answers                  bytes.Buffer // all that was answered to the tests
}

// newSystem starts it. settings are additional settings of Trigger and Notify.
func newSystem(t *testing.T, newPubSub func(*testing.T, string) *pubSub, settings map[string]string) *system {
	t.Helper()
	s := &system{t: t, slack: slacktest.New(botToken)}
	gitlabServer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.gitlab.ServeHTTP(w, r) }))
	s.gitlab = gitlabtest.New("http://" + gitlabServer.Listener.Addr().String())
	gitlabServer.Start()
	googleServer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.google.ServeHTTP(w, r) }))
	s.google = gitlabtest.New("http://" + googleServer.Listener.Addr().String())
	googleServer.Start()
	t.Cleanup(googleServer.Close)
	slackServer := httptest.NewServer(s.slack)
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	registryServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, given, ok := r.BasicAuth(); !ok || user != "user" || given != password {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		images.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { gitlabServer.Close(); slackServer.Close(); registryServer.Close() })
	s.registry = strings.TrimPrefix(registryServer.URL, "http://")
	for _, path := range []string{"acme/images/api", "acme/images/each"} {
		s.gitlab.AddProject(gitlabtest.Project{Path: path, Token: triggerToken})
	}
	s.slack.AddChannel("C0IMAGES", "images")

	door := &door{}
	doorServer := httptest.NewServer(door)
	t.Cleanup(doorServer.Close)
	s.door = door
	s.pubsub = newPubSub(t, doorServer.URL)
	s.trigger = start(t, "Trigger", with(settings, map[string]string{
		"ROUTES": routes, "GITLAB_TRIGGER_TOKENS": fmt.Sprintf(`{"*": %q}`, triggerToken), "GITLAB_URL": gitlabServer.URL,
		"TOPIC": topic, "DEAD_LETTER_TOPIC": deadLetterTopic, "REGISTRY": registryServer.URL,
		"REGISTRY_AUTH":        fmt.Sprintf(`{"auths": {%q: {"username": "user", "password": %q}}}`, s.registry, password),
		"PUBSUB_EMULATOR_HOST": s.pubsub.host, "GOOGLE_CLOUD_PROJECT": "demo",
	}))
	door.open(t, s.trigger.URL)
	s.webhook = start(t, "Webhook", map[string]string{
		"WEBHOOK_TOKENS": webhookToken, "TOPIC": topic, "PUBSUB_EMULATOR_HOST": s.pubsub.host, "GOOGLE_CLOUD_PROJECT": "demo",
	})
	s.notify = start(t, "Notify", with(settings, map[string]string{
		"ROUTES": routes, "SLACK_BOT_TOKEN": botToken, "SLACK_API_URL": slackServer.URL + "/api/", "NOTIFY_TOKENS": notifyToken,
		"OIDC_ISSUER": gitlabServer.URL, "OIDC_AUDIENCE": audience, "GOOGLE_CLOUD_PROJECT": "demo",
		"PUSH_ISSUER": googleServer.URL, "PUSH_AUDIENCE": pushAudience, "PUSH_SERVICE_ACCOUNT": pushAccount,
		"DEFAULT_CHANNEL": "C0IMAGES",
	}))
	return s
}

func with(more, settings map[string]string) map[string]string {
	maps.Copy(settings, more)
	return settings
}

// door is in front of Trigger: a subscription needs an endpoint before Trigger
// can be started, and the test reads Trigger's answers.
type door struct {
	mu      sync.Mutex
	proxy   http.Handler
	answers bytes.Buffer
}

func (d *door) open(t *testing.T, target string) {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ModifyResponse = func(res *http.Response) error {
		body, err := io.ReadAll(res.Body)
		d.mu.Lock()
		d.answers.Write(body)
		d.mu.Unlock()
		res.Body = io.NopCloser(bytes.NewReader(body))
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.proxy = proxy
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	proxy := d.proxy
	d.mu.Unlock()
	proxy.ServeHTTP(w, r)
}

func (d *door) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.answers.String()
}

// build pushes an image to the registry.
func (s *system) build(image string) {
	s.t.Helper()
	ref, err := name.ParseReference(s.registry+"/"+image, name.Insecure)
	if err != nil {
		s.t.Fatal(err)
	}
	img, err := random.Image(64, 1)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "user", Password: password})); err != nil {
		s.t.Fatal(err)
	}
}

// post sends a body and keeps the answer for the search for canaries.
func (s *system) post(url, bearer, body string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	s.answers.Write(answer)
	return res, string(answer)
}

// push calls the webhook as Docker Hub does.
func (s *system) push(body string) (id string) {
	s.t.Helper()
	res, answer := s.post(s.webhook.URL+"/"+webhookToken, "", body)
	if res.StatusCode != http.StatusAccepted {
		s.t.Fatalf("the webhook answers %s: %s", res.Status, answer)
	}
	var queued struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(answer), &queued); err != nil || queued.ID == "" {
		s.t.Fatalf("the webhook answers %s, %v", answer, err)
	}
	return queued.ID
}

func webhookBody(repository, tag string, pushedAt int) string {
	return fmt.Sprintf(`{"push_data":{"pushed_at":%d,"tag":%q},"repository":{"repo_name":%q}}`, pushedAt, tag, repository)
}

// pipelines waits until GitLab has n pipelines of the project.
func (s *system) pipelines(project string, n int) []gitlabtest.Pipeline {
	s.t.Helper()
	var found []gitlabtest.Pipeline
	eventually(s.t, fmt.Sprintf("%d pipelines of %s", n, project), func() error {
		found = nil
		for _, p := range s.gitlab.Pipelines() {
			if p.Project == project {
				found = append(found, p)
			}
		}
		if len(found) != n {
			return fmt.Errorf("there are %d", len(found))
		}
		return nil
	})
	return found
}

// decided waits until Trigger has logged n outcomes with the reason.
func (s *system) decided(reason string, n int) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%d times %s", n, reason), func() error {
		if got := strings.Count(s.trigger.out.String(), `"reason":"`+reason+`"`); got < n {
			return fmt.Errorf("got %d", got)
		}
		return nil
	})
}

// noCanary reads everything that was logged or answered.
func (s *system) noCanary() {
	s.t.Helper()
	for what, text := range map[string]string{
		"Webhook's log": s.webhook.out.String(), "Trigger's log": s.trigger.out.String(), "Notify's log": s.notify.out.String(),
		"the answers": s.answers.String(), "Trigger's answers": s.door.String(),
	} {
		if strings.Contains(text, canary) {
			s.t.Errorf("a secret shows in %s:\n%s", what, text)
		}
		if text == "" {
			s.t.Errorf("%s hold nothing: the search for secrets searched nothing", what)
		}
	}
}

// version finds the version in the answer to GET /ready and in every line of
// the logs: what the buildpack builds has no other than the constant.
func (s *system) version(t *testing.T) {
	t.Helper()
	for name, p := range map[string]*process{"Webhook": s.webhook, "Trigger": s.trigger, "Notify": s.notify} {
		res, err := http.Get(p.URL + "/ready")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || string(body) != "ok" || res.Header.Get("Hubrelay-Version") != version.Number {
			t.Errorf("%s is ready with %q, %q, %v", name, body, res.Header, err)
		}
		for line := range strings.Lines(p.out.String()) {
			var said struct{ Version string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Version != version.Number {
				t.Errorf("%s logged no version: %s", name, line)
			}
		}
	}
}

func TestThreeProcesses(t *testing.T) {
	for _, c := range []struct {
		name      string
		newPubSub func(*testing.T, string) *pubSub
		settings  func(*testing.T) map[string]string
	}{
		{"with the embedded Pub/Sub", embedded, func(*testing.T) map[string]string {
			return map[string]string{"LEDGER": "memory:e2e"} // each process has its own
		}},
		{"with Google's emulators", emulator, func(t *testing.T) map[string]string {
			return map[string]string{"LEDGER": "firestore:projects/demo/databases/e2e", "FIRESTORE_EMULATOR_HOST": gcptest.Firestore(t)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			settings := c.settings(t)
			s := newSystem(t, c.newPubSub, settings)
			s.shared = settings["FIRESTORE_EMULATOR_HOST"] != ""
			s.aPushBecomesAPipelineAndAMessage(t)
			s.whatIsNotPromoted(t)
			s.sixWebhooksAtOnce(t)
			s.onceADelivery(t)
			s.retriesAndDeadLetters(t)
			s.clocks(t)
			s.deadLettersAreTold(t)
			s.refusals(t)
			s.version(t)
			s.noCanary()
		})
	}
}

func (s *system) aPushBecomesAPipelineAndAMessage(t *testing.T) {
	s.build("acme/api:1.4.0")
	body, err := os.ReadFile("../dockerhub/testdata/documented-today.json")
	if err != nil {
		t.Fatal(err)
	}
	s.push(string(body))
	pipeline := s.pipelines("acme/images/api", 1)[0]
	input := func(name string) string {
		text, _ := pipeline.Inputs[name].(string)
		return text
	}
	if at, err := time.Parse(time.RFC3339, input("image_pushed_at")); err != nil || time.Since(at) > time.Minute ||
		input("image_repository") != "acme/api" || input("image_tag") != "1.4.0" ||
		!strings.HasPrefix(input("image_digest"), "sha256:") || len(input("promotion_id")) != 32 {
		t.Errorf("the pipeline got %v", pipeline.Inputs)
	}

	// The pipeline reports in the form of curl -d.
	token := s.idToken(gitlabtest.Claims{PipelineID: pipeline.ID, PipelineSource: pipeline.Source, RefProtected: true})
	report := func(status string) (string, string) {
		res, answer := s.post(s.notify.URL, token, url.Values{
			"status": {status}, "repository": {"acme/api"}, "tag": {"1.4.0"}, "digest": {input("image_digest")},
			"promotion_id": {input("promotion_id")}, "pipeline_url": {pipeline.WebURL},
		}.Encode())
		var told struct{ Channel, TS, Warning string }
		if err := json.Unmarshal([]byte(answer), &told); err != nil || res.StatusCode != http.StatusOK || (told.Warning == "") != s.shared {
			t.Fatalf("Notify answers %s: %s", res.Status, answer)
		}
		return told.Channel, told.TS
	}
	channel, ts := report("running")
	if c, again := report("success"); channel != "C0IMAGES" || c != channel || again != ts {
		t.Errorf("the message moved from %s %s to %s %s", channel, ts, c, again)
	}
	messages := s.slack.Messages()
	if len(messages) != 1 || messages[0].Edits != 1 || !strings.Contains(messages[0].Text, "acme/api:1.4.0") {
		t.Errorf("Slack shows %+v", messages)
	}
	if !s.shared {
		return
	}
	// Another pipeline of the project may not report about it.
	other := s.idToken(gitlabtest.Claims{PipelineID: pipeline.ID + 1, PipelineSource: "trigger", RefProtected: true})
	if res, answer := s.post(s.notify.URL, other, "status=failure&promotion_id="+input("promotion_id")); res.StatusCode != http.StatusForbidden {
		t.Errorf("Notify answers %s: %s", res.Status, answer)
	}
}

// idToken is that of a job in a pipeline of acme/images/api.
func (s *system) idToken(c gitlabtest.Claims) string {
	s.t.Helper()
	if c.Project == "" {
		c.Project = "acme/images/api"
	}
	c.Audience, c.Ref = audience, "main"
	token, err := s.gitlab.IDToken(c)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

func (s *system) whatIsNotPromoted(t *testing.T) {
	body, err := os.ReadFile("../dockerhub/testdata/documented-2019.json")
	if err != nil {
		t.Fatal(err)
	}
	s.push(string(body))
	s.decided("no_route", 1)
	s.push(webhookBody("acme/api", "latest", 1))
	s.decided("moving_tag", 1)
	s.push(webhookBody("acme/api", "sha256-"+strings.Repeat("a", 64), 1))
	s.decided("artifact_tag", 1)
	s.push(webhookBody("acme/api", "1.4.0", 2)) // the signed push
	s.decided("duplicate", 1)
	s.pipelines("acme/images/api", 1)
}

func (s *system) sixWebhooksAtOnce(t *testing.T) {
	s.build("acme/api:2.0.0")
	errs := make(chan error, 6)
	for i := range cap(errs) {
		go func() {
			res, err := http.Post(s.webhook.URL+"/"+webhookToken, "", strings.NewReader(webhookBody("acme/api", "2.0.0", i)))
			if err == nil {
				_ = res.Body.Close()
				if res.StatusCode != http.StatusAccepted {
					err = errors.New(res.Status)
				}
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	s.decided("duplicate", 1+5)
	s.pipelines("acme/images/api", 2)
}

func (s *system) onceADelivery(t *testing.T) {
	s.build("acme/each:1.0.0")
	s.push(webhookBody("acme/each", "1.0.0", 1))
	s.pipelines("acme/images/each", 1)
	s.push(webhookBody("acme/each", "1.0.0", 2))
	if p := s.pipelines("acme/images/each", 2)[1]; p.Variables["IMAGE_TAG"] != "1.0.0" || len(p.Inputs) != 0 {
		t.Errorf("the pipeline got %v %v", p.Variables, p.Inputs)
	}
}

func (s *system) retriesAndDeadLetters(t *testing.T) {
	// GitLab works again after one failure.
	s.build("acme/api:3.0.0")
	s.gitlab.Fail(gitlabtest.Failure{Status: 500, Body: "token " + triggerToken})
	s.push(webhookBody("acme/api", "3.0.0", 1))
	s.pipelines("acme/images/api", 3)

	// GitLab refuses permanently.
	s.build("acme/gone:1.0.0")
	s.push(webhookBody("acme/gone", "1.0.0", 1))
	s.dead(t, "acme/gone", "not_found")

	// The image never comes.
	s.push(webhookBody("acme/missing", "1.0.0", 1))
	s.decided("not_in_registry", maxAttempts)
	s.dead(t, "acme/missing", "")
}

func (s *system) dead(t *testing.T, repository, reason string) {
	t.Helper()
	eventually(t, "a dead letter of "+repository, func() error {
		for _, m := range s.pubsub.deadLetters() {
			if m.Attributes["repository"] != repository {
				continue
			}
			if m.Attributes["reason"] != reason || reason != "" && m.Attributes["hint"] == "" {
				return fmt.Errorf("it has %v", m.Attributes)
			}
			return nil
		}
		return errors.New("there is none")
	})
}

// clocks calls both functions as Cloud Scheduler does. Notify's clock shows
// what Trigger has changed, if they share a ledger. Trigger's queues the tag of
// a dead promotion again.
func (s *system) clocks(t *testing.T) {
	res, answer := s.post(s.notify.URL+"/tick", s.googleToken(), "")
	var ticked struct{ Due, Shown int }
	if err := json.Unmarshal([]byte(answer), &ticked); err != nil || res.StatusCode != http.StatusOK || (ticked.Shown == 1) != s.shared {
		t.Errorf("Notify answers %s: %s", res.Status, answer)
	}
	if res, answer := s.post(s.trigger.URL+"/reconcile", "", ""); res.StatusCode != http.StatusOK || strings.TrimSpace(answer) != `{"queued":1,"asked":0,"found":0}` {
		t.Errorf("Trigger answers %s: %s", res.Status, answer)
	}
}

// googleToken is the token of Pub/Sub and the scheduler.
func (s *system) googleToken() string {
	s.t.Helper()
	token, err := s.google.IDToken(gitlabtest.Claims{
		Project: "none/none", Audience: pushAudience, Extra: map[string]any{"email": pushAccount, "email_verified": true},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// deadLettersAreTold pushes the dead letters to Notify, twice each.
func (s *system) deadLettersAreTold(t *testing.T) {
	for range 2 {
		for _, m := range s.pubsub.deadLetters() {
			body, err := json.Marshal(map[string]any{
				"message":      map[string]any{"data": m.Data, "attributes": m.Attributes, "messageId": m.ID, "publishTime": m.PublishTime},
				"subscription": "projects/demo/subscriptions/hubrelay-dead-letters-notify",
			})
			if err != nil {
				t.Fatal(err)
			}
			if res, answer := s.post(s.notify.URL+"/dead-letter", s.googleToken(), string(body)); res.StatusCode != http.StatusOK {
				t.Errorf("Notify answers %s: %s", res.Status, answer)
			}
		}
	}
	for image, reason := range map[string]string{"acme/gone:1.0.0": "not_found", "acme/missing:1.0.0": "gave up"} {
		told := 0
		for _, m := range s.slack.Messages() {
			shown, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(m.Text, image) && strings.Contains(string(shown), reason) {
				told++
			}
		}
		if told != 1 {
			t.Errorf("%s, %s: told %d times", image, reason, told)
		}
	}
}

// refusals makes every kind of refusal, for the search for secrets.
func (s *system) refusals(t *testing.T) {
	for _, c := range []struct {
		url, bearer, body string
		status            int
	}{
		{s.webhook.URL + "/wrong", "", "{}", 401},
		{s.webhook.URL + "/" + webhookToken, "", "no JSON", 400},
		{s.webhook.URL + "/" + webhookToken, "", strings.Repeat(" ", 2<<20), 413},
		{s.notify.URL, "wrong", "status=success", 401},
		{s.notify.URL, notifyToken, "status=no", 400},
		{s.notify.URL, notifyToken, "status=success&repository=nobody/x", 404},
		{s.notify.URL + "/dead-letter", notifyToken, "{}", 401},
		{s.notify.URL + "/tick", "", "", 401},
		{s.notify.URL + "/silent", s.googleToken(), "", 404},
		{s.notify.URL, s.idToken(gitlabtest.Claims{PipelineID: 1}), "status=success", 403}, // not protected
		{s.notify.URL, s.idToken(gitlabtest.Claims{PipelineID: 1, RefProtected: true, Project: "acme/other"}), "status=success", 403},
		{s.notify.URL, s.idToken(gitlabtest.Claims{PipelineID: 1, RefProtected: true, Expiry: -time.Minute}), "status=success", 401},
		{s.trigger.URL, "", "no JSON", 200}, // a dead letter
		{s.trigger.URL + "/other", "", "{}", 404},
	} {
		if res, answer := s.post(c.url, c.bearer, c.body); res.StatusCode != c.status {
			t.Errorf("got %s: %s", res.Status, answer)
		}
	}
	for _, f := range []slacktest.Failure{{Code: "not_in_channel"}, {Status: 429, RetryAfter: time.Second}, {Status: 500}} {
		s.slack.Fail(f)
		res, answer := s.post(s.notify.URL, notifyToken, "status=success&repository=acme/api")
		var told struct{ Slack string }
		if err := json.Unmarshal([]byte(answer), &told); err != nil || res.StatusCode != http.StatusAccepted || told.Slack == "" {
			t.Errorf("got %s: %s", res.Status, answer)
		}
	}
}

func TestBadSettingsStopTheProcess(t *testing.T) {
	t.Parallel()
	for target, want := range map[string][]string{
		"Webhook": {"WEBHOOK_TOKENS", "TOPIC"},
		"Trigger": {"ROUTES", "GITLAB_TRIGGER_TOKENS", "LEDGER", "TOPIC", "DEAD_LETTER_TOPIC"},
		"Notify":  {"ROUTES", "SLACK_BOT_TOKEN", "OIDC_AUDIENCE", "LEDGER", "DEFAULT_CHANNEL"},
		"Other":   {"no matching function"},
	} {
		p := spawn(t, target, nil)
		select {
		case <-p.done:
		case <-time.After(time.Minute):
			t.Fatalf("%s goes on without settings", target)
		}
		if p.cmd.ProcessState.ExitCode() == 0 {
			t.Errorf("%s ended well", target)
		}
		for _, name := range want {
			if !strings.Contains(p.out.String(), name) {
				t.Errorf("%s does not name %s: %s", target, name, p.out)
			}
		}
	}
}

func TestPubSubIsDown(t *testing.T) {
	t.Parallel()
	p := start(t, "Webhook", map[string]string{
		"WEBHOOK_TOKENS": webhookToken, "TOPIC": topic, "PUBSUB_EMULATOR_HOST": "127.0.0.1:" + freePort(t),
	})
	res, err := http.Post(p.URL+"/"+webhookToken, "", strings.NewReader(webhookBody("acme/api", "1.0.0", 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("got %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
	}
}

// A process that gets SIGTERM while it publishes answers first.
func TestSIGTERMDuringAPublish(t *testing.T) {
	t.Parallel()
	publishing := make(chan struct{})
	goOn := make(chan struct{})
	slow := pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: reactor(func() {
		close(publishing)
		<-goOn
	})})
	t.Cleanup(func() { _ = slow.Close() })
	if _, err := slow.GServer.CreateTopic(context.Background(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	p := start(t, "Webhook", map[string]string{"WEBHOOK_TOKENS": webhookToken, "TOPIC": topic, "PUBSUB_EMULATOR_HOST": slow.Addr})
	answered := make(chan error, 1)
	go func() {
		res, err := http.Post(p.URL+"/"+webhookToken, "", strings.NewReader(webhookBody("acme/api", "1.0.0", 1)))
		if err == nil {
			_, err = io.ReadAll(res.Body)
			if res.StatusCode != http.StatusAccepted {
				err = errors.New(res.Status)
			}
		}
		answered <- err
	}()
	<-publishing
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
		t.Fatal("the process went without an answer")
	case <-time.After(300 * time.Millisecond):
	}
	close(goOn)
	if err := <-answered; err != nil {
		t.Errorf("the sender got %v", err)
	}
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the process ended with %d", code)
	}
	if n := len(slow.Messages()); n != 1 {
		t.Errorf("%d messages were published", n)
	}
}

// reactor runs before pstest handles a call.
type reactor func()

func (r reactor) React(any) (bool, any, error) {
	r()
	return false, nil, nil
}
