package notify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/route"
)

// maxLetter bounds a dead letter, in bytes. The largest message that Pub/Sub
// takes has 10 MB, which are 14 MB in base64.
const maxLetter = 16 << 20

const (
	// maxDue is how many promotions the clock looks at in one call.
	maxDue = 500
	// refusalsAtOnce is how often Slack may refuse in a row in one channel,
	// before the rest of that channel is left to a later call.
	refusalsAtOnce = 3
	// tickTime is the time after which a call of the clock begins nothing new.
	tickTime = 40 * time.Second
)

// authorizeGoogle checks that the caller is Google, with the service account
// that terraform/ creates for these calls.
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

// bury records a dead letter, and shows the death if it is one.
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
	ctx = context.WithoutCancel(ctx)
	push, err := dockerhub.Decode(message.Data)
	answer := httpserver.Answer{Message: "dead letter recorded", Traceparent: message.Attributes[pubsub.TraceparentAttribute], Attrs: []slog.Attr{
		slog.String("id", push.ID), slog.String("repository", push.Repository), slog.String("tag", push.Tag),
		slog.String("message_id", message.ID), slog.String("reason", message.Death().Reason),
	}}
	var out ledger.Outcome
	if err != nil {
		out, err = h.Promotions.Note(ctx, malformed(message, err), h.outboxes())
	} else {
		out, err = h.Promotions.Bury(ctx, h.letter(ctx, message, push), h.outboxes())
	}
	switch {
	case errors.Is(err, ledger.ErrLeased):
		return answer, &httpserver.Error{
			Status: http.StatusServiceUnavailable, RetryAfter: retryAfter, Public: "another is at this promotion; send it again", Cause: err,
		}
	case err != nil:
		return answer, ledgerError(err)
	case !out.Known:
		answer.Attrs = append(answer.Attrs, slog.String("outcome", "ignored"))
		answer.Body = shown{}
		return answer, nil
	}
	answer.Attrs = append(answer.Attrs, slog.String("promotion_id", out.Promotion.ID), slog.String("state", string(out.Promotion.State)))
	return h.answer(ctx, answer, out, nil), nil
}

// letter converts a message to the form that the ledger needs.
func (h handler) letter(ctx context.Context, message pubsub.Message, push dockerhub.Push) ledger.Letter {
	death := message.Death()
	l := ledger.Letter{
		Key: ledger.Key{Repository: push.Repository, Tag: push.Tag}, NewID: ledger.NewID(),
		Message: ledger.Message{
			ID: push.ID, QueuedAt: message.DeadLetterQueuedAt(), PushedAt: push.PushedAt, ReceivedAt: push.ReceivedAt,
			ReplayedAt: message.ReplayedAt(), Reconcile: message.Attributes[pubsub.SourceAttribute] == pubsub.SourceReconcile,
		},
		PromotionID: death.PromotionID, Reason: death.Reason, Hint: death.Hint, Words: death.Words, Attempts: death.Attempts,
		Subscription: message.Subscription,
	}
	if l.Message.QueuedAt.IsZero() {
		l.Message.QueuedAt = push.ReceivedAt
	}
	found, ok := h.Routes.Find(push.Repository)
	if ok {
		l.Route = found.Key
	}
	if ok && found.OncePer == route.OncePerDelivery {
		l.Key = ledger.WebhookKey(push.Repository, push.Tag, push.ID, push.ReceivedAt)
	}
	if l.PromotionID != "" { // whatever the route says
		if p, err := h.Promotions.Get(ctx, l.PromotionID); err == nil {
			l.Key = p.Key
		}
	}
	return l
}

// malformed is the note of a dead letter that is not a push.
func malformed(message pubsub.Message, err error) ledger.Promotion {
	death := message.Death()
	sum := sha256.Sum256([]byte("message\n" + message.ID))
	return ledger.Promotion{
		ID: hex.EncodeToString(sum[:16]), Event: ledger.Promote, State: ledger.Dead, By: ledger.ByNotify,
		Reason: death.Reason, Hint: death.Hint, Words: death.Words, Attempts: death.Attempts, Text: err.Error(),
	}
}

type ticked struct {
	Due   int `json:"due"`
	Shown int `json:"shown"`
}

// tick does what is due. The clock calls it. Channels do not wait for each
// other. Within a channel, the promotion that has been due for longest comes
// first. What is not done is still due at the next call.
func (h handler) tick(r *http.Request) (httpserver.Answer, error) {
	ctx := r.Context()
	if err := h.authorizeGoogle(ctx, r.Header); err != nil {
		return httpserver.Answer{}, err
	}
	ctx = context.WithoutCancel(ctx)
	due, err := h.Promotions.Due(ctx, maxDue)
	if err != nil {
		return httpserver.Answer{}, ledgerError(err)
	}
	channels := map[string][]ledger.Promotion{}
	for _, p := range due {
		channel := cmp.Or(p.Channel, h.slackOf(p).Channel)
		channels[channel] = append(channels[channel], p)
	}
	var (
		running sync.WaitGroup
		shown   atomic.Int64
		away    atomic.Int64
	)
	end := time.Now().Add(tickTime)
	for _, promotions := range channels {
		running.Go(func() {
			refusals := 0 // in a row
			for _, p := range promotions {
				if time.Now().After(end) {
					return
				}
				showing, err := h.Promotions.Tick(ctx, p.ID, h.outboxes())
				switch {
				case err == nil && showing == nil:
					continue
				case err == nil && refusals >= refusalsAtOnce: // only this channel is postponed
					_, err = h.Promotions.Shown(ctx, *showing, ledger.Result{Channel: showing.Channel, TS: showing.TS}, h.outboxes())
				case err == nil:
					if _, refusal := h.show(ctx, *showing); refusal != "" {
						refusals++
						continue
					}
					refusals = 0
					shown.Add(1)
				}
				if err != nil {
					away.Add(1)
					h.log.LogAttrs(ctx, slog.LevelError, "ledger not updated", append(attrs(p), slog.String("error", err.Error()))...)
				}
			}
		})
	}
	running.Wait()
	answer := httpserver.Answer{
		Message: "clock ticked", Body: ticked{len(due), int(shown.Load())},
		Attrs: []slog.Attr{slog.Int("due", len(due)), slog.Int("shown", int(shown.Load()))},
	}
	if away.Load() > 0 {
		return answer, ledgerError(fmt.Errorf("%d promotions could not be looked at", away.Load()))
	}
	return answer, nil
}
