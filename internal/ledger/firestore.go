package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The collections. terraform/ledger.tf knows their names, and gives the first
// two a TTL policy on the field expires_at.
const (
	promotionsCollection   = "promotions"   // by promotion_id
	tagsCollection         = "tags"         // by Key.ID
	repositoriesCollection = "repositories" // by name, its slash written as ~
	reconcileCollection    = "reconcile"    // progressID alone
)

const progressID = "docker-hub"

// Firestore keeps documents in a Firestore database. The time is Firestore's,
// so the clocks of its clients do not matter.
//
// A change reads without locks, and writes on condition that the documents that
// it writes have not changed since they were read. With locks, six webhooks
// would wait for each other and then abort.
type Firestore struct{ client *firestore.Client }

// document is the form of all documents: the record, and the fields that are
// searched. Zero values are left out.
type document[T any] struct {
	Record    T         `firestore:"record"`
	CreatedAt time.Time `firestore:"created_at,omitempty"`
	DueAt     time.Time `firestore:"due_at,omitempty"`
	AskAt     time.Time `firestore:"ask_at,omitempty"`
	LookBy    time.Time `firestore:"look_by,omitempty"`
	Pipelines []string  `firestore:"pipelines,omitempty"`
	ExpiresAt time.Time `firestore:"expires_at,omitempty"`
}

// fields are the updates of a document: a field that is zero is deleted.
func (d document[T]) fields() []firestore.Update {
	updates := []firestore.Update{{Path: "record", Value: d.Record}}
	for _, f := range []struct {
		path  string
		value any
		zero  bool
	}{
		{"created_at", d.CreatedAt, d.CreatedAt.IsZero()},
		{"due_at", d.DueAt, d.DueAt.IsZero()},
		{"ask_at", d.AskAt, d.AskAt.IsZero()},
		{"look_by", d.LookBy, d.LookBy.IsZero()},
		{"pipelines", d.Pipelines, len(d.Pipelines) == 0},
		{"expires_at", d.ExpiresAt, d.ExpiresAt.IsZero()},
	} {
		if f.zero {
			f.value = firestore.Delete
		}
		updates = append(updates, firestore.Update{Path: f.path, Value: f.value})
	}
	return updates
}

var databaseName = regexp.MustCompile(`^projects/([a-z0-9:.-]+)/databases/([a-z0-9()-]+)$`)

// openFirestore connects when the ledger is first used. The client honours
// FIRESTORE_EMULATOR_HOST.
func openFirestore(name string, options ...option.ClientOption) (*Ledger, error) {
	m := databaseName.FindStringSubmatch(name)
	if m == nil {
		return nil, fmt.Errorf("%.100q is not the full name of a Firestore database, projects/PROJECT/databases/DATABASE", name)
	}
	client, err := firestore.NewClientWithDatabase(context.Background(), m[1], m[2], options...)
	if err != nil {
		return nil, fmt.Errorf("firestore client: %w", err)
	}
	return New(&Firestore{client}), nil
}

func (s *Firestore) doc(collection, id string) *firestore.DocumentRef {
	if id == "" {
		id = "-" // of no document; the read returns the time
	}
	return s.client.Collection(collection).Doc(id)
}

// read returns the documents of IDs, nil for each that is not there, and
// Firestore's time. If there is no ID it only asks for the time.
func read[T any](ctx context.Context, s *Firestore, collection string, ids []string, version func(*T, int64)) ([]*T, time.Time, error) {
	refs := []*firestore.DocumentRef{}
	for _, id := range ids {
		refs = append(refs, s.doc(collection, id))
	}
	if len(refs) == 0 {
		refs = append(refs, s.doc(collection, ""))
	}
	docs, err := s.client.GetAll(ctx, refs)
	if err != nil {
		return nil, time.Time{}, err
	}
	found := make([]*T, len(ids))
	for i, d := range docs[:len(ids)] {
		if !d.Exists() {
			continue
		}
		if found[i], err = decode(d, version); err != nil {
			return nil, time.Time{}, err
		}
	}
	return found, docs[0].ReadTime, nil
}

func decode[T any](doc *firestore.DocumentSnapshot, version func(*T, int64)) (*T, error) {
	var d document[T]
	if err := doc.DataTo(&d); err != nil {
		return nil, fmt.Errorf("read %s: %w", doc.Ref.Path, err)
	}
	version(&d.Record, doc.UpdateTime.UnixNano())
	return &d.Record, nil
}

func tagVersion(t *Tag, v int64)               { t.version = v }
func promotionVersion(p *Promotion, v int64)   { p.version = v }
func repositoryVersion(r *Repository, v int64) { r.version = v }

// Tags implements Store.
func (s *Firestore) Tags(ctx context.Context, ids ...string) ([]*Tag, time.Time, error) {
	return read(ctx, s, tagsCollection, ids, tagVersion)
}

