package ledger

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// RegistryLag is how long after a push the registry may still show what was
// before it: an earlier look has not seen the push for certain.
const RegistryLag = 10 * time.Minute

// Progress is how far reconcile has come with asking Docker Hub, from one call
// to the next.
type Progress struct {
	Source    string    `firestore:"source"`     // that comes next; "" begins a new round
	Cursor    string    `firestore:"cursor"`     // within the source
	NotBefore time.Time `firestore:"not_before"` // until when Docker Hub wants to be left alone
	LeaseEnds time.Time `firestore:"lease_ends"` // zero where nobody asks
	// Rules are those of the table of routes, by the key of a route.
	Rules map[string]Rules `firestore:"rules"`

	// ReadAt is when it was read, by the store's time.
	ReadAt time.Time `firestore:"-"`

	version int64
}

// Rules are those by which the tags of a route are promoted.
type Rules struct {
	Text  string    `firestore:"text"`  // differs where other tags are promoted
	Since time.Time `firestore:"since"` // what was pushed before was not theirs to promote
}

// learn notes since when the routes have the rules that they have now, and
// tells whether there was anything to note. Where a route goes, its repositories
// may be those of some other by now; where one comes for a single repository,
// some other had it.
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

// rulesOf returns the rules of a repository: those of its own, or of the longest
// glob. It is not ok for what is no single one, or has none.
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

// mayTake tells whether repositories of a route that is gone may be those of
// another one by now.
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

// Resume takes the right to ask Docker Hub, and notes the rules of the routes,
// by their keys. It returns ErrLeased while another has the right, or Docker Hub
// wants to be left alone.
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

// Rules returns those of the routes when Docker Hub was asked last, by their
// keys; nil where it never was.
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

// Pause gives the right back, and records how far it has come. Where the right
// was lost nothing is recorded.
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

// Looked tells whether somebody has looked at the tag since a push.
func (s *Snapshot) Looked(pushedAt time.Time) bool {
	return !s.tag.LookedAt.Before(pushedAt.Add(RegistryLag).Truncate(time.Microsecond)) // which a store keeps
}

// Busy tells whether somebody is about to look at the tag.
func (s *Snapshot) Busy() bool {
	return s.now.Before(s.tag.LookBy) || s.pending != nil || s.settled != nil && s.settled.retried()
}

// Misses decides whether a push of which no message is known begins a
// promotion. It changes nothing.
func (s *Snapshot) Misses(l Look) bool {
	if l.PerDelivery || s.settled == nil {
		return s.group.Digest != l.Digest && l.Message.PushedAt.After(s.group.DiedAt)
	}
	tag, settled := *s.tag, *s.settled
	probe := record{tag: &tag, group: &tag, settled: &settled, now: s.now}
	v := probe.look(l, l.Digest)
	return v == Start || v == Loop
}

// Missed records what Misses decides. Where the push begins a promotion these
// are the message, which is the caller's to queue, and when somebody must have
// looked at the tag; else that somebody has looked at this push. It returns
// ErrConflict as Settle does.
func (s *Snapshot) Missed(ctx context.Context, l Look) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	missed := s.Misses(l)
	s.finish(earlier(s.now, l.Message.PushedAt.Add(RegistryLag))) // of a later push nothing was decided
	if missed {
		s.tag.LookBy, s.tag.Look = s.now.Add(StartingLookBy), l.Message
	}
	return missed, s.commit(ctx, 0)
}
