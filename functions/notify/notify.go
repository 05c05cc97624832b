// Package notify takes a pipeline's reports, records them, and makes Slack show
// them: immediately if possible, otherwise by the clock, which repeats it until
// it succeeds.
package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// maxBody bounds a report, in bytes.
const maxBody = 64 << 10

// retryAfter is sent to a caller if the failing system does not say how long to
// wait.
const retryAfter = 10 * time.Second

// Poster posts and updates messages in Slack.
type Poster interface {
	Post(ctx context.Context, channel string, m slack.Message) (slack.Ref, error)
	Update(ctx context.Context, ref slack.Ref, m slack.Message) (slack.Ref, error)
	Reply(ctx context.Context, ref slack.Ref, m slack.Message) error
}

// Promotions is the record of what is promoted, and of what Slack shows.
type Promotions interface {
	Get(ctx context.Context, id string) (ledger.Promotion, error)
	OfPipeline(ctx context.Context, projectID, pipelineID string) (ledger.Promotion, error)
	Report(ctx context.Context, id string, r ledger.Report, o ledger.Outboxes) (ledger.Outcome, error)
	Bury(context.Context, ledger.Letter, ledger.Outboxes) (ledger.Outcome, error)
	Note(context.Context, ledger.Promotion, ledger.Outboxes) (ledger.Outcome, error)
	Due(ctx context.Context, limit int) ([]ledger.Promotion, error)
	Tick(ctx context.Context, id string, o ledger.Outboxes) (*ledger.Showing, error)
	Shown(context.Context, ledger.Showing, ledger.Result, ledger.Outboxes) (*ledger.Showing, error)
}

// IDTokens checks the id token of a GitLab job, or of Google.
type IDTokens interface {
	Verify(ctx context.Context, token string, claims any) error
}

// Notify is what New needs.
type Notify struct {
	Routes     route.Table
	Tokens     auth.Tokens
	IDTokens   IDTokens // nil: none is accepted
	Promotions Promotions
	Slack      Poster
	Language   slack.Language

	// For Google's calls: Pub/Sub's dead letters, and the clock.
	PushTokens     IDTokens // nil: all are refused
	PushAccount    string   // the address of the service account that calls
	DefaultChannel string   // for messages without a route
	SilentAfter    time.Duration
}

// New returns the handler for the reports of pipelines, and for the calls of
// Google.
func New(n Notify, log *slog.Logger) http.Handler {
	h := handler{n, newPace(), log}
	return httpserver.Serve(log, func(r *http.Request) (httpserver.Answer, error) {
		switch r.URL.Path {
		case "/":
			return h.receive(r)
		case "/dead-letter":
			return h.bury(r)
		case "/tick":
			return h.tick(r)
		}
		return httpserver.Answer{}, &httpserver.Error{Status: http.StatusNotFound, Public: "there is nothing at this path; report to /"}
	})
}

type handler struct {
	Notify
	pace *pace
	log  *slog.Logger
}

func (h handler) outboxes() ledger.Outboxes {
	return ledger.Outboxes{Lease: showLease, SilentAfter: h.SilentAfter}
}

// shown is the answer to a report.
type shown struct {
	Channel string `json:"channel,omitempty"`
	TS      string `json:"ts,omitempty"`
	Slack   string `json:"slack,omitempty"` // why Slack does not show it yet
	Warning string `json:"warning,omitempty"`
}

