// Package ledger is the record of promotions: which image is on its way to be
// signed, since when, and how it went. It is what makes one push one pipeline.
//
// Trigger claims a promotion before it creates a pipeline. Notify brings it up
// to date when the pipeline reports, and keeps the one Slack message of it.
package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
)

// Lease is how long a claim keeps others away. It is longer than Trigger takes
// for a push, so that it runs out only when the claimant is gone.
const Lease = time.Minute

// TellLease is how long one caller may take to tell Slack.
const TellLease = 40 * time.Second

// Silence is how long a promotion whose pipeline has reported nothing keeps
// pushes of the same image away.
const Silence = 6 * time.Hour

// Retention is how long a promotion is remembered.
const Retention = 90 * 24 * time.Hour

// State is how far a promotion has come.
type State string

// The states, in their order.
const (
	Claimed   State = "claimed"   // somebody is about to create the pipeline
	Triggered State = "triggered" // GitLab has created it
	Running   State = "running"   // it has reported that it runs
	Promoted  State = "promoted"  // the image is signed and the moving tag is on it
	Skipped   State = "skipped"   // there was nothing to do
	Failed    State = "failed"    // the pipeline failed, or could never be created
)

// Silent is told of a promotion that is Triggered or Running and whose
// pipeline has reported nothing for long. It is no state: nobody knows.
const Silent State = "silent"

// Done tells whether nothing more is expected of the promotion itself.
func (s State) Done() bool { return s == Promoted || s == Skipped || s == Failed }

// Push is what a claim is made for.
type Push struct {
	ID         string `firestore:"id"`    // of the delivery
	Route      string `firestore:"route"` // its key
	Repository string `firestore:"repository"`
	Tag        string `firestore:"tag"`
	Digest     string `firestore:"digest"` // "" where it is not known
	// PerDelivery makes every delivery a promotion of its own. Otherwise there
	// is one current promotion for each route, repository and tag, and a push
	// that finds its digest under way or done is a duplicate.
	PerDelivery bool `firestore:"per_delivery"`
	// QueuedAt is when the push was queued, or queued again; zero means now.
	QueuedAt time.Time `firestore:"-"`
	// Replayed says that somebody has queued a dead letter again.
	Replayed bool `firestore:"-"`
}

// Promotion is the record of one image on its way.
type Promotion struct {
	Push
	State       State     `firestore:"state"`
	Attempts    int       `firestore:"attempts"` // claims so far
	Reason      string    `firestore:"reason"`   // why it was put off, skipped or failed at last
	PipelineURL string    `firestore:"pipeline_url"`
	Message     Message   `firestore:"message"`
	CreatedAt   time.Time `firestore:"created_at"`
	UpdatedAt   time.Time `firestore:"updated_at"` // of its state; when it failed
}

// Message names the Slack message that tells of a promotion, and what it tells.
type Message struct {
	Channel string `firestore:"channel"`
	TS      string `firestore:"ts"`
	Tells   State  `firestore:"tells"` // "" where nothing was told yet
}

// Claim is the right to start a promotion, until its lease runs out.
type Claim struct {
	ID    string
	token int64 // the fencing token: a later claim has another
	// Uncertain says that an earlier claim of this delivery ended without a
	// word, or not knowing whether it had created a pipeline.
	Uncertain bool
}

// Report is what a pipeline says of a promotion.
type Report struct {
	ID          string
	Digest      string // "" where it does not say
	State       State  // Running, Promoted, Skipped or Failed
	PipelineURL string
}

// Letter is a dead letter.
type Letter struct {
	Push          // its QueuedAt is when it became a dead letter
	Reason string // "" where Pub/Sub gave up
}

// Telling is the right to tell Slack of a promotion, until its lease runs out.
type Telling struct {
	Promotion Promotion
	Tell      State // what to tell: the promotion's state, or Silent
	Needed    bool  // false where Slack was told already
	token     int64
}

var (
	// ErrDuplicate says that the promotion is under way or done.
	ErrDuplicate = errors.New("the promotion is under way or done")
	// ErrInProgress says that another holds the lease.
	ErrInProgress = errors.New("another delivery is at it")
	// ErrStale says that the lease was lost to another; nothing was changed.
	ErrStale = errors.New("another has taken over")
	// ErrUnknown says that there is no such promotion.
	ErrUnknown = errors.New("no such promotion")
)

// Ledger keeps promotions in a store. Every method is atomic and safe for
// concurrent use, from several processes where they share the store.
type Ledger struct{ store }

// store keeps records, and knows nothing of what they mean.
type store interface {
	// update runs f as one transaction. f may run more than once.
	update(ctx context.Context, f func(transaction) error) error
	// get returns a record, or nil.
	get(ctx context.Context, id string) (*record, error)
	// open returns the IDs of records with an OpenSince before t, the oldest
	// first.
	open(ctx context.Context, t time.Time, limit int) ([]string, error)
	// all returns every record, the newest first.
	all(ctx context.Context) iter.Seq2[*record, error]
}

