// Package trigger turns a queued push into one GitLab pipeline, or says why
// there is none to start.
package trigger

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

// maxBody bounds a delivery, in bytes: 10 MB, the most that Pub/Sub takes, are
// 14 MB in base64. What Webhook publishes is below 2 kB.
const maxBody = 16 << 20

// claimTime bounds what is done under a claim, so that it is over before the
// claim's lease is, and the ledger knows of it.
const claimTime = ledger.Lease - 15*time.Second

// Claims sees to it that a push is promoted once.
type Claims interface {
	Claim(context.Context, ledger.Push) (ledger.Claim, error)
	Triggered(ctx context.Context, c ledger.Claim, pipelineURL string) error
	Release(ctx context.Context, c ledger.Claim, reason string, uncertain bool) error
	Settle(ctx context.Context, c ledger.Claim, s ledger.State, reason string) error
	PutOff(ctx context.Context, p ledger.Push, reason string) error
}

// Pipelines creates one pipeline, with one request, and finds one that may be
// there.
type Pipelines interface {
	CreatePipeline(context.Context, gitlab.Request) (gitlab.Pipeline, error)
	FindPipeline(context.Context, gitlab.Search) (p gitlab.Pipeline, found bool, err error)
}

// Images says what a tag is now, and whether it is signed.
type Images interface {
	Digest(ctx context.Context, repository, tag string) (string, error)
	Signed(ctx context.Context, repository, digest string) (bool, error)
}

// DeadLetters takes a message that will never work.
type DeadLetters interface {
	Publish(ctx context.Context, data []byte, attributes map[string]string) (id string, err error)
}

// Trigger is what New needs.
type Trigger struct {
	Routes      route.Table
	Tokens      Tokens
	APITokens   Tokens // of routes whose pipelines can be looked for
	Images      Images // nil: digests are not resolved, and every delivery is promoted
	Claims      Claims
	Pipelines   Pipelines
	DeadLetters DeadLetters
}

// New returns the handler of a push subscription. It answers 200 for what is
// settled, and 503 for what Pub/Sub shall deliver again.
func New(t Trigger, log *slog.Logger) http.Handler {
	h := handler{t, newPace(), log}
	return httpserver.Serve(log, h.deliver)
}

type handler struct {
	Trigger
	pace *pace
	log  *slog.Logger
}

// delivery is one message on its way through the decisions, with what is
// logged of it.
type delivery struct {
	message pubsub.Message
	push    dockerhub.Push
	route   route.Route
	digest  string
}

func (h handler) deliver(r *http.Request) (httpserver.Answer, error) {
	body, err := httpserver.ReadBody(r, maxBody)
	if err != nil {
		return httpserver.Answer{}, err
	}
	d := &delivery{}
	d.message, err = pubsub.ParsePush(body)
	if err == nil {
		d.push, err = dockerhub.Decode(d.message.Data)
	}
	ctx := gcplog.WithTraceparent(r.Context(), d.message.Attributes["traceparent"])
	if err != nil {
		return d.answer(h.giveUp(ctx, d, "malformed", "Publish messages with the webhook, or as docs/architecture.md describes them.", err)), nil
	}
	return d.answer(h.decide(ctx, d)), nil
}

// decide finds out whether the push is to be promoted, and promotes it.
func (h handler) decide(ctx context.Context, d *delivery) outcome {
	found, ok := h.Routes.Find(d.push.Repository)
	if !ok {
		return ignored("no_route")
	}
	d.route = found
	switch {
	case d.push.Tag == d.route.Latest:
		return ignored("moving_tag")
	case dockerhub.IsArtifactTag(d.push.Tag):
		return ignored("artifact_tag")
	case !d.route.Allows(d.push.Tag):
		return ignored("tag_rules")
	}
	end, none := h.pace.turn(ctx, d.route.GitLab.Project)
	if none != nil {
		return *none
	}
	defer end()
	if h.Images != nil {
		digest, err := h.Images.Digest(ctx, d.push.Repository, d.push.Tag)
		if err != nil {
			o := imageRetry(err)
			h.record(ctx, d, h.Claims.PutOff(ctx, h.claimed(d), o.Reason))
			return o
		}
		d.digest = digest
	}
	claim, err := h.Claims.Claim(ctx, h.claimed(d))
	switch {
	case errors.Is(err, ledger.ErrDuplicate):
		return ignored("duplicate")
	case errors.Is(err, ledger.ErrInProgress):
		return retry("in_progress", nil)
	case err != nil:
		return retry("ledger_unavailable", err)
	}
	// Once it is claimed, a caller that hangs up must not leave it half done.
	return h.promote(context.WithoutCancel(ctx), d, claim)
}

