package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// maxLetter bounds a dead letter, in bytes: 10 MB, the most that Pub/Sub takes,
// are 14 MB in base64.
const maxLetter = 16 << 20

// atOnce is how many silent promotions are told of in one call.
const atOnce = 20

// authorizeGoogle checks that it is Google who calls, as the account that
// terraform/ has made for it.
// https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions
func (h handler) authorizeGoogle(ctx context.Context, header http.Header) error {
	if h.PushTokens == nil {
		return &httpserver.Error{Status: http.StatusNotFound, Public: "this path is for Google alone; set PUSH_AUDIENCE and PUSH_SERVICE_ACCOUNT to let it in"}
	}
	unauthorized := &httpserver.Error{Status: http.StatusUnauthorized, Public: "the Authorization header has no valid token of Google's"}
	token := auth.Bearer(header)
	if token == "" {
		return unauthorized
	}
	var c struct {
		Email         string `json:"email"`
		EmailVerified bool   `json:"email_verified"`
	}
	switch err := h.PushTokens.Verify(ctx, token, &c); {
	case errors.Is(err, auth.ErrInvalid):
		unauthorized.Cause = err
		return unauthorized
	case err != nil:
		return &httpserver.Error{
			Status: http.StatusServiceUnavailable, Public: "the issuer of Google's tokens does not answer; send it again",
			RetryAfter: retryAfter, Cause: err,
		}
	case !c.EmailVerified || c.Email != h.PushAccount:
		unauthorized.Cause = fmt.Errorf("the token is of %q, verified: %t", c.Email, c.EmailVerified)
		return unauthorized
	}
	return nil
}

// bury tells Slack of a push that got no pipeline.
func (h handler) bury(r *http.Request) (httpserver.Answer, error) {
	ctx := r.Context()
	if err := h.authorizeGoogle(ctx, r.Header); err != nil {
		return httpserver.Answer{}, err
	}
	body, err := httpserver.ReadBody(r, maxLetter)
	if err != nil {
		return httpserver.Answer{}, err
	}
	message, err := pubsub.ParsePush(body)
	if err != nil {
		return httpserver.Answer{}, &httpserver.Error{Status: http.StatusBadRequest, Public: err.Error()}
	}
	letter, m := h.read(message)
	answer := httpserver.Answer{Message: "dead letter told", Traceparent: message.Attributes["traceparent"], Attrs: []slog.Attr{
		slog.String("id", letter.ID), slog.String("repository", letter.Repository), slog.String("tag", letter.Tag),
		slog.String("message_id", message.ID), slog.String("reason", letter.Reason),
	}}
	channel := h.DefaultChannel
	if found, ok := h.Routes.Find(letter.Repository); ok {
		letter.Route, channel = found.Key, found.Slack.Channel
	}
	if channel == "" {
		return answer, &httpserver.Error{Status: http.StatusNotFound, Public: "there is no route for this dead letter, and no DEFAULT_CHANNEL"}
	}
	ref, outcome, err := h.tellLetter(ctx, channel, letter, m)
	if err != nil {
		return answer, slackError(err)
	}
	answer.Attrs = append(answer.Attrs, slog.String("outcome", outcome))
	answer.Body = told{ref.Channel, ref.TS}
	return answer, nil
}

// read makes of a message what the ledger and Slack are to know. A message
// that is no push is known by its own ID.
func (h handler) read(message pubsub.Message) (ledger.Letter, slack.Message) {
	var letter ledger.Letter
	m := slack.Message{Language: h.Language, Event: slack.Promote, Status: slack.Dead}
	letter.Reason, m.Hint, m.Attempts = message.Death()
	letter.QueuedAt = message.PublishedAt
	push, err := dockerhub.Decode(message.Data)
	if err != nil {
		letter.ID = "message-" + message.ID
		m.Text = err.Error()
		return letter, m
	}
	letter.ID, letter.Repository, letter.Tag = push.ID, push.Repository, push.Tag
	m.DeliveryID, m.Repository, m.Tag = push.ID, push.Repository, push.Tag
	m.Command = replayCommand(message.Subscription, push)
	return letter, m
}

// replayCommand is what queues a dead letter again. The subscription that
// pushes dead letters has the name of the one that keeps them, and a suffix.
func replayCommand(subscription string, push dockerhub.Push) string {
	return fmt.Sprintf("go run ./cmd/hubrelay replay -subscription %s -match %s:%s -apply",
		strings.TrimSuffix(subscription, "-notify"), push.Repository, push.Tag)
}

// tellLetter tells of a dead letter once, where there is a ledger.
func (h handler) tellLetter(ctx context.Context, channel string, letter ledger.Letter, m slack.Message) (slack.Ref, string, error) {
	if h.Promotions == nil {
		m.Reason = letter.Reason
		return h.say(ctx, channel, slack.Ref{}, m)
	}
	telling, err := h.Promotions.Bury(ctx, letter)
	switch {
	case errors.Is(err, ledger.ErrInProgress):
		return slack.Ref{}, "", &httpserver.Error{
			Status: http.StatusServiceUnavailable, RetryAfter: retryAfter, Public: "another is at this promotion; send it again", Cause: err,
		}
	case err != nil:
		return slack.Ref{}, "", ledgerError(err)
	}
	m.Reason = telling.Promotion.Reason
	return h.tell(ctx, channel, telling, m)
}

// tellOfSilence tells Slack of the promotions whose pipelines have reported
// nothing for long. It is called by the clock.
func (h handler) tellOfSilence(r *http.Request) (httpserver.Answer, error) {
	ctx := r.Context()
	if err := h.authorizeGoogle(ctx, r.Header); err != nil {
		return httpserver.Answer{}, err
	}
	if h.Promotions == nil {
		return httpserver.Answer{}, &httpserver.Error{Status: http.StatusNotFound, Public: "there is no LEDGER to look into"}
	}
	ids, err := h.Promotions.Silent(ctx, h.SilentAfter, atOnce)
	if err != nil {
		return httpserver.Answer{}, ledgerError(err)
	}
	told := 0
	var failed error
	for _, id := range ids {
		needed, err := h.tellSilent(ctx, id)
		switch {
		case errors.Is(err, ledger.ErrInProgress): // it has just reported
		case err != nil:
			failed = errors.Join(failed, err)
		case needed:
			told++
		}
	}
	answer := httpserver.Answer{Message: "silence looked for", Attrs: []slog.Attr{slog.Int("told", told)}, Body: map[string]int{"told": told}}
	if failed != nil {
		return answer, slackError(failed)
	}
	return answer, nil
}

func (h handler) tellSilent(ctx context.Context, id string) (needed bool, err error) {
	telling, err := h.Promotions.ReportSilence(ctx, id, h.SilentAfter)
	if err != nil || !telling.Needed {
		return false, err
	}
	p := telling.Promotion
	channel := h.DefaultChannel
	if found, ok := h.Routes.Find(p.Repository); ok {
		channel = found.Slack.Channel
	}
	_, _, err = h.tell(ctx, channel, telling, slack.Message{
		Language: h.Language, Event: slack.Promote, Status: slack.Silent, DeliveryID: p.ID, Silence: h.SilentAfter,
	})
	return true, err
}
