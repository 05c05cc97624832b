package ledger

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// RegistryLag is how long after a push the registry may still show the old
// image. An earlier look may not have seen the push.
const RegistryLag = 10 * time.Minute

// Progress is how far reconcile has come with Docker Hub. It is kept from one
// call to the next.
type Progress struct {
	Source    string    `firestore:"source"`     // the next one; "" begins a new round
	Cursor    string    `firestore:"cursor"`     // within the source
	NotBefore time.Time `firestore:"not_before"` // until when Docker Hub limits requests
	LeaseEnds time.Time `firestore:"lease_ends"` // zero if nobody asks
	// Rules are the tag rules of the routes, by the route's key.
	Rules map[string]Rules `firestore:"rules"`

	// ReadAt is when it was read, by the store's time.
	ReadAt time.Time `firestore:"-"`

	version int64
}

// Rules decide which tags of a route are promoted.
type Rules struct {
	Text  string    `firestore:"text"`  // differs if other tags are promoted
	Since time.Time `firestore:"since"` // earlier pushes are not promoted by them
}

// learn notes since when the routes have their present rules, and reports
// whether anything was new. Another route may match the repositories of a route
// that is gone. So Since of those that may moves on: to the later one of both if
// the rules are the same, otherwise to now. A new key for a single repository
// inherits Since from the route that had the repository with the same rules.
func (p *Progress) learn(rules map[string]string, now time.Time) bool {
	learned, changed := map[string]Rules{}, len(rules) != len(p.Rules)
	for key, text := range rules {
		known, ok := p.Rules[key]
		if had, one := p.rulesOf(key); !ok && one && had.Text == text {
			known, ok, changed = had, true, true
		}
		if !ok || known.Text != text {
			learned[key], changed = Rules{text, now}, true
			continue
		}
		for gone, was := range p.Rules {
			switch _, stays := rules[gone]; {
			case stays || !mayTake(key, gone):
			case was.Text != text:
				known.Since, changed = now, true
			default:
				known.Since, changed = later(known.Since, was.Since), true
			}
		}
		learned[key] = known
	}
	p.Rules = learned
	return changed
}

// rulesOf returns the rules of a repository: those of its own key, or of the
// longest glob that matches it. It is not ok for a glob, or if no key matches.
func (p *Progress) rulesOf(repository string) (Rules, bool) {
	best := ""
	if !isGlob(repository) {
		for key := range p.Rules {
			if matches(key, repository) && (len(key) > len(best) || len(key) == len(best) && key < best) {
				best = key
			}
		}
	}
	return p.Rules[best], best != ""
}

// mayTake reports whether key may match repositories of a route that is gone.
func mayTake(key, gone string) bool {
	switch {
	case !isGlob(key): // an exact key wins, so its repository was its own before
		return false
	case !isGlob(gone):
		return matches(key, gone)
	}
	namespace, _, _ := strings.Cut(key, "/")
	other, _, _ := strings.Cut(gone, "/")
	return namespace == other || isGlob(namespace) || isGlob(other)
}

// The keys of routes, as the table of routes takes them: a repository, a glob
// over repositories, or * for all.
func isGlob(key string) bool { return strings.ContainsAny(key, `*?[\`) }

func matches(key, repository string) bool {
	ok, _ := path.Match(key, repository) // keys were checked where they were read
	return ok || key == "*"
}

// Resume takes the lease for asking Docker Hub, and notes the rules of the
// routes, by their keys. It returns ErrLeased while another has the lease, or
// while Docker Hub limits requests.
func (l *Ledger) Resume(ctx context.Context, lease time.Duration, rules map[string]string) (p Progress, err error) {
	err = l.again(ctx, func(ctx context.Context) error {
		found, now, err := l.store.Progress(ctx)
		if err != nil {
			return err
		}
		p = Progress{}
		if found != nil {
			p = *found
		}
		p.ReadAt = now
		changed := p.learn(rules, now)
		leased := now.Before(p.LeaseEnds) || now.Before(p.NotBefore)
		if !leased {
			p.LeaseEnds, changed = now.Add(lease), true
		}
		if changed {
			err = l.store.Commit(ctx, Batch{Progress: &p})
		}
		if err == nil && leased {
			return ErrLeased
		}
		return err
	})
	return p, err
}

// Rules returns the rules that the routes had when Docker Hub was last asked,
// by their keys. It returns nil if Docker Hub was never asked.
func (l *Ledger) Rules(ctx context.Context) (map[string]Rules, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	p, _, err := l.store.Progress(ctx)
	if err != nil {
		return nil, fmt.Errorf("read how far Docker Hub was asked: %w", err)
	}
	if p == nil {
		return nil, nil
	}
	return p.Rules, nil
}

// Pause gives the lease back, and records the progress. If the lease was lost,
// nothing is recorded.
func (l *Ledger) Pause(ctx context.Context, p Progress, leaveAlone time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	found, now, err := l.store.Progress(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("record how far Docker Hub was asked: %w", err)
	case found == nil || !found.LeaseEnds.Equal(p.LeaseEnds):
		return nil
	}
	found.Source, found.Cursor, found.LeaseEnds, found.NotBefore = p.Source, p.Cursor, time.Time{}, time.Time{}
	if leaveAlone > 0 {
		found.NotBefore = now.Add(leaveAlone)
	}
	if err := l.store.Commit(ctx, Batch{Progress: found}); err != nil && !errors.Is(err, ErrConflict) {
		return fmt.Errorf("record how far Docker Hub was asked: %w", err)
	}
	return nil
}

// Looked reports whether the tag was looked at since a push.
func (s *Snapshot) Looked(pushedAt time.Time) bool {
	return !s.tag.LookedAt.Before(pushedAt.Add(RegistryLag).Truncate(time.Microsecond)) // which a store keeps
}

// Busy reports whether another look at the tag is expected: LookBy has not
// passed, or a promotion of the tag waits or is starting.
func (s *Snapshot) Busy() bool {
	return s.now.Before(s.tag.LookBy) || s.pending != nil || s.settled != nil && s.settled.retried()
}

// Misses decides whether a push without a message begins a promotion. It
// changes nothing.
func (s *Snapshot) Misses(l Look) bool {
	if l.PerDelivery || s.settled == nil {
		return s.group.Digest != l.Digest && l.Message.PushedAt.After(s.group.DiedAt)
	}
	tag, settled := *s.tag, *s.settled
	probe := record{tag: &tag, group: &tag, settled: &settled, now: s.now}
	v := probe.look(l, l.Digest)
	return v == Start || v == Loop
}

// Missed records what Misses decides. If the push begins a promotion, it
// records the message, which the caller must queue, and by when the tag must be
// looked at. Otherwise it records that this push was looked at. Like Settle, it
// may return ErrConflict.
func (s *Snapshot) Missed(ctx context.Context, l Look) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	missed := s.Misses(l)
	s.finish(earlier(s.now, l.Message.PushedAt.Add(RegistryLag))) // this decides nothing about a later push
	if missed {
		s.tag.LookBy, s.tag.Look = s.now.Add(StartingLookBy), l.Message
	}
	return missed, s.commit(ctx, 0)
}