// Promotions implements Store.
func (s *Firestore) Promotions(ctx context.Context, ids ...string) ([]*Promotion, time.Time, error) {
	return read(ctx, s, promotionsCollection, ids, promotionVersion)
}

// Repository implements Store.
func (s *Firestore) Repository(ctx context.Context, name string) (*Repository, error) {
	found, _, err := read(ctx, s, repositoriesCollection, []string{repositoryID(name)}, repositoryVersion)
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// Progress implements Store.
func (s *Firestore) Progress(ctx context.Context) (*Progress, time.Time, error) {
	found, now, err := read(ctx, s, reconcileCollection, []string{progressID}, func(p *Progress, v int64) { p.version = v })
	if err != nil {
		return nil, time.Time{}, err
	}
	return found[0], now, nil
}

// Commit implements Store.
func (s *Firestore) Commit(ctx context.Context, b Batch) error {
	err := s.client.RunTransaction(ctx, func(_ context.Context, tx *firestore.Transaction) error {
		for _, t := range b.Tags {
			d := document[Tag]{Record: *t, LookBy: t.LookBy, ExpiresAt: t.ExpiresAt}
			if err := write(tx, s.doc(tagsCollection, t.ID()), d, t.version); err != nil {
				return err
			}
		}
		for _, p := range b.Promotions {
			d := document[Promotion]{Record: *p, CreatedAt: p.CreatedAt, DueAt: p.DueAt, AskAt: p.AskAt, Pipelines: p.Pipelines, ExpiresAt: p.ExpiresAt}
			if err := write(tx, s.doc(promotionsCollection, p.ID), d, p.version); err != nil {
				return err
			}
		}
		for _, r := range b.Repositories {
			if err := write(tx, s.doc(repositoriesCollection, repositoryID(r.Name)), document[Repository]{Record: *r}, r.version); err != nil {
				return err
			}
		}
		if b.Progress != nil {
			return write(tx, s.doc(reconcileCollection, progressID), document[Progress]{Record: *b.Progress}, b.Progress.version)
		}
		return nil
	}, firestore.MaxAttempts(1))
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.AlreadyExists, codes.NotFound, codes.Aborted:
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}

// write creates a document that was not there, or updates the one that was
// read, if it is still the same.
func write[T any](tx *firestore.Transaction, ref *firestore.DocumentRef, d document[T], version int64) error {
	if version == 0 {
		return tx.Create(ref, d)
	}
	return tx.Update(ref, d.fields(), firestore.LastUpdateTime(time.Unix(0, version)))
}

// Due implements Store.
func (s *Firestore) Due(ctx context.Context, t time.Time, limit int) ([]*Promotion, error) {
	return query(ctx, s.client.Collection(promotionsCollection), "due_at", t, limit, promotionVersion)
}

// Unheard implements Store.
func (s *Firestore) Unheard(ctx context.Context, t time.Time, limit int) ([]*Promotion, error) {
	return query(ctx, s.client.Collection(promotionsCollection), "ask_at", t, limit, promotionVersion)
}

// Overdue implements Store.
func (s *Firestore) Overdue(ctx context.Context, t time.Time, limit int) ([]*Tag, error) {
	return query(ctx, s.client.Collection(tagsCollection), "look_by", t, limit, tagVersion)
}

// query returns the documents whose field is a time that is not after t, the
// oldest first.
func query[T any](ctx context.Context, c *firestore.CollectionRef, field string, t time.Time, limit int, version func(*T, int64)) ([]*T, error) {
	docs, err := c.Where(field, "<=", t).OrderBy(field, firestore.Asc).Limit(limit).Documents(ctx).GetAll()
	if err != nil {
		return nil, err
	}
	var found []*T
	for _, d := range docs {
		record, err := decode(d, version)
		if err != nil {
			return nil, err
		}
		found = append(found, record)
	}
	return found, nil
}

// OfPipeline implements Store.
func (s *Firestore) OfPipeline(ctx context.Context, pipeline string) (string, error) {
	docs, err := s.client.Collection(promotionsCollection).
		Where("pipelines", "array-contains", pipeline).Limit(1).Select().Documents(ctx).GetAll()
	if err != nil || len(docs) == 0 {
		return "", err
	}
	return docs[0].Ref.ID, nil
}

// All implements Store.
func (s *Firestore) All(ctx context.Context) iter.Seq2[*Promotion, error] {
	return func(yield func(*Promotion, error) bool) {
		docs := s.client.Collection(promotionsCollection).OrderBy("created_at", firestore.Desc).Documents(ctx)
		defer docs.Stop()
		for {
			doc, err := docs.Next()
			if errors.Is(err, iterator.Done) {
				return
			}
			var p *Promotion
			if err == nil {
				p, err = decode(doc, promotionVersion)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}
