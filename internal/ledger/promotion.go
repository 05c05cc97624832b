package ledger

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Retention is how long a promotion is kept after it has ended, is shown, and
// is no longer the current one of its tag.
const Retention = 90 * 24 * time.Hour

// State is the state of a promotion. docs/architecture.md has the table of who
// sets which, and for which others each is left.
type State string

// The states, in their usual order.
const (
	Waiting    State = "waiting"    // a message will look again
	Starting   State = "starting"   // claimed: the request to GitLab may be in progress, or its answer was lost
	Triggered  State = "triggered"  // GitLab has created the pipeline
	Running    State = "running"    // the pipeline has reported that it runs
	Promoted   State = "promoted"   // the image is signed, and the moving tag is as it should be
	Skipped    State = "skipped"    // there was nothing to do
	Superseded State = "superseded" // the tag is another image, or gone
	Failed     State = "failed"     // the pipeline failed, was canceled, or was silent for too long
	Dead       State = "dead"       // no pipeline is known, and none will come without help
)

// States are all of them, in their order.
var States = []State{Waiting, Starting, Triggered, Running, Promoted, Skipped, Superseded, Failed, Dead}

// Ended reports whether nothing more will happen without help.
func (s State) Ended() bool {
	return slices.Contains([]State{Promoted, Skipped, Superseded, Failed, Dead}, s)
}

// Setter is who set a state.
type Setter string

// The setters.
const (
	ByTrigger   Setter = "trigger"
	ByPipeline  Setter = "pipeline" // it reported to Notify
	ByNotify    Setter = "notify"   // a dead letter came
	ByClock     Setter = "clock"
	ByReconcile Setter = "reconcile"
)

// Reasons that this package sets. Others come from the registry and GitLab.
const (
	Duplicate     = "duplicate"        // another promotion has promoted the image, or is doing so
	Unwanted      = "unwanted"         // the current routes do not promote the image
	PromotionLoop = "promotion_loop"   // each promotion of the tag starts the next
	PipelineFail  = "pipeline_failed"  // the pipeline said so, or GitLab
	Canceled      = "canceled"         // GitLab said so
	Unreported    = "unreported"       // the promotion succeeded without a report
	NoJob         = "no_promotion_job" // the pipeline has no job that promotes
	Silence       = "silent"           // the pipeline has not reported for long
)

// Event is what a record is about.
type Event string

// The events.
const (
	Promote Event = "promote"
	Release Event = "release"
	Deploy  Event = "deploy"
	// Registration is about a webhook that Docker Hub has never called.
	Registration Event = "registration"
)

// Key names a tag, or under once_per: delivery one webhook's record of it.
type Key struct {
	Repository string `firestore:"repository"`
	Tag        string `firestore:"tag"`
	Delivery   string `firestore:"delivery,omitempty"` // "" for the tag itself
}

// WebhookKey names the record of one webhook. It stays the same when its
// message is queued again.
func WebhookKey(repository, tag, id string, received time.Time) Key {
	return Key{Repository: repository, Tag: tag, Delivery: id + "@" + strconv.FormatInt(received.UnixMilli(), 10)}
}

// ID is the name of the key's document.
func (k Key) ID() string {
	// Neither a repository nor a tag has a colon.
	id := repositoryID(k.Repository) + ":" + k.Tag
	if k.Delivery != "" {
		id += ":" + k.Delivery
	}
	return id
}

// repositoryID writes the name of a repository as that of a document, which has
// no slash.
func repositoryID(name string) string { return strings.ReplaceAll(name, "/", "~") }

// Group is the key of the tag itself.
func (k Key) Group() Key { return Key{Repository: k.Repository, Tag: k.Tag} }

// Message is what the ledger needs to know of a message in Pub/Sub. Its
// identity is ID and QueuedAt: two webhooks within a second share an ID.
type Message struct {
	ID         string    `firestore:"id"`
	QueuedAt   time.Time `firestore:"queued_at"`   // by Pub/Sub
	PushedAt   time.Time `firestore:"pushed_at"`   // by Docker Hub; zero if it does not say
	ReceivedAt time.Time `firestore:"received_at"` // by Webhook
	ReplayedAt time.Time `firestore:"replayed_at"` // zero if it is not a replay
	Reconcile  bool      `firestore:"reconcile"`   // reconcile queued it, not Docker Hub
}

