package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/getto-systems/hubrelay/internal/console"
	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

const localUsage = `Usage: hubrelay local [FLAGS]

Runs Webhook, Trigger and Notify on this machine, with an embedded Pub/Sub, a
registry, and fakes of Docker Hub, GitLab and Slack.

Real services can replace the fakes. They need your own routes (-routes):
  -slack       The bot token is read from SLACK_BOT_TOKEN.
  -gitlab-url  The trigger tokens are read from GITLAB_TRIGGER_TOKENS. The inputs that
               the pipelines need are printed.
  -registry    The registry that has the images, with a real GitLab:
               https://registry-1.docker.io is Docker Hub's. The account is read from
               REGISTRY_AUTH.
  -public-url  The address at which a real GitLab and Docker Hub reach this machine: a
               tunnel to -addr. It exposes Webhook and Notify and, without -registry,
               the registry of this machine, which needs no password. Without
               -public-url the pipelines must run on this machine.

Pushes to Docker Hub can arrive without a tunnel and without a webhook:
  -hub         Docker Hub's API is asked about these repositories every 15 seconds.
               It works with and without -gitlab-url; the fake GitLab signs and moves
               nothing. For private repositories, REGISTRY_AUTH has an account.
               HUB_URL is another address of the API than https://hub.docker.com. This
               was only tried on a fake.

Flags:
`

func local(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("local", flag.ContinueOnError)
	var (
		addr      = flags.String("addr", "127.0.0.1:8080", "listen on this `address`; port 0 picks a free one")
		routes    = flags.String("routes", "", "read the routes from this JSON `file`")
		language  = flags.String("language", "en", "`language` of the Slack messages: en or ja")
		fast      = flags.Bool("fast", false, "retry after 0.1 to 2 s instead of 10 to 600 s")
		gitlabURL = flags.String("gitlab-url", "", "use the real GitLab at this `URL`")
		registry  = flags.String("registry", "", "use the real registry at this `URL`")
		publicURL = flags.String("public-url", "", "`URL` at which others reach this machine")
		hub       = flags.String("hub", "", "watch these `repositories` of Docker Hub, acme/api[,acme/web]; the default of -registry is then Docker Hub's")
		slack     = flags.Bool("slack", false, "use the real Slack")
		runner    = flags.String("runner", "", "run this `template` for real, such as templates/promote.yml, and sign images; make tools builds what it needs")
	)
	if err := parse(flags, localUsage, args, out); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("local takes flags and no arguments, and %.100q is one", flags.Arg(0))
	}
	p := &printer{out: out, colour: isTerminal(out), start: time.Now()}
	config := sandbox.Config{
		Addr: *addr, Language: *language, StepTime: 500 * time.Millisecond, Events: p.print,
		GitLabURL: strings.TrimRight(*gitlabURL, "/"), Registry: strings.TrimRight(*registry, "/"), PublicURL: strings.TrimRight(*publicURL, "/"),
	}
	if *hub != "" {
		if err := watchHub(&config, *hub); err != nil {
			return err
		}
	}
	if *fast {
		config.Backoff = sandbox.Backoff{Min: 100 * time.Millisecond, Max: 2 * time.Second}
	}
	if *routes != "" {
		text, err := os.ReadFile(*routes)
		if err != nil {
			return fmt.Errorf("-routes: %w", err)
		}
		config.Routes = string(text)
	}
	if err := useRealOnes(&config, *slack); err != nil {
		return err
	}
	if *runner != "" {
		if len(config.Hub) > 0 {
			return errors.New("-runner signs images in the registry of this machine: it cannot be combined with -hub")
		}
		if config.GitLabURL != "" {
			return errors.New("-runner runs the pipelines of the fake GitLab: it cannot be combined with -gitlab-url")
		}
		if config.Runner, err = sandbox.NewRunner(*runner, ".tools"); err != nil {
			return fmt.Errorf("-runner: %w", err)
		}
		defer config.Runner.Close()
	}
	s, err := sandbox.Start(ctx, config)
	var network *net.OpError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("another program already listens at %s: choose another address with -addr, such as 127.0.0.1:0 for a free port", *addr)
	case errors.As(err, &network) && network.Op == "listen":
		return fmt.Errorf("-addr: %w", err)
	case err != nil:
		return err
	}
	defer s.Close()
	s.Handle("/", console.New(s))
	fmt.Fprintf(out, welcome, s.URL, s.WebhookURL, s.ReplayCommand)
	switch {
	case len(config.Hub) > 0 && config.GitLabURL == "":
		fmt.Fprintf(out, welcomeHub, strings.Join(config.Hub, " or "), s.URL)
	case config.GitLabURL == "":
		fmt.Fprintf(out, welcomeFakes, s.URL)
	default:
		fmt.Fprintf(out, welcomeGitLab, s.NotifyURL, sandbox.NotifyAudience, host(cmp.Or(config.Registry, config.PublicURL, s.URL)))
	}
	<-ctx.Done()
	return nil
}

// watchHub reads which repositories of Docker Hub are watched. Their images are
// in Docker Hub's registry, unless another is named.
func watchHub(c *sandbox.Config, list string) error {
	for name := range strings.SplitSeq(list, ",") {
		name = dockerhub.Canonical(name)
		if err := dockerhub.CheckRepository(name); err != nil {
			return fmt.Errorf("-hub: %w", err)
		}
		c.Hub = append(c.Hub, name)
	}
	c.HubURL = os.Getenv("HUB_URL")
	c.Registry = cmp.Or(c.Registry, "https://registry-1.docker.io")
	return nil
}

