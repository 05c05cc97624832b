// Package ledger is the record of promotions: which image is being signed, how
// far that is, and what Slack shows of it.
//
// The rules are in rules.go, report.go and outbox.go. They change records in
// memory, and have no side effects. This file reads what they need and writes
// what they have changed, with a Store. docs/architecture.md has the states and
// the promises.
package ledger

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"time"
)

// Timeout spans one call of a method that has a context.
const Timeout = 10 * time.Second

// conflictPause is how long to wait before a retry after a conflict. It doubles
// each time. Of the changes that conflict, one always succeeds.
const conflictPause = 10 * time.Millisecond

// ErrStale means that another has taken over the lease; nothing was changed.
var ErrStale = errors.New("another has taken over")

// Ledger keeps promotions in a store. It is safe for concurrent use.
type Ledger struct{ store Store }

// New returns a ledger over a store.
func New(s Store) *Ledger { return &Ledger{s} }

// Name is a LEDGER setting that names a ledger.
type Name string

// ParseName reads a Name: firestore:projects/PROJECT/databases/DATABASE, or
// memory:NAME.
func ParseName(text string) (Name, error) {
	rest, ok := strings.CutPrefix(text, firestorePrefix)
	switch {
	case ok && databaseName.MatchString(rest), strings.HasPrefix(text, memoryPrefix):
		return Name(text), nil
	case ok:
		return "", fmt.Errorf("%.100q is not the full name of a Firestore database, projects/PROJECT/databases/DATABASE", rest)
	}
	return "", fmt.Errorf("%.50q is not a ledger: write firestore:projects/PROJECT/databases/DATABASE, or memory:NAME", text)
}

// InMemory reports whether the ledger is gone with its process.
func (n Name) InMemory() bool { return strings.HasPrefix(string(n), memoryPrefix) }

const firestorePrefix, memoryPrefix = "firestore:", "memory:"

// Open returns the ledger that a LEDGER setting names. It sends no request: a
// ledger that is down is noticed when it is used. For Firestore it needs
// Google's application default credentials.
func Open(text string) (*Ledger, error) {
	name, err := ParseName(text)
	if err != nil {
		return nil, err
	}
	if name.InMemory() {
		return New(sharedStore(text)), nil
	}
	return openFirestore(strings.TrimPrefix(text, firestorePrefix))
}

// NewID makes a promotion_id.
func NewID() string {
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails
	return hex.EncodeToString(random)
}

// Look is a message and what it found when it looked at its tag.
type Look struct {
	Message Message
	Route   string        // its key
	NewID   string        // of the promotion, if one begins
	Lease   time.Duration // how long a claim keeps others away, counted from Read
	// PerDelivery is set for once_per: delivery. Missed then takes only another
	// digest for a new promotion.
	PerDelivery bool

	// One of these:
	Digest   string // what the tag is
	Unwanted bool   // the routes do not promote it; the registry was not asked
	// Reason and Hint say why the registry did not say what the tag is.
	Reason, Hint string
}

// Snapshot is what was read of a tag, and may be changed once.
type Snapshot struct {
	record
	other      *Promotion  // another promotion of the tag, of a report or the clock
	repository *Repository // nil if it was not read

	ledger           *Ledger
	tagWas, groupWas Tag
	repositoryWas    Repository
	were             map[string]Promotion // by ID
}

// Read reads the record of a tag, before the registry is asked.
func (l *Ledger) Read(ctx context.Context, key Key) (*Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	s, err := l.read(ctx, key, nil)
	if err != nil {
		return nil, fmt.Errorf("read the record of %s:%s: %w", key.Repository, key.Tag, err)
	}
	return s, nil
}

