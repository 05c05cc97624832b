package ledger

import (
	"cmp"
	"time"
)

const (
	// WaitingLookBy is how long a tag may wait for one of its messages to look
	// again. Pub/Sub's longest back-off is a third of that.
	WaitingLookBy = 30 * time.Minute
	// StartingLookBy is the same once a lease has ended, and after reconcile
	// has queued the tag.
	StartingLookBy = 15 * time.Minute

	// siblingWindow is how long after a promotion's beginning webhooks count as
	// those of the same push.
	siblingWindow = time.Minute

	// The promotion that makes it maxRow in a row, each begun within
	// loopWindow of an end, is dead.
	maxRow     = 5
	loopWindow = 10 * time.Minute

	// lookAgainFor is how long a tag is looked at again that was deleted, or
	// whose registry does not answer, if no message waits for it.
	lookAgainFor = 24 * time.Hour

	// maxUnrecognized is how many refusals in unknown words are retried.
	maxUnrecognized = 3
)

// record is all that is known of a tag, as it was read. The rules decide by it,
// and change it. They do nothing else.
type record struct {
	tag     *Tag
	group   *Tag // the tag itself, if tag is a webhook's record; otherwise the same as tag
	settled *Promotion
	pending *Promotion
	dropped *Promotion // was pending
	ousted  *Promotion // was settled
	now     time.Time
}

// Verdict is the result of a look.
type Verdict int

// The verdicts.
const (
	Start      Verdict = iota + 1 // ask GitLab for a pipeline, under the claim
	Ignore                        // it is a duplicate
	InProgress                    // another is starting it; look again later
	Wait                          // look again later
	Loop                          // give it up: the promotions of the tag start each other
)

// look decides what follows from a message that saw the tag as digest. If a
// pipeline must be created, it claims the promotion.
func (r *record) look(l Look, digest string) Verdict {
	p := r.settled
	same := p != nil && (p.Digest == digest || p.State == Dead && p.Digest == "")
	switch {
	case p == nil || !same:
		if p != nil && p.retried() {
			p.set(Superseded, ByTrigger, "", "", "", r.now)
		}
	case p.State == Starting && p.leased(r.now), p.State == Waiting && p.leased(r.now) && !p.Message.is(l.Message):
		return InProgress
	case p.retried():
		if p.State == Starting { // the result of the last request was not recorded
			p.Lost = true
		}
		r.claim(p, l, digest)
		return Start
	case p.State == Superseded, p.State == Skipped && p.Reason == Unwanted, r.isNewAttempt(l.Message):
	case p.State == Dead && p.Digest == "" && r.pending != nil: // a message after the death waits: start its promotion now that the image is there
	default:
		seen := r.now
		if p.State == Failed || p.State == Dead { // a later push would be a new attempt, so this look does not count for it
			seen = earlier(seen, l.Message.pushed().Add(RegistryLag))
		}
		r.finish(seen)
		// The pending one waits for the message that was queued last. Only that
		// message or a later one can say that there was nothing to do.
		if pending := r.pending; pending != nil && !l.Message.QueuedAt.Before(r.tag.Waiting.QueuedAt) {
			pending.Digest = digest
			pending.set(Skipped, ByTrigger, Duplicate, "", "", r.now)
			r.drop()
			r.finish(seen)
		}
		return Ignore
	}
	goesOn := same && l.Message.revives(p)
	if goesOn && p.showing(r.now) {
		return InProgress // otherwise two requests would write the message of the death
	}
	began := r.begin(l)
	if goesOn {
		began.takeOver(p)
	}
	if r.group.Row >= maxRow {
		began.Digest = digest
		r.settle(began)
		r.finish(r.now)
		return Loop
	}
	r.claim(began, l, digest)
	return Start
}

// isNewAttempt reports whether a message may start again what has ended without
// success.
func (r *record) isNewAttempt(m Message) bool {
	p := r.settled
	switch {
	case p.State != Failed && p.State != Dead:
		return false
	case p.State == Dead && !m.ReplayedAt.IsZero() && later(m.ReplayedAt, m.QueuedAt).After(p.UpdatedAt): // ReplayedAt is by a person's clock
		return true
	}
	pushed := m.pushed()
	if !pushed.After(p.UpdatedAt) {
		return false
	}
	return p.Digest == "" || pushed.After(p.CreatedAt.Add(siblingWindow)) // without a digest it died hours after its push
}

