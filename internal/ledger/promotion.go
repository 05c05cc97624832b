package ledger

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Retention is how long a promotion is remembered once it has ended, is shown,
// and is no longer its tag's current one.
const Retention = 90 * 24 * time.Hour

// State is how far a promotion has come. docs/architecture.md has the table of
// who sets which, and what for each is left.
type State string

// The states, in their usual order.
const (
	Waiting    State = "waiting"    // a message is committed to look again
	Starting   State = "starting"   // claimed: the request to GitLab may be under way, or its answer was lost
	Triggered  State = "triggered"  // GitLab has created the pipeline
	Running    State = "running"    // the pipeline has reported that it runs
	Promoted   State = "promoted"   // the image is signed, and the moving tag is where it belongs
	Skipped    State = "skipped"    // there was nothing to do
	Superseded State = "superseded" // the tag is another image, or gone
	Failed     State = "failed"     // the pipeline failed, was canceled, or fell silent for good
	Dead       State = "dead"       // no pipeline is known, and none will come by itself
)

// States are all of them, in their order.
var States = []State{Waiting, Starting, Triggered, Running, Promoted, Skipped, Superseded, Failed, Dead}

// Ended tells whether nothing more is expected by itself.
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

// Reasons that are made here. Others are the registry's and GitLab's.
const (
	Duplicate     = "duplicate"        // the image was promoted, or is being so, by another promotion
	Unwanted      = "unwanted"         // by the routes of now the image is not promoted
	PromotionLoop = "promotion_loop"   // each promotion of the tag brings about the next
	PipelineFail  = "pipeline_failed"  // the pipeline said so, or GitLab
	Canceled      = "canceled"         // GitLab said so
	Unreported    = "unreported"       // the promotion succeeded, and did not say so
	NoJob         = "no_promotion_job" // the pipeline has no job that promotes
	Silence       = "silent"           // the pipeline has said nothing for long
)

// Event is what a record is about.
type Event string