// read reads the record of a tag. One of its promotions may have been read
// before; the condition under which all is written holds from then on.
func (l *Ledger) read(ctx context.Context, key Key, other *Promotion) (*Snapshot, error) {
	s := &Snapshot{ledger: l, were: map[string]Promotion{}}
	ids := []string{key.ID()}
	if key.Delivery != "" {
		ids = append(ids, key.Group().ID())
	}
	tags, now, err := l.store.Tags(ctx, ids...)
	if err != nil {
		return nil, err
	}
	for i, k := range []Key{key, key.Group()}[:len(ids)] {
		if tags[i] == nil {
			tags[i] = &Tag{Key: k}
		}
	}
	s.tag, s.group, s.now = tags[0], tags[len(tags)-1], now
	s.tagWas, s.groupWas = *s.tag, *s.group
	if other != nil {
		s.were[other.ID] = *other
	}
	for _, slot := range []struct {
		id string
		p  **Promotion
	}{{s.tag.Settled, &s.settled}, {s.tag.Pending, &s.pending}} {
		switch {
		case slot.id == "":
		case other != nil && slot.id == other.ID:
			*slot.p = other
		default:
			found, _, err := l.store.Promotions(ctx, slot.id)
			if err != nil {
				return nil, err
			}
			if *slot.p = found[0]; found[0] != nil {
				s.were[slot.id] = *found[0]
			}
		}
	}
	if other != s.settled && other != s.pending {
		s.other = other
	}
	return s, nil
}

// commit writes what was changed, on condition that the record is still the
// same. The tag is always written with its promotions, so that everyone who has
// read the tag notices the change.
func (s *Snapshot) commit(ctx context.Context, silentAfter time.Duration) error {
	var (
		b        Batch
		ended    time.Time
		tagMoves = *s.tag != s.tagWas
	)
	if s.repository != nil {
		ended = s.repository.EndedAt
		if *s.repository != s.repositoryWas {
			b.Repositories = append(b.Repositories, s.repository)
		}
	}
	for _, p := range []*Promotion{s.settled, s.pending, s.other, s.dropped, s.ousted} {
		if p == nil {
			continue
		}
		was, known := s.were[p.ID]
		p.schedule(s.now, ended, silentAfter)
		if known && reflect.DeepEqual(was, *p) {
			continue
		}
		tagMoves = tagMoves || was.State != p.State
		b.Promotions = append(b.Promotions, p)
	}
	if tagMoves && s.tag.Repository != "" {
		s.tag.Changes++
		if s.tag.Delivery != "" {
			s.tag.ExpiresAt = s.now.Add(Retention)
		}
		b.Tags = append(b.Tags, s.tag)
	}
	if s.group != s.tag && *s.group != s.groupWas {
		b.Tags = append(b.Tags, s.group)
	}
	if len(b.Tags)+len(b.Promotions)+len(b.Repositories) == 0 {
		return nil
	}
	return s.ledger.store.Commit(ctx, b)
}

// Claim is the right to start a promotion, until its lease ends.
type Claim struct {
	Promotion // as it was claimed
}

// Decision is what follows from a look.
type Decision struct {
	Verdict Verdict
	// Claim is set for Start. For Loop it has the promotion that must be given
	// up.
	Claim Claim

	snapshot *Snapshot
}

// Settle decides what follows from a look and records it, on condition that the
// record has not changed since it was read. Otherwise it changes nothing and
// returns ErrConflict, and the tag must be looked at again. Loop is not
// recorded yet: Died records it, once there is a dead letter.
func (s *Snapshot) Settle(ctx context.Context, l Look) (Decision, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	d := Decision{snapshot: s}
	switch {
	case l.Unwanted:
		if s.settled == nil && s.pending == nil && s.tag.LookBy.IsZero() {
			return Decision{Verdict: Ignore}, nil
		}
		d.Verdict = Ignore
		s.unwanted()
	case l.Digest == "":
		d.Verdict = s.unseen(l)
	default:
		d.Verdict = s.look(l, l.Digest)
	}
	if d.Verdict == Start || d.Verdict == Loop {
		d.Claim = Claim{*s.settled}
	}
	if d.Verdict == Loop {
		return d, nil
	}
	if err := s.commit(ctx, 0); err != nil {
		return Decision{}, err
	}
	return d, nil
}

// Died records that the promotion of a Loop was given up. Like Settle, it may
// return ErrConflict.
func (d Decision) Died(ctx context.Context, reason, hint string) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	d.snapshot.bury(d.snapshot.settled, ByTrigger, reason, hint, "")
	return d.snapshot.commit(ctx, 0)
}

