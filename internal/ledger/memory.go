package ledger

import (
	"context"
	"sync"
	"time"
)

// maxMemory is how many promotions a ledger in memory holds; it then forgets
// the oldest first. It is for one machine and for tests.
const maxMemory = 10_000

// Memory is a ledger that lives as long as its process.
type Memory struct {
	mu         sync.Mutex
	promotions map[string]*record // by the ID of the delivery
	current    map[string]string  // key of the push → ID
	order      []string           // IDs, oldest first
}

type record struct {
	Promotion
	token     int64 // of the last claim
	leaseEnds time.Time

	tellToken int64 // of the last telling
	tellEnds  time.Time
}

// NewMemory returns an empty ledger.
func NewMemory() *Memory {
	return &Memory{promotions: map[string]*record{}, current: map[string]string{}}
}

var (
	sharedMu sync.Mutex
	shared   = map[string]*Memory{}
)

// sharedMemory returns the one ledger of that name in this process.
func sharedMemory(name string) *Memory {
	sharedMu.Lock()
	defer sharedMu.Unlock()
	m, ok := shared[name]
	if !ok {
		m = NewMemory()
		shared[name] = m
	}
	return m
}

// Claim implements Ledger.
func (m *Memory) Claim(_ context.Context, p Push) (Claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	current := m.promotions[m.current[p.key()]]
	if current != nil && (p.PerDelivery || current.Digest == p.Digest) {
		if err := current.claimable(p, now, current.leaseEnds); err != nil {
			return Claim{}, err
		}
		if current.ID != p.ID {
			current.fence(now)
		}
	}
	r := m.promotions[p.ID]
	if r == nil || r.Digest != p.Digest {
		r = m.add(p, now)
	}
	r.token++
	r.Attempts++
	r.State, r.PipelineURL, r.UpdatedAt = Claimed, "", now
	r.leaseEnds = now.Add(Lease)
	m.current[p.key()] = p.ID
	return Claim{p.ID, r.token}, nil
}

// fence makes sure that a claimant that lost its lease changes nothing more.
func (r *record) fence(now time.Time) {
	r.token++
	if !r.State.Done() {
		r.State, r.Reason, r.UpdatedAt = Failed, "taken_over", now
	}
}

// add makes a new record in the place of any older one of the same delivery,
// whose claims it fences.
func (m *Memory) add(p Push, now time.Time) *record {
	r := &record{Promotion: Promotion{Push: p, CreatedAt: now}}
	if old := m.promotions[p.ID]; old != nil {
		r.token, r.tellToken = old.token, old.tellToken
	} else {
		m.order = append(m.order, p.ID)
	}
	m.promotions[p.ID] = r
	for len(m.order) > maxMemory || now.After(m.promotions[m.order[0]].CreatedAt.Add(Retention)) {
		m.forget(m.order[0])
		m.order = m.order[1:]
	}
	return r
}

func (m *Memory) forget(id string) {
	key := m.promotions[id].key()
	if m.current[key] == id {
		delete(m.current, key)
	}
	delete(m.promotions, id)
}

// change lets f change the promotion of a claim that was not lost.
func (m *Memory) change(c Claim, f func(*record)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.promotions[c.ID]
	if r == nil || r.token != c.token {
		return ErrStale
	}
	f(r)
	r.UpdatedAt = time.Now()
	return nil
}

// Triggered implements Ledger. A pipeline may have reported before this.
func (m *Memory) Triggered(_ context.Context, c Claim, pipelineURL string) error {
	return m.change(c, func(r *record) {
		r.PipelineURL = pipelineURL
		if r.State == Claimed {
			r.State, r.Reason = Triggered, ""
		}
	})
}

// Release implements Ledger.
func (m *Memory) Release(_ context.Context, c Claim, reason string) error {
	return m.change(c, func(r *record) {
		r.Reason, r.leaseEnds = reason, time.Time{}
	})
}

// Settle implements Ledger.
func (m *Memory) Settle(_ context.Context, c Claim, s State, reason string) error {
	return m.change(c, func(r *record) {
		r.State, r.Reason = s, reason
	})
}

// Report implements Ledger.
func (m *Memory) Report(_ context.Context, rep Report) (Telling, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.promotions[rep.ID]
	if r == nil {
		return Telling{}, ErrUnknown
	}
	now := time.Now()
	if r.accepts(rep) {
		r.State, r.Reason, r.UpdatedAt = rep.State, "", now
		if rep.State == Failed {
			r.Reason = "pipeline_failed"
		}
		if rep.PipelineURL != "" {
			r.PipelineURL = rep.PipelineURL
		}
	}
	if r.Message.Tells == r.State || r.State == Claimed || r.State == Triggered {
		return Telling{Promotion: r.Promotion}, nil
	}
	if now.Before(r.tellEnds) {
		return Telling{}, ErrInProgress
	}
	r.tellToken++
	r.tellEnds = now.Add(TellLease)
	return Telling{r.Promotion, true, r.tellToken}, nil
}

// Told implements Ledger.
func (m *Memory) Told(_ context.Context, t Telling, message Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.promotions[t.Promotion.ID]
	if r == nil || r.tellToken != t.token {
		return ErrStale
	}
	r.Message, r.tellEnds = message, time.Time{}
	return nil
}

// Get implements Ledger.
func (m *Memory) Get(_ context.Context, id string) (Promotion, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.promotions[id]
	if r == nil {
		return Promotion{}, ErrUnknown
	}
	return r.Promotion, nil
}
