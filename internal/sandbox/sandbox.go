// Package sandbox runs all of hubrelay on one machine, without any account: the
// three functions with their real wiring, an embedded Pub/Sub that delivers
// like Google's, a registry, and fakes of Docker Hub, GitLab and Slack.
package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/reconcile"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// Routes is the default table of a sandbox: every repository has a pipeline.
const Routes = `{
  "acme/api": {"gitlab": {"project": "acme/images/api"}, "slack": {"channel": "C0IMAGES"}},
  "*": {"gitlab": {"project": "{namespace}/images/{name}"}, "slack": {"channel": "C0IMAGES"}}
}`

// routesOf is the table for repositories of the real Docker Hub. All other
// repositories there belong to somebody else.
func routesOf(repositories []string) string {
	var routes []string
	for _, name := range repositories {
		routes = append(routes, fmt.Sprintf(`%q: {"gitlab": {"project": "{namespace}/images/{name}"}, "slack": {"channel": %q}}`, name, Channel))
	}
	slices.Sort(routes)
	return "{" + strings.Join(slices.Compact(routes), ",\n ") + "}" // a name may be there twice
}

// Channel is the channel of the default table, and the default channel.
const Channel = "C0IMAGES"

// Seed is the image that is in the registry from the start.
const Seed = "acme/api:1.4.0"

// The topics of the embedded Pub/Sub, named as terraform/ names them.
const (
	pushes      = "projects/sandbox/topics/hubrelay-pushes"
	deadLetters = "projects/sandbox/topics/hubrelay-dead-letters"
)

// NotifyAudience is the audience of the pipelines' id tokens.
const NotifyAudience = "hubrelay-sandbox"

// Claims of the id tokens of GitLab and of Google.
const (
	audience     = NotifyAudience
	pushAudience = "hubrelay-sandbox/google"
	pushAccount  = "hubrelay-push@sandbox.iam.gserviceaccount.com"
)

// Config changes the defaults of a sandbox. Its zero value is ready for use.
type Config struct {
	Addr     string // to listen on; a free port of the loopback if it is ""
	Routes   string // the table, as JSON; if it is "", Routes, or a table for Hub
	Language string // of the Slack messages
	// Backoff is the wait between two deliveries of a message; as deployed if
	// it is zero. With any other, the clocks are faster, too: they tick every
	// second, and a pipeline is silent after a minute.
	Backoff  Backoff
	StepTime time.Duration // how long each step of a simulated pipeline takes
	Runner   *Runner       // runs real pipelines; nil simulates them
	Events   func(Event)   // called with each event, from one goroutine at a time
	Logs     *slog.Logger  // gets the functions' logs, in addition to Events; may be nil

	// A real Slack, a real GitLab and a real registry, instead of the fakes.
	SlackBotToken       env.Secret
	GitLabURL           string
	GitLabTriggerTokens env.Secret // JSON, as in the setting of that name
	GitLabAPITokens     env.Secret // likewise; may be zero
	Registry            string     // its base URL; with GitLabURL or Hub only
	RegistryAuth        env.Secret // as the setting of that name
	PublicURL           string     // at which GitLab and Docker Hub reach the sandbox; its own if it is ""
	// Hub are repositories of the real Docker Hub, whose pushes arrive without
	// a webhook: it is asked for new pushes at regular intervals. The images
	// are in Registry. HubURL is the URL of its API.
	Hub    []string
	HubURL string
}

// Sandbox is a running system. Faults can be set for its stages.
type Sandbox struct {
	URL        string // of the one port, without a trailing slash
	WebhookURL string // what would be pasted into Docker Hub
	NotifyURL  string // where a real pipeline reports, with id tokens for NotifyAudience
	GitLab     *gitlabtest.Server
	Slack      *slacktest.Server

	// ReplayCommand is the command that lists the dead letters.
	ReplayCommand string

	elsewhere bool               // the images are in a real registry
	google    *gitlabtest.Server // only its issuer of tokens is used: the protocol is the same
	registry  *localRegistry
	hub       *dockerHub
	queue     *Queue
	mux       *http.ServeMux
	server    *http.Server
	logs      *slog.Logger
	ctx       context.Context
	stop      context.CancelFunc
	running   sync.WaitGroup

	// What is known, and the faults.
	clock   *clock
	events  *events
	secrets *secrets
	index   *index
	hints   *hints
	stages  *stages
	faults  *faults
	runs    runs
	mute    sync.Map // IDs of pipelines that GitLab cannot be asked about
	load    load
	streams atomic.Int64
	life    string // differs for each run, because the IDs of events start again

	starting  sync.Mutex // held while functions start
	settings  map[string]string
	functions map[Stage]*function

	forwarding sync.Mutex    // held while the clock goes forward
	passed     time.Duration // since the functions were restarted
}