// Pipeline is a pipeline that GitLab has created. What GitLab's answer did not
// say is zero.
type Pipeline struct {
	ProjectID, ID int64
	URL           string
}

// Answer is the result of one request to create a pipeline.
type Answer struct {
	Created  bool
	Pipeline Pipeline

	// If it was not created, or that is not known:
	Message             Message // that waits
	Reason, Hint, Words string
	Dead                bool // there is a dead letter: no more attempts
	Lost                bool // there may be a pipeline
	Unrecognized        bool // GitLab refused in unknown words
}

// GiveUp reports whether another refusal in unknown words is final.
func (c Claim) GiveUp() bool { return c.Unrecognized >= maxUnrecognized }

// Answered records the result of a claim's request. It returns ErrStale if
// another has claimed the promotion in the meantime.
func (l *Ledger) Answered(ctx context.Context, c Claim, a Answer) error {
	return l.again(ctx, func(ctx context.Context) error {
		s, p, err := l.promotion(ctx, c.ID, false)
		switch {
		case err != nil:
			return err
		case p.Token != c.Token:
			return ErrStale
		}
		s.answered(p, a)
		return s.commit(ctx, 0)
	})
}

// again calls f until there is no conflict.
func (l *Ledger) again(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	for pause := conflictPause; ; pause *= 2 {
		err := f(ctx)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, after %w", ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

// promotion reads a promotion and the record of its tag. It returns ErrUnknown
// if there is none.
func (l *Ledger) promotion(ctx context.Context, id string, repository bool) (*Snapshot, *Promotion, error) {
	found, now, err := l.store.Promotions(ctx, id)
	switch {
	case err != nil:
		return nil, nil, err
	case found[0] == nil:
		return nil, nil, ErrUnknown
	}
	p := found[0]
	s := &Snapshot{ledger: l, other: p, were: map[string]Promotion{id: *p}}
	if p.Note {
		// It has no tag: changes of this one are not written.
		s.tag = &Tag{}
		s.group = s.tag
	} else if s, err = l.read(ctx, p.Key, p); err != nil {
		return nil, nil, err
	}
	s.now = later(s.now, now)
	if repository {
		if s.repository, err = l.store.Repository(ctx, p.Repository); err != nil {
			return nil, nil, err
		}
		if s.repository == nil {
			s.repository = &Repository{Name: p.Repository}
		}
		s.repositoryWas = *s.repository
	}
	return s, p, nil
}

// Get returns a promotion, or ErrUnknown.
func (l *Ledger) Get(ctx context.Context, id string) (Promotion, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	found, _, err := l.store.Promotions(ctx, id)
	switch {
	case err != nil:
		return Promotion{}, fmt.Errorf("read promotion %s: %w", id, err)
	case found[0] == nil:
		return Promotion{}, ErrUnknown
	}
	return *found[0], nil
}

// OfPipeline returns the promotion of a pipeline, or ErrUnknown.
func (l *Ledger) OfPipeline(ctx context.Context, projectID, pipelineID string) (Promotion, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	id, err := l.store.OfPipeline(ctx, pipelineName(projectID, pipelineID))
	switch {
	case err != nil:
		return Promotion{}, fmt.Errorf("find the promotion of pipeline %s: %w", pipelineID, err)
	case id == "":
		return Promotion{}, ErrUnknown
	}
	return l.Get(ctx, id)
}

// Current returns the newest promotion of a tag, or ErrUnknown.
func (l *Ledger) Current(ctx context.Context, key Key) (Promotion, error) {
	s, err := l.Read(ctx, key)
	switch {
	case err != nil:
		return Promotion{}, err
	case s.pending != nil:
		return *s.pending, nil
	case s.settled != nil:
		return *s.settled, nil
	}
	return Promotion{}, ErrUnknown
}

// All returns every promotion and note, the newest first.
func (l *Ledger) All(ctx context.Context) iter.Seq2[Promotion, error] {
	return func(yield func(Promotion, error) bool) {
		for p, err := range l.store.All(ctx) {
			if err != nil {
				yield(Promotion{}, err)
				return
			}
			if !yield(*p, nil) {
				return
			}
		}
	}
}
