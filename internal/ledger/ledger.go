// Package ledger is the record of promotions: which image is on its way to be
// signed, since when, and how it went. It is what makes one push one pipeline.
//
// Trigger claims a promotion before it creates a pipeline. Notify brings it up
// to date when the pipeline reports, and keeps the one Slack message of it.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Lease is how long a claim keeps others away. It is longer than Trigger takes
// for a push, so that it runs out only when the claimant is gone.
const Lease = time.Minute

// TellLease is how long one caller may take to tell Slack.
const TellLease = 30 * time.Second

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

// Done tells whether nothing more is expected of the promotion itself.
func (s State) Done() bool { return s == Promoted || s == Skipped || s == Failed }

// Push is what a claim is made for.
type Push struct {
	ID         string // of the delivery
	Route      string // its key
	Repository string
	Tag        string
	Digest     string // "" where it is not known
	// PerDelivery makes every delivery a promotion of its own. Otherwise there
	// is one current promotion for each route, repository and tag, and a push
	// that finds its digest under way or done is a duplicate.
	PerDelivery bool
	// QueuedAt is when the push was queued, or queued again; zero means now.
	QueuedAt time.Time
}

// Promotion is the record of one image on its way.
type Promotion struct {
	Push
	State       State
	Attempts    int    // claims so far
	Reason      string // why it was released, skipped or failed at last
	PipelineURL string
	Message     Message
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Message names the Slack message that tells of a promotion, and what it tells.
type Message struct {
	Channel, TS string
	Tells       State // "" where nothing was told yet
}

// Claim is the right to start a promotion, until its lease runs out.
type Claim struct {
	ID    string
	token int64 // the fencing token: a later claim has another
}

// Report is what a pipeline says of a promotion.
type Report struct {
	ID          string
	Digest      string // "" where it does not say
	State       State  // Running, Promoted, Skipped or Failed
	PipelineURL string
}

// Telling is the right to tell Slack of a promotion, until its lease runs out.
type Telling struct {
	Promotion Promotion
	// Needed is false where Slack was told of the promotion's state already.
	Needed bool
	token  int64
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

// Ledger keeps promotions. Every method is atomic and safe for concurrent use,
// from several processes where the ledger is shared by them.
type Ledger interface {
	// Claim starts a promotion, or takes over one that fell silent, whose lease
	// ran out, or that failed before the push was queued. It returns
	// ErrDuplicate or ErrInProgress where there is nothing to start.
	Claim(context.Context, Push) (Claim, error)
	// Triggered records the pipeline that the claimant created.
	Triggered(ctx context.Context, c Claim, pipelineURL string) error
	// Release gives up a claim: whoever claims next may start at once.
	Release(ctx context.Context, c Claim, reason string) error
	// Settle ends a claim without a pipeline, as Skipped or Failed.
	Settle(ctx context.Context, c Claim, s State, reason string) error

	// Report brings a promotion up to date, and takes the lease to tell Slack
	// where the message does not tell the promotion's state yet. A report that
	// is late, repeated, or about another digest changes nothing. It returns
	// ErrInProgress while another is telling Slack, ErrUnknown where there is
	// no such promotion.
	Report(context.Context, Report) (Telling, error)
	// Told records which message there is and what it tells, and gives back
	// the lease. Where Slack could not be told that is what it was before.
	Told(context.Context, Telling, Message) error
	// Get returns a promotion, or ErrUnknown.
	Get(ctx context.Context, id string) (Promotion, error)
}

// Open returns the ledger that a LEDGER setting names. It asks nobody
// anything: a ledger that is away is found out when it is used.
func Open(name string) (Ledger, error) {
	scheme, rest, _ := strings.Cut(name, ":")
	switch scheme {
	case "memory":
		return sharedMemory(rest), nil
	default:
		return nil, fmt.Errorf("%.50q is not a ledger: write memory:NAME", name)
	}
}

// key names what there is one current promotion of.
func (p Push) key() string {
	if p.PerDelivery {
		return "delivery " + p.ID
	}
	return strings.Join([]string{p.Route, p.Repository, p.Tag}, " ")
}

// accepts tells whether a report moves a promotion on. A failed one may still
// succeed, for jobs are retried by hand; what succeeded stays so.
func (p Promotion) accepts(r Report) bool {
	if r.Digest != "" && p.Digest != "" && r.Digest != p.Digest {
		return false
	}
	switch r.State {
	case Running, Failed:
		return !p.State.Done()
	case Promoted, Skipped:
		return !p.State.Done() || p.State == Failed
	}
	return false
}

// claimable says whether a push may start a promotion that is there already.
func (p Promotion) claimable(by Push, now, leaseEnds time.Time) error {
	switch p.State {
	case Claimed:
		if now.Before(leaseEnds) {
			return ErrInProgress
		}
	case Triggered, Running:
		if now.Before(p.UpdatedAt.Add(Silence)) {
			return ErrDuplicate
		}
	case Promoted, Skipped:
		return ErrDuplicate
	case Failed:
		// A push that waited while the promotion was under way is one of those
		// that it was started for, and no new attempt.
		if !by.QueuedAt.IsZero() && by.QueuedAt.Before(p.UpdatedAt) {
			return ErrDuplicate
		}
	}
	return nil
}
