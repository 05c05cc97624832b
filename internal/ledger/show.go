package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Showing is the right to show a promotion's newest revision in Slack, until
// its lease ends.
type Showing struct {
	Promotion           // as it must be shown
	Message   bool      // the message does not show the revision
	Reply     bool      // nor does the thread
	Now       time.Time // by the store's time
}

// Result is the result of a Showing.
type Result struct {
	Revision       int64  // of the Showing
	Channel, TS    string // of the message, "" if nothing is known of one
	Message, Reply bool   // it shows the revision, or need not
	RetryAfter     time.Duration
	Busy           bool // Slack was not asked, because of the channel's rate limit
}

// Outcome is the result of a report or a letter.
type Outcome struct {
	Promotion Promotion
	Changed   bool     // the promotion
	Known     bool     // Promotion is one of the ledger's
	Showing   *Showing // nil if Slack shows it, or another request is showing it
}

// Outboxes says how promotions are shown.
type Outboxes struct {
	Lease       time.Duration // how long a Showing keeps others away
	SilentAfter time.Duration // how long a pipeline may be silent
}

// show takes the right to show p, if there is something to show and nobody else
// has the right.
func (s *Snapshot) show(p *Promotion, o Outboxes) *Showing {
	if !p.Behind() || p.showing(s.now) {
		return nil
	}
	showing := &Showing{Message: p.Revision > p.Shown, Reply: p.Bad() && p.Revision > p.Replied, Now: s.now}
	p.ShowToken++
	p.ShowEnds = s.now.Add(o.Lease)
	showing.Promotion = *p
	return showing
}

// Report records a pipeline's report about a promotion. A report that is late,
// repeated, or about another digest changes nothing. It returns ErrForeign if
// the pipeline is not the promotion's, and ErrUnknown if there is no such
// promotion.
func (l *Ledger) Report(ctx context.Context, id string, rep Report, o Outboxes) (out Outcome, err error) {
	err = l.again(ctx, func(ctx context.Context) error {
		s, p, err := l.promotion(ctx, id, true)
		if err != nil {
			return err
		}
		if rep.From != nil {
			if err := p.admit(*rep.From, rep.State); err != nil {
				return err
			}
		}
		out = Outcome{Known: true, Changed: p.accepts(rep.State) && (rep.Digest == "" || rep.Digest == p.Digest)}
		if out.Changed {
			s.report(p, rep, s.repository)
		}
		out.Showing = s.show(p, o)
		out.Promotion = *p
		return s.commit(ctx, o.SilentAfter)
	})
	return out, err
}

// Letter is a dead letter.
type Letter struct {
	Key     Key // zero if it is not a push
	Message Message
	Route   string // its key, "" if there is none
	NewID   string // of the promotion, if the letter is the death of one that had not begun

	// What Trigger says. All are "" if Pub/Sub gave up.
	PromotionID         string
	Reason, Hint, Words string
	Attempts            int // after which Pub/Sub gave up; 0 if it does not say
	Subscription        string
}

// ErrLeased means that another has the lease.
var ErrLeased = errors.New("another is at this promotion")

// Bury records a dead letter, if it is the death of its tag. It returns
// ErrLeased while a request to GitLab may be in progress.
func (l *Ledger) Bury(ctx context.Context, letter Letter, o Outboxes) (out Outcome, err error) {
	err = l.again(ctx, func(ctx context.Context) error {
		out = Outcome{}
		s, err := l.read(ctx, letter.Key, nil)
		if err != nil {
			return err
		}
		p := s.settled
		if p == nil || p.State != Dead || letter.PromotionID != p.ID {
			var v Verdict
			if p, v = s.letter(letter); v == InProgress {
				return ErrLeased
			}
			out.Changed = p != nil
		}
		if p == nil {
			return s.commit(ctx, o.SilentAfter)
		}
		out.Known = true
		if p.Subscription == "" && letter.Subscription != "" { // with it the message says how to queue the letter again
			replied := p.Replied == p.Revision
			p.Subscription = letter.Subscription
			if p.Revision++; replied {
				p.Replied = p.Revision
			}
		}
		out.Showing = s.show(p, o)
		out.Promotion = *p
		return s.commit(ctx, o.SilentAfter)
	})
	return out, err
}