// is reports whether both are the same message. It compares milliseconds,
// because attributes of dead letters have no more.
func (m Message) is(other Message) bool {
	return m.ID == other.ID && m.QueuedAt.Truncate(time.Millisecond).Equal(other.QueuedAt.Truncate(time.Millisecond))
}

// revives reports whether the message is a replay and the promotion is dead. A
// new promotion then takes over the dead one's message in Slack.
func (m Message) revives(p *Promotion) bool {
	return !m.ReplayedAt.IsZero() && p != nil && p.State == Dead
}

// pushed is when the image was pushed, as far as that is known. If reconcile or
// a person has queued the message, the time of queueing says nothing about the
// push.
func (m Message) pushed() time.Time {
	queued := m.QueuedAt
	if m.Reconcile || !m.ReplayedAt.IsZero() {
		queued = m.ReceivedAt
	}
	if m.PushedAt.IsZero() || !queued.IsZero() && m.PushedAt.After(queued) {
		return queued
	}
	return m.PushedAt
}

// Promotion is one image under one tag, once.
type Promotion struct {
	ID    string `firestore:"id"` // the promotion_id: 32 hex digits
	Event Event  `firestore:"event"`
	// Note means that it is not a promotion, but a release, a deploy, or a
	// report about something unknown, which is only shown in Slack.
	Note bool `firestore:"note"`
	Key  `firestore:"key"`
	// Digest is settled once the promotion is Starting. Before that it is "".
	Digest string `firestore:"digest"`
	Route  string `firestore:"route"` // key of the route, when the promotion began

	State  State  `firestore:"state"`
	By     Setter `firestore:"by"`
	Reason string `firestore:"reason"`
	Hint   string `firestore:"hint"`  // for people: what to fix
	Words  string `firestore:"words"` // GitLab's own

	Message   Message   `firestore:"message"` // the one that began it, or claimed it last
	CreatedAt time.Time `firestore:"created_at"`
	UpdatedAt time.Time `firestore:"updated_at"` // of the state
	// Current means that it is the newest of its tag.
	Current bool `firestore:"current"`

	Attempts     int       `firestore:"attempts"`     // after which Pub/Sub gave up; 0 if it did not
	Requests     int       `firestore:"requests"`     // to create a pipeline
	Unrecognized int       `firestore:"unrecognized"` // refusals of GitLab in unknown words
	Lost         bool      `firestore:"lost"`         // an answer was lost: there may be an unknown pipeline
	Token        int64     `firestore:"token"`        // the fencing token: each claim has a higher one
	LeaseEnds    time.Time `firestore:"lease_ends"`

	ProjectID   string   `firestore:"project_id"` // of GitLab; "" until it is known
	Pipelines   []string `firestore:"pipelines"`  // its own, as PROJECT_ID/PIPELINE_ID
	PipelineURL string   `firestore:"pipeline_url"`

	// Subscription is where the promotion's dead letter came from.
	Subscription string `firestore:"subscription"`

	// The other fields of a report.
	Text    string `firestore:"text"`
	Version string `firestore:"version"`
	Project string `firestore:"project"` // path of the project that reports a release or a deploy

	Outbox `firestore:"outbox"`

	DueAt     time.Time `firestore:"due_at"`     // when the clock must look at it; zero: never
	ExpiresAt time.Time `firestore:"expires_at"` // zero: never

	version int64
}

