package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

const localUsage = `Usage: hubrelay local [FLAGS]

Runs Webhook, Trigger and Notify on this machine, with an embedded Pub/Sub, a
registry, and fakes of Docker Hub, GitLab and Slack.

A real GitLab takes the place of the fake with -gitlab-url; its trigger tokens
are read from GITLAB_TRIGGER_TOKENS. A real Slack does with -slack; its bot
token is read from SLACK_BOT_TOKEN. Both want -routes.

Flags:
`

func local(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("local", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		_, _ = io.WriteString(out, localUsage)
		flags.PrintDefaults()
	}
	var (
		addr      = flags.String("addr", "127.0.0.1:8080", "listen on this `address`")
		routes    = flags.String("routes", "", "read the routes from this JSON `file`")
		language  = flags.String("language", "en", "language of the Slack messages: en or ja")
		fast      = flags.Bool("fast", false, "deliver again after 0.1 to 2 s, not after 10 to 600 s as deployed")
		gitlabURL = flags.String("gitlab-url", "", "use the real GitLab at this `URL`")
		slack     = flags.Bool("slack", false, "use the real Slack")
		runner    = flags.String("runner", "", "run this `template` really, templates/promote.yml, and sign images; make tools builds what it needs")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("local takes no %q", flags.Arg(0))
	}
	p := &printer{out: out, colour: isTerminal(out), start: time.Now()}
	config := sandbox.Config{
		Addr: *addr, Language: *language, StepTime: 500 * time.Millisecond, Events: p.print, GitLabURL: *gitlabURL,
	}
	if *fast {
		config.Backoff = sandbox.Backoff{Min: 100 * time.Millisecond, Max: 2 * time.Second}
	}
	if *routes != "" {
		text, err := os.ReadFile(*routes)
		if err != nil {
			return fmt.Errorf("read the routes: %w", err)
		}
		config.Routes = string(text)
	}
	if *gitlabURL != "" {
		config.GitLabTriggerTokens = env.NewSecret(os.Getenv("GITLAB_TRIGGER_TOKENS"))
	}
	if *slack {
		config.SlackBotToken = env.NewSecret(os.Getenv("SLACK_BOT_TOKEN"))
		if config.SlackBotToken.IsZero() {
			return fmt.Errorf("-slack wants a bot token in SLACK_BOT_TOKEN")
		}
	}
	if *runner != "" {
		if config.Runner, err = sandbox.NewRunner(*runner, ".tools"); err != nil {
			return fmt.Errorf("-runner: %w", err)
		}
		defer config.Runner.Close()
	}
	s, err := sandbox.Start(ctx, config)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintf(out, welcome, s.URL, s.WebhookURL, s.ReplayCommand)
	<-ctx.Done()
	return nil
}

const welcome = `hubrelay runs on this machine. Watch it here, or at %[1]s

Send the webhook that Docker Hub documents:

  curl -d '{"push_data":{"pushed_at":1417566161,"pusher":"trustedbuilder","tag":"1.4.0"},"repository":{"repo_name":"acme/api"}}' \
    %[2]s

Push an image of your own to the registry (docker push works, too), or let the next pipeline fail:

  curl -X POST %[1]s/build/acme/api:1.5.0
  curl -X POST %[1]s/fail

What could not be done waits to be replayed (-apply does it):

  %[3]s

`

// printer writes events to the terminal, a line each. What happens several
// times in a row is one line and a count.
type printer struct {
	out    io.Writer
	colour bool
	start  time.Time

	mu    sync.Mutex
	last  string // line, without its time
	again int    // times that it came again
	flush *time.Timer
}

// patience is how long a line is waited for to come again.
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

// count says how often the last line came again.
func (p *printer) count() {
	if p.again > 0 {
		fmt.Fprintf(p.out, "%23s (%d more)\n", "", p.again)
	}
	p.again = 0
}

// artifact finds the tags of signatures, which are long.
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

// isTerminal tells whether colours would be seen.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