// transaction reads first and writes then. What it decides by, it writes.
type transaction interface {
	// now is the store's time, which those who share it agree on. It is known
	// once something was read.
	now() time.Time
	// current returns the ID of the current promotion of a key, "" for none.
	current(key string) (id string, err error)
	// promotions returns the records of IDs, nil for each that is not there;
	// of the same ID always the same record.
	promotions(ids ...string) ([]*record, error)
	put(*record)
	setCurrent(key string, r *record)
}

// record is a promotion and who may change it.
type record struct {
	Promotion
	ClaimedAt time.Time `firestore:"claimed_at"`
	Token     int64     `firestore:"token"`      // of the last claim
	LeaseEnds time.Time `firestore:"lease_ends"` // zero where it was given back
	Uncertain bool      `firestore:"uncertain"`  // there may be a pipeline that nobody recorded

	TellToken int64     `firestore:"tell_token"` // of the last telling
	TellEnds  time.Time `firestore:"tell_ends"`

	// OpenSince is when a promotion that is under way was last heard of. It is
	// zero once it is done, or Slack was told that it is silent.
	OpenSince time.Time `firestore:"open_since"`
	ExpiresAt time.Time `firestore:"expires_at"`
}

// Open returns the ledger that a LEDGER setting names. It asks nobody
// anything: a ledger that is away is found out when it is used.
func Open(name string) (*Ledger, error) {
	if rest, ok := strings.CutPrefix(name, "memory:"); ok {
		return sharedMemory(rest), nil
	}
	if rest, ok := strings.CutPrefix(name, "firestore:"); ok {
		return openFirestore(rest)
	}
	return nil, fmt.Errorf("%.50q is not a ledger: write firestore:projects/PROJECT/databases/DATABASE, or memory:NAME", name)
}

// Claim starts a promotion, or takes over one that fell silent, whose lease
// ran out, or that failed before the push was queued. It returns ErrDuplicate
// or ErrInProgress where there is nothing to start.
func (l *Ledger) Claim(ctx context.Context, p Push) (Claim, error) {
	var claim Claim
	err := l.update(ctx, func(tx transaction) error {
		currentID, err := tx.current(p.key())
		if err != nil {
			return err
		}
		found, err := tx.promotions(p.ID, currentID)
		if err != nil {
			return err
		}
		own, current, now := found[0], found[1], tx.now()
		if current != nil && (p.PerDelivery || current.Digest == p.Digest) {
			if err := current.claimable(p, now); err != nil {
				return err
			}
			if current != own {
				current.fence(now)
				tx.put(current)
			}
		}
		r := own.restart(p, now)
		claim = Claim{ID: p.ID, token: r.Token, Uncertain: r.Uncertain}
		tx.put(r)
		tx.setCurrent(p.key(), r)
		return nil
	})
	return claim, err
}

// claimable says whether a push may start a promotion that is there already.
func (r *record) claimable(by Push, now time.Time) error {
	switch r.State {
	case Claimed:
		if now.Before(r.LeaseEnds) {
			return ErrInProgress
		}
	case Triggered, Running:
		if now.Before(r.UpdatedAt.Add(Silence)) {
			return ErrDuplicate
		}
	case Promoted, Skipped:
		return ErrDuplicate
	case Failed:
		// A push that waited while the promotion was under way is one of those
		// that it was started for, and no new attempt. A replay is one if it
		// was queued after that which failed was claimed: a dead letter can be
		// replayed before everybody knows that it is dead.
		since := r.UpdatedAt
		if by.Replayed {
			since = r.ClaimedAt
		}
		if !by.QueuedAt.IsZero() && by.QueuedAt.Before(since) {
			return ErrDuplicate
		}
	}
	return nil
}

// takenOver is the reason of a claim that was lost to another delivery.
const takenOver = "taken_over"

// fence makes sure that a claimant that lost its lease changes nothing more.
func (r *record) fence(now time.Time) {
	r.Token++
	if !r.State.Done() {
		r.Uncertain = r.Uncertain || r.abandoned()
		r.set(Failed, now)
		r.Reason = takenOver
	}
}

// restart claims a record for a push, and makes it where there is none. What
// an older claim of the same delivery for another digest did is forgotten.
func (r *record) restart(p Push, now time.Time) *record {
	switch {
	case r == nil:
		r = &record{Promotion: Promotion{CreatedAt: now}}
	case r.Digest != "" && r.Digest != p.Digest:
		// Its message goes on with the new one: there is one for each delivery.
		r = &record{Promotion: Promotion{CreatedAt: now, Message: r.Message}, Token: r.Token, TellToken: r.TellToken, TellEnds: r.TellEnds}
	case r.abandoned():
		r.Uncertain = true
	}
	r.Push = p
	r.Token++
	r.Attempts++
	r.set(Claimed, now)
	r.PipelineURL, r.Message.Tells = "", ""
	r.ClaimedAt, r.LeaseEnds, r.ExpiresAt = now, now.Add(Lease), now.Add(Retention)
	return r
}