// Tag is the record of one tag, or of one webhook where the route says
// once_per: delivery.
type Tag struct {
	Key `firestore:"key"`
	// Changes counts the changes of the record and of its promotions' states.
	// It makes every write a change, because Firestore ignores a write that
	// changes nothing.
	Changes int64 `firestore:"changes"`

	Settled string `firestore:"settled"` // the newest promotion whose digest is settled, or that died
	Pending string `firestore:"pending"` // a promotion that waits for its digest
	// Digest is that of the newest promotion of the tag, in any of its records.
	// Only the tag's own record has it.
	Digest string `firestore:"digest"`

	// Waiting is the message that was queued last of those that have to wait.
	Waiting  Message   `firestore:"waiting"`
	LookedAt time.Time `firestore:"looked_at"` // what was pushed by then was covered by a look
	DiedAt   time.Time `firestore:"died_at"`
	LookBy   time.Time `firestore:"look_by"` // by when the tag must be looked at again; zero: never
	Look     Message   `firestore:"look"`    // the message with which to queue it then

	// Row counts the promotions in a row, each of which began within loopWindow
	// of the last one's end. Only the tag's own record has it.
	Row     int       `firestore:"row"`
	EndedAt time.Time `firestore:"ended_at"` // when a promotion of the tag ended last
	RowOpen bool      `firestore:"row_open"` // none has ended since the last one began

	ExpiresAt time.Time `firestore:"expires_at"` // of a webhook's record; zero: never
	version   int64
}

// Repository is what is known of all tags of a repository.
type Repository struct {
	Name    string    `firestore:"name"`
	EndedAt time.Time `firestore:"ended_at"` // when one of its promotions ended last
	// Webhook means that Docker Hub has called for the repository. Found counts
	// the pushes that were found without a webhook. Told means that Slack must
	// show it.
	Webhook bool `firestore:"webhook"`
	Found   int  `firestore:"found"`
	Told    bool `firestore:"told"`

	version int64
}

// underWay reports whether there is a known pipeline that has not reported its
// end.
func (p *Promotion) underWay() bool { return !p.Note && (p.State == Triggered || p.State == Running) }

// leased reports whether a claim is valid, so that a request to GitLab may be
// in progress.
func (p *Promotion) leased(now time.Time) bool {
	return (p.State == Starting || p.State == Waiting) && now.Before(p.LeaseEnds)
}

// retried reports whether the promotion has no pipeline yet, and a message may
// still start one.
func (p *Promotion) retried() bool { return p.State == Waiting || p.State == Starting }

// set changes the state, and counts the changes that people must see. While a
// promotion is Starting, it keeps the reason for which it waited.
func (p *Promotion) set(s State, by Setter, reason, hint, words string, now time.Time) {
	again := p.State == Starting && s == Waiting // it continues to wait
	changed := p.State != s && !again || p.Reason != reason || p.Hint != hint || p.Words != words
	replied, seen := p.Replied == p.Revision, p.visible() || again
	if p.State != s {
		p.UpdatedAt = now
		if s != Waiting && s != Starting {
			p.WaitsSince, p.ToldWaiting = time.Time{}, false
		}
		p.SilentSince, p.JobWaits, p.ToldJob = time.Time{}, "", false
	}
	waited := p.State == Waiting || again
	p.State, p.By = s, by
	if s == Starting {
		return
	}
	p.Reason, p.Hint, p.Words = reason, hint, words
	if s == Waiting && p.WaitsSince.IsZero() {
		p.WaitsSince = now
	}
	if p.visible() && (changed || !seen) {
		p.Revision++
		if waited && s == Waiting && replied { // people have already been asked to look
			p.Replied = p.Revision
		}
	}
}

// own records that a pipeline belongs to the promotion.
func (p *Promotion) own(projectID, pipelineID int64) {
	if projectID != 0 && p.ProjectID == "" {
		p.ProjectID = strconv.FormatInt(projectID, 10)
	}
	if projectID == 0 || pipelineID == 0 {
		return
	}
	name := pipelineName(strconv.FormatInt(projectID, 10), strconv.FormatInt(pipelineID, 10))
	if !slices.Contains(p.Pipelines, name) && len(p.Pipelines) < maxPipelines {
		p.Pipelines = append(slices.Clip(p.Pipelines), name)
	}
}

// maxPipelines bounds the pipelines that a promotion records.
const maxPipelines = 20

func pipelineName(projectID, pipelineID string) string { return projectID + "/" + pipelineID }

// expire sets when the promotion may be deleted.
func (p *Promotion) expire() {
	p.ExpiresAt = time.Time{}
	if !p.Current && (p.State.Ended() || p.Note) && !p.Behind() {
		p.ExpiresAt = p.UpdatedAt.Add(Retention)
	}
}
