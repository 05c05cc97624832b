package ledger

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"
)

// maxMemory is how many promotions a ledger in memory holds; it then forgets
// the oldest first. It is for one machine and for tests.
const maxMemory = 10_000

// memory is a store that lives as long as its process.
type memory struct {
	mu        sync.Mutex
	records   map[string]record
	currentOf map[string]string // key of the push → ID
	order     []string          // IDs, oldest first
}

// NewMemory returns an empty ledger that lives as long as its process.
func NewMemory() *Ledger {
	return &Ledger{&memory{records: map[string]record{}, currentOf: map[string]string{}}}
}

var (
	sharedMu sync.Mutex
	shared   = map[string]*Ledger{}
)

// sharedMemory returns the one ledger of that name in this process.
func sharedMemory(name string) *Ledger {
	sharedMu.Lock()
	defer sharedMu.Unlock()
	l, ok := shared[name]
	if !ok {
		l = NewMemory()
		shared[name] = l
	}
	return l
}

// update holds the lock for as long as f runs.
func (m *memory) update(_ context.Context, f func(transaction) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f(&memoryTransaction{m, map[string]*record{}})
}

func (m *memory) get(_ context.Context, id string) (*record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[id]
	if !ok {
		return nil, nil
	}
	return &r, nil
}

func (m *memory) open(_ context.Context, t time.Time, limit int) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var open []record
	for _, r := range m.records {
		if !r.OpenSince.IsZero() && r.OpenSince.Before(t) {
			open = append(open, r)
		}
	}
	slices.SortFunc(open, func(a, b record) int { return a.OpenSince.Compare(b.OpenSince) })
	var ids []string
	for _, r := range open[:min(limit, len(open))] {
		ids = append(ids, r.ID)
	}
	return ids, nil
}

func (m *memory) all(context.Context) iter.Seq2[*record, error] {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []record
	for _, id := range slices.Backward(m.order) {
		all = append(all, m.records[id])
	}
	return func(yield func(*record, error) bool) {
		for i := range all {
			if !yield(&all[i], nil) {
				return
			}
		}
	}
}

// memoryTransaction writes at once: f fails before it writes, or not at all.
type memoryTransaction struct {
	*memory
	read map[string]*record
}

func (memoryTransaction) now() time.Time { return time.Now() }

func (t *memoryTransaction) current(key string) (string, error) { return t.currentOf[key], nil }

func (t *memoryTransaction) promotions(ids ...string) ([]*record, error) {
	found := make([]*record, len(ids))
	for i, id := range ids {
		if r, ok := t.records[id]; ok && t.read[id] == nil {
			t.read[id] = &r
		}
		found[i] = t.read[id]
	}
	return found, nil
}

func (t *memoryTransaction) put(r *record) {
	if _, ok := t.records[r.ID]; !ok {
		t.order = append(t.order, r.ID)
	}
	t.records[r.ID] = *r
	for len(t.order) > maxMemory || t.now().After(t.records[t.order[0]].ExpiresAt) {
		t.forget(t.order[0])
		t.order = t.order[1:]
	}
}

func (t *memoryTransaction) setCurrent(key string, r *record) { t.currentOf[key] = r.ID }

func (m *memory) forget(id string) {
	old := m.records[id]
	if key := old.key(); m.currentOf[key] == id {
		delete(m.currentOf, key)
	}
	delete(m.records, id)
}
