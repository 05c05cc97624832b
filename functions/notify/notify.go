// Package notify takes what a pipeline reports, and keeps the Slack message
// and the record of the promotion true.
package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// Waits.
const (
	retryAfter = 10 * time.Second                  // where Slack does not say
	tellTime   = ledger.TellLease - 15*time.Second // for what is said under the lease to tell; the rest is the ledger's
	waitTime   = 20 * time.Second                  // for another report of the same promotion
	waitStep   = 200 * time.Millisecond
)

// Poster keeps messages in Slack.
type Poster interface {
	Post(ctx context.Context, channel string, m slack.Message) (slack.Ref, error)
	Update(ctx context.Context, ref slack.Ref, m slack.Message) (slack.Ref, error)
	Reply(ctx context.Context, ref slack.Ref, m slack.Message) error
}

// Promotions keeps the records that reports are about.
type Promotions interface {
	Get(ctx context.Context, id string) (ledger.Promotion, error)
	Report(context.Context, ledger.Report) (ledger.Telling, error)
	Bury(context.Context, ledger.Letter) (ledger.Telling, error)
	Silent(ctx context.Context, after time.Duration, limit int) (ids []string, err error)
	ReportSilence(ctx context.Context, id string, after time.Duration) (ledger.Telling, error)
	Told(context.Context, ledger.Telling, ledger.Message) error
}

// IDTokens checks the id token of a GitLab job, or of Google.
type IDTokens interface {
	Verify(ctx context.Context, token string, claims any) error
}

// Notify is what New needs.
type Notify struct {
	Routes     route.Table
	Tokens     auth.Tokens
	IDTokens   IDTokens   // nil: none is accepted
	Promotions Promotions // nil: callers keep the ts of their message themselves
	Slack      Poster
	Language   slack.Language

	// What Google calls: Pub/Sub with dead letters, and the scheduler.
	PushTokens     IDTokens // nil: nobody may
	PushAccount    string   // the address of the service account that calls
	DefaultChannel string   // of dead letters without a route; "" for none
	SilentAfter    time.Duration
}

// New returns the handler that pipelines report to, and Google.
func New(n Notify, log *slog.Logger) http.Handler {
	h := handler{n, log}
	return httpserver.Serve(log, func(r *http.Request) (httpserver.Answer, error) {
		switch r.URL.Path {
		case "/":
			return h.receive(r)
		case "/dead-letter":
			return h.bury(r)
		case "/silent":
			return h.tellOfSilence(r)
		}
		return httpserver.Answer{}, &httpserver.Error{Status: http.StatusNotFound, Public: "there is nothing at this path; report to /"}
	})
}

type handler struct {
	Notify
	log *slog.Logger
}

type told struct {
	Channel string `json:"channel"`
	TS      string `json:"ts"`
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
	answer := httpserver.Answer{Message: "report taken", Attrs: []slog.Attr{slog.String("reason", rep.status)}}
	add := func(key, value string) {
		if value != "" {
			answer.Attrs = append(answer.Attrs, slog.String(key, value))
		}
	}
	add("id", rep.deliveryID)
	add("repository", rep.repository)
	add("tag", rep.tag)
	add("pipeline_url", rep.pipelineURL)
	add("project", who.project.Path)

	found, err := h.route(who, rep)
	if err != nil {
		return answer, err
	}
	add("route", found.Key)
	ref, outcome, err := h.tellReport(ctx, found, who, rep)
	if err != nil {
		return answer, slackError(err)
	}
	add("outcome", outcome)
	answer.Body = told{ref.Channel, ref.TS}
	return answer, nil
}

// tellReport brings record and message up to date. The outcome is posted,
// updated or unchanged.
func (h handler) tellReport(ctx context.Context, found route.Route, who caller, rep report) (slack.Ref, string, error) {
	// A release or a deploy is news of its own: it says nothing of how the
	// promotion goes.
	if h.Promotions != nil && rep.deliveryID != "" && rep.event == string(slack.Promote) {
		p, err := h.Promotions.Get(ctx, rep.deliveryID)
		switch {
		case err == nil:
			return h.tellPromotion(ctx, found, who, rep, p)
		case !errors.Is(err, ledger.ErrUnknown):
			return slack.Ref{}, "", ledgerError(err)
		}
	}
	// What is begun is finished, or a message would stand there without its reply.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTime)
	defer cancel()
	var ref slack.Ref
	if rep.ts != "" {
		ref = slack.Ref{Channel: found.Slack.Channel, TS: rep.ts}
	}
	m := h.message(rep)
	if m.Repository == "" {
		m.Project = who.project.Path
	}
	ref, outcome, err := h.say(ctx, found.Slack.Channel, ref, m)
	if err != nil && ref.TS != "" { // an error would have the caller post the message anew
		h.log.LogAttrs(ctx, slog.LevelError, "reply not sent", slog.String("repository", rep.repository), slog.String("error", err.Error()))
		err = nil
	}
	return ref, outcome, err
}

