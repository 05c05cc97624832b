// Package sandbox runs the whole of hubrelay on one machine, with no account
// anywhere: the three functions on their real wiring, an embedded Pub/Sub
// that delivers as Google's does, a registry, and fakes of Docker Hub, GitLab
// and Slack.
package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/functions/webhook"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// Routes is the table of a sandbox that is given none: every repository has a
// pipeline.
const Routes = `{
  "acme/api": {"gitlab": {"project": "acme/images/api"}, "slack": {"channel": "C0IMAGES"}},
  "*": {"gitlab": {"project": "{namespace}/images/{name}"}, "slack": {"channel": "C0IMAGES"}}
}`

// Seed is the image that is in the registry from the start.
const Seed = "acme/api:1.4.0"

// The topics of the embedded Pub/Sub, named as terraform/ names them.
const (
	pushes      = "projects/sandbox/topics/hubrelay-pushes"
	deadLetters = "projects/sandbox/topics/hubrelay-dead-letters"
)

// What the id tokens of GitLab and of Google say.
const (
	audience     = "hubrelay-sandbox"
	pushAudience = "hubrelay-sandbox/dead-letter"
	pushAccount  = "hubrelay-push@sandbox.iam.gserviceaccount.com"
)

// silenceStep is how often silent promotions are looked for.
const silenceStep = time.Minute

// Config says how a sandbox differs from the usual one. Its zero value is fit
// for use.
type Config struct {
	Addr     string        // to listen on; a free port of the loopback where it is ""
	Routes   string        // the table, as JSON
	Language string        // of the Slack messages
	Backoff  Backoff       // between two deliveries of a message; as deployed where it is zero
	StepTime time.Duration // how long each step of a pretended pipeline takes
	Runner   *Runner       // runs real pipelines; nil pretends them
	Events   func(Event)   // hears what happens; called from one goroutine at a time
	Logs     *slog.Logger  // takes the functions' logs, beside Events; may be nil

	// A real GitLab and a real Slack, in the place of the fakes.
	GitLabURL           string
	GitLabTriggerTokens env.Secret // JSON, as in the setting of that name
	SlackBotToken       env.Secret
}

