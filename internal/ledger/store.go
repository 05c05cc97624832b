package ledger

import (
	"context"
	"errors"
	"iter"
	"time"
)

// ErrConflict says that a document is not what it was when it was read.
var ErrConflict = errors.New("somebody else has changed the record")

// Store keeps documents, and knows nothing of what they mean. It is safe for
// concurrent use, from several processes where they share it.
type Store interface {
	// Tags returns the records of keys, by their IDs, nil for each that is not
	// there, and the store's time, on which all who share it agree.
	Tags(ctx context.Context, ids ...string) ([]*Tag, time.Time, error)
	// Promotions does so for promotions.
	Promotions(ctx context.Context, ids ...string) ([]*Promotion, time.Time, error)
	// Progress returns how far reconcile has come, or nil, and the store's time.
	Progress(context.Context) (*Progress, time.Time, error)
	// Repository returns what is known of one, or nil.
	Repository(ctx context.Context, name string) (*Repository, error)
	// Commit writes all documents or none. Each that was read must be what it
	// was then, and each that was not must not be there; else it returns
	// ErrConflict. After another error they may have been written.
	Commit(context.Context, Batch) error

	// Due returns the promotions whose DueAt is not after t, the oldest first.
	Due(ctx context.Context, t time.Time, limit int) ([]*Promotion, error)
	// Unheard returns the promotions whose AskAt is not after t, the oldest first.
	Unheard(ctx context.Context, t time.Time, limit int) ([]*Promotion, error)
	// Overdue returns the records whose LookBy is not after t, the oldest first.
	Overdue(ctx context.Context, t time.Time, limit int) ([]*Tag, error)
	// OfPipeline returns the ID of the promotion that has the pipeline, as
	// PROJECT_ID/PIPELINE_ID, or "".
	OfPipeline(ctx context.Context, pipeline string) (string, error)
	// All returns every promotion, the newest first.
	All(ctx context.Context) iter.Seq2[*Promotion, error]
}

// Batch is what is written at once.
type Batch struct {
	Tags         []*Tag
	Promotions   []*Promotion
	Repositories []*Repository
	Progress     *Progress // nil where it is not written
}