// useRealOnes checks the real services that replace the fakes, and reads their
// secrets from the environment.
func useRealOnes(c *sandbox.Config, slack bool) error {
	for _, f := range []struct{ name, url string }{{"gitlab-url", c.GitLabURL}, {"registry", c.Registry}, {"public-url", c.PublicURL}} {
		u, err := url.Parse(f.url)
		switch {
		case f.url == "":
			continue
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			return fmt.Errorf("-%s: %.100q is not a URL such as https://HOST", f.name, f.url)
		case f.name == "registry" && len(c.Hub) > 0:
		case c.GitLabURL == "":
			return fmt.Errorf("-%s needs a real GitLab: the pipelines of the fake one can reach only this machine; add -gitlab-url", f.name)
		case c.Routes == "":
			return fmt.Errorf("-%s needs -routes: the default routes name projects of the fake GitLab", f.name)
		}
	}
	if c.GitLabURL != "" {
		c.GitLabTriggerTokens = env.NewSecret(os.Getenv("GITLAB_TRIGGER_TOKENS"))
		if c.GitLabTriggerTokens.IsZero() {
			return errors.New(`-gitlab-url needs trigger tokens in GITLAB_TRIGGER_TOKENS, such as {"*": "glptt-…"}`)
		}
		c.GitLabAPITokens = env.NewSecret(os.Getenv("GITLAB_API_TOKENS"))
	}
	if c.Registry != "" {
		c.RegistryAuth = env.NewSecret(os.Getenv("REGISTRY_AUTH"))
	}
	if slack {
		c.SlackBotToken = env.NewSecret(os.Getenv("SLACK_BOT_TOKEN"))
		switch {
		case c.Routes == "":
			return errors.New("-slack needs -routes: the default routes name a channel of the fake Slack")
		case c.SlackBotToken.IsZero():
			return errors.New("-slack needs a bot token in SLACK_BOT_TOKEN")
		}
	}
	return nil
}

// host is the name of a registry in the template.
func host(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return base
	}
	if u.Host == "registry-1.docker.io" {
		return "docker.io"
	}
	return u.Host
}

const welcome = `hubrelay runs on this machine. Watch it here, or at %[1]s

Send the webhook that Docker Hub documents:

  curl -d '{"push_data":{"pushed_at":1417566161,"pusher":"trustedbuilder","tag":"1.4.0"},"repository":{"repo_name":"acme/api"}}' \
    %[2]s

See the dead letters (-apply queues them again):

  %[3]s

`

const welcomeFakes = `Push an image of your own to the registry (docker push works, too), or let the next pipeline fail:

  curl -d image=acme/api:1.5.0 %[1]s/api/push
  curl -d stage=pipeline -d answer=fails -d times=1 %[1]s/api/faults

docs/sandbox.md describes everything else.

`

const welcomeHub = `Push to %[1]s on Docker Hub, and watch the promotion here. Or let the next pipeline fail:

  curl -d stage=pipeline -d answer=fails -d times=1 %[2]s/api/faults

`

const welcomeGitLab = `Paste the URL of this webhook into Docker Hub, and give the component in GitLab these inputs:

  notify_url: %s
  notify_audience: %s
  registry: %s

`

// printer writes events to the terminal, one line each. Equal events in a row
// are one line and a count.
type printer struct {
	out    io.Writer
	colour bool
	start  time.Time

	mu    sync.Mutex
	last  string // line, without its time
	again int    // times that it was repeated
	flush *time.Timer
}

// patience is how long to wait for a line to be repeated.
const patience = 300 * time.Millisecond

func (p *printer) print(e sandbox.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := p.line(e)
	if line == p.last {
		p.again++
		p.flush.Reset(patience)
		return
	}
	p.count()
	p.last = line
	if p.flush == nil {
		p.flush = time.AfterFunc(patience, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.count()
		})
	}
	fmt.Fprintf(p.out, "%7.2f  %s\n", e.At.Sub(p.start).Seconds(), line)
}

// count prints how often the last line was repeated.
func (p *printer) count() {
	if p.again > 0 {
		fmt.Fprintf(p.out, "%23s (%d more)\n", "", p.again)
	}
	p.again = 0
}

// artifact matches the tags of signatures, which are long.
var artifact = regexp.MustCompile(`:(sha256-[0-9a-f]{12})[0-9a-f]{52}`)

func (p *printer) line(e sandbox.Event) string {
	text := strings.TrimSpace(strings.Join([]string{artifact.ReplaceAllString(e.Image, ":$1…"), e.What}, "  "))
	if e.Detail != "" {
		text += ": " + strings.ReplaceAll(e.Detail, "\n", " ")
	}
	text = fmt.Sprintf("%-12s  %s", e.Who, text)
	colour := ""
	switch {
	case !p.colour:
	case e.Bad:
		colour = "31" // red
	case e.Talk:
		colour = "36" // cyan
	case strings.HasPrefix(e.Who, "pipeline"):
		colour = "33" // yellow
	}
	if colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// isTerminal reports whether out shows colours.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
