package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Showing is the right to show a promotion's newest revision in Slack, until
// its lease runs out.
type Showing struct {
	Promotion           // as it is to be shown
	Message   bool      // the message does not show the revision
	Reply     bool      // nor does the thread
	Now       time.Time // by the store's time
}

// Result is what became of a Showing.
type Result struct {
	Revision       int64  // of the Showing
	Channel, TS    string // of the message, "" where nothing is known of one
	Message, Reply bool   // shows the revision, or need not
	RetryAfter     time.Duration
	Busy           bool // Slack was not asked, for the channel has had its share
}

// Outcome is what a report or a letter has come to.
type Outcome struct {
	Promotion Promotion
	Changed   bool     // the promotion
	Known     bool     // Promotion is one of the ledger's
	Showing   *Showing // nil where Slack shows it, or another is at it
}

// Outboxes says how promotions are shown.
type Outboxes struct {
	Lease       time.Duration // how long a Showing keeps others away
	SilentAfter time.Duration // how long a pipeline may say nothing
}

// show takes the right to show p, if there is something to show and nobody has it.
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

// Report records what a pipeline says of a promotion. A report that is late,
// repeated, or about another digest changes nothing. It returns ErrForeign
// where the pipeline is not the promotion's, ErrUnknown where there is no such
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
	Key     Key // zero where it is no push
	Message Message
	Route   string // its key, "" where there is none
	NewID   string // of the promotion, if the letter is the death of one that nobody has begun

	// What Trigger says. Where Pub/Sub gave up it is all "".
	PromotionID         string
	Reason, Hint, Words string
	Attempts            int // after which Pub/Sub gave up; 0 where it does not say
	Subscription        string
}

// ErrLeased says that somebody is at the promotion.
var ErrLeased = errors.New("another is at this promotion")

// Bury records a dead letter, if the death of its tag is what it says. It
// returns ErrLeased while somebody may be asking GitLab for a pipeline.
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

// Note records news that is of no promotion: the one of that ID goes on, if
// there is one. What a pipeline has said of its end stays.
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

// Due returns up to limit promotions that the clock must look at, the one that
// is due for longest first.
func (l *Ledger) Due(ctx context.Context, limit int) ([]Promotion, error) {
	return search(ctx, l, "find what is due", l.store.Due, limit)
}

// Tick has the clock look at a promotion. It moves DueAt on, and returns what
// is to be shown, or nil.
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

// Shown records what became of a Showing. Where there is news by now it returns
// the right to show that, too. It returns ErrStale where the right was lost.
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

// Overdue returns up to limit tags that nobody has looked at in time. It costs
// nobody the right to do so.
func (l *Ledger) Overdue(ctx context.Context, limit int) ([]Tag, error) {
	return search(ctx, l, "find overdue tags", l.store.Overdue, limit)
}

// search returns what the store finds to be due by now.
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

// Requeued moves LookBy of a tag on, once a message was queued for it. It
// changes nothing of a record that has changed since it was read.
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
