package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// firestoreTimeout spans one operation, the client's own repetitions included.
const firestoreTimeout = 10 * time.Second

// firestoreAttempts is how often a transaction is tried that meets another:
// six webhooks of one push meet at one document.
const firestoreAttempts = 10

// The collections. Both have a TTL policy on the field expires_at, and
// terraform/ledger.tf knows their names.
const (
	promotionsCollection = "promotions" // by the ID of the delivery
	currentCollection    = "current"    // by the hash of the key: a key has slashes
)

// firestoreStore keeps records in a Firestore database. The time is
// Firestore's own, so that the clocks of those who share it do not matter.
type firestoreStore struct {
	client *firestore.Client
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
	err := s.client.RunTransaction(ctx, func(_ context.Context, tx *firestore.Transaction) error {
		return f(&firestoreTransaction{store: s, tx: tx, read: map[string]*record{}})
	}, firestore.MaxAttempts(firestoreAttempts))
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
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
	var r record
	if err := doc.DataTo(&r); err != nil {
		return nil, fmt.Errorf("ledger: read %s: %w", doc.Ref.Path, err)
	}
	return &r, nil
}

type firestoreTransaction struct {
	store  *firestoreStore
	tx     *firestore.Transaction
	read   map[string]*record
	readAt time.Time
}

func (t *firestoreTransaction) now() time.Time { return t.readAt }

func (t *firestoreTransaction) current(key string) (string, error) {
	doc, err := t.tx.Get(t.store.pointer(key))
	if err != nil && status.Code(err) != codes.NotFound {
		return "", err
	}
	t.readAt = doc.ReadTime
	if !doc.Exists() {
		return "", nil
	}
	var p pointer
	if err := doc.DataTo(&p); err != nil {
		return "", fmt.Errorf("read %s: %w", doc.Ref.Path, err)
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
	docs, err := t.tx.GetAll(refs)
	if err != nil {
		return nil, err
	}
	for _, doc := range docs {
		t.readAt = doc.ReadTime
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

func (t *firestoreTransaction) put(r *record) error {
	return t.tx.Set(t.store.promotion(r.ID), r)
}

func (t *firestoreTransaction) setCurrent(key string, r *record) error {
	return t.tx.Set(t.store.pointer(key), pointer{Key: key, Promotion: r.ID, ExpiresAt: r.ExpiresAt})
}
