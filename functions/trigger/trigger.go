// Package trigger turns a queued push into one GitLab pipeline, or decides that
// none is needed.
package trigger

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/reconcile"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

// maxBody bounds a message, in bytes. The largest message that Pub/Sub takes
// has 10 MB, which are 14 MB in base64. Webhook's messages have less than 2 kB.
const maxBody = 16 << 20

// lease is how long a claim keeps others away. It starts when the record is
// read, and covers everything until GitLab's answer is recorded.
const lease = registry.Timeout + ledger.Timeout + // the look
	gitlab.Timeout + pubsub.PublishTimeout + ledger.Timeout + // the answer
	5*time.Second

// looks is how often one attempt looks at a tag if others change its record in
// the meantime. After lookTime no further look begins.
const (
	looks    = 3
	lookTime = registry.Timeout + 2*ledger.Timeout
)

// loopHint names the two causes of a loop, and how to fix each.
const loopHint = "Each promotion of this tag has started the next. " +
	"Keep the project's own jobs out of the pipelines that hubrelay starts, above all a build that pushes the image: give them `rules:` with $CI_PIPELINE_SOURCE != \"trigger\". " +
	"If there is no such job, the registry that Trigger asks (REGISTRY) shows another image than the one that the pipeline sees: it must not be a cache."

// Promotions is the record of what is promoted.
type Promotions interface {
	Read(context.Context, ledger.Key) (*ledger.Snapshot, error)
	Answered(context.Context, ledger.Claim, ledger.Answer) error
	Overdue(ctx context.Context, limit int) ([]ledger.Tag, error)
	Requeued(context.Context, ledger.Tag) error
	Resume(ctx context.Context, lease time.Duration, rules map[string]string) (ledger.Progress, error)
	Pause(ctx context.Context, p ledger.Progress, leaveAlone time.Duration) error
	HeardOf(ctx context.Context, repository string) error
	Found(ctx context.Context, repository, route, hint string) error
	Unheard(ctx context.Context, limit int) ([]ledger.Promotion, error)
	Asked(context.Context, ledger.Promotion, ledger.JobState) error
}

// Pipelines creates one pipeline with one request, and returns the state of a
// pipeline's job.
type Pipelines interface {
	CreatePipeline(context.Context, gitlab.Request) (gitlab.Pipeline, error)
	FindJob(context.Context, gitlab.JobQuery) (j gitlab.Job, found bool, err error)
}

// Images says what a tag is now.
type Images interface {
	Digest(ctx context.Context, repository, tag string) (string, error)
}

// Publisher queues a message, and returns its ID once the queue has it.
type Publisher interface {
	Publish(ctx context.Context, data []byte, attributes map[string]string) (id string, err error)
}

// Trigger is what New needs.
type Trigger struct {
	Routes      route.Table
	Tokens      Tokens
	APITokens   Tokens // of routes whose pipelines reconcile may ask about
	Images      Images
	Promotions  Promotions
	Pipelines   Pipelines
	Hub         reconcile.Hub // nil: reconcile does not ask Docker Hub
	Queue       Publisher     // where reconcile queues tags that must be looked at
	DeadLetters Publisher     // for messages that cannot be processed
}

// New returns the handler of a push subscription, and of the clock that calls
// /reconcile. It answers a push with 200 if nothing more is to be done, and
// with 503 if Pub/Sub must deliver it again.
func New(t Trigger, log *slog.Logger) http.Handler {
	h := handler{t, newPace(), reconcile.NewMemo(), reconcile.New(reconcile.Finder{
		Routes: t.Routes, Hub: t.Hub, Images: t.Images, Promotions: t.Promotions, Topic: t.Queue,
	}, log), log}
	return httpserver.Serve(log, func(r *http.Request) (httpserver.Answer, error) {
		switch r.URL.Path {
		case "/":
			return h.deliver(r)
		case "/reconcile":
			return h.reconcile(r)
		}
		return httpserver.Answer{}, &httpserver.Error{Status: http.StatusNotFound, Public: "there is nothing at this path"}
	})
}

type handler struct {
	Trigger
	pace   *pace
	heard  *reconcile.Memo // repositories for which Docker Hub is known to call
	missed *reconcile.Finder
	log    *slog.Logger
}

// attempt is one delivery of a message, with what is known about it so far.
type attempt struct {
	message   pubsub.Message
	push      dockerhub.Push
	route     route.Route
	promotion ledger.Promotion // once there is one
}

func (h handler) deliver(r *http.Request) (httpserver.Answer, error) {
	body, err := httpserver.ReadBody(r, maxBody)
	if err != nil {
		return httpserver.Answer{}, err
	}
	a := &attempt{}
	a.message, err = pubsub.ParsePush(body)
	if err == nil {
		a.push, err = dockerhub.Decode(a.message.Data)
	}
	ctx := gcplog.WithTraceparent(r.Context(), a.message.Attributes[pubsub.TraceparentAttribute])
	if err != nil {
		return a.answer(h.giveUp(ctx, a, pubsub.Death{
			Reason: "malformed", Hint: "Publish messages with the webhook, or as docs/architecture.md describes them.",
		}, err)), nil
	}
	return a.answer(h.decide(ctx, a)), nil
}

