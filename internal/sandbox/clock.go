package sandbox

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// clock is the time of the sandbox: that of this machine, put forward. What
// waits by it is done by workers; all others are too quick to be waited for.
type clock struct {
	mu       sync.Mutex
	ahead    time.Duration
	sleepers map[*sleeper]bool
	awake    int // workers that are at something
}

type sleeper struct {
	due   time.Time
	timer *time.Timer
	woken bool
}

func newClock() *clock { return &clock{sleepers: map[*sleeper]bool{}} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// work has f done by a worker.
func (c *clock) work(f func()) {
	c.count(1)
	defer c.count(-1)
	f()
}

func (c *clock) count(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.awake += n
}

// sleep has a worker wait, and returns early where ctx ends.
func (c *clock) sleep(ctx context.Context, d time.Duration) {
	c.mu.Lock()
	s := &sleeper{due: time.Now().Add(c.ahead + d), timer: time.NewTimer(d)}
	c.sleepers[s] = true
	c.awake--
	c.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-s.timer.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sleepers, s)
	s.timer.Stop()
	if !s.woken {
		c.awake++
	}
}

// next is when somebody wakes up next, false if nobody does.
func (c *clock) next() (due time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.sleepers {
		if !s.woken && (!ok || s.due.Before(due)) {
			due, ok = s.due, true
		}
	}
	return due, ok
}

// forward puts the clock forward, and wakes up whose time has come.
func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	now := time.Now().Add(c.ahead)
	for s := range c.sleepers {
		if s.woken {
			continue
		}
		if left := s.due.Sub(now); left > 0 {
			s.timer.Reset(left)
			continue
		}
		s.woken = true
		c.awake++
		s.timer.Reset(0)
	}
}

func (c *clock) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.awake > 0
}

const (
	// maxForward bounds how far the clock is put forward at once.
	maxForward = 90 * 24 * time.Hour
	// forwardTime bounds how long the things that fall into that time may take.
	// What is left of it then passes at once.
	forwardTime = 15 * time.Second
	// settleTime bounds how long one of them is waited for.
	settleTime = time.Second
	// renewEvery is how much time passes until the functions are restarted,
	// which would not live for hours, either. What they leave alone for a while
	// they do by this machine's clock, and forget with that.
	renewEvery = time.Minute
)

// Forward lets time pass: everything that waits for a time within d is done in
// its order, as if it had come, and in the end both clocks of Cloud Scheduler
// call once more. Where that takes over fifteen seconds, the rest of the time
// passes at once.
func (s *Sandbox) Forward(ctx context.Context, d time.Duration) error {
	if d <= 0 || d > maxForward {
		return fmt.Errorf("the clock goes forward by more than nothing, and by %s at most", maxForward)
	}
	s.forwarding.Lock()
	defer s.forwarding.Unlock()
	target, end := s.clock.now().Add(d), time.Now().Add(forwardTime)
	for time.Now().Before(end) && ctx.Err() == nil {
		s.settle()
		due, ok := s.clock.next()
		if !ok || due.After(target) {
			break
		}
		s.pass(due.Sub(s.clock.now()))
	}
	s.pass(target.Sub(s.clock.now()))
	s.events.add(Event{Stage: Reconcile, Who: "clock", What: "goes forward by " + d.String()})
	s.settle()
	for _, path := range []string{reconcilePath, tickPath} {
		if _, err := s.ring(ctx, path); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// pass lets time pass in which nothing happens.
func (s *Sandbox) pass(d time.Duration) {
	d = max(0, d)
	if s.passed += d; s.passed >= renewEvery {
		s.passed = 0
		s.renew()
	}
	s.GitLab.Age(d)
	s.clock.forward(d)
}

// settle waits until nobody is at anything, and a second at most: somebody may
// wait for this machine's clock.
func (s *Sandbox) settle() {
	for end := time.Now().Add(settleTime); time.Now().Before(end) && (s.clock.busy() || s.queue.untaken() > 0); {
		time.Sleep(time.Millisecond)
	}
}
