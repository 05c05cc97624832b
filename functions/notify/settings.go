package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// Settings are what Notify reads from its environment.
type Settings struct {
	Notify
	Slack  *slack.Client // the same as Notify's
	Issuer string        // of the id tokens of pipelines; "" if they are not accepted
	Ledger ledger.Name
}

// FromEnv wires Notify from its settings.
func FromEnv(ctx context.Context, getenv func(string) string) (http.Handler, error) {
	s, err := ReadSettings(getenv)
	if err != nil {
		return nil, err
	}
	if s.Promotions, err = ledger.Open(string(s.Ledger)); err != nil {
		return nil, fmt.Errorf("LEDGER: %w", err)
	}
	return New(s.Notify, gcplog.FromContext(ctx)), nil
}

// ReadSettings reads ROUTES, SLACK_BOT_TOKEN, SLACK_API_URL, LANGUAGE,
// NOTIFY_TOKENS, OIDC_ISSUER, OIDC_AUDIENCE, PUSH_ISSUER, PUSH_AUDIENCE,
// PUSH_SERVICE_ACCOUNT, DEFAULT_CHANNEL, SILENT_AFTER and LEDGER. Its error has
// every mistake, one a line; a setting with a mistake is zero. It sends no
// request.
func ReadSettings(getenv func(string) string) (Settings, error) {
	r := env.New(getenv)
	n := Notify{
		Routes:   env.Parse(r, "ROUTES", route.Parse),
		Language: slack.Language(r.OneOf("LANGUAGE", string(slack.En), string(slack.Ja))),
	}
	r.Required("SLACK_BOT_TOKEN")
	client := slack.New(r.URL("SLACK_API_URL", "https://slack.com/api/")+"/", r.Token("SLACK_BOT_TOKEN"))
	n.Slack = client

	issuer, audience := r.URL("OIDC_ISSUER", "https://gitlab.com"), r.String("OIDC_AUDIENCE", "")
	s := Settings{Slack: client}
	if audience != "" {
		n.IDTokens, s.Issuer = auth.NewVerifier(issuer, audience), issuer
	}
	if r.String("NOTIFY_TOKENS", "") != "" {
		n.Tokens = env.Parse(r, "NOTIFY_TOKENS", auth.ParseTokens)
	} else if audience == "" {
		r.Mistake("OIDC_AUDIENCE", errors.New("or NOTIFY_TOKENS is required, otherwise nobody could report"))
	}
	n.DefaultChannel = env.Parse(r, "DEFAULT_CHANNEL", route.ParseChannel)
	pushIssuer, pushAudience := r.URL("PUSH_ISSUER", "https://accounts.google.com"), r.String("PUSH_AUDIENCE", "")
	n.PushAccount = r.String("PUSH_SERVICE_ACCOUNT", "")
	switch {
	case pushAudience != "" && n.PushAccount == "":
		r.Mistake("PUSH_SERVICE_ACCOUNT", errors.New("is required with PUSH_AUDIENCE, or any account of Google's could call"))
	case pushAudience == "" && n.PushAccount != "":
		r.Mistake("PUSH_AUDIENCE", errors.New("is required with PUSH_SERVICE_ACCOUNT"))
	case pushAudience != "":
		n.PushTokens = auth.NewVerifier(pushIssuer, pushAudience)
	}
	n.SilentAfter = time.Hour
	if r.String("SILENT_AFTER", "") != "" {
		n.SilentAfter = env.Parse(r, "SILENT_AFTER", parseSilence)
	}
	s.Ledger = env.Parse(r, "LEDGER", ledger.ParseName)
	s.Notify = n
	return s, r.Err()
}

// parseSilence reads how long a pipeline may be silent.
func parseSilence(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Minute {
		return 0, fmt.Errorf("%.50q is not a time of a minute or more, such as 1h or 90m", text)
	}
	return d, nil
}