// abandoned tells whether the claimant is gone without a word, its lease run
// out. It may have created a pipeline.
func (r *record) abandoned() bool { return r.State == Claimed && !r.LeaseEnds.IsZero() }

// set changes the state.
func (r *record) set(s State, now time.Time) {
	r.State, r.UpdatedAt, r.OpenSince = s, now, time.Time{}
	if s == Triggered || s == Running {
		r.OpenSince = now
	}
}

// change lets f change the promotion of a claim that was not lost.
func (l *Ledger) change(ctx context.Context, c Claim, f func(r *record, now time.Time)) error {
	return l.update(ctx, func(tx transaction) error {
		found, err := tx.promotions(c.ID)
		if err != nil {
			return err
		}
		if found[0] == nil || found[0].Token != c.token {
			return ErrStale
		}
		f(found[0], tx.now())
		tx.put(found[0])
		return nil
	})
}

// Triggered records the pipeline that the claimant created. It may have
// reported before this.
func (l *Ledger) Triggered(ctx context.Context, c Claim, pipelineURL string) error {
	return l.change(ctx, c, func(r *record, now time.Time) {
		r.PipelineURL, r.Uncertain = pipelineURL, false
		if r.State == Claimed {
			r.set(Triggered, now)
			r.Reason = ""
		}
	})
}

// Release gives up a claim: whoever claims next may start at once. uncertain
// says that there may be a pipeline all the same.
func (l *Ledger) Release(ctx context.Context, c Claim, reason string, uncertain bool) error {
	return l.change(ctx, c, func(r *record, now time.Time) {
		r.Reason, r.LeaseEnds, r.UpdatedAt = reason, time.Time{}, now
		r.Uncertain = r.Uncertain || uncertain
	})
}

// Settle ends a claim without a pipeline, as Skipped or Failed.
func (l *Ledger) Settle(ctx context.Context, c Claim, s State, reason string) error {
	return l.change(ctx, c, func(r *record, now time.Time) {
		if r.State == Claimed {
			r.set(s, now)
			r.Reason = reason
		}
	})
}

// PutOff records why a push could not be claimed yet. It starts nothing, and
// changes nothing of a promotion that somebody has claimed.
func (l *Ledger) PutOff(ctx context.Context, p Push, reason string) error {
	return l.update(ctx, func(tx transaction) error {
		found, err := tx.promotions(p.ID)
		if err != nil {
			return err
		}
		r, now := found[0], tx.now()
		switch {
		case r == nil:
			r = &record{Promotion: Promotion{Push: p, State: Claimed, CreatedAt: now}, ExpiresAt: now.Add(Retention)}
		case r.State != Claimed || now.Before(r.LeaseEnds):
			return nil
		}
		r.Reason, r.UpdatedAt = reason, now
		tx.put(r)
		return nil
	})
}

// Report brings a promotion up to date, and takes the lease to tell Slack
// where the message does not tell the promotion's state yet. A report that
// is late, repeated, or about another digest changes nothing. It returns
// ErrInProgress while another is telling Slack, ErrUnknown where there is
// no such promotion.
func (l *Ledger) Report(ctx context.Context, rep Report) (Telling, error) {
	return l.tell(ctx, rep.ID, func(r *record, now time.Time) (*record, State, error) {
		if r == nil {
			return nil, "", ErrUnknown
		}
		if r.accepts(rep) {
			r.set(rep.State, now)
			r.Reason = ""
			if rep.State == Failed {
				r.Reason = "pipeline_failed"
			}
			r.PipelineURL = cmp.Or(rep.PipelineURL, r.PipelineURL)
		}
		if r.State == Claimed || r.State == Triggered {
			return r, r.Message.Tells, nil // of these nothing is told
		}
		return r, r.State, nil
	})
}

// accepts tells whether a report moves a promotion on. A failed one may still
// succeed, for jobs are retried by hand; what succeeded stays so. One that was
// taken over turns out to have a pipeline.
func (r *record) accepts(rep Report) bool {
	if rep.Digest != "" && r.Digest != "" && rep.Digest != r.Digest {
		return false
	}
	switch rep.State {
	case Running, Failed:
		return !r.State.Done() || r.State == Failed && r.Reason == takenOver
	case Promoted, Skipped:
		return !r.State.Done() || r.State == Failed
	}
	return false
}

