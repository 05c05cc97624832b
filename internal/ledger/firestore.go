package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"regexp"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// firestoreTimeout spans one operation, the client's own repetitions included.
const firestoreTimeout = 10 * time.Second

// firestorePause is how long to wait before something is tried again that met
// another: six webhooks of one push meet at one document. It doubles each time,
// and a random part of it is waited.
const firestorePause = 20 * time.Millisecond

// The collections. Both have a TTL policy on the field expires_at, and
// terraform/ledger.tf knows their names.
const (
	promotionsCollection = "promotions" // by the ID of the delivery
	currentCollection    = "current"    // by the hash of the key: a key has slashes
)

// firestoreStore keeps records in a Firestore database. The time is
// Firestore's own, so that the clocks of those who share it do not matter.
//
// A transaction is optimistic: it reads without locks, and writes on the
// condition that nobody has changed what it writes since it was read. Locks
// would have six webhooks wait for each other, and then abort.
type firestoreStore struct {
	client *firestore.Client
}

// document is one of the collection promotions. Beside the record stands what
// is searched for.
type document struct {
	Record    record    `firestore:"record"`
	CreatedAt time.Time `firestore:"created_at"`
	OpenSince time.Time `firestore:"open_since,omitempty"`
	ExpiresAt time.Time `firestore:"expires_at"`
}

// pointer is a document of the collection current.
type pointer struct {
	Key       string    `firestore:"key"`
	Promotion string    `firestore:"promotion"`
	ExpiresAt time.Time `firestore:"expires_at"`
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
	return &Ledger{&firestoreStore{client}}, nil
}

func (s *firestoreStore) promotion(id string) *firestore.DocumentRef {
	return s.client.Collection(promotionsCollection).Doc(id)
}

func (s *firestoreStore) pointer(key string) *firestore.DocumentRef {
	sum := sha256.Sum256([]byte(key))
	return s.client.Collection(currentCollection).Doc(hex.EncodeToString(sum[:]))
}

func (s *firestoreStore) update(ctx context.Context, f func(transaction) error) error {
	ctx, cancel := context.WithTimeout(ctx, firestoreTimeout)
	defer cancel()
	for pause := firestorePause; ; pause *= 2 {
		err := s.try(ctx, f)
		if err == nil {
			return nil
		}
		switch status.Code(err) {
		case codes.FailedPrecondition, codes.AlreadyExists, codes.NotFound, codes.Aborted:
		default:
			return fmt.Errorf("ledger: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("ledger: %w, after %w", ctx.Err(), err)
		case <-time.After(rand.N(pause)):
		}
	}
}

// try reads, and then writes all that f puts, or nothing.
func (s *firestoreStore) try(ctx context.Context, f func(transaction) error) error {
	t := &firestoreTransaction{store: s, ctx: ctx, read: map[string]*record{}, updated: map[string]time.Time{}}
	if err := f(t); err != nil || len(t.writes) == 0 {
		return err
	}
	return s.client.RunTransaction(ctx, func(_ context.Context, tx *firestore.Transaction) error {
		for _, write := range t.writes {
			if err := write(tx); err != nil {
				return err
			}
		}
		return nil
	}, firestore.MaxAttempts(1))
}

func (s *firestoreStore) get(ctx context.Context, id string) (*record, error) {
	ctx, cancel := context.WithTimeout(ctx, firestoreTimeout)
	defer cancel()
	doc, err := s.promotion(id).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return readRecord(doc)
}

func (s *firestoreStore) open(ctx context.Context, t time.Time, limit int) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, firestoreTimeout)
	defer cancel()
	docs, err := s.client.Collection(promotionsCollection).
		Where("open_since", "<", t).OrderBy("open_since", firestore.Asc).Limit(limit).Documents(ctx).GetAll()
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	var ids []string
	for _, doc := range docs {
		ids = append(ids, doc.Ref.ID)
	}
	return ids, nil
}

