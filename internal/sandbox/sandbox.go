// Package sandbox runs the whole of hubrelay on one machine, with no account
// anywhere: the three functions on their real wiring, an embedded Pub/Sub
// that delivers as Google's does, a registry, and fakes of Docker Hub, GitLab
// and Slack.
package sandbox

import (
	"cmp"
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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/functions/webhook"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/reconcile"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// Routes is the table of a sandbox that is given none: every repository has a
// pipeline.
const Routes = `{
  "acme/api": {"gitlab": {"project": "acme/images/api"}, "slack": {"channel": "C0IMAGES"}},
  "*": {"gitlab": {"project": "{namespace}/images/{name}"}, "slack": {"channel": "C0IMAGES"}}
}`

// Channel is where Slack shows what the table of a sandbox, or its lack of a
// route, leaves to the default.
const Channel = "C0IMAGES"

// Seed is the image that is in the registry from the start.
const Seed = "acme/api:1.4.0"

// The topics of the embedded Pub/Sub, named as terraform/ names them.
const (
	pushes      = "projects/sandbox/topics/hubrelay-pushes"
	deadLetters = "projects/sandbox/topics/hubrelay-dead-letters"
)

// NotifyAudience is whom the id tokens of pipelines are for.
const NotifyAudience = "hubrelay-sandbox"

// What the id tokens of GitLab and of Google say.
const (
	audience     = NotifyAudience
	pushAudience = "hubrelay-sandbox/google"
	pushAccount  = "hubrelay-push@sandbox.iam.gserviceaccount.com"
)

// Config says how a sandbox differs from the usual one. Its zero value is fit
// for use.
type Config struct {
	Addr     string // to listen on; a free port of the loopback where it is ""
	Routes   string // the table, as JSON
	Language string // of the Slack messages
	// Backoff is between two deliveries of a message; as deployed where it is
	// zero. With another the clocks are as fast as they are of use, too: they tick
	// every second, and a pipeline is silent after a minute.
	Backoff  Backoff
	StepTime time.Duration // how long each step of a pretended pipeline takes
	Runner   *Runner       // runs real pipelines; nil pretends them
	Events   func(Event)   // hears what happens; called from one goroutine at a time
	Logs     *slog.Logger  // takes the functions' logs, beside Events; may be nil

	// A real Slack, a real GitLab and a real registry, in the place of the fakes.
	SlackBotToken       env.Secret
	GitLabURL           string
	GitLabTriggerTokens env.Secret // JSON, as in the setting of that name
	GitLabAPITokens     env.Secret // likewise; may be zero
	Registry            string     // its base URL; with GitLabURL or Hub only
	RegistryAuth        env.Secret // as the setting of that name
	PublicURL           string     // at which GitLab and Docker Hub reach the sandbox; its own where it is ""
	// Hub are repositories of the real Docker Hub, whose pushes arrive without a
	// webhook: it is asked, now and again, whether there are any. The images are
	// in Registry. HubURL is that of its API.
	Hub    []string
	HubURL string
}

// Sandbox is a running system. Its fakes may be told to fail.
type Sandbox struct {
	URL        string // of the one port, without a trailing slash
	WebhookURL string // what would be pasted into Docker Hub
	NotifyURL  string // what a real pipeline reports to, with id tokens for NotifyAudience
	GitLab     *gitlabtest.Server
	Slack      *slacktest.Server

	// ReplayCommand shows the dead letters that wait.
	ReplayCommand string

	fakes     bool               // there is no real GitLab
	elsewhere bool               // the images are in a registry that is no fake
	google    *gitlabtest.Server // of which only the issuer of tokens is used: the protocol is the same
	events    *events
	failures  atomic.Int64 // of pipelines to come
	silences  atomic.Int64 // likewise
	ledger    *ledger.Ledger
	registry  *localRegistry
	hub       *dockerHub
	queue     *Queue
	mux       *http.ServeMux
	server    *http.Server
	stop      context.CancelFunc
	running   sync.WaitGroup
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
	public := cmp.Or(c.PublicURL, url)
	token := secret("sandbox")
	s := &Sandbox{
		URL:        url,
		WebhookURL: public + "/webhook/" + token,
		NotifyURL:  public + "/notify/",
		fakes:      c.GitLabURL == "",
		elsewhere:  c.Registry != "",
		GitLab:     gitlabtest.New(url + "/gitlab"),
		google:     gitlabtest.New(url + "/google"),
		events:     newEvents(c.Events, time.Now),
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
	fast := c.Backoff != (Backoff{})
	s.hub = &dockerHub{webhookURL: url + "/webhook/" + token, events: s.events, api: hubtest.New(), fast: fast}
	s.registry = newRegistry(listener.Addr().String(), s.hub.pushed)
	if s.ledger, err = ledger.Open(memory(url)); err == nil && fast {
		err = known(ctx, memory(url), c.Routes)
	}
	if err != nil {
		cancel()
		s.queue.Close()
		return nil, err
	}

	slackToken := c.SlackBotToken
	if slackToken.IsZero() {
		slackToken = env.NewSecret(secret("xoxb"))
	}
	s.Slack = slacktest.New(slackToken.Reveal())
	s.Slack.OnMessage(s.heardInSlack)
	s.GitLab.OnPipeline((&pipelines{Sandbox: s, ctx: ctx, runner: c.Runner, stepTime: c.StepTime}).run)

	s.mux, err = s.handlers(ctx, c, token, slackToken)
	if err != nil {
		cancel()
		s.queue.Close()
		return nil, err
	}
	var handler http.Handler = s.mux
	if c.PublicURL != "" {
		handler = onlyWithALock(handler, c)
	}
	s.server = &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
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
	ticks, reconciles := time.Minute, 5*time.Minute
	if fast {
		ticks, reconciles = time.Second, time.Second
	}
	s.running.Go(func() { s.clock(ctx, ticks, "/notify/tick") })
	s.running.Go(func() { s.clock(ctx, reconciles, "/trigger/reconcile") })
	if len(c.Hub) > 0 {
		p, err := newPoller(s.hub, c)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.running.Go(func() { p.run(ctx) })
	}
	return s, nil
}

// memory names the ledger of the sandbox at a URL.
func memory(url string) string { return "memory:" + url }

// known has the routes been known for a day: what is lost in a fast sandbox is
// ten minutes old, which would be before its start.
func known(ctx context.Context, name, routes string) error {
	table, err := route.Parse(routes)
	if err != nil {
		return nil // the functions say what is wrong
	}
	p := ledger.Progress{Rules: map[string]ledger.Rules{}}
	for key, text := range reconcile.Rules(table) {
		p.Rules[key] = ledger.Rules{Text: text, Since: time.Now().Add(-24 * time.Hour)}
	}
	return ledger.SharedMemory(name).Commit(ctx, ledger.Batch{Progress: &p})
}

// handlers puts everything behind one port.
func (s *Sandbox) handlers(ctx context.Context, c Config, webhookToken string, slackToken env.Secret) (*http.ServeMux, error) {
	settings := map[string]string{
		"PUBSUB_EMULATOR_HOST":  s.queue.Addr,
		"TOPIC":                 pushes,
		"DEAD_LETTER_TOPIC":     deadLetters,
		"WEBHOOK_TOKENS":        webhookToken,
		"ROUTES":                c.Routes,
		"GITLAB_URL":            s.URL + "/gitlab",
		"GITLAB_TRIGGER_TOKENS": "",
		"GITLAB_API_TOKENS":     c.GitLabAPITokens.Reveal(),
		"HUB_URL":               c.HubURL,
		"REGISTRY":              cmp.Or(c.Registry, s.URL),
		"REGISTRY_AUTH":         c.RegistryAuth.Reveal(),
		"LEDGER":                memory(s.URL),
		"SLACK_API_URL":         s.URL + "/slack/api/",
		"SLACK_BOT_TOKEN":       slackToken.Reveal(),
		"LANGUAGE":              c.Language,
		"OIDC_ISSUER":           s.URL + "/gitlab",
		"OIDC_AUDIENCE":         audience,
		"PUSH_ISSUER":           s.URL + "/google",
		"PUSH_AUDIENCE":         pushAudience,
		"PUSH_SERVICE_ACCOUNT":  pushAccount,
		"DEFAULT_CHANNEL":       Channel,
	}
	if c.Backoff != (Backoff{}) {
		settings["SILENT_AFTER"] = "1m"
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
		reads := secret("glpat")
		s.GitLab.APIToken(reads)
		if tokens, err = json.Marshal(map[string]string{"*": reads}); err != nil {
			return nil, err
		}
		settings["GITLAB_API_TOKENS"] = string(tokens)
	}
	if c.Registry == "" {
		settings["HUB_URL"] = s.URL + "/hub"
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
	mux.Handle("/hub/", http.StripPrefix("/hub", s.hub.api))
	mux.Handle("/slack/", http.StripPrefix("/slack", s.Slack))
	mux.Handle("/v2/", s.registry)
	if c.Registry == "" {
		mux.HandleFunc("POST /build/{image...}", s.build)
	}
	mux.HandleFunc("POST /fail", func(w http.ResponseWriter, _ *http.Request) {
		s.FailNextPipeline()
		_, _ = io.WriteString(w, "the next pipeline will fail\n")
	})
	mux.HandleFunc("POST /silence", func(w http.ResponseWriter, _ *http.Request) {
		s.SilenceNextPipeline()
		_, _ = io.WriteString(w, "the next pipeline will report nothing\n")
	})
	mux.HandleFunc("POST /lose", func(w http.ResponseWriter, _ *http.Request) {
		s.LoseNextPush()
		_, _ = io.WriteString(w, "the webhooks of the next push will be lost\n")
	})
	return mux, nil
}

// onlyWithALock keeps from the outside what asks for no token, such as Trigger:
// in Google Cloud, the platform does. Only the registry is open, where the
// pipelines need it.
func onlyWithALock(h http.Handler, c Config) http.Handler {
	public := strings.TrimPrefix(strings.TrimPrefix(c.PublicURL, "https://"), "http://")
	open := []string{"webhook", "notify"}
	if c.Registry == "" {
		open = append(open, "v2")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outside := r.Host == public || r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("X-Forwarded-Host") != "" || r.Header.Get("Forwarded") != ""
		first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if outside && !slices.Contains(open, first) {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Handle serves a pattern of http.ServeMux as well, such as "/". The sandbox's
// own paths come first.
func (s *Sandbox) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

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

// SilenceNextPipeline makes one more pipeline do nothing, and report nothing,
// until its job is canceled and retried.
func (s *Sandbox) SilenceNextPipeline() { s.silences.Add(1) }

// LoseNextPush makes Docker Hub call nobody for one more push.
func (s *Sandbox) LoseNextPush() { s.hub.losses.Add(1) }

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