// Sandbox is a running system. Its fakes may be told to fail.
type Sandbox struct {
	URL        string // of the one port, without a trailing slash
	WebhookURL string // what would be pasted into Docker Hub
	GitLab     *gitlabtest.Server
	Slack      *slacktest.Server

	// ReplayCommand shows the dead letters that wait.
	ReplayCommand string

	google   *gitlabtest.Server // of which only the issuer of tokens is used: the protocol is the same
	events   *events
	failures atomic.Int64 // of pipelines to come
	registry *localRegistry
	queue    *Queue
	server   *http.Server
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// Start runs a sandbox until Close.
func Start(ctx context.Context, c Config) (_ *Sandbox, err error) {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if c.Routes == "" {
		c.Routes = Routes
	}
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	defer func() {
		if err != nil {
			_ = listener.Close()
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	url := "http://" + listener.Addr().String()
	token := secret("sandbox")
	s := &Sandbox{
		URL:        url,
		WebhookURL: url + "/webhook/" + token,
		GitLab:     gitlabtest.New(url + "/gitlab"),
		google:     gitlabtest.New(url + "/google"),
		events:     &events{hear: c.Events},
		stop:       cancel,
	}
	s.queue, err = StartQueue(ctx, QueueConfig{
		Topic: pushes, DeadLetterTopic: deadLetters, Endpoint: url + "/trigger/", Backoff: c.Backoff,
		DeadLetterEndpoint: url + "/notify/dead-letter", Token: s.googleToken,
		Again: s.willDeliverAgain, Dead: s.sawDeadLetter,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	s.ReplayCommand = fmt.Sprintf("PUBSUB_EMULATOR_HOST=%s go run ./cmd/hubrelay replay -subscription %s", s.queue.Addr, s.queue.DeadLetterSubscription)
	s.registry = newRegistry(listener.Addr().String(), (&dockerHub{webhookURL: s.WebhookURL, events: s.events}).pushed)

	slackToken := c.SlackBotToken
	if slackToken.IsZero() {
		slackToken = env.NewSecret(secret("xoxb"))
	}
	s.Slack = slacktest.New(slackToken.Reveal())
	s.Slack.OnMessage(s.heardInSlack)
	s.GitLab.OnPipeline(pipelines{s, ctx, c.Runner, c.StepTime}.run)

	mux, err := s.handlers(ctx, c, token, slackToken)
	if err != nil {
		cancel()
		s.queue.Close()
		return nil, err
	}
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	s.running.Go(func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.events.add(Event{Who: "sandbox", What: "stopped: " + err.Error(), Bad: true})
		}
	})
	if err := s.registry.seed(Seed); err != nil {
		s.Close()
		return nil, err
	}
	s.running.Go(func() { s.queue.Deliver(ctx) })
	s.running.Go(func() { s.lookForSilence(ctx) })
	return s, nil
}

// handlers puts everything behind one port.
func (s *Sandbox) handlers(ctx context.Context, c Config, webhookToken string, slackToken env.Secret) (http.Handler, error) {
	settings := map[string]string{
		"PUBSUB_EMULATOR_HOST":  s.queue.Addr,
		"TOPIC":                 pushes,
		"DEAD_LETTER_TOPIC":     deadLetters,
		"WEBHOOK_TOKENS":        webhookToken,
		"ROUTES":                c.Routes,
		"GITLAB_URL":            s.URL + "/gitlab",
		"GITLAB_TRIGGER_TOKENS": "",
		"REGISTRY":              s.URL,
		"LEDGER":                "memory:" + s.URL,
		"SLACK_API_URL":         s.URL + "/slack/api/",
		"SLACK_BOT_TOKEN":       slackToken.Reveal(),
		"LANGUAGE":              c.Language,
		"OIDC_ISSUER":           s.URL + "/gitlab",
		"OIDC_AUDIENCE":         audience,
		"PUSH_ISSUER":           s.URL + "/google",
		"PUSH_AUDIENCE":         pushAudience,
		"PUSH_SERVICE_ACCOUNT":  pushAccount,
	}
	if !c.SlackBotToken.IsZero() {
		settings["SLACK_API_URL"] = ""
	}
	if c.GitLabURL != "" {
		settings["GITLAB_URL"], settings["OIDC_ISSUER"] = c.GitLabURL, c.GitLabURL
		settings["GITLAB_TRIGGER_TOKENS"] = c.GitLabTriggerTokens.Reveal()
	} else {
		tokens, err := json.Marshal(map[string]string{"*": s.anyProject()})
		if err != nil {
			return nil, err
		}
		settings["GITLAB_TRIGGER_TOKENS"] = string(tokens)
	}
	getenv := func(name string) string { return settings[name] }

	mux := http.NewServeMux()
	for _, f := range []struct {
		name  string
		build func(context.Context, func(string) string) (http.Handler, error)
	}{
		{"webhook", webhook.FromEnv}, {"trigger", trigger.FromEnv}, {"notify", notify.FromEnv},
	} {
		log := slog.New(eventHandler{f.name, s.events, c.Logs, nil})
		h, err := f.build(gcplog.NewContext(ctx, log), getenv)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		mux.Handle("/"+f.name+"/", http.StripPrefix("/"+f.name, h))
	}
	mux.Handle("/gitlab/", http.StripPrefix("/gitlab", s.GitLab))
	mux.Handle("/google/", http.StripPrefix("/google", s.google))
	mux.Handle("/slack/", http.StripPrefix("/slack", s.Slack))
	mux.Handle("/v2/", s.registry)
	mux.HandleFunc("POST /build/{image...}", s.build)
	mux.HandleFunc("POST /fail", func(w http.ResponseWriter, _ *http.Request) {
		s.FailNextPipeline()
		_, _ = io.WriteString(w, "the next pipeline will fail\n")
	})
	mux.HandleFunc("GET /{$}", s.page)
	return mux, nil
}

// Close stops everything and waits for it.
func (s *Sandbox) Close() {
	s.stop()
	_ = s.server.Close()
	s.running.Wait()
	s.queue.Close()
}

// Build pushes a new image of two architectures, as docker buildx would, and
// returns its digest.
func (s *Sandbox) Build(image string) (digest string, err error) {
	return s.registry.build(image)
}

// FailNextPipeline makes one more pipeline fail before it has done anything.
func (s *Sandbox) FailNextPipeline() { s.failures.Add(1) }

// build answers POST /build/REPOSITORY:TAG.
func (s *Sandbox) build(w http.ResponseWriter, r *http.Request) {
	digest, err := s.Build(r.PathValue("image"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "pushed %s, which is %s\n", r.PathValue("image"), digest)
}

// secret makes a secret that tells what it is for.
func secret(prefix string) string {
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails
	return prefix + "-" + hex.EncodeToString(random)
}
