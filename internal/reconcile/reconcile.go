// Package reconcile finds the pushes to Docker Hub that no webhook told of, and
// queues them. What Docker Hub's API says are hints: what a tag is, the registry
// says, and what was done about it, the ledger.
package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

const (
	// window is how far back Some looks.
	window = 24 * time.Hour
	// grace is how long a webhook may take, and the registry.
	grace = ledger.RegistryLag
	// someTime bounds one call of Some, which begins nothing more after it.
	someTime = 50 * time.Second
	// maxPages is how many pages of Docker Hub's API one call of Some reads, and
	// maxHeads how often it asks the registry; the next call goes on.
	maxPages = 150
	maxHeads = 300
	// maxTroubles is how often one call may meet somebody who does not answer.
	maxTroubles = 3
	// lease spans one call of Some, with what it has begun before its end.
	lease = someTime + 2*hub.Timeout + registry.Timeout + 5*ledger.Timeout + pubsub.PublishTimeout
	// goneFor is how long after a push a tag that the registry does not have is
	// asked for in each round; then it is once an hour.
	goneFor = time.Hour
	// limited is how long a registry is left alone that does not say for how long.
	limited = time.Minute
)

// Hub is Docker Hub's API. One call reads one page, or one tag.
type Hub interface {
	Pushes(ctx context.Context, namespace string, since, until time.Time, cursor string) (hub.Page[hub.Push], error)
	Tags(ctx context.Context, repository string, since time.Time, cursor string) (hub.Page[hub.Tag], error)
	Tag(ctx context.Context, repository, tag string) (hub.Tag, error)
	Repositories(ctx context.Context, namespace, cursor string) (hub.Page[hub.Repository], error)
}

// Images says what a tag is now.
type Images interface {
	Digest(ctx context.Context, repository, tag string) (string, error)
}

// Promotions is the record of what is promoted, and of how far Some has come.
type Promotions interface {
	Read(context.Context, ledger.Key) (*ledger.Snapshot, error)
	Resume(ctx context.Context, lease time.Duration, rules map[string]string) (ledger.Progress, error)
	Pause(ctx context.Context, p ledger.Progress, leaveAlone time.Duration) error
	Found(ctx context.Context, repository, route, hint string) error
}

// Publisher queues a message, and returns its ID once the queue has it.
type Publisher interface {
	Publish(ctx context.Context, data []byte, attributes map[string]string) (id string, err error)
}

// Finder finds missed pushes. It is safe for concurrent use.
type Finder struct {
	Routes     route.Table
	Hub        Hub
	Images     Images
	Promotions Promotions
	Topic      Publisher // takes what is found

	log            *slog.Logger
	settled, round *Memo
}

// New completes a Finder of which the fields that others may see are set.
func New(f Finder, log *slog.Logger) *Finder {
	f.log, f.settled, f.round = log, NewMemo(), NewMemo()
	return &f
}

// Missed is a push that begins a promotion, and of which no message is known.
type Missed struct {
	Push   dockerhub.Push
	Digest string // by the registry
	Route  string // its key

	snapshot *ledger.Snapshot
	look     ledger.Look
}

// Some looks at pushes of the last day, for at most a minute, and queues those
// that were missed. It goes on where the last call stopped, whoever made it, and
// leaves Docker Hub alone for as long as it asks. Who does not answer is in the
// error, and stands in nobody else's way. Who refuses is in the log, and so is a
// limit that leaves nothing to ask with.
func (f *Finder) Some(ctx context.Context) (found int, err error) {
	p, err := f.Promotions.Resume(ctx, lease, Rules(f.Routes))
	switch {
	case errors.Is(err, ledger.ErrLeased):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("find out how far Docker Hub was asked: %w", err)
	}
	began, now := time.Now(), p.ReadAt
	w := &walk{
		Finder: f, pages: maxPages, heads: maxHeads, troubles: maxTroubles, end: began.Add(someTime),
		now: func() time.Time { return now.Add(time.Since(began)) },
		since: func(r route.Route) time.Time {
			if since := p.Rules[r.Key].Since; since.After(now.Add(-window)) {
				return since
			}
			return now.Add(-window)
		},
		oldest: now.Add(-window), round: f.round,
	}
	w.take = func(ctx context.Context, m Missed) error {
		taken, err := f.Queue(ctx, m)
		if taken {
			found++
		}
		return err
	}
	source, cursor := p.Source, p.Cursor
	stopped := w.all(ctx, &p)
	wait := pause(stopped)
	if wait > 0 && found == 0 && p.Source == source && p.Cursor == cursor { // and so it may be for ever
		f.refused(ctx, source, stopped)
	}
	if errors.Is(stopped, errEnough) || wait > 0 {
		stopped = nil
	}
	return found, errors.Join(stopped, w.unanswered, f.Promotions.Pause(context.WithoutCancel(ctx), p, wait))
}

