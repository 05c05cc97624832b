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

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

// Settings are what Trigger reads from its environment.
type Settings struct {
	Routes            route.Table
	Tokens, APITokens Tokens
	Images            *registry.Client
	Hub               *hub.Client // nil: reconcile does not ask Docker Hub
	Pipelines         *gitlab.Client
	Ledger            ledger.Name
	Topic             pubsub.Topic
	DeadLetters       pubsub.Topic
}

// ReadSettings reads ROUTES, GITLAB_TRIGGER_TOKENS, GITLAB_API_TOKENS,
// GITLAB_URL, TOPIC, DEAD_LETTER_TOPIC, REGISTRY, REGISTRY_AUTH, HUB_URL,
// RECONCILE and LEDGER. Its error has every mistake, one a line; a setting with
// a mistake is zero. It sends no request.
func ReadSettings(getenv func(string) string) (Settings, error) {
	r := env.New(getenv)
	s := Settings{
		Routes: env.Parse(r, "ROUTES", route.Parse),
		Tokens: env.Parse(r, "GITLAB_TRIGGER_TOKENS", parseTokens),
		Ledger: env.Parse(r, "LEDGER", ledger.ParseName),
	}
	if r.String("GITLAB_API_TOKENS", "") != "" {
		s.APITokens = env.Parse(r, "GITLAB_API_TOKENS", parseTokens)
	}
	if r.Err() == nil { // otherwise it would report mistakes that do not exist
		if err := checkTokens(s.Routes, s.Tokens); err != nil {
			r.Mistake("GITLAB_TRIGGER_TOKENS", err)
		}
		if err := checkKeys(s.Routes, s.APITokens); err != nil {
			r.Mistake("GITLAB_API_TOKENS", err)
		}
	}
	account := r.Secret("REGISTRY_AUTH")
	if _, err := env.ParseDockerAccount(account, "docker.io"); err != nil {
		r.Mistake("REGISTRY_AUTH", err)
		account = env.Secret{}
	}
	var err error
	if s.Images, err = registry.New(r.URL("REGISTRY", "https://registry-1.docker.io"), account); err != nil {
		r.Mistake("REGISTRY", err)
	}
	// Docker Hub does not know what is in another registry.
	if r.OneOf("RECONCILE", "on", "off") == "on" && err == nil && (r.String("HUB_URL", "") != "" || s.Images.OfDockerHub()) {
		if s.Hub, err = hub.New(r.URL("HUB_URL", "https://hub.docker.com"), account); err != nil {
			r.Mistake("HUB_URL", err)
		}
	}
	if s.Pipelines, err = gitlab.New(r.URL("GITLAB_URL", "https://gitlab.com")); err != nil {
		r.Mistake("GITLAB_URL", err)
	}
	s.Topic = env.Parse(r, "TOPIC", pubsub.ParseTopic)
	s.DeadLetters = env.Parse(r, "DEAD_LETTER_TOPIC", pubsub.ParseTopic)
	return s, r.Err()
}

// FromEnv wires Trigger from its settings. Its connections are closed once ctx
// ends.
func FromEnv(ctx context.Context, getenv func(string) string) (http.Handler, error) {
	s, err := ReadSettings(getenv)
	if err != nil {
		return nil, err
	}
	t := Trigger{
		Routes: s.Routes, Tokens: s.Tokens, APITokens: s.APITokens,
		Images: s.Images, Pipelines: s.Pipelines,
	}
	if t.Promotions, err = ledger.Open(string(s.Ledger)); err != nil {
		return nil, fmt.Errorf("LEDGER: %w", err)
	}
	if s.Hub != nil {
		t.Hub = s.Hub
	}
	for _, p := range []struct {
		to    *Publisher
		topic pubsub.Topic
	}{{&t.Queue, s.Topic}, {&t.DeadLetters, s.DeadLetters}} {
		publisher, err := pubsub.NewPublisher(ctx, p.topic, getenv("PUBSUB_EMULATOR_HOST"))
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = publisher.Close() })
		*p.to = publisher
	}
	log := gcplog.FromContext(ctx)
	switch keys := t.Routes.Uncovered(); {
	case t.Hub == nil && env.New(getenv).OneOf("RECONCILE", "on", "off") == "on":
		log.Info("missed pushes not looked for: the registry is not Docker Hub's")
	case t.Hub != nil && len(keys) > 0:
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
		name := key
		if dockerhub.CheckRepository(key) == nil { // in the same way as a route's key
			name = dockerhub.Canonical(key)
		}
		if _, twice := tokens[name]; twice {
			mistakes = append(mistakes, fmt.Errorf("%q is there twice: as %[1]q and without library/", name))
		}
		tokens[name] = env.NewSecret(raw[key])
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