// unseen handles a message for which the registry did not say what the tag is:
// it waits.
func (r *record) unseen(l Look) Verdict {
	p := r.settled
	switch {
	case p != nil && p.State == Dead && p.Digest == "" && r.pending == nil && !r.isNewAttempt(l.Message):
		r.finish(r.now) // that death covers it, too
		return Ignore
	case l.Message.Reconcile && p != nil && p.State.Ended() && r.pending == nil:
		r.finish(r.now)
		if since := r.now.Sub(p.UpdatedAt); since < lookAgainFor { // no message waits for it, so the next look may come later each time
			r.tag.LookBy, r.tag.Look = r.now.Add(max(StartingLookBy, since)), l.Message
		}
		return Ignore
	case p != nil && p.leased(r.now) && !p.Message.is(l.Message):
		return Wait // only the holder of the lease writes; the message keeps its attempts
	case p != nil && p.State == Starting && p.leased(r.now):
		return Wait
	}
	goesOn := l.Message.revives(p) && p.Digest == ""
	if goesOn && p.showing(r.now) {
		return InProgress
	}
	switch {
	case p != nil && p.retried():
		if p.State == Starting {
			p.Lost = true
		}
		r.wait(p, l.Message, l.Reason, l.Hint, "")
	default:
		if r.pending == nil {
			r.pending = r.begin(l)
			r.tag.Pending = r.pending.ID
			if goesOn {
				r.pending.takeOver(p)
			}
		}
		r.wait(r.pending, l.Message, l.Reason, l.Hint, "")
	}
	r.finish(r.now)
	return Wait
}

// unwanted ends what still waits for a tag that the current routes do not
// promote.
func (r *record) unwanted() {
	for _, p := range []*Promotion{r.pending, r.settled} {
		switch {
		case p == nil || !p.retried() || p.leased(r.now):
		case p.Lost || p.State == Starting: // its pipeline may still report
			p.set(Superseded, ByTrigger, Unwanted, "", "", r.now)
		default:
			p.set(Skipped, ByTrigger, Unwanted, "", "", r.now)
		}
	}
	r.drop()
	r.finish(r.now)
}

// begin creates a promotion, or takes the one that waits for its digest.
func (r *record) begin(l Look) *Promotion {
	if r.pending != nil {
		return r.pending
	}
	p := &Promotion{
		ID: l.NewID, Event: Promote, Key: r.tag.Key, Route: l.Route, Message: l.Message, CreatedAt: r.now, Current: true,
		State: Waiting, By: ByTrigger, UpdatedAt: r.now, Outbox: Outbox{WaitsSince: r.now},
	}
	switch g := r.group; {
	case !l.Message.ReplayedAt.IsZero(): // by a person, who has fixed the cause
		g.Row = 1
	case g.RowOpen:
	case g.Row > 0 && r.now.Before(g.EndedAt.Add(loopWindow)):
		g.Row++
	default:
		g.Row = 1
	}
	r.group.RowOpen = true
	return p
}

// claim gives the caller the right to ask GitLab for the pipeline of p.
func (r *record) claim(p *Promotion, l Look, digest string) {
	p.Digest, p.Message, p.Route = digest, l.Message, l.Route
	p.Token++
	p.Requests++
	p.LeaseEnds = r.now.Add(l.Lease)
	p.set(Starting, ByTrigger, "", "", "", r.now)
	r.settle(p)
	r.finish(r.now)
	r.tag.LookBy, r.tag.Look = p.LeaseEnds.Add(StartingLookBy), l.Message
}

// wait makes p wait for one of its messages to look again.
func (r *record) wait(p *Promotion, m Message, reason, hint, words string) {
	p.set(Waiting, ByTrigger, reason, hint, words, r.now)
	p.Message = m
	r.tag.LookBy = r.now.Add(WaitingLookBy)
	if !m.QueuedAt.Before(r.tag.Waiting.QueuedAt) {
		r.tag.Waiting = m
	}
	r.tag.Look = r.tag.Waiting
}

// settle makes p the newest promotion of the tag.
func (r *record) settle(p *Promotion) {
	if r.pending == p {
		r.pending, r.tag.Pending = nil, ""
	}
	if old := r.settled; old != nil && old != p {
		old.Current, r.ousted = false, old
	}
	r.settled = p
	r.tag.Settled, p.Current = p.ID, true
	r.group.Digest = cmp.Or(p.Digest, r.group.Digest)
}