// The events.
const (
	Promote Event = "promote"
	Release Event = "release"
	Deploy  Event = "deploy"
	// Registration is news of a webhook that Docker Hub has never called.
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

// Message is what the ledger is to know of a message in Pub/Sub. Its identity
// is ID and QueuedAt: two webhooks within a second share an ID.
type Message struct {
	ID         string    `firestore:"id"`
	QueuedAt   time.Time `firestore:"queued_at"`   // by Pub/Sub
	PushedAt   time.Time `firestore:"pushed_at"`   // by Docker Hub; zero where it does not say
	ReceivedAt time.Time `firestore:"received_at"` // by Webhook
	ReplayedAt time.Time `firestore:"replayed_at"` // zero for what is no replay
	Reconcile  bool      `firestore:"reconcile"`   // reconcile queued it, not Docker Hub
}

// is tells whether two are the same message. Attributes of dead letters have
// milliseconds.
func (m Message) is(other Message) bool {
	return m.ID == other.ID && m.QueuedAt.Truncate(time.Millisecond).Equal(other.QueuedAt.Truncate(time.Millisecond))
}

// revives tells whether the message is a replay, and the promotion dead: a new
// promotion then goes on with the dead one's message in Slack.
func (m Message) revives(p *Promotion) bool {
	return !m.ReplayedAt.IsZero() && p != nil && p.State == Dead
}

// pushed is when the image was pushed, as far as is known. What reconcile or a
// person has queued again says nothing of a push by the time of its queueing.
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
	// Note says that it is no promotion: a release, a deploy, or a report of
	// what the ledger does not know, of which only Slack is told.
	Note bool `firestore:"note"`
	Key  `firestore:"key"`
	// Digest is settled once the promotion is Starting. Before that it is "".
	Digest string `firestore:"digest"`
	Route  string `firestore:"route"` // key of the route, when the promotion began

	State  State  `firestore:"state"`
	By     Setter `firestore:"by"`
	Reason string `firestore:"reason"`
	Hint   string `firestore:"hint"`  // for people: what to mend
	Words  string `firestore:"words"` // GitLab's own

	Message   Message   `firestore:"message"` // that began it, or claimed it last
	CreatedAt time.Time `firestore:"created_at"`
	UpdatedAt time.Time `firestore:"updated_at"` // of the state
	// Current says that it is the newest of its tag.
	Current bool `firestore:"current"`

	Attempts     int       `firestore:"attempts"`     // after which Pub/Sub gave up; 0 where it did not
	Requests     int       `firestore:"requests"`     // to create a pipeline
	Unrecognized int       `firestore:"unrecognized"` // refusals of GitLab in words that are not known
	Lost         bool      `firestore:"lost"`         // an answer was lost: there may be a pipeline of which nobody knows
	Token        int64     `firestore:"token"`        // the fencing token: each claim has a higher one
	LeaseEnds    time.Time `firestore:"lease_ends"`

	ProjectID   string   `firestore:"project_id"` // of GitLab; "" until it is known
	Pipelines   []string `firestore:"pipelines"`  // its own, as PROJECT_ID/PIPELINE_ID
	PipelineURL string   `firestore:"pipeline_url"`

	// Subscription is the one from which the promotion's dead letter came.
	Subscription string `firestore:"subscription"`

	// What a report says beside its status.
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
	// Changes counts the changes of the record and of its promotions' states:
	// Firestore takes a write that changes nothing for none.
	Changes int64 `firestore:"changes"`

	Settled string `firestore:"settled"` // the newest promotion whose digest is settled, or that died
	Pending string `firestore:"pending"` // a promotion that waits for its digest
	// Digest is that of the newest promotion under the tag, in whichever record
	// that is; it stands in the tag's own.
	Digest string `firestore:"digest"`

	// Waiting is the message that was queued last of those that have to wait.
	Waiting  Message   `firestore:"waiting"`
	LookedAt time.Time `firestore:"looked_at"` // when the record was read for the last look at what was pushed by then
	DiedAt   time.Time `firestore:"died_at"`
	LookBy   time.Time `firestore:"look_by"` // when somebody must have looked again; zero: never
	Look     Message   `firestore:"look"`    // by which to queue the tag then

	// Row counts the promotions in a row, each of which began within loopWindow
	// of the last one's end. It stands in the tag's own record.
	Row     int       `firestore:"row"`
	EndedAt time.Time `firestore:"ended_at"` // when a promotion of the tag ended last
	RowOpen bool      `firestore:"row_open"` // none has ended since the last one began

	ExpiresAt time.Time `firestore:"expires_at"` // of a webhook's record; zero: never
	version   int64
}

// Repository is what is known of all tags of one.
type Repository struct {
	Name    string    `firestore:"name"`
	EndedAt time.Time `firestore:"ended_at"` // when one of its promotions ended last
	// Webhook says that Docker Hub has told of a push, Found how many pushes
	// were found of which it had not, and Told that people are to hear of it.
	Webhook bool `firestore:"webhook"`
	Found   int  `firestore:"found"`
	Told    bool `firestore:"told"`

	version int64
}

// underWay tells whether a pipeline is known that has not reported its end.
func (p *Promotion) underWay() bool { return !p.Note && (p.State == Triggered || p.State == Running) }

// leased tells whether somebody may be asking GitLab for a pipeline.
func (p *Promotion) leased(now time.Time) bool {
	return (p.State == Starting || p.State == Waiting) && now.Before(p.LeaseEnds)
}

// retried tells whether the promotion has no pipeline yet, and some message
// may still get it one.
func (p *Promotion) retried() bool { return p.State == Waiting || p.State == Starting }

// set changes the state, and counts what people must hear of. While a promotion
// is Starting it keeps the reason for which it waited.
func (p *Promotion) set(s State, by Setter, reason, hint, words string, now time.Time) {
	again := p.State == Starting && s == Waiting // it waits on
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
		if waited && s == Waiting && replied { // people were asked to look already
			p.Replied = p.Revision
		}
	}
}

// own makes a pipeline one of the promotion's own.
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

// maxPipelines bounds the pipelines that one promotion knows.
const maxPipelines = 20

func pipelineName(projectID, pipelineID string) string { return projectID + "/" + pipelineID }

// expire sets when the promotion may be forgotten.
func (p *Promotion) expire() {
	p.ExpiresAt = time.Time{}
	if !p.Current && (p.State.Ended() || p.Note) && !p.Behind() {
		p.ExpiresAt = p.UpdatedAt.Add(Retention)
	}
}
