package ledger

import (
	"context"
	"errors"
	"iter"
	"time"
)

// ErrConflict means that a document has changed since it was read.
var ErrConflict = errors.New("somebody else has changed the record")

// Store keeps documents, and does not interpret them. It is safe for concurrent
// use, also by several processes that share it.
type Store interface {
	// Tags returns the records with these IDs, nil for each that is not there,
	// and the store's time, which is the same for everyone who shares the
	// store.
	Tags(ctx context.Context, ids ...string) ([]*Tag, time.Time, error)
	// Promotions does the same for promotions.
	Promotions(ctx context.Context, ids ...string) ([]*Promotion, time.Time, error)
	// Progress returns reconcile's progress, or nil, and the store's time.
	Progress(context.Context) (*Progress, time.Time, error)
	// Repository returns the record of a repository, or nil.
	Repository(ctx context.Context, name string) (*Repository, error)
	// Commit writes all documents or none. A document that was read must not
	// have changed since then, and one that was not read must not exist;
	// otherwise it returns ErrConflict. After any other error they may have
	// been written.
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

// Batch is what is written together.
type Batch struct {
	Tags         []*Tag
	Promotions   []*Promotion
	Repositories []*Repository
	Progress     *Progress // nil if it is not written
}