// drop removes the promotion that waited for its digest from the tag.
func (r *record) drop() {
	if r.pending != nil {
		r.pending.Current, r.dropped = false, r.pending
		r.pending, r.tag.Pending = nil, ""
	}
}

// finish records a look that covers everything that was pushed until a given
// time. If nothing waits, no other look is needed.
func (r *record) finish(until time.Time) {
	r.tag.LookedAt, r.group.LookedAt = later(r.tag.LookedAt, until), later(r.group.LookedAt, until)
	if r.group != r.tag {
		r.group.LookBy = time.Time{}
	}
	if r.pending == nil && (r.settled == nil || !r.settled.retried()) {
		r.tag.Waiting, r.tag.LookBy = Message{}, time.Time{}
	}
}

// answered records GitLab's answer for the claim of p.
func (r *record) answered(p *Promotion, a Answer) {
	if a.Pipeline != (Pipeline{}) || a.Created {
		p.own(a.Pipeline.ProjectID, a.Pipeline.ID)
		if p.PipelineURL == "" {
			p.PipelineURL = a.Pipeline.URL
		}
	}
	if p.State != Starting { // it has reported, or was superseded in the meantime
		r.handled(p)
		return
	}
	switch {
	case a.Created:
		p.LeaseEnds = time.Time{}
		p.set(Triggered, ByTrigger, "", "", "", r.now)
		r.handled(p)
	case a.Dead:
		p.LeaseEnds = time.Time{}
		p.Lost = p.Lost || a.Lost
		r.bury(p, ByTrigger, a.Reason, a.Hint, a.Words)
	default:
		if a.Unrecognized {
			p.Unrecognized++
		}
		if a.Lost {
			p.Lost = true // the lease keeps others away until it ends
		} else {
			p.LeaseEnds = time.Time{}
		}
		r.wait(p, a.Message, a.Reason, a.Hint, a.Words)
	}
}

// handled clears what matters only while p has no pipeline.
func (r *record) handled(p *Promotion) {
	if r.tag.Settled == p.ID && r.pending == nil && !p.retried() {
		r.tag.Waiting, r.tag.LookBy = Message{}, time.Time{}
	}
}

// lookAgain makes reconcile look at the tag of a promotion that ended without
// success, because Trigger may have seen an old image.
func (r *record) lookAgain(p *Promotion) {
	if r.pending == nil && p.Current && p.Digest != "" && (p.State == Superseded || p.State == Failed || p.State == Dead) {
		r.group.LookBy, r.group.Look = r.now, p.Message
	}
}

// bury makes p dead.
func (r *record) bury(p *Promotion, by Setter, reason, hint, words string) {
	p.set(Dead, by, reason, hint, words, r.now)
	r.settle(p)
	r.tag.DiedAt, r.tag.Waiting, r.tag.LookBy = r.now, Message{}, time.Time{}
	r.group.DiedAt = r.now
	r.lookAgain(p)
	if reason == PromotionLoop {
		r.group.EndedAt, r.group.RowOpen = r.now, false
	}
}

// letter decides whether a dead letter is the tag's death, and returns the
// promotion that died by it, or nil.
func (r *record) letter(l Letter) (died *Promotion, v Verdict) {
	if r.settled != nil && r.settled.leased(r.now) {
		return nil, InProgress
	}
	target := r.pending
	if target == nil && r.settled != nil && r.settled.retried() {
		target = r.settled
	}
	if target != nil && l.PromotionID != "" && l.PromotionID != target.ID {
		return nil, Ignore // Trigger gave up another one, and its message still waits for this one, or has come to an end
	}
	last := target != nil && r.tag.Waiting.is(l.Message)
	unlooked := l.Message.QueuedAt.After(r.tag.LookedAt) && l.Message.QueuedAt.After(r.tag.DiedAt)
	if !last && !unlooked {
		return nil, Ignore
	}
	if target == nil {
		goesOn := l.Message.revives(r.settled) && r.settled.Digest == ""
		if goesOn && r.settled.showing(r.now) {
			return nil, InProgress
		}
		target = r.begin(Look{NewID: l.NewID, Route: l.Route, Message: l.Message})
		if goesOn {
			target.takeOver(r.settled)
		}
	}
	reason, hint, words := l.Reason, l.Hint, l.Words
	if reason == "" { // Pub/Sub gave it up: the reason is what it waited for
		reason, hint, words = target.Reason, target.Hint, target.Words
	}
	target.Attempts = l.Attempts
	r.bury(target, ByNotify, reason, hint, words)
	return target, Ignore
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
