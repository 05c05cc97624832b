package sandbox

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// clock is the time of the sandbox: this machine's time, moved forward.
// Everything that waits by it runs in workers; all other work is too short to
// wait for.
type clock struct {
	mu       sync.Mutex
	ahead    time.Duration
	sleepers map[*sleeper]bool
	awake    int // workers that are not asleep
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

// work runs f in a worker.
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

// sleep makes a worker wait, and returns early if ctx ends.
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

// next is when the next worker wakes up, false if none does.
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

// forward moves the clock forward, and wakes up the workers that are due.
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
	// maxForward bounds how far the clock is moved forward at once.
	maxForward = 90 * 24 * time.Hour
	// forwardTime bounds how long the work that is due in that time may take.
	// After it, the rest of the time passes at once.
	forwardTime = 15 * time.Second
	// settleTime bounds how long to wait for one piece of that work.
	settleTime = time.Second
	// renewEvery is how much time passes until the functions are restarted:
	// deployed instances do not live for hours, either. Their pauses for
	// GitLab, Docker Hub and Slack follow this machine's clock, and end with a
	// restart.
	renewEvery = time.Minute
)

// Forward lets time pass. Everything that is due within d is done in its order,
// as if the time had come, and at the end both clocks of Cloud Scheduler call
// once more. If that takes more than fifteen seconds, the rest of the time
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
		_, _ = s.ring(ctx, path) // the functions say what is wrong, and the time has passed
	}
	return ctx.Err()
}

// Ahead is how far the time of the sandbox is ahead of this machine's.
func (s *Sandbox) Ahead() time.Duration {
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	return s.clock.ahead
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

// settle waits until no worker is busy, and a second at most, because a worker
// may be waiting for this machine's clock.
func (s *Sandbox) settle() {
	for end := time.Now().Add(settleTime); time.Now().Before(end) && (s.clock.busy() || s.queue.untaken() > 0); {
		time.Sleep(time.Millisecond)
	}
}