// tellPromotion updates the record of a promotion, and its one message. The
// route of its repository says who may report, whatever the routes were when it
// was started.
func (h handler) tellPromotion(ctx context.Context, found route.Route, who caller, rep report, p ledger.Promotion) (slack.Ref, string, error) {
	owner, ok := h.Routes.Find(p.Repository)
	if !ok || who.isProject() && !owner.RunsIn(who.project) || rep.repository != "" && rep.repository != p.Repository {
		return slack.Ref{}, "", &httpserver.Error{Status: http.StatusForbidden, Public: "delivery_id is of another repository"}
	}
	telling, err := h.report(ctx, ledger.Report{
		ID: rep.deliveryID, Digest: rep.digest, State: states[rep.status], PipelineURL: rep.pipelineURL,
	})
	if err != nil {
		return slack.Ref{}, "", err
	}
	m := h.message(rep)
	if telling.Tell != states[rep.status] {
		m.Status, m.Text = statuses[telling.Tell], "" // another report came in between
	}
	return h.tell(ctx, found.Slack.Channel, telling, m)
}

// tell tells Slack of a promotion where that is needed, and the ledger what
// Slack was told.
func (h handler) tell(ctx context.Context, channel string, telling ledger.Telling, m slack.Message) (slack.Ref, string, error) {
	p := telling.Promotion
	if !telling.Needed {
		return slack.Ref{Channel: cmp.Or(p.Message.Channel, channel), TS: p.Message.TS}, "unchanged", nil
	}
	m.Repository, m.Tag, m.Digest, m.PipelineURL = p.Repository, p.Tag, p.Digest, p.PipelineURL
	ctx = context.WithoutCancel(ctx) // the ledger bounds itself
	saying, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	message := p.Message
	ref, outcome, err := h.say(saying, channel, slack.Ref{Channel: message.Channel, TS: message.TS}, m)
	if ref.TS != "" { // also where only the reply failed: the next report must not post again
		message.Channel, message.TS = ref.Channel, ref.TS
	}
	if err == nil {
		message.Tells = telling.Tell
	}
	h.record(ctx, p, h.Promotions.Told(ctx, telling, message))
	return ref, outcome, err
}

// report waits while another report of the same promotion is told to Slack.
func (h handler) report(ctx context.Context, r ledger.Report) (ledger.Telling, error) {
	for end := time.Now().Add(waitTime); ; {
		telling, err := h.Promotions.Report(ctx, r)
		switch {
		case err == nil:
			return telling, nil
		case !errors.Is(err, ledger.ErrInProgress):
			return telling, ledgerError(err)
		case time.Now().After(end):
			return telling, &httpserver.Error{
				Status: http.StatusServiceUnavailable, RetryAfter: retryAfter,
				Public: "another report of this promotion is being told to Slack; send it again", Cause: err,
			}
		}
		select {
		case <-ctx.Done():
			return ledger.Telling{}, ledgerError(ctx.Err())
		case <-time.After(waitStep):
		}
	}
}

// say posts a message, or updates the one that ref names. Bad news also
// replies in its thread: an update alone pings nobody. Where only the reply
// fails, the message is returned with the error.
func (h handler) say(ctx context.Context, channel string, ref slack.Ref, m slack.Message) (slack.Ref, string, error) {
	ref, outcome, err := h.show(ctx, channel, ref, m)
	if err == nil && (m.Status == slack.Failure || outcome == "updated" && (m.Status == slack.Dead || m.Status == slack.Silent)) {
		err = h.Slack.Reply(ctx, ref, m)
	}
	return ref, outcome, err
}

func (h handler) show(ctx context.Context, channel string, ref slack.Ref, m slack.Message) (slack.Ref, string, error) {
	if ref.TS != "" {
		updated, err := h.Slack.Update(ctx, ref, m)
		if !slack.IsGone(err) {
			return updated, "updated", err
		}
	}
	posted, err := h.Slack.Post(ctx, channel, m)
	return posted, "posted", err
}

func (h handler) message(rep report) slack.Message {
	return slack.Message{
		Language: h.Language, Event: slack.Event(rep.event), Status: slack.Status(rep.status),
		Repository: rep.repository, Tag: rep.tag, Digest: rep.digest, Version: rep.version,
		Text: rep.message, PipelineURL: rep.pipelineURL, DeliveryID: rep.deliveryID,
	}
}

// record logs that the ledger could not be told what Slack was told.
func (h handler) record(ctx context.Context, p ledger.Promotion, err error) {
	if err != nil {
		h.log.LogAttrs(ctx, slog.LevelError, "ledger not updated",
			slog.String("id", p.ID), slog.String("repository", p.Repository), slog.String("tag", p.Tag),
			slog.String("error", err.Error()))
	}
}

func ledgerError(err error) error {
	return &httpserver.Error{
		Status: http.StatusServiceUnavailable, Public: "the record of promotions is away; send it again",
		RetryAfter: retryAfter, Cause: err,
	}
}

// slackError makes an answer of what Slack said; other errors pass.
func slackError(err error) error {
	var refusal *slack.Error
	switch {
	case !errors.As(err, &refusal):
		return err
	case refusal.Temporary():
		wait := refusal.RetryAfter
		if wait == 0 {
			wait = retryAfter
		}
		return &httpserver.Error{
			Status: http.StatusServiceUnavailable, Public: "Slack takes no messages at the moment; send it again",
			RetryAfter: wait, Cause: err,
		}
	}
	public := fmt.Sprintf("Slack refused the message: %s", cmp.Or(refusal.Code, http.StatusText(refusal.Status), "an answer that is not Slack's"))
	if refusal.Hint != "" {
		public += ": " + refusal.Hint
	}
	return &httpserver.Error{Status: http.StatusBadGateway, Public: public, Cause: err}
}