// Note records a report that belongs to no promotion. If there is a note with
// that ID, it is updated. A reported end stays.
func (l *Ledger) Note(ctx context.Context, note Promotion, o Outboxes) (out Outcome, err error) {
	err = l.again(ctx, func(ctx context.Context) error {
		out = Outcome{}
		s, p, err := l.promotion(ctx, note.ID, false)
		switch {
		case errors.Is(err, ErrUnknown):
			_, now, err := l.store.Tags(ctx)
			if err != nil {
				return err
			}
			s = &Snapshot{ledger: l, were: map[string]Promotion{}}
			s.tag, s.now = &Tag{}, now
			s.group = s.tag
			s.other = &Promotion{ID: note.ID, Event: note.Event, Note: true, Key: note.Key, Route: note.Route, CreatedAt: now}
			p = s.other
		case err != nil:
			return err
		}
		late := note.State == Running && p.State != Running && len(note.Pipelines) > 0 && slices.Equal(note.Pipelines, p.Pipelines)
		if !late && (p.State != note.State || p.Text != note.Text || p.Version != note.Version || p.Digest != note.Digest || p.PipelineURL != note.PipelineURL || p.Tag != note.Tag) {
			p.State, p.By, p.Reason, p.UpdatedAt = note.State, note.By, note.Reason, s.now
			p.Hint, p.Words, p.Attempts = note.Hint, note.Words, note.Attempts
			p.Text, p.Version, p.Digest, p.PipelineURL, p.Tag, p.Project = note.Text, note.Version, note.Digest, note.PipelineURL, note.Tag, note.Project
			p.Pipelines = note.Pipelines
			p.Revision++
			out.Changed = true
		}
		out.Known = true
		out.Showing = s.show(p, o)
		out.Promotion = *p
		return s.commit(ctx, o.SilentAfter)
	})
	return out, err
}

// Due returns up to limit promotions that the clock must look at. The one that
// has been due for longest comes first.
func (l *Ledger) Due(ctx context.Context, limit int) ([]Promotion, error) {
	return search(ctx, l, "find what is due", l.store.Due, limit)
}

// Tick applies the clock to a promotion. It moves DueAt on, and returns what
// must be shown, or nil.
func (l *Ledger) Tick(ctx context.Context, id string, o Outboxes) (showing *Showing, err error) {
	err = l.again(ctx, func(ctx context.Context) error {
		showing = nil
		s, p, err := l.promotion(ctx, id, true)
		switch {
		case errors.Is(err, ErrUnknown):
			return nil
		case err != nil:
			return err
		case p.DueAt.IsZero() || s.now.Before(p.DueAt):
			return nil // another call was here first
		}
		was := p.State
		if p.tick(s.now, s.repository.EndedAt, o.SilentAfter); p.State != was {
			s.lookAgain(p)
		}
		if !s.now.Before(p.RetryAt) {
			showing = s.show(p, o)
		}
		return s.commit(ctx, o.SilentAfter)
	})
	return showing, err
}

// Shown records the result of a Showing. If there is a newer revision, it
// returns the right to show that, too. It returns ErrStale if the right was
// lost.
func (l *Ledger) Shown(ctx context.Context, showing Showing, r Result, o Outboxes) (next *Showing, err error) {
	r.Revision = showing.Revision
	err = l.again(ctx, func(ctx context.Context) error {
		next = nil
		s, p, err := l.promotion(ctx, showing.ID, true)
		switch {
		case err != nil:
			return err
		case p.ShowToken != showing.ShowToken:
			return ErrStale
		}
		p.shown(r, s.now)
		if r.Message && r.Reply {
			next = s.show(p, o)
		}
		return s.commit(ctx, o.SilentAfter)
	})
	return next, err
}

// Overdue returns up to limit tags that were not looked at in time. It changes
// nothing.
func (l *Ledger) Overdue(ctx context.Context, limit int) ([]Tag, error) {
	return search(ctx, l, "find overdue tags", l.store.Overdue, limit)
}

// search returns what is due by the store's time.
func search[T any](ctx context.Context, l *Ledger, what string, in func(context.Context, time.Time, int) ([]*T, error), limit int) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	_, now, err := l.store.Tags(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	found, err := in(ctx, now, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	var all []T
	for _, f := range found {
		all = append(all, *f)
	}
	return all, nil
}

// Requeued moves LookBy of a tag on, after a message was queued for it. It does
// nothing if the record has changed since it was read.
func (l *Ledger) Requeued(ctx context.Context, t Tag) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	_, now, err := l.store.Tags(ctx)
	if err != nil {
		return err
	}
	t.LookBy = now.Add(StartingLookBy)
	if err := l.store.Commit(ctx, Batch{Tags: []*Tag{&t}}); err != nil && !errors.Is(err, ErrConflict) {
		return fmt.Errorf("move on when %s:%s is looked at: %w", t.Repository, t.Tag, err)
	}
	return nil
}