// Start runs a sandbox until Close.
func Start(ctx context.Context, c Config) (_ *Sandbox, err error) {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	switch {
	case c.Routes != "":
	case len(c.Hub) > 0:
		c.Routes = routesOf(c.Hub)
	default:
		c.Routes = Routes
	}
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	url := "http://" + listener.Addr().String()
	public := cmp.Or(c.PublicURL, url)
	token := secret("sandbox")
	s := &Sandbox{
		URL:        url,
		WebhookURL: public + "/webhook/" + token,
		NotifyURL:  public + "/notify/",
		elsewhere:  c.Registry != "",
		GitLab:     gitlabtest.New(url + "/gitlab"),
		google:     gitlabtest.New(url + "/google"),
		logs:       c.Logs,
		ctx:        ctx,
		stop:       cancel,
		life:       strconv.FormatInt(time.Now().UnixNano(), 36),

		clock: newClock(), index: newIndex(), hints: newHints(), stages: newStages(),
		faults: &faults{real: map[Stage]bool{
			GitLab: c.GitLabURL != "", Pipeline: c.GitLabURL != "", Slack: !c.SlackBotToken.IsZero(), Registry: c.Registry != "", Hub: c.Registry != "",
		}},
		functions: map[Stage]*function{Webhook: {}, Trigger: {}, Notify: {}},
	}
	defer func() {
		if err != nil {
			_ = listener.Close()
			s.Close()
		}
	}()
	slackToken, settings, err := s.settingsOf(c, token)
	if err != nil {
		return nil, err
	}
	s.secrets = newSecrets(token, slackToken, settings["GITLAB_TRIGGER_TOKENS"], settings["GITLAB_API_TOKENS"], settings["REGISTRY_AUTH"])
	s.events = &events{hear: c.Events, now: s.clock.now, hide: s.secrets, said: s.stages.said, wake: make(chan struct{})}
	s.queue, err = StartQueue(ctx, QueueConfig{
		Topic: pushes, DeadLetterTopic: deadLetters, Endpoint: url + "/trigger/", Backoff: c.Backoff,
		DeadLetterEndpoint: url + "/notify/dead-letter", Token: s.googleToken,
		Again: s.willDeliverAgain, Dead: s.sawDeadLetter,
		clock: s.clock, taken: s.sawMessage, settled: func() { s.stages.end(Topic, false) }, faults: func(among ...string) (Fault, bool) { return s.faults.take(Topic, among...) },
	})
	if err != nil {
		return nil, err
	}
	settings["PUBSUB_EMULATOR_HOST"] = s.queue.Addr
	s.ReplayCommand = fmt.Sprintf("PUBSUB_EMULATOR_HOST=%s go run ./cmd/hubrelay replay -subscription %s", s.queue.Addr, s.queue.DeadLetterSubscription)
	fast := c.Backoff != (Backoff{})
	s.hub = &dockerHub{
		webhookURL: url + "/webhook/" + token, events: s.events, stages: s.stages, faults: s.faults, clock: s.clock, api: hubtest.New(), fast: fast,
	}
	s.registry = newRegistry(listener.Addr().String(), s.hub.pushed)
	store := &record{Store: ledger.NewMemory(), clock: s.clock, faults: s.faults, stages: s.stages, index: s.index}
	ledger.Share(settings["LEDGER"], store)
	if fast && c.Registry == "" { // on the real Docker Hub there are images of before
		if err := store.known(ctx, c.Routes); err != nil {
			return nil, err
		}
	}
	s.Slack = slacktest.New(slackToken)
	s.Slack.OnMessage(s.heardInSlack)
	s.GitLab.OnPipeline((&pipelines{Sandbox: s, ctx: ctx, runner: c.Runner, stepTime: c.StepTime}).run)
	if err := s.restart(settings); err != nil {
		return nil, err
	}
	whole := make(chan struct{})
	s.server = &http.Server{Handler: onceWhole(whole, s.handler(c)), ReadHeaderTimeout: 10 * time.Second}
	s.running.Go(func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.events.add(Event{Who: "sandbox", What: "stopped: " + err.Error(), Bad: true})
		}
	})
	if err := s.registry.seed(Seed); err != nil {
		return nil, err
	}
	seeded, _, _ := strings.Cut(Seed, ":")
	s.hub.api.AddRepository(seeded, false)
	s.running.Go(func() { s.queue.Deliver(ctx) })
	ticks, reconciles := time.Minute, 5*time.Minute
	if fast {
		ticks, reconciles = time.Second, time.Second
	}
	s.running.Go(func() { s.schedule(ctx, ticks, tickPath) })
	s.running.Go(func() { s.schedule(ctx, reconciles, reconcilePath) })
	if len(c.Hub) > 0 {
		p, err := newPoller(s.hub, c)
		if err != nil {
			return nil, err
		}
		s.running.Go(func() { p.run(ctx) })
	}
	close(whole)
	return s, nil
}