// All returns the missed pushes of some time, the oldest first, each tag once.
// It changes nothing, looks back regardless of since when a route is known, and
// takes as long as the limits of Docker Hub want it to: waits hears of them. Of
// what could not be asked about the error tells.
func (f *Finder) All(ctx context.Context, since time.Time, waits func(time.Duration)) ([]Missed, error) {
	const noLimit = 1 << 30
	newest := map[string]Missed{}
	w := &walk{
		Finder: f, pages: noLimit, heads: noLimit, troubles: noLimit, end: time.Now().Add(1e6 * time.Hour), now: time.Now,
		since: func(route.Route) time.Time { return since }, oldest: since, dry: true, round: NewMemo(),
	}
	w.take = func(_ context.Context, m Missed) error {
		image := m.Push.Repository + ":" + m.Push.Tag
		if known, ok := newest[image]; !ok || m.Push.PushedAt.After(known.Push.PushedAt) {
			newest[image] = m
		}
		return nil
	}
	var p ledger.Progress
	err := w.all(ctx, &p)
	for wait := pause(err); wait > 0; wait = pause(err) {
		waits(wait)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
		err = w.all(ctx, &p)
	}
	found := []Missed{}
	for _, m := range newest {
		found = append(found, m)
	}
	slices.SortFunc(found, func(a, b Missed) int { return a.Push.PushedAt.Compare(b.Push.PushedAt) })
	return found, errors.Join(err, w.unanswered)
}

// Queue records a missed push, and queues it. It does nothing where somebody has
// looked at the tag since it was found.
func (f *Finder) Queue(ctx context.Context, m Missed) (bool, error) {
	ctx = context.WithoutCancel(ctx) // what is recorded must be queued
	switch missed, err := m.snapshot.Missed(ctx, m.look); {
	case errors.Is(err, ledger.ErrConflict):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("record the push of %s:%s: %w", m.Push.Repository, m.Push.Tag, err)
	case !missed:
		return false, nil
	}
	f.log.LogAttrs(ctx, slog.LevelWarn, "missed push found",
		slog.String("id", m.Push.ID), slog.String("repository", m.Push.Repository), slog.String("tag", m.Push.Tag),
		slog.String("digest", m.Digest), slog.String("route", m.Route))
	if err := f.Promotions.Found(ctx, m.Push.Repository, m.Route, fmt.Sprintf(registerHint, m.Push.Repository)); err != nil {
		f.log.LogAttrs(ctx, slog.LevelError, "ledger not updated", slog.String("repository", m.Push.Repository), slog.String("error", err.Error()))
	}
	// Should this fail, the record's LookBy has it queued in the end.
	return true, Publish(ctx, f.Topic, m.Push)
}

// registerHint is for a repository of whose pushes Docker Hub has never told.
const registerHint = "Its pushes are found all the same, some ten minutes late. " +
	"On Docker Hub, in the Webhooks of %s, paste https://…/TOKEN: the output webhook_url of Terraform, and behind it one of WEBHOOK_TOKENS."

// Publish queues a push for Trigger to look at, as reconcile does.
func Publish(ctx context.Context, topic Publisher, push dockerhub.Push) error {
	data, err := json.Marshal(push)
	if err != nil {
		return err
	}
	_, err = topic.Publish(ctx, data, map[string]string{
		pubsub.IDAttribute: push.ID, pubsub.RepositoryAttribute: push.Repository, pubsub.TagAttribute: push.Tag,
		pubsub.SourceAttribute: pubsub.SourceReconcile,
	})
	return err
}

// Rules are what decides which tags of a route are promoted, by its key.
func Rules(t route.Table) map[string]string {
	rules := map[string]string{}
	for _, r := range t.All() {
		rules[r.Key] = r.Rules()
	}
	return rules
}

// Memo spares an instance questions whose answers stay the same: the same pushes
// are seen in every round for a day. It is safe for concurrent use.
type Memo struct {
	mu       sync.Mutex
	answered map[string]bool
}

// maxMemo bounds what a Memo holds; it then forgets all.
const maxMemo = 20_000

// NewMemo holds nothing yet.
func NewMemo() *Memo { return &Memo{answered: map[string]bool{}} }

// Has tells whether the question was answered.
func (m *Memo) Has(question string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.answered[question]
}

// Add remembers that it was.
func (m *Memo) Add(question string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.answered) >= maxMemo {
		clear(m.answered)
	}
	m.answered[question] = true
}

func (m *Memo) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.answered)
}
