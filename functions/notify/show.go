package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack"
)

const (
	// showTime bounds the calls to Slack for one revision.
	showTime = 20 * time.Second
	// showLease spans that, and the ledger before and after it.
	showLease = ledger.Timeout + showTime + ledger.Timeout + 5*time.Second
	// revisionsAtOnce is how many revisions in a row one request shows, if
	// there are new ones in the meantime and time is left. The clock shows the
	// rest.
	revisionsAtOnce = 3
	// patience is how long a report waits while another request shows the
	// promotion.
	patience     = 10 * time.Second
	patienceStep = 500 * time.Millisecond
)

// showAtOnce makes Slack show what was recorded, and says why it does not; ""
// if it does.
func (h handler) showAtOnce(ctx context.Context, out ledger.Outcome) (ledger.Promotion, string) {
	if out.Showing != nil {
		return h.show(ctx, *out.Showing)
	}
	p := out.Promotion
	for end := time.Now().Add(patience); p.Behind() && time.Now().Before(end); {
		time.Sleep(patienceStep)
		now, err := h.Promotions.Get(ctx, p.ID)
		if err != nil {
			break
		}
		p = now
	}
	if p.Behind() {
		return p, "another is at this message; it is shown within some minutes"
	}
	return p, ""
}

// show shows a revision, and those that are recorded in the meantime.
func (h handler) show(ctx context.Context, s ledger.Showing) (p ledger.Promotion, refusal string) {
	end := time.Now().Add(showTime)
	for range revisionsAtOnce {
		result, err := h.tell(ctx, s)
		if err != nil {
			refusal = refused(err)
			h.log.LogAttrs(ctx, slog.LevelWarn, "slack not told", append(attrs(s.Promotion), slog.String("error", err.Error()+hint(err)))...)
		}
		p = s.Promotion
		if result.TS != "" {
			p.Channel, p.TS = result.Channel, result.TS
		}
		next, err := h.Promotions.Shown(ctx, s, result, h.outboxes())
		switch {
		case err != nil:
			h.log.LogAttrs(ctx, slog.LevelError, "ledger not updated", append(attrs(s.Promotion), slog.String("error", err.Error()))...)
			if result.TS != s.TS {
				h.standsTwice(ctx, s.Promotion) // because the ts of the posted one is unknown
			}
			return p, refusal
		case next == nil:
			return p, refusal
		}
		if s = *next; time.Now().After(end) {
			break
		}
	}
	return p, "there are newer changes; they are shown within a few minutes"
}

// tell makes Slack show a revision: in the existing message, or else in a new
// one. A failure also gets a reply in the thread, because an update pings
// nobody.
func (h handler) tell(ctx context.Context, s ledger.Showing) (ledger.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, showTime)
	defer cancel()
	to := h.slackOf(s.Promotion)
	ref := slack.Ref{Channel: s.Channel, TS: s.TS}
	if to.Tell == route.TellFailures && !s.Bad() && ref.TS == "" {
		return ledger.Result{Message: true, Reply: true}, nil
	}
	m := h.message(s.Promotion, s.Now)
	m.Mention = to.Mention
	result := ledger.Result{Channel: ref.Channel, TS: ref.TS, Message: !s.Message, Reply: !s.Reply}
	refused := func(err error) (ledger.Result, error) {
		result.RetryAfter, result.Busy = waitFor(err), errors.Is(err, errBusy)
		return result, err
	}
	if s.Message {
		posted, err := h.post(ctx, s.Promotion, to.Channel, ref, m)
		if err != nil {
			return refused(err)
		}
		ref = posted
		result.Channel, result.TS, result.Message = ref.Channel, ref.TS, true
	}
	if s.Reply {
		err := h.reply(ctx, ref, m)
		if slack.IsGone(err) && !s.Message { // the message may be gone, too
			s.Message = true
			return h.tell(ctx, s)
		}
		if err != nil {
			return refused(err)
		}
		result.Reply = true
	}
	return result, nil
}

func (h handler) reply(ctx context.Context, ref slack.Ref, m slack.Message) error {
	if err := h.pace.wait(ctx, ref.Channel); err != nil {
		return err
	}
	err := h.Slack.Reply(ctx, ref, m)
	h.pace.heed(ref.Channel, err)
	return err
}

// slackOf returns where a promotion is shown, by the route of its repository. A
// report without a repository has the route of its project.
func (h handler) slackOf(p ledger.Promotion) route.Slack {
	if found, ok := h.Routes.Find(p.Repository); ok && p.Repository != "" {
		return found.Slack
	}
	if found, ok := h.Routes.ByKey(p.Route); ok && p.Note {
		return found.Slack
	}
	return route.Slack{Channel: h.DefaultChannel}
}

// post updates the message. It posts a new one if there is none, or if the old
// one can no longer be updated.
func (h handler) post(ctx context.Context, p ledger.Promotion, channel string, ref slack.Ref, m slack.Message) (slack.Ref, error) {
	if ref.TS != "" {
		if err := h.pace.wait(ctx, ref.Channel); err != nil {
			return ref, err
		}
		updated, err := h.Slack.Update(ctx, ref, m)
		h.pace.heed(ref.Channel, err)
		if !slack.IsGone(err) {
			return updated, err
		}
	}
	if err := h.pace.wait(ctx, channel); err != nil {
		return ref, err
	}
	posted, err := h.Slack.Post(ctx, channel, m)
	h.pace.heed(channel, err)
	if slack.IsLost(err) {
		h.standsTwice(ctx, p)
	}
	return posted, err
}

