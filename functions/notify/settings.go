package notify

import (
	"context"
	"errors"
	"net/http"

	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// FromEnv wires Notify from its settings: ROUTES, SLACK_BOT_TOKEN,
// SLACK_API_URL, LANGUAGE, NOTIFY_TOKENS, OIDC_ISSUER, OIDC_AUDIENCE and
// LEDGER.
func FromEnv(ctx context.Context, getenv func(string) string) (http.Handler, error) {
	r := env.New(getenv)
	n := Notify{
		Routes:   env.Parse(r, "ROUTES", route.Parse),
		Language: slack.Language(r.OneOf("LANGUAGE", string(slack.En), string(slack.Ja))),
	}
	r.Required("SLACK_BOT_TOKEN")
	n.Slack = slack.New(r.URL("SLACK_API_URL", "https://slack.com/api/")+"/", r.Secret("SLACK_BOT_TOKEN"))

	issuer, audience := r.URL("OIDC_ISSUER", "https://gitlab.com"), r.String("OIDC_AUDIENCE", "")
	if audience != "" {
		n.IDTokens = auth.NewVerifier(issuer, audience)
	}
	if r.String("NOTIFY_TOKENS", "") != "" {
		n.Tokens = env.Parse(r, "NOTIFY_TOKENS", auth.ParseTokens)
	} else if audience == "" {
		r.Mistake("OIDC_AUDIENCE", errors.New("or NOTIFY_TOKENS is required, or nobody could report"))
	}
	if r.String("LEDGER", "") != "" {
		n.Promotions = env.Parse(r, "LEDGER", ledger.Open)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return New(n, gcplog.FromContext(ctx)), nil
}
