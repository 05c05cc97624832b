package ledger

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"
	"time"
)

// maxMemory is how many promotions and tags a store in memory holds; it then
// forgets the oldest first. It is for one machine and for tests.
const maxMemory = 10_000

// Memory is a store that lives as long as its process.
type Memory struct {
	mu           sync.Mutex
	tags         table[Tag]
	promotions   table[Promotion]
	repositories table[Repository]
	progress     *Progress
	ofPipeline   map[string]string // → ID of the promotion
	versions     int64
}

// table keeps documents in the order in which they were made.
type table[T any] struct {
	docs  map[string]T
	order []string
}

func (t *table[T]) get(id string) *T {
	d, ok := t.docs[id]
	if !ok {
		return nil
	}
	return &d
}

// put adds a document, and returns the one that was dropped for it.
func (t *table[T]) put(id string, d T) (gone T) {
	if t.docs == nil {
		t.docs = map[string]T{}
	}
	if _, ok := t.docs[id]; !ok {
		t.order = append(t.order, id)
	}
	t.docs[id] = d
	if len(t.order) > maxMemory {
		gone = t.docs[t.order[0]]
		delete(t.docs, t.order[0])
		t.order = t.order[1:]
	}
	return gone
}

// NewMemory returns an empty store that lives as long as its process.
func NewMemory() *Memory { return &Memory{ofPipeline: map[string]string{}} }

var (
	sharedMu sync.Mutex
	shared   = map[string]Store{}
)

// Share makes s the store of that name, memory:NAME, in this process; nil
// removes it. With it a local system can watch and disturb the store that
// others open by the name.
func Share(name string, s Store) {
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if s == nil {
		delete(shared, name)
		return
	}
	shared[name] = s
}

// sharedStore returns the store of that name, and creates it if there is none.
func sharedStore(name string) Store {
	sharedMu.Lock()
	defer sharedMu.Unlock()
	s, ok := shared[name]
	if !ok {
		s = NewMemory()
		shared[name] = s
	}
	return s
}

// Tags implements Store.
func (m *Memory) Tags(_ context.Context, ids ...string) ([]*Tag, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := make([]*Tag, len(ids))
	now := time.Now()
	for i, id := range ids {
		found[i] = m.tag(id, now)
	}
	return found, now, nil
}

// Promotions implements Store.
func (m *Memory) Promotions(_ context.Context, ids ...string) ([]*Promotion, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := make([]*Promotion, len(ids))
	now := time.Now()
	for i, id := range ids {
		found[i] = m.promotion(id, now)
	}
	return found, now, nil
}

// Repository implements Store.
func (m *Memory) Repository(_ context.Context, name string) (*Repository, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.repositories.get(name), nil
}

// Progress implements Store.
func (m *Memory) Progress(context.Context) (*Progress, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.progress == nil {
		return nil, time.Now(), nil
	}
	p := *m.progress
	return &p, time.Now(), nil
}

// Commit implements Store.
func (m *Memory) Commit(_ context.Context, b Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, t := range b.Tags {
		if was := m.tag(t.ID(), now); was == nil && t.version != 0 || was != nil && was.version != t.version {
			return ErrConflict
		}
	}
	for _, p := range b.Promotions {
		if was := m.promotion(p.ID, now); was == nil && p.version != 0 || was != nil && was.version != p.version {
			return ErrConflict
		}
	}
	for _, r := range b.Repositories {
		if was := m.repositories.get(r.Name); was == nil && r.version != 0 || was != nil && was.version != r.version {
			return ErrConflict
		}
	}
	if b.Progress != nil {
		if was := m.progress; was == nil && b.Progress.version != 0 || was != nil && was.version != b.Progress.version {
			return ErrConflict
		}
		p := *b.Progress
		p.version = m.next()
		m.progress = &p
	}
	for _, t := range b.Tags {
		t := *t
		t.version = m.next()
		m.tags.put(t.ID(), t)
	}
	for _, p := range b.Promotions {
		p := *p
		p.version = m.next()
		gone := m.promotions.put(p.ID, p)
		for _, name := range gone.Pipelines {
			delete(m.ofPipeline, name)
		}
		for _, name := range p.Pipelines {
			m.ofPipeline[name] = p.ID
		}
	}
	for _, r := range b.Repositories {
		r := *r
		r.version = m.next()
		m.repositories.put(r.Name, r)
	}
	return nil
}

// tag returns a record that has not expired, or nil.
func (m *Memory) tag(id string, now time.Time) *Tag {
	if t := m.tags.get(id); t != nil && (t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt)) {
		return t
	}
	return nil
}

// promotion returns one that has not expired, or nil.
func (m *Memory) promotion(id string, now time.Time) *Promotion {
	if p := m.promotions.get(id); p != nil && (p.ExpiresAt.IsZero() || now.Before(p.ExpiresAt)) {
		return p
	}
	return nil
}

func (m *Memory) next() int64 {
	m.versions++
	return m.versions
}

// Due implements Store.
func (m *Memory) Due(_ context.Context, t time.Time, limit int) ([]*Promotion, error) {
	return m.search(func(p *Promotion) time.Time { return p.DueAt }, t, limit), nil
}

// Unheard implements Store.
func (m *Memory) Unheard(_ context.Context, t time.Time, limit int) ([]*Promotion, error) {
	return m.search(func(p *Promotion) time.Time { return p.AskAt }, t, limit), nil
}

func (m *Memory) search(of func(*Promotion) time.Time, t time.Time, limit int) []*Promotion {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*Promotion
	for _, p := range m.promotions.docs {
		if at := of(&p); !at.IsZero() && !at.After(t) {
			found = append(found, &p)
		}
	}
	slices.SortFunc(found, func(a, b *Promotion) int {
		return cmp.Or(of(a).Compare(of(b)), cmp.Compare(a.version, b.version))
	})
	return found[:min(limit, len(found))]
}

// Overdue implements Store.
func (m *Memory) Overdue(_ context.Context, t time.Time, limit int) ([]*Tag, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*Tag
	for _, tag := range m.tags.docs {
		if !tag.LookBy.IsZero() && !tag.LookBy.After(t) {
			found = append(found, &tag)
		}
	}
	slices.SortFunc(found, func(a, b *Tag) int {
		return cmp.Or(a.LookBy.Compare(b.LookBy), cmp.Compare(a.version, b.version))
	})
	return found[:min(limit, len(found))], nil
}

// OfPipeline implements Store.
func (m *Memory) OfPipeline(_ context.Context, pipeline string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ofPipeline[pipeline], nil
}

// All implements Store.
func (m *Memory) All(context.Context) iter.Seq2[*Promotion, error] {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Promotion
	for _, id := range slices.Backward(m.promotions.order) {
		all = append(all, m.promotions.docs[id])
	}
	return func(yield func(*Promotion, error) bool) {
		for i := range all {
			if !yield(&all[i], nil) {
				return
			}
		}
	}
}