func (s *firestoreStore) all(ctx context.Context) iter.Seq2[*record, error] {
	return func(yield func(*record, error) bool) {
		docs := s.client.Collection(promotionsCollection).OrderBy("created_at", firestore.Desc).Documents(ctx)
		defer docs.Stop()
		for {
			doc, err := docs.Next()
			if errors.Is(err, iterator.Done) {
				return
			}
			var r *record
			if err == nil {
				r, err = readRecord(doc)
			} else {
				err = fmt.Errorf("ledger: %w", err)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func readRecord(doc *firestore.DocumentSnapshot) (*record, error) {
	var d document
	if err := doc.DataTo(&d); err != nil {
		return nil, fmt.Errorf("ledger: read %s: %w", doc.Ref.Path, err)
	}
	return &d.Record, nil
}

type firestoreTransaction struct {
	store   *firestoreStore
	ctx     context.Context
	read    map[string]*record
	updated map[string]time.Time // by path: when what was read was written
	readAt  time.Time
	writes  []func(*firestore.Transaction) error
}

func (t *firestoreTransaction) now() time.Time { return t.readAt }

// get reads documents; one that is not there does not exist, and is no error.
func (t *firestoreTransaction) get(refs ...*firestore.DocumentRef) ([]*firestore.DocumentSnapshot, error) {
	docs, err := t.store.client.GetAll(t.ctx, refs)
	if err != nil {
		return nil, err
	}
	for _, doc := range docs {
		t.readAt = doc.ReadTime
		if doc.Exists() {
			t.updated[doc.Ref.Path] = doc.UpdateTime
		}
	}
	return docs, nil
}

func (t *firestoreTransaction) current(key string) (string, error) {
	docs, err := t.get(t.store.pointer(key))
	if err != nil || !docs[0].Exists() {
		return "", err
	}
	var p pointer
	if err := docs[0].DataTo(&p); err != nil {
		return "", fmt.Errorf("read %s: %w", docs[0].Ref.Path, err)
	}
	return p.Promotion, nil
}

func (t *firestoreTransaction) promotions(ids ...string) ([]*record, error) {
	var refs []*firestore.DocumentRef
	for _, id := range ids {
		if _, ok := t.read[id]; !ok && id != "" {
			t.read[id] = nil
			refs = append(refs, t.store.promotion(id))
		}
	}
	docs, err := t.get(refs...)
	if err != nil {
		return nil, err
	}
	for _, doc := range docs {
		if !doc.Exists() {
			continue
		}
		if t.read[doc.Ref.ID], err = readRecord(doc); err != nil {
			return nil, err
		}
	}
	found := make([]*record, len(ids))
	for i, id := range ids {
		found[i] = t.read[id]
	}
	return found, nil
}

func (t *firestoreTransaction) put(r *record) {
	var openSince any = r.OpenSince
	if r.OpenSince.IsZero() {
		openSince = firestore.Delete
	}
	t.write(t.store.promotion(r.ID), document{*r, r.CreatedAt, r.OpenSince, r.ExpiresAt}, []firestore.Update{
		{Path: "record", Value: *r}, {Path: "created_at", Value: r.CreatedAt},
		{Path: "open_since", Value: openSince}, {Path: "expires_at", Value: r.ExpiresAt},
	})
}

func (t *firestoreTransaction) setCurrent(key string, r *record) {
	t.write(t.store.pointer(key), pointer{key, r.ID, r.ExpiresAt}, []firestore.Update{
		{Path: "promotion", Value: r.ID}, {Path: "expires_at", Value: r.ExpiresAt},
	})
}

// write creates a document that was not there, or updates the one that was
// read, if it is still the same.
func (t *firestoreTransaction) write(ref *firestore.DocumentRef, whole any, updates []firestore.Update) {
	updated, ok := t.updated[ref.Path]
	t.writes = append(t.writes, func(tx *firestore.Transaction) error {
		if !ok {
			return tx.Create(ref, whole)
		}
		return tx.Update(ref, updates, firestore.LastUpdateTime(updated))
	})
}