// claimed is what the ledger is to know of a delivery.
func (h handler) claimed(d *delivery) ledger.Push {
	return ledger.Push{
		ID:          d.push.ID,
		Route:       d.route.Key,
		Repository:  d.push.Repository,
		Tag:         d.push.Tag,
		Digest:      d.digest,
		PerDelivery: h.Images == nil || d.route.OncePer == route.OncePerDelivery,
		QueuedAt:    d.message.PublishedAt,
		Replayed:    d.message.Attributes[pubsub.ReplayedAttribute] != "",
	}
}

// promote creates the pipeline of a push that was claimed, and tells the
// ledger what became of the claim.
func (h handler) promote(ctx context.Context, d *delivery, claim ledger.Claim) outcome {
	working, cancel := context.WithTimeout(ctx, claimTime) // the ledger bounds itself
	defer cancel()
	if d.route.SkipSigned {
		signed, err := h.Images.Signed(working, d.push.Repository, d.digest)
		if err != nil {
			o := imageRetry(err)
			h.record(ctx, d, h.Claims.Release(ctx, claim, o.Reason, false))
			return o
		}
		if signed {
			h.record(ctx, d, h.Claims.Settle(ctx, claim, ledger.Skipped, "signed"))
			return ignored("signed")
		}
	}
	pipeline, err := h.create(working, d, claim)
	if err == nil {
		h.record(ctx, d, h.Claims.Triggered(ctx, claim, pipeline.URL))
		return outcome{Outcome: "triggered", PipelineURL: pipeline.URL}
	}
	o := h.refused(ctx, d, err)
	if o.Outcome == "dead" {
		h.record(ctx, d, h.Claims.Settle(ctx, claim, ledger.Failed, o.Reason))
	} else {
		h.record(ctx, d, h.Claims.Release(ctx, claim, o.Reason, mayExist(err)))
	}
	return o
}

// create creates the pipeline of a delivery, or finds the one that an earlier
// attempt may have left: GitLab knows no idempotency key.
func (h handler) create(ctx context.Context, d *delivery, claim ledger.Claim) (gitlab.Pipeline, error) {
	if token := h.APITokens.Of(d.route.Key); claim.Uncertain && !token.IsZero() {
		p, found, err := h.Pipelines.FindPipeline(ctx, gitlab.Search{
			Project: d.route.GitLab.Project, Token: token, Name: gitlab.PipelineName(d.push.ID),
		})
		if err != nil || found {
			return p, err
		}
	}
	request := gitlab.Request{
		Project: d.route.GitLab.Project,
		Ref:     d.route.GitLab.Ref,
		Token:   h.Tokens.Of(d.route.Key),
	}
	values := d.route.Values(d.push, d.digest)
	if d.route.GitLab.Pass == route.PassVariables {
		request.Variables = values
	} else {
		request.Inputs = values
	}
	return h.Pipelines.CreatePipeline(ctx, request)
}

// mayExist tells whether there may be a pipeline in spite of an error.
func mayExist(err error) bool {
	var refusal *gitlab.Error
	return !errors.As(err, &refusal) || refusal.Ambiguous
}

// refused decides what follows from an error of GitLab.
func (h handler) refused(ctx context.Context, d *delivery, err error) outcome {
	var refusal *gitlab.Error
	if !errors.As(err, &refusal) {
		return retry("gitlab_unavailable", err)
	}
	if refusal.Reason == gitlab.RateLimited {
		h.pace.pause(d.route.GitLab.Project, cmp.Or(refusal.RetryAfter, time.Minute))
	}
	if refusal.Temporary() {
		o := retry(refusal.Reason, err)
		o.Hint = refusal.Hint
		return o
	}
	return h.giveUp(ctx, d, refusal.Reason, refusal.Hint, err)
}

// giveUp publishes a dead letter. Where that fails the message stays alive.
func (h handler) giveUp(ctx context.Context, d *delivery, reason, hint string, cause error) outcome {
	if _, err := h.DeadLetters.Publish(ctx, d.message.Data, d.message.DeadLetter(reason, hint)); err != nil {
		return retry("dead_letter_unavailable", errors.Join(err, cause))
	}
	return outcome{Outcome: "dead", Reason: reason, Hint: hint, cause: cause}
}

// record logs that the ledger could not be told. The outcome stands all the
// same: a lease that nobody gives back runs out.
func (h handler) record(ctx context.Context, d *delivery, err error) {
	if err != nil {
		h.log.LogAttrs(ctx, slog.LevelError, "ledger not updated",
			append(d.attrs(), slog.String("error", err.Error()))...)
	}
}

// imageRetry decides what follows from an error of the registry.
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
