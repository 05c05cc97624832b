package sandbox

import (
	"encoding/json"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// Row is a promotion in a list.
type Row struct {
	ID          string       `json:"id"`
	Image       string       `json:"image"`
	Digest      string       `json:"digest,omitempty"`
	Route       string       `json:"route,omitempty"`
	State       ledger.State `json:"state"`
	Reason      string       `json:"reason,omitempty"`
	Hint        string       `json:"hint,omitempty"`
	PipelineURL string       `json:"pipeline_url,omitempty"`
	CreatedAt   time.Time    `json:"created_at"`
	UpdatedAt   time.Time    `json:"updated_at"` // of the state
	Deliveries  int          `json:"deliveries"` // of messages that were about it
	Shown       bool         `json:"shown"`      // Slack shows what it is to show
	Silent      bool         `json:"silent,omitempty"`
	Revision    int64        `json:"revision"` // rises with each change of any row
}

// Query says which rows are asked for.
type Query struct {
	Text   string         // a part of the image, the id, the route or the reason
	States []ledger.State // none: all
	Since  int64          // only those that changed after this revision
	Offset int
	Limit  int // 50 where it is 0, 500 at most
}

// Story is all that is known of one promotion.
type Story struct {
	Row
	Promotion ledger.Promotion    `json:"promotion"`
	Hints     []Hint              `json:"hints"`    // every message that was about it, oldest first
	Bars      []Bar               `json:"bars"`     // in the order of their beginnings
	Events    []Event             `json:"events"`   // those that are remembered
	Inputs    map[string]string   `json:"inputs"`   // of the pipeline
	Messages  []slacktest.Message `json:"messages"` // in Slack: the message and its thread
	Curl      []string            `json:"curl"`     // commands that do the like again
}

// Hint is a message of Pub/Sub that had somebody look at the tag.
type Hint struct {
	MessageID  string            `json:"message_id"` // of Pub/Sub
	ID         string            `json:"id"`         // of the push
	Source     string            `json:"source"`     // webhook, reconcile or replay
	Data       json.RawMessage   `json:"data"`
	Attributes map[string]string `json:"attributes"`
	QueuedAt   time.Time         `json:"queued_at"`
	Attempts   int               `json:"attempts"`
	Outcome    string            `json:"outcome,omitempty"` // of the last attempt: triggered, ignored, retry or dead
	Reason     string            `json:"reason,omitempty"`
	NextAt     time.Time         `json:"next_at,omitzero"` // of the next attempt, where it waits for one
}

// Bar is a stretch of time in a story.
type Bar struct {
	Stage   Stage     `json:"stage"`
	Label   string    `json:"label"`
	Start   time.Time `json:"start"`
	End     time.Time `json:"end,omitzero"` // zero: it goes on
	Bad     bool      `json:"bad,omitempty"`
	EventID int64     `json:"event_id,omitempty"`
}

// Rows returns promotions, the newest first, and how many there are of the kind
// that is asked for.
func (s *Sandbox) Rows(q Query) (rows []Row, total int, err error) { return nil, 0, nil }

// Revision is the highest one of any row.
func (s *Sandbox) Revision() int64 { return 0 }

// Story returns all that is known of a promotion, false where it is not known.
func (s *Sandbox) Story(id string) (Story, bool, error) { return Story{}, false, nil }