// standsTwice logs that there may be a message whose ts is unknown.
func (h handler) standsTwice(ctx context.Context, p ledger.Promotion) {
	h.log.LogAttrs(ctx, slog.LevelWarn, "message may stand twice", attrs(p)...)
}

// statuses are how states are shown in Slack.
var statuses = map[ledger.State]slack.Status{
	ledger.Waiting:    slack.Waiting,
	ledger.Starting:   slack.Running,
	ledger.Triggered:  slack.Running,
	ledger.Running:    slack.Running,
	ledger.Promoted:   slack.Success,
	ledger.Skipped:    slack.Skipped,
	ledger.Superseded: slack.Superseded,
	ledger.Failed:     slack.Failure,
	ledger.Dead:       slack.Dead,
}

// message is the Slack message of a promotion. now is by the ledger's clock, as
// are the promotion's times.
func (h handler) message(p ledger.Promotion, now time.Time) slack.Message {
	m := slack.Message{
		Language: h.Language, Event: slack.Event(p.Event), Status: statuses[p.State],
		Repository: p.Repository, Tag: p.Tag, Digest: p.Digest, Version: p.Version,
		Text: p.Text, PipelineURL: p.PipelineURL, PromotionID: p.ID,
	}
	if p.Repository == "" {
		m.Project = p.Project
	}
	switch {
	case p.Silent():
		m.Status, m.Silence = slack.Silent, h.SilentAfter
	case p.ToldJob:
		m.Status, m.Reason, m.Hint, m.Since = slack.Waiting, p.JobWaits, p.Hint, now.Sub(p.UpdatedAt).Round(time.Minute)
	case p.State == ledger.Waiting:
		m.Since = now.Sub(p.WaitsSince).Round(time.Minute)
	case p.State == ledger.Dead:
		m.Attempts = p.Attempts
		if p.Subscription != "" && p.Tag != "" {
			m.Command = replayCommand(p.Subscription, p.Repository, p.Tag)
		}
	}
	switch p.State {
	case ledger.Waiting, ledger.Dead:
		m.Reason, m.Hint, m.Words = p.Reason, p.Hint, p.Words
	case ledger.Failed:
		m.Hint = p.Hint
		if p.Reason != ledger.PipelineFail { // the status says so
			m.Reason = p.Reason
		}
	}
	return m
}

// replayCommand is the command that queues a dead letter again. The
// subscription that pushes dead letters has the name of the one that keeps
// them, and a suffix.
func replayCommand(subscription, repository, tag string) string {
	return fmt.Sprintf("go run ./cmd/hubrelay replay -subscription %s -match %s:%s -apply",
		strings.TrimSuffix(subscription, "-notify"), repository, tag)
}

// refused tells a caller why Slack does not show something.
func refused(err error) string {
	var refusal *slack.Error
	switch {
	case errors.Is(err, errBusy):
		return "Slack takes one message a second in a channel; it is shown within some minutes"
	case !errors.As(err, &refusal), refusal.Temporary():
		return "Slack accepts no messages at the moment; it is shown once Slack does"
	}
	return "Slack refused the message: " +
		cmp.Or(refusal.Code, http.StatusText(refusal.Status), "an answer that is not Slack's") + hint(err) + "; it is shown once that is fixed"
}

// hint is what to fix, as the end of a sentence.
func hint(err error) string {
	var refusal *slack.Error
	if errors.As(err, &refusal) && refusal.Hint != "" {
		return ": " + refusal.Hint
	}
	return ""
}

// waitFor is how long Slack asked to wait, 0 if it did not.
func waitFor(err error) time.Duration {
	var refusal *slack.Error
	if errors.As(err, &refusal) {
		return refusal.RetryAfter
	}
	return 0
}

// attrs are the fields of a promotion that are logged.
func attrs(p ledger.Promotion) []slog.Attr {
	var attrs []slog.Attr
	for _, a := range []slog.Attr{
		slog.String("promotion_id", p.ID), slog.String("id", p.Message.ID), slog.String("repository", p.Repository), slog.String("tag", p.Tag),
		slog.String("digest", p.Digest), slog.String("route", p.Route), slog.String("state", string(p.State)), slog.String("pipeline_url", p.PipelineURL),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	return attrs
}

// channelPace is how often an instance posts in one channel.
// https://docs.slack.dev/apis/web-api/rate-limits
const channelPace = time.Second

// errBusy means that the caller's time ends before the channel can take another
// message.
var errBusy = errors.New("the channel accepts no more messages at the moment")

// pace limits how often an instance posts in a channel, to what Slack accepts.
type pace struct {
	mu   sync.Mutex
	next map[string]time.Time // by channel: when it takes a message
}

func newPace() *pace { return &pace{next: map[string]time.Time{}} }

// wait waits until the channel can take a message. It returns errBusy
// immediately if ctx would end before that.
func (p *pace) wait(ctx context.Context, channel string) error {
	now := time.Now()
	p.mu.Lock()
	at := p.next[channel]
	if at.Before(now) {
		at = now
	}
	if end, ok := ctx.Deadline(); ok && at.After(end) {
		p.mu.Unlock()
		return errBusy
	}
	p.next[channel] = at.Add(channelPace)
	for other, next := range p.next { // past times need not be kept
		if next.Before(now) {
			delete(p.next, other)
		}
	}
	p.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(at.Sub(now)):
		return nil
	}
}

// heed stops posting to a channel for as long as Slack's answer asks for.
func (p *pace) heed(channel string, err error) {
	wait := waitFor(err)
	if wait == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := time.Now().Add(wait); at.After(p.next[channel]) {
		p.next[channel] = at
	}
}
