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
	"strings"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

// FromEnv wires Trigger from its settings: ROUTES, GITLAB_TRIGGER_TOKENS,
// GITLAB_API_TOKENS, GITLAB_URL, TOPIC, DEAD_LETTER_TOPIC, REGISTRY, REGISTRY_AUTH, HUB_URL,
// RECONCILE and LEDGER. What it opens is closed once ctx ends.
func FromEnv(ctx context.Context, getenv func(string) string) (http.Handler, error) {
	r := env.New(getenv)
	t := Trigger{
		Routes: env.Parse(r, "ROUTES", route.Parse),
		Tokens: env.Parse(r, "GITLAB_TRIGGER_TOKENS", parseTokens),
	}
	if promotions := env.Parse(r, "LEDGER", ledger.Open); promotions != nil {
		t.Promotions = promotions
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
	account := r.Secret("REGISTRY_AUTH")
	if _, err := env.ParseDockerAccount(account, "docker.io"); err != nil {
		r.Mistake("REGISTRY_AUTH", err)
		account = env.Secret{}
	}
	const dockerHub = "https://registry-1.docker.io"
	address := r.URL("REGISTRY", dockerHub)
	images, err := registry.New(address, account)
	if err != nil {
		r.Mistake("REGISTRY", err)
	}
	t.Images = images
	// What stands at another registry, Docker Hub does not know.
	asks := r.String("HUB_URL", "") != "" || strings.TrimRight(address, "/") == dockerHub
	if r.OneOf("RECONCILE", "on", "off") == "on" && asks && err == nil {
		client, err := hub.New(r.URL("HUB_URL", "https://hub.docker.com"), account)
		if err != nil {
			r.Mistake("HUB_URL", err)
		}
		t.Hub = client
	}
	pipelines, err := gitlab.New(r.URL("GITLAB_URL", "https://gitlab.com"))
	if err != nil {
		r.Mistake("GITLAB_URL", err)
	}
	t.Pipelines = pipelines
	topic := env.Parse(r, "TOPIC", pubsub.ParseTopic)
	deadLetters := env.Parse(r, "DEAD_LETTER_TOPIC", pubsub.ParseTopic)
	if err := r.Err(); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		to    *Publisher
		topic pubsub.Topic
	}{{&t.Queue, topic}, {&t.DeadLetters, deadLetters}} {
		publisher, err := pubsub.NewPublisher(ctx, p.topic, getenv("PUBSUB_EMULATOR_HOST"))
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = publisher.Close() })
		*p.to = publisher
	}
	log := gcplog.FromContext(ctx)
	if keys := t.Routes.Uncovered(); t.Hub != nil && len(keys) > 0 {
		log.Info("missed pushes not looked for: no route names the namespace", slog.Any("route", keys))
	}
	return New(t, log), nil
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
		} else if err := env.CheckToken(raw[key]); err != nil {
			mistakes = append(mistakes, fmt.Errorf("the token of %q %w", key, err))
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