func (h handler) receive(r *http.Request) (httpserver.Answer, error) {
	ctx := r.Context()
	who, err := h.identify(ctx, auth.Bearer(r.Header))
	if err != nil {
		return httpserver.Answer{}, err
	}
	body, err := httpserver.ReadBody(r, maxBody)
	if err != nil {
		return httpserver.Answer{}, err
	}
	rep, err := parseReport(body)
	if err != nil {
		return httpserver.Answer{}, &httpserver.Error{Status: http.StatusBadRequest, Public: strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	answer := httpserver.Answer{Message: "report recorded", Attrs: rep.attrs(who)}
	// Once it has begun it is finished. Otherwise there could be a message
	// without a record.
	ctx = context.WithoutCancel(ctx)
	out, err := h.record(ctx, who, &rep)
	if err != nil {
		return answer, err
	}
	answer.Attrs = append(answer.Attrs, slog.String("state", string(out.Promotion.State)), slog.String("promotion_id", out.Promotion.ID))
	return h.answer(ctx, answer, out, rep.warnings), nil
}

// answer shows what was recorded, and reports whether Slack does.
func (h handler) answer(ctx context.Context, answer httpserver.Answer, out ledger.Outcome, warnings []string) httpserver.Answer {
	p, refusal := h.showAtOnce(ctx, out)
	body := shown{Channel: p.Channel, TS: p.TS, Warning: strings.Join(warnings, "; ")}
	outcome := "shown"
	if refusal != "" {
		answer.Status, body.Slack, outcome = http.StatusAccepted, refusal, "recorded"
	}
	answer.Body = body
	answer.Attrs = append(answer.Attrs, slog.String("outcome", outcome))
	return answer
}

// record records a report: for its promotion if it has one, otherwise as a
// message of its own.
func (h handler) record(ctx context.Context, who caller, rep *report) (ledger.Outcome, error) {
	if rep.promotes() {
		p, err := h.find(ctx, who, rep)
		switch {
		case err == nil:
			return h.move(ctx, who, rep, p)
		case !errors.Is(err, ledger.ErrUnknown):
			return ledger.Outcome{}, ledgerError(err)
		}
	}
	found, err := h.route(who, rep)
	if err != nil {
		return ledger.Outcome{}, err
	}
	if rep.promotes() {
		rep.warn("the promotion is not known or has expired, so this is a message of its own, and no promotion changes")
	}
	note := ledger.Promotion{
		ID: rep.noteID(who), Event: ledger.Event(rep.event), Key: ledger.Key{Repository: rep.repository, Tag: rep.tag}, Route: found.Key,
		State: states[rep.status], By: ledger.ByPipeline, Digest: rep.digest,
		Text: rep.message, Version: rep.version, PipelineURL: rep.pipelineURL, Project: who.project.Path,
	}
	if who.pipelineID != "" {
		note.Pipelines = []string{who.project.ID + "/" + who.pipelineID}
	}
	out, err := h.Promotions.Note(ctx, note, h.outboxes())
	if err != nil {
		return ledger.Outcome{}, ledgerError(err)
	}
	return out, nil
}

// find returns the promotion that a report is about, or ledger.ErrUnknown.
func (h handler) find(ctx context.Context, who caller, rep *report) (ledger.Promotion, error) {
	switch {
	case rep.promotionID != "":
		p, err := h.Promotions.Get(ctx, rep.promotionID)
		if err == nil && p.Note {
			err = ledger.ErrUnknown
		}
		return p, err
	case who.pipelineID != "":
		return h.Promotions.OfPipeline(ctx, who.project.ID, who.pipelineID)
	}
	return ledger.Promotion{}, ledger.ErrUnknown
}

// move changes a promotion's state by a report of its pipeline.
func (h handler) move(ctx context.Context, who caller, rep *report, p ledger.Promotion) (ledger.Outcome, error) {
	r := ledger.Report{
		State: states[rep.status], Digest: rep.digest, PipelineURL: rep.pipelineURL, Text: rep.message, Version: rep.version,
	}
	if who.isProject() {
		found, ok := h.Routes.Find(p.Repository)
		r.From = &ledger.Caller{
			ProjectID: who.project.ID, PipelineID: who.pipelineID, Source: who.source, Allowed: ok && found.RunsIn(who.project),
		}
	}
	out, err := h.Promotions.Report(ctx, p.ID, r, h.outboxes())
	switch {
	case errors.Is(err, ledger.ErrForeign):
		return out, &httpserver.Error{
			Status: http.StatusForbidden,
			Public: "the promotion is not that of this pipeline: it has another, or the route of " + p.Repository + " does not name the project " + who.project.Path,
			Cause:  err,
		}
	case err != nil:
		return out, ledgerError(err)
	}
	if rep.digest != "" && rep.digest != out.Promotion.Digest {
		rep.warn("the digest is not the promotion's, so its state is kept")
	}
	if rep.repository != "" && rep.repository != p.Repository {
		rep.warn("the promotion is of " + p.Repository + ", which counts")
	}
	return out, nil
}

// noteID is the same for all reports that update one message.
func (r report) noteID(who caller) string {
	key := r.key
	switch {
	case key != "" && r.event != string(ledger.Promote):
		key = "key " + key
	case r.promotionID != "" && r.event == string(ledger.Promote):
		key = "promotion " + r.promotionID
	case who.pipelineID != "":
		key = "pipeline " + who.pipelineID
	default:
		return ledger.NewID()
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{r.event, r.repository, who.project.ID, key}, "\n")))
	return hex.EncodeToString(sum[:16])
}

func ledgerError(err error) error {
	return &httpserver.Error{
		Status: http.StatusServiceUnavailable, Public: "the ledger is down; send it again",
		RetryAfter: retryAfter, Cause: err,
	}
}
