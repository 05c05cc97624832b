// Package webhook takes Docker Hub's call and queues it. It knows no routes:
// what becomes of a push is decided where it can be tried again.
package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/pubsub"
)

// maxBody bounds a webhook, in bytes. Those of old automated builds hold a
// whole Dockerfile and README: tens of kilobytes.
const maxBody = 1 << 20

// retryAfter is told to a caller whose push could not be queued.
const retryAfter = 30 * time.Second

// Publisher queues a message and returns its ID once the queue has it.
type Publisher interface {
	Publish(ctx context.Context, data []byte, attributes map[string]string) (id string, err error)
}

// FromEnv wires the webhook from its settings: WEBHOOK_TOKENS and TOPIC. What it
// opens is closed once ctx ends.
func FromEnv(ctx context.Context, getenv func(string) string) (http.Handler, error) {
	r := env.New(getenv)
	tokens := env.Parse(r, "WEBHOOK_TOKENS", auth.ParseTokens)
	topic := env.Parse(r, "TOPIC", pubsub.ParseTopic)
	if err := r.Err(); err != nil {
		return nil, err
	}
	queue, err := pubsub.NewPublisher(ctx, topic, getenv("PUBSUB_EMULATOR_HOST"))
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = queue.Close() })
	return New(tokens, queue, gcplog.FromContext(ctx)), nil
}

// New returns the webhook. It answers 202 once the push is queued and not
// before: Docker Hub shows a failed delivery only if it is told of one.
func New(tokens auth.Tokens, queue Publisher, log *slog.Logger) http.Handler {
	return httpserver.Serve(log, webhook{tokens, queue}.receive)
}

type webhook struct {
	tokens auth.Tokens
	queue  Publisher
}

type queued struct {
	ID        string `json:"id"`
	MessageID string `json:"message_id"`
}

type ignored struct {
	Ignored string `json:"ignored"`
}

func (h webhook) receive(r *http.Request) (httpserver.Answer, error) {
	token := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if !h.tokens.Valid(token) {
		return httpserver.Answer{}, &httpserver.Error{Status: http.StatusUnauthorized, Public: "the URL has no valid token"}
	}
	body, err := httpserver.ReadBody(r, maxBody)
	if err != nil {
		return httpserver.Answer{}, err
	}
	push, err := dockerhub.Parse(body, time.Now())
	switch {
	case errors.Is(err, dockerhub.ErrNoTag):
		return ignore(push, "no_tag"), nil
	case errors.Is(err, dockerhub.ErrNotAnImage):
		return ignore(push, "not_an_image"), nil
	case err != nil:
		return httpserver.Answer{}, &httpserver.Error{Status: http.StatusBadRequest, Public: err.Error()}
	}
	return h.publish(r, push)
}

func ignore(push dockerhub.Push, reason string) httpserver.Answer {
	return httpserver.Answer{
		Status: http.StatusAccepted, Body: ignored{reason}, Message: "push ignored",
		Attrs: []slog.Attr{
			slog.String("repository", push.Repository), slog.String("tag", push.Tag),
			slog.String("outcome", "ignored"), slog.String("reason", reason),
		},
	}
}

func (h webhook) publish(r *http.Request, push dockerhub.Push) (httpserver.Answer, error) {
	answer := httpserver.Answer{Attrs: []slog.Attr{
		slog.String("id", push.ID),
		slog.String("repository", push.Repository),
		slog.String("tag", push.Tag),
	}}
	data, err := json.Marshal(push)
	if err != nil {
		return answer, err
	}
	attributes := map[string]string{
		pubsub.IDAttribute:         push.ID,
		pubsub.RepositoryAttribute: push.Repository,
		pubsub.TagAttribute:        push.Tag,
		pubsub.SourceAttribute:     pubsub.SourceWebhook,
	}
	if trace := gcplog.Traceparent(r.Header); trace != "" {
		attributes[pubsub.TraceparentAttribute] = trace
	}
	// Docker Hub may hang up while Pub/Sub takes its time: publish all the same.
	messageID, err := h.queue.Publish(context.WithoutCancel(r.Context()), data, attributes)
	if err != nil {
		return answer, &httpserver.Error{
			Status: http.StatusServiceUnavailable, Public: "the push could not be queued; send it again",
			RetryAfter: retryAfter, Cause: err,
		}
	}
	answer.Status = http.StatusAccepted
	answer.Body = queued{push.ID, messageID}
	answer.Message = "push queued"
	answer.Attrs = append(answer.Attrs, slog.String("outcome", "queued"), slog.String("message_id", messageID))
	return answer, nil
}
