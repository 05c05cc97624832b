// Package hubrelay holds the entry points of three Cloud Functions. Each
// process serves the one that FUNCTION_TARGET names:
//
//   - Webhook takes Docker Hub's call and queues it.
//   - Trigger creates the GitLab pipeline of a queued push.
//   - Notify takes the pipeline's report and tells Slack.
//
// docs/architecture.md shows how they work together.
package hubrelay

import (
	"context"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/functions/webhook"
	_ "github.com/getto-systems/hubrelay/internal/gc"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/version"
)

// drainTime is how long running requests may take after SIGTERM. Cloud Run
// sends SIGKILL after 10 s.
const drainTime = 9 * time.Second

func init() {
	register("Webhook", webhook.FromEnv)
	register("Trigger", trigger.FromEnv)
	register("Notify", notify.FromEnv)
}

// register serves the handler that build makes, if this process was started as
// the function of that name. Bad settings stop the process before it listens,
// so that a bad revision never gets traffic.
func register(name string, build func(context.Context, func(string) string) (http.Handler, error)) {
	if os.Getenv("FUNCTION_TARGET") != name {
		return
	}
	log := gcplog.New(os.Stdout, os.Getenv("GOOGLE_CLOUD_PROJECT")).With("version", version.Number)
	handler, err := build(gcplog.NewContext(context.Background(), log), os.Getenv)
	if err != nil {
		for mistake := range strings.Lines(err.Error()) {
			log.Error("setting refused", "error", strings.TrimSpace(mistake))
		}
		os.Exit(1)
	}
	drain := httpserver.NewDrain(handler)
	go exitOnTerm(drain)
	functions.HTTP(name, drain.ServeHTTP)
}

// exitOnTerm ends the process once running requests are done.
func exitOnTerm(drain *httpserver.Drain) {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
	drain.Wait(drainTime)
	os.Exit(0)
}
