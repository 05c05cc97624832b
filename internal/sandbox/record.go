package sandbox

import (
	"container/list"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

// record is the store of the ledger: in memory, with the time of the sandbox.
// It can be down, and passes what is written to the index.
type record struct {
	ledger.Store
	clock  *clock
	faults *faults
	stages *stages
	index  *index

	mu sync.Mutex // so that the index gets the writes in their order
}

// Why the ledger does not answer.
var (
	errAway = errors.New("the ledger is down, because a fault is set")
	errLost = errors.New("the ledger's answer is lost, because a fault is set")
)

// do calls f, unless a fault prevents it.
func (r *record) do(ctx context.Context, f func() error) (err error) {
	r.stages.begin(Ledger)
	defer func() { r.stages.end(Ledger, err != nil && !errors.Is(err, ledger.ErrConflict)) }()
	fault, found := r.faults.take(Ledger)
	if found {
		pause(ctx, fault.Latency)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	switch {
	case found && fault.Answer == away:
		return errAway
	case found && fault.Answer == lost:
		_ = f()
		return errLost
	}
	return f()
}

func (r *record) Tags(ctx context.Context, ids ...string) (found []*ledger.Tag, now time.Time, err error) {
	err = r.do(ctx, func() error {
		found, _, err = r.Store.Tags(ctx, ids...)
		return err
	})
	return found, r.clock.now(), err
}

func (r *record) Promotions(ctx context.Context, ids ...string) (found []*ledger.Promotion, now time.Time, err error) {
	err = r.do(ctx, func() error {
		found, _, err = r.Store.Promotions(ctx, ids...)
		return err
	})
	if x := exchangeOf(ctx); x != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.read = append(x.read, ids...)
	}
	return found, r.clock.now(), err
}

func (r *record) Progress(ctx context.Context) (found *ledger.Progress, now time.Time, err error) {
	err = r.do(ctx, func() error {
		found, _, err = r.Store.Progress(ctx)
		return err
	})
	return found, r.clock.now(), err
}

func (r *record) Repository(ctx context.Context, name string) (found *ledger.Repository, err error) {
	err = r.do(ctx, func() error {
		found, err = r.Store.Repository(ctx, name)
		return err
	})
	return found, err
}

func (r *record) Commit(ctx context.Context, b ledger.Batch) error {
	return r.do(ctx, func() error { return r.commit(ctx, b) })
}

// commit writes without applying faults.
func (r *record) commit(ctx context.Context, b ledger.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.Store.Commit(ctx, b); err != nil {
		return err
	}
	for _, p := range b.Promotions {
		r.index.put(*p)
	}
	if x := exchangeOf(ctx); x != nil && len(b.Promotions)+len(b.Tags) > 0 {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.news = true
		for _, p := range b.Promotions {
			x.wrote = append(x.wrote, *p)
		}
	}
	return nil
}

func (r *record) Due(ctx context.Context, t time.Time, limit int) (found []*ledger.Promotion, err error) {
	err = r.do(ctx, func() error {
		found, err = r.Store.Due(ctx, t, limit)
		return err
	})
	return found, err
}

func (r *record) Unheard(ctx context.Context, t time.Time, limit int) (found []*ledger.Promotion, err error) {
	err = r.do(ctx, func() error {
		found, err = r.Store.Unheard(ctx, t, limit)
		return err
	})
	return found, err
}

func (r *record) Overdue(ctx context.Context, t time.Time, limit int) (found []*ledger.Tag, err error) {
	err = r.do(ctx, func() error {
		found, err = r.Store.Overdue(ctx, t, limit)
		return err
	})
	return found, err
}

func (r *record) OfPipeline(ctx context.Context, pipeline string) (id string, err error) {
	err = r.do(ctx, func() error {
		id, err = r.Store.OfPipeline(ctx, pipeline)
		return err
	})
	return id, err
}

func (r *record) All(ctx context.Context) iter.Seq2[*ledger.Promotion, error] {
	return func(yield func(*ledger.Promotion, error) bool) {
		if err := r.do(ctx, func() error { return nil }); err != nil {
			yield(nil, err)
			return
		}
		r.Store.All(ctx)(yield)
	}
}

const (
	// maxRows is how many promotions are stored, as many as in the ledger.
	maxRows = 10_000
	// maxOfOne bounds the messages that are stored for one promotion.
	maxOfOne = 200

	defaultRows = 50
	mostRows    = 500
)

// index has the promotions, in the order in which they began and in the order
// in which they changed.
type index struct {
	mu       sync.Mutex
	rows     map[string]*entry
	order    []*entry   // oldest first
	changed  *list.List // of *entry: the one that changed last is the last
	revision int64
	states   map[ledger.State]int
	behind   int
	short    map[string]string // as Slack shows an ID → ID
	hear     func(ledger.Promotion)
}

type entry struct {
	ledger.Promotion
	messages   []string // of Pub/Sub, about this promotion
	deliveries int
	revision   int64
	at         *list.Element
}

func newIndex() *index {
	return &index{rows: map[string]*entry{}, changed: list.New(), states: map[ledger.State]int{}, short: map[string]string{}}
}

// put adds a promotion that was written, or updates it. Notes are left out.
func (x *index) put(p ledger.Promotion) {
	x.mu.Lock()
	if !p.Note {
		e, known := x.rows[p.ID]
		if !known {
			e = &entry{}
			x.rows[p.ID] = e
			x.order = append(x.order, e)
		} else {
			x.count(e, -1)
		}
		e.Promotion = p
		x.count(e, 1)
		x.touch(e)
		if len(p.ID) > idShown {
			x.short[p.ID[:idShown]] = p.ID
		}
		if len(x.order) > maxRows {
			x.forget(x.order[0])
			x.order = x.order[1:]
		}
	}
	hear := x.hear
	x.mu.Unlock()
	if hear != nil {
		hear(p)
	}
}

// idShown is how many characters of an ID Slack shows.
const idShown = 8

func (x *index) count(e *entry, n int) {
	x.states[e.State] += n
	if e.Behind() {
		x.behind += n
	}
}

func (x *index) touch(e *entry) {
	x.revision++
	e.revision = x.revision
	if e.at == nil {
		e.at = x.changed.PushBack(e)
		return
	}
	x.changed.MoveToBack(e.at)
}

func (x *index) forget(e *entry) {
	x.count(e, -1)
	x.changed.Remove(e.at)
	delete(x.rows, e.ID)
	if short := e.ID[:min(idShown, len(e.ID))]; x.short[short] == e.ID {
		delete(x.short, short)
	}
}

// link records that a message about a promotion was delivered.
func (x *index) link(promotion, message string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, ok := x.rows[promotion]
	if !ok {
		return
	}
	e.deliveries++
	if !slices.Contains(e.messages, message) && len(e.messages) < maxOfOne {
		e.messages = append(e.messages, message)
	}
	x.touch(e)
}

// mentioned returns the promotion that a text in Slack is about, and its image.
func (x *index) mentioned(text string) (id, image string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, short := range shortID.FindAllString(text, -1) {
		if e, ok := x.rows[x.short[short]]; ok {
			return e.ID, e.Repository + ":" + e.Tag
		}
	}
	return "", ""
}

// listen makes the index call f with every promotion that is written.
func (x *index) listen(f func(ledger.Promotion)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.hear = f
}

func (e *entry) row() Row {
	return Row{
		ID: e.ID, Image: e.Repository + ":" + e.Tag, Digest: e.Digest, Route: e.Route, State: e.State, Reason: e.Reason, Hint: e.Hint,
		PipelineURL: e.PipelineURL, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt,
		Deliveries: e.deliveries, Shown: !e.Behind(), Silent: e.Silent(), Revision: e.revision,
	}
}

func (q Query) fits(e *entry) bool {
	if len(q.States) > 0 && !slices.Contains(q.States, e.State) {
		return false
	}
	if q.Text == "" {
		return true
	}
	for _, field := range []string{e.Repository + ":" + e.Tag, e.ID, e.Route, e.Reason, e.Digest} {
		if strings.Contains(strings.ToLower(field), q.Text) {
			return true
		}
	}
	return false
}

// Rows returns promotions, the newest first, and how many match. With a
// revision in Since, they come in the order in which they changed, the last
// change first.
func (s *Sandbox) Rows(q Query) (rows []Row, total int, err error) {
	q.Text = strings.ToLower(q.Text)
	q.Limit = min(max(q.Limit, 0), mostRows)
	if q.Limit == 0 {
		q.Limit = defaultRows
	}
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	take := func(e *entry) {
		if !q.fits(e) {
			return
		}
		if total >= q.Offset && len(rows) < q.Limit {
			rows = append(rows, e.row())
		}
		total++
	}
	if q.Since > 0 {
		for at := x.changed.Back(); at != nil && at.Value.(*entry).revision > q.Since; at = at.Prev() {
			take(at.Value.(*entry))
		}
		return rows, total, nil
	}
	for _, e := range slices.Backward(x.order) {
		take(e)
	}
	return rows, total, nil
}

// Revision is the highest revision of any row.
func (s *Sandbox) Revision() int64 {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	return s.index.revision
}