// onceWhole makes requests wait until the sandbox has started completely.
// Requests to the registry need not wait, because the start uses them.
func onceWhole(whole <-chan struct{}, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v2/") {
			select {
			case <-whole:
			case <-r.Context().Done():
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// memory is the name of the ledger of the sandbox at a URL.
func memory(url string) string { return "memory:" + url }

// known records that the routes have been known for a day. In a fast sandbox a
// lost push counts as ten minutes old, which would be before its start.
func (r *record) known(ctx context.Context, routes string) error {
	table, err := route.Parse(routes)
	if err != nil {
		return nil // the functions log what is wrong
	}
	p := ledger.Progress{Rules: map[string]ledger.Rules{}}
	for key, text := range reconcile.Rules(table) {
		p.Rules[key] = ledger.Rules{Text: text, Since: time.Now().Add(-24 * time.Hour)}
	}
	return r.commit(ctx, ledger.Batch{Progress: &p})
}

// settingsOf returns the settings of all functions.
func (s *Sandbox) settingsOf(c Config, webhookToken string) (slackToken string, settings map[string]string, err error) {
	slackToken = cmp.Or(c.SlackBotToken.Reveal(), secret("xoxb"))
	settings = map[string]string{
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
		"SLACK_BOT_TOKEN":       slackToken,
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
	if c.Registry == "" {
		settings["HUB_URL"] = s.URL + "/hub"
	}
	if c.GitLabURL != "" {
		settings["GITLAB_URL"], settings["OIDC_ISSUER"] = c.GitLabURL, c.GitLabURL
		settings["GITLAB_TRIGGER_TOKENS"] = c.GitLabTriggerTokens.Reveal()
		return slackToken, settings, nil
	}
	for setting, learn := range map[string]struct {
		prefix string
		knows  func(token string)
	}{"GITLAB_TRIGGER_TOKENS": {"glptt", s.GitLab.AnyProject}, "GITLAB_API_TOKENS": {"glpat", s.GitLab.APIToken}} {
		token := secret(learn.prefix)
		learn.knows(token)
		tokens, err := json.Marshal(map[string]string{route.Everything: token})
		if err != nil {
			return "", nil, err
		}
		settings[setting] = string(tokens)
	}
	return slackToken, settings, nil
}

var pipelinePath = regexp.MustCompile(`^/api/v4/projects/.+/pipelines/([0-9]+)(?:/jobs)?$`)

func (s *Sandbox) muted(pipeline int) bool {
	_, is := s.mute.Load(pipeline)
	return is
}

// handler serves everything on one port.
func (s *Sandbox) handler(c Config) http.Handler {
	s.mux = http.NewServeMux()
	mount := func(path string, stageOf func(*http.Request) Stage, h http.Handler) {
		s.mux.Handle(path, s.recorded(stageOf, h))
	}
	post := func(r *http.Request) bool { return r.Method == http.MethodPost }
	for stage, f := range s.functions {
		path := "/" + string(stage)
		mount(path+"/", func(r *http.Request) Stage {
			if !post(r) {
				return ""
			}
			if r.URL.Path == reconcilePath {
				return Reconcile
			}
			return stage
		}, s.faulty(stage, post, http.StripPrefix(path, f)))
	}
	mount("/gitlab/", func(r *http.Request) Stage {
		if strings.HasPrefix(r.URL.Path, "/gitlab/api/") {
			return GitLab
		}
		return ""
	}, s.faulty(GitLab, post, http.StripPrefix("/gitlab", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m := pipelinePath.FindStringSubmatch(r.URL.Path); m != nil && r.Method == http.MethodGet {
			if id, _ := strconv.Atoi(m[1]); s.muted(id) {
				http.Error(w, "503 Service Unavailable", http.StatusServiceUnavailable)
				return
			}
		}
		s.GitLab.ServeHTTP(w, r)
	}))))
	any := func(*http.Request) bool { return true }
	mount("/hub/", func(*http.Request) Stage { return Hub }, s.faulty(Hub, any, http.StripPrefix("/hub", s.hub.api)))
	mount("/slack/", func(*http.Request) Stage { return Slack }, s.faulty(Slack, any, http.StripPrefix("/slack", s.Slack)))
	mount("/v2/", func(r *http.Request) Stage {
		if strings.HasPrefix(r.UserAgent(), "hubrelay") && tagPath.MatchString(r.URL.Path) {
			return Registry
		}
		return ""
	}, s.faulty(Registry, any, s.registry))
	s.mux.Handle("/google/", http.StripPrefix("/google", s.google))
	s.routeAPI()
	return s.guard(c, http.HandlerFunc(s.root))
}

// Handle serves a pattern of http.ServeMux as well, such as "/". The sandbox's
// own paths come first. h is protected in the same way.
func (s *Sandbox) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// root answers if there is no handler for the root.
func (s *Sandbox) root(w http.ResponseWriter, r *http.Request) {
	if _, pattern := s.mux.Handler(r); pattern == "" && r.URL.Path == "/" {
		fmt.Fprintf(w, "hubrelay runs here, and has no page. %s/api/ says what there is to ask and to do.\n", s.URL)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// Close stops everything and waits for it.
func (s *Sandbox) Close() {
	s.stop()
	if s.server != nil {
		_ = s.server.Close()
	}
	s.running.Wait()
	if s.queue != nil {
		s.queue.Close()
	}
	ledger.Share(memory(s.URL), nil)
}

// secret makes a secret with a prefix that says what it is for.
func secret(prefix string) string {
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails
	return prefix + "-" + hex.EncodeToString(random)
}