// decide finds out whether the image should be promoted, and starts the
// promotion.
func (h handler) decide(ctx context.Context, a *attempt) outcome {
	var reason string
	if a.route, reason = h.Routes.Decide(a.push.Repository, a.push.Tag); reason != "" {
		if err := h.settleUnwanted(ctx, a); err != nil {
			return retry("ledger_unavailable", err)
		}
		return ignored(reason)
	}
	end, none := h.pace.turn(ctx, a.route.GitLab.Project, a.name())
	if none != nil {
		return *none
	}
	defer end()
	began := time.Now()
	for i := 0; i < looks && time.Since(began) < lookTime; i++ {
		o, err := h.look(ctx, a)
		switch {
		case err == nil:
			return o
		case !errors.Is(err, ledger.ErrConflict):
			return retry("ledger_unavailable", err)
		}
	}
	return retry("in_progress", nil) // others keep changing the tag's record
}

// settleUnwanted ends what still waits for a tag that earlier routes selected.
// Before a first attempt nothing can be waiting.
func (h handler) settleUnwanted(ctx context.Context, a *attempt) error {
	m := a.ledgerMessage()
	if a.message.Attempt == 1 && m.ReplayedAt.IsZero() && !m.Reconcile {
		return nil
	}
	keys := []ledger.Key{a.key(route.OncePerDigest)}
	if a.route.OncePer != route.OncePerDigest { // or there is no route that says
		keys = append(keys, a.key(route.OncePerDelivery))
	}
	for _, key := range keys {
		err := ledger.ErrConflict
		for i := 0; errors.Is(err, ledger.ErrConflict) && i < looks; i++ {
			var s *ledger.Snapshot
			if s, err = h.Promotions.Read(ctx, key); err == nil {
				_, err = s.Settle(ctx, ledger.Look{Message: m, Unwanted: true})
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// look reads the tag's record, asks the registry, and acts on the result. An
// error is the ledger's.
func (h handler) look(ctx context.Context, a *attempt) (outcome, error) {
	snapshot, err := h.Promotions.Read(ctx, a.key(a.route.OncePer))
	if err != nil {
		return outcome{}, err
	}
	look := ledger.Look{Message: a.ledgerMessage(), Route: a.route.Key, NewID: ledger.NewID(), Lease: lease}
	var blind outcome
	if look.Digest, err = h.Images.Digest(ctx, a.push.Repository, a.push.Tag); err != nil {
		blind = imageRetry(err)
		look.Reason, look.Hint = blind.Reason, blind.Hint
	}
	// A caller that disconnects must not leave a decision half done.
	ctx = context.WithoutCancel(ctx)
	decision, err := snapshot.Settle(ctx, look)
	if err != nil {
		return outcome{}, err
	}
	a.promotion = decision.Claim.Promotion
	h.heardOf(ctx, a)
	switch decision.Verdict {
	case ledger.Start:
		return h.promote(ctx, a, decision.Claim), nil
	case ledger.Loop:
		o := h.giveUp(ctx, a, pubsub.Death{Reason: ledger.PromotionLoop, Hint: loopHint}, nil)
		if o.Outcome != "dead" {
			return o, nil
		}
		return o, decision.Died(ctx, o.Reason, o.Hint)
	case ledger.Wait:
		return blind, nil
	case ledger.InProgress:
		return retry("in_progress", nil), nil
	}
	return ignored("duplicate"), nil
}

// heardOf records that Docker Hub calls the webhook for the repository, once in
// the life of an instance. If that fails, the next webhook records it.
func (h handler) heardOf(ctx context.Context, a *attempt) {
	m := a.ledgerMessage()
	if m.Reconcile || !m.ReplayedAt.IsZero() || h.heard.Has(a.push.Repository) {
		return
	}
	if err := h.Promotions.HeardOf(ctx, a.push.Repository); err != nil {
		h.record(ctx, a, err)
		return
	}
	h.heard.Add(a.push.Repository)
}

// promote creates the pipeline of a claim, and records the result.
func (h handler) promote(ctx context.Context, a *attempt, claim ledger.Claim) outcome {
	request := gitlab.Request{Project: a.route.GitLab.Project, Ref: a.route.GitLab.Ref, Token: h.Tokens.Of(a.route.Key)}
	values := a.route.Values(route.Image{
		Repository: a.push.Repository, Tag: a.push.Tag, Digest: claim.Digest, PromotionID: claim.ID, PushedAt: claim.CreatedAt,
	})
	if a.route.GitLab.Pass == route.PassVariables {
		request.Variables = values
	} else {
		request.Inputs = values
	}
	pipeline, err := h.Pipelines.CreatePipeline(ctx, request)
	if err == nil {
		h.record(ctx, a, h.Promotions.Answered(ctx, claim, ledger.Answer{
			Created: true, Pipeline: ledger.Pipeline{ProjectID: pipeline.ProjectID, ID: pipeline.ID, URL: pipeline.URL},
		}))
		return outcome{Outcome: "triggered", PromotionID: claim.ID, PipelineURL: pipeline.URL}
	}
	answer := refusal(err)
	answer.Message = a.ledgerMessage()
	var o outcome
	switch {
	case answer.Dead, answer.Unrecognized && claim.GiveUp():
		answer.Dead = true
		if o = h.giveUp(ctx, a, pubsub.Death{Reason: answer.Reason, Hint: answer.Hint, Words: answer.Words}, err); o.Outcome != "dead" {
			answer.Dead = false
			answer.Reason = o.Reason
		}
	default:
		o = retry(answer.Reason, err)
		o.Hint = answer.Hint
	}
	h.limited(a, err)
	if err := h.Promotions.Answered(ctx, claim, answer); err != nil {
		h.record(ctx, a, err)
		if o.Outcome == "dead" && !errors.Is(err, ledger.ErrStale) {
			return retry("ledger_unavailable", err) // otherwise the death would not be shown
		}
	}
	return o
}

// refusal converts an error of GitLab to what the ledger records.
func refusal(err error) ledger.Answer {
	var refused *gitlab.Error
	if !errors.As(err, &refused) {
		return ledger.Answer{Reason: gitlab.Unavailable, Lost: true}
	}
	return ledger.Answer{
		Reason: refused.Reason, Hint: refused.Hint, Words: refused.Message,
		Dead: !refused.Temporary(), Lost: refused.Lost, Unrecognized: refused.Unrecognized,
	}
}

// limited pauses requests for a project that GitLab limits.
func (h handler) limited(a *attempt, err error) {
	var refused *gitlab.Error
	if errors.As(err, &refused) && refused.Reason == gitlab.RateLimited {
		h.pace.pause(a.route.GitLab.Project, cmp.Or(refused.RetryAfter, time.Minute))
	}
}

// giveUp publishes a dead letter. If that fails, the message is delivered
// again.
func (h handler) giveUp(ctx context.Context, a *attempt, death pubsub.Death, cause error) outcome {
	death.PromotionID = a.promotion.ID
	if _, err := h.DeadLetters.Publish(ctx, a.message.Data, a.message.DeadLetter(death)); err != nil {
		return retry("dead_letter_unavailable", errors.Join(err, cause))
	}
	return outcome{Outcome: "dead", Reason: death.Reason, Hint: death.Hint, PromotionID: death.PromotionID, cause: cause}
}

// record logs that the ledger could not be updated. The outcome stays the same:
// a lease that is not given back expires.
func (h handler) record(ctx context.Context, a *attempt, err error) {
	if err != nil {
		h.log.LogAttrs(ctx, slog.LevelError, "ledger not updated", append(a.attrs(), slog.String("error", err.Error()))...)
	}
}

// name differs from that of every other attempt.
func (a *attempt) name() string {
	return a.message.ID + " " + a.push.ID + " " + strconv.Itoa(a.message.Attempt) + " " + time.Now().String()
}

// key names the record that the message is about.
func (a *attempt) key(oncePer string) ledger.Key {
	if oncePer == route.OncePerDelivery {
		return ledger.WebhookKey(a.push.Repository, a.push.Tag, a.push.ID, a.push.ReceivedAt)
	}
	return ledger.Key{Repository: a.push.Repository, Tag: a.push.Tag}
}

// ledgerMessage converts the message to the form that the ledger needs.
func (a *attempt) ledgerMessage() ledger.Message {
	queued := a.message.QueuedAt()
	if queued.IsZero() {
		queued = a.push.ReceivedAt
	}
	return ledger.Message{
		ID:         a.push.ID,
		QueuedAt:   queued,
		PushedAt:   a.push.PushedAt,
		ReceivedAt: a.push.ReceivedAt,
		ReplayedAt: a.message.ReplayedAt(),
		Reconcile:  a.message.Attributes[pubsub.SourceAttribute] == pubsub.SourceReconcile,
	}
}

// imageRetry returns the outcome for an error of the registry.
func imageRetry(err error) outcome {
	o := retry(registry.Unavailable, err)
	var refusal *registry.Error
	if errors.As(err, &refusal) {
		o.Reason, o.Hint = refusal.Reason, refusal.Hint
	}
	return o
}

// Tokens are the trigger tokens, by the key of a route; route.Everything is
// the key of the default.
type Tokens map[string]env.Secret

// Of returns the token for a route.
func (t Tokens) Of(key string) env.Secret {
	if token, ok := t[key]; ok {
		return token
	}
	return t[route.Everything]
}