// Bury records that the push of a dead letter will not be promoted, and takes
// the lease to tell Slack where it was not told. A letter of before the
// promotion's last claim changes nothing: it was replayed, and that counts. It
// returns ErrInProgress while another is at the promotion or telling Slack.
func (l *Ledger) Bury(ctx context.Context, letter Letter) (Telling, error) {
	return l.tell(ctx, letter.ID, func(r *record, now time.Time) (*record, State, error) {
		diedAt := letter.QueuedAt
		if diedAt.IsZero() {
			diedAt = now
		}
		switch {
		case r == nil:
			r = &record{Promotion: Promotion{Push: letter.Push, CreatedAt: now}, ExpiresAt: now.Add(Retention)}
		case r.State != Failed && (r.State != Claimed || diedAt.Before(r.ClaimedAt)):
			return r, r.Message.Tells, nil
		case r.State == Claimed && letter.Reason == "" && now.Before(r.LeaseEnds):
			return nil, "", ErrInProgress
		}
		if r.State != Failed {
			r.Uncertain = r.Uncertain || letter.Reason == "" && r.abandoned()
			r.set(Failed, diedAt)
			r.Reason = cmp.Or(letter.Reason, r.Reason)
		}
		return r, Failed, nil
	})
}

// Silent returns up to limit promotions that are under way, have reported
// nothing for the given time, and are not told of as silent.
func (l *Ledger) Silent(ctx context.Context, after time.Duration, limit int) (ids []string, err error) {
	return l.open(ctx, time.Now().Add(-after), limit)
}

// ReportSilence takes the lease to tell Slack that a promotion has reported
// nothing for the given time, if that is so.
func (l *Ledger) ReportSilence(ctx context.Context, id string, after time.Duration) (Telling, error) {
	return l.tell(ctx, id, func(r *record, now time.Time) (*record, State, error) {
		switch {
		case r == nil:
			return nil, "", ErrUnknown
		case r.OpenSince.IsZero() || now.Before(r.OpenSince.Add(after)):
			return r, r.Message.Tells, nil
		}
		return r, Silent, nil
	})
}

// tell lets f change a promotion and say what Slack is to be told of it, and
// takes the lease to tell where it was told something else.
func (l *Ledger) tell(ctx context.Context, id string, f func(*record, time.Time) (*record, State, error)) (Telling, error) {
	var (
		telling    Telling
		inProgress bool
	)
	err := l.update(ctx, func(tx transaction) error {
		found, err := tx.promotions(id)
		if err != nil {
			return err
		}
		var before *record
		if found[0] != nil {
			was := *found[0]
			before = &was
		}
		now := tx.now()
		r, what, err := f(found[0], now)
		if err != nil {
			return err
		}
		telling = Telling{Tell: what, Needed: r.Message.Tells != what}
		inProgress = telling.Needed && now.Before(r.TellEnds)
		if telling.Needed && !inProgress {
			r.TellToken++
			r.TellEnds = now.Add(TellLease)
		}
		telling.Promotion, telling.token = r.Promotion, r.TellToken
		if before != nil && *r == *before {
			return nil
		}
		tx.put(r)
		return nil
	})
	if err == nil && inProgress {
		err = ErrInProgress // what f changed stays so
	}
	if err != nil {
		return Telling{}, err
	}
	return telling, nil
}

// Told records which message there is and what it tells, and gives back
// the lease. Where Slack could not be told that is what it was before.
func (l *Ledger) Told(ctx context.Context, t Telling, m Message) error {
	return l.update(ctx, func(tx transaction) error {
		found, err := tx.promotions(t.Promotion.ID)
		if err != nil {
			return err
		}
		r := found[0]
		if r == nil || r.TellToken != t.token {
			return ErrStale
		}
		r.Message, r.TellEnds = m, time.Time{}
		if m.Tells == Silent {
			r.OpenSince = time.Time{}
		}
		tx.put(r)
		return nil
	})
}

// Get returns a promotion, or ErrUnknown.
func (l *Ledger) Get(ctx context.Context, id string) (Promotion, error) {
	r, err := l.get(ctx, id)
	switch {
	case err != nil:
		return Promotion{}, err
	case r == nil:
		return Promotion{}, ErrUnknown
	}
	return r.Promotion, nil
}

// All returns every promotion, the newest first.
func (l *Ledger) All(ctx context.Context) iter.Seq2[Promotion, error] {
	return func(yield func(Promotion, error) bool) {
		for r, err := range l.all(ctx) {
			if err != nil {
				yield(Promotion{}, err)
				return
			}
			if !yield(r.Promotion, nil) {
				return
			}
		}
	}
}

// key names what there is one current promotion of.
func (p Push) key() string {
	if p.PerDelivery {
		return "delivery " + p.ID
	}
	return strings.Join([]string{p.Route, p.Repository, p.Tag}, " ")
}
