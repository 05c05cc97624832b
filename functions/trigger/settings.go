package trigger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

// FromEnv wires Trigger from its settings: ROUTES, GITLAB_TRIGGER_TOKENS,
// GITLAB_API_TOKENS, GITLAB_URL, DEAD_LETTER_TOPIC, REGISTRY, REGISTRY_AUTH and LEDGER.
func FromEnv(ctx context.Context, getenv func(string) string) (http.Handler, error) {
	log := gcplog.FromContext(ctx)
	r := env.New(getenv)
	t := Trigger{
		Routes: env.Parse(r, "ROUTES", route.Parse),
		Tokens: env.Parse(r, "GITLAB_TRIGGER_TOKENS", parseTokens),
		Claims: env.Parse(r, "LEDGER", ledger.Open),
		Images: images(r),
	}
	if r.String("GITLAB_API_TOKENS", "") != "" {
		t.APITokens = env.Parse(r, "GITLAB_API_TOKENS", parseTokens)
	}
	if r.Err() == nil { // else there would be mistakes that are none
		if err := checkTokens(t.Routes, t.Tokens); err != nil {
			r.Mistake("GITLAB_TRIGGER_TOKENS", err)
		}
		if err := checkKeys(t.Routes, t.APITokens); err != nil {
			r.Mistake("GITLAB_API_TOKENS", err)
		}
	}
	for _, rt := range t.Routes.All() {
		if rt.SkipSigned && t.Images == nil {
			r.Mistake("REGISTRY", fmt.Errorf("is off, but skip_signed of route %q needs a registry", rt.Key))
		}
	}
	pipelines, err := gitlab.New(r.URL("GITLAB_URL", "https://gitlab.com"))
	if err != nil {
		r.Mistake("GITLAB_URL", err)
	}
	t.Pipelines = pipelines
	topic := env.Parse(r, "DEAD_LETTER_TOPIC", pubsub.ParseTopic)
	if err := r.Err(); err != nil {
		return nil, err
	}
	if t.DeadLetters, err = pubsub.NewPublisher(ctx, topic, getenv("PUBSUB_EMULATOR_HOST")); err != nil {
		return nil, err
	}
	for _, rt := range t.Routes.All() {
		if t.Images == nil && rt.OncePer == route.OncePerDigest {
			log.Warn("digests not resolved: REGISTRY is off, so every delivery starts a pipeline", slog.String("route", rt.Key))
		}
	}
	return New(t, log), nil
}

// images is nil where REGISTRY is off.
func images(r *env.Reader) Images {
	if r.String("REGISTRY", "") == "off" {
		return nil
	}
	client, err := registry.New(r.URL("REGISTRY", "https://registry-1.docker.io"), r.Secret("REGISTRY_AUTH"))
	if err != nil {
		r.Mistake("REGISTRY", err)
		return nil
	}
	return client
}

// parseTokens reads a JSON object: key of a route → trigger token.
func parseTokens(text string) (Tokens, error) {
	var raw map[string]string
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		// The error of encoding/json may repeat a part of a token.
		return nil, errors.New(`is not a JSON object of route keys and tokens, such as {"*": "glptt-…"}`)
	}
	tokens := Tokens{}
	var mistakes []error
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if raw[key] == "" {
			mistakes = append(mistakes, fmt.Errorf("%q has an empty token", key))
		}
		tokens[key] = env.NewSecret(raw[key])
	}
	return tokens, errors.Join(mistakes...)
}

// checkTokens says which routes have no token, and which tokens no route.
func checkTokens(routes route.Table, tokens Tokens) error {
	var mistakes []error
	for _, r := range routes.All() {
		if tokens.Of(r.Key).IsZero() {
			mistakes = append(mistakes, fmt.Errorf("route %q has no token, and there is none for %q", r.Key, route.Everything))
		}
	}
	return errors.Join(append(mistakes, checkKeys(routes, tokens))...)
}

// checkKeys says which tokens have no route.
func checkKeys(routes route.Table, tokens Tokens) error {
	known := map[string]bool{route.Everything: true}
	for _, r := range routes.All() {
		known[r.Key] = true
	}
	var mistakes []error
	for _, key := range slices.Sorted(maps.Keys(tokens)) {
		if !known[key] {
			mistakes = append(mistakes, fmt.Errorf("%q is not the key of a route", key))
		}
	}
	return errors.Join(mistakes...)
}
