// Package simulation runs the real handlers of the three functions, and the
// real rules of the ledger, in one process under virtual time, while everything
// outside fails in every known way. A seed decides everything: which call
// proceeds, fails, hangs, or is answered late or with an old image, and which
// process is killed. After each run the faults end, and the promises of
// docs/architecture.md are checked. A seed is a bug report.
package simulation

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// world is everything outside of hubrelay, and the scheduler of the requests
// inside. One thing happens at a time: the scheduler waits until every request
// waits for it, and then lets one call to the outside return, or an event
// happen, or time pass.
type world struct {
	t    *testing.T
	rng  *rand.Rand
	well bool // the faults have ended

	mu     sync.Mutex
	parked []*call
	wake   chan struct{}

	events []*event
	serial int
	began  time.Time

	names map[string]string // random IDs, by their place in the story
	story []string

	outside
}

// event happens at a time.
type event struct {
	at     time.Time
	serial int
	do     func()
}

// task is a request that one of the functions is working on.
type task struct {
	id         int
	name       string
	instance   *instance
	message    *message  // that is pushed to it; nil where it is none
	asked      time.Time // when the registry answered it last
	answerOf   string    // the promotion of which it has to record GitLab's answer
	unrecorded bool      // the ledger failed since
	truth      string    // the image that it has seen, until that is recorded
}

// instance is a process of one function.
type instance struct {
	kind    string
	serial  int
	handler http.Handler
	dead    bool
}

// call is a call of a task to the outside, until the scheduler lets it return.
type call struct {
	task     *task
	kind     string // such as gitlab
	what     string // for the story
	serial   int
	deadline time.Time
	answer   chan fate
}

// fate is the result of a call.
type fate string

const (
	fine fate = "ok"
	lost fate = "lost"      // it fails, and had no effect
	done fate = "done, but" // it fails, although it had its effect
	dies fate = "killed"
)

type taskKey struct{}

// call asks the scheduler for the result of a call. It does not return if the
// caller's process was killed.
func (w *world) call(ctx context.Context, kind, format string, args ...any) fate {
	t := taskOf(ctx)
	if t.instance.dead {
		runtime.Goexit()
	}
	c := &call{task: t, kind: kind, what: fmt.Sprintf(format, args...), answer: make(chan fate)}
	if deadline, ok := ctx.Deadline(); ok {
		c.deadline = deadline
	} else {
		c.deadline = time.Now().Add(time.Minute)
	}
	w.mu.Lock()
	w.serial++
	c.serial = w.serial
	w.parked = append(w.parked, c)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	f := <-c.answer
	if f == dies || t.instance.dead {
		runtime.Goexit()
	}
	return f
}

// at makes something happen after a time.
func (w *world) at(after time.Duration, do func()) {
	w.serial++
	w.events = append(w.events, &event{time.Now().Add(after), w.serial, do})
}

// spawn sends a request to an instance. answered is called with the status, or
// 0 if the process was killed before it could answer.
func (w *world) spawn(i *instance, name string, m *message, r *http.Request, answered func(status int, body string)) {
	w.serial++
	t := &task{id: w.serial, name: name, instance: i, message: m}
	r = r.WithContext(context.WithValue(r.Context(), taskKey{}, t))
	w.tell("%s %d: %s", i.kind, i.serial, name)
	go func() {
		recorder, killed := httptest.NewRecorder(), true
		defer func() {
			if t.answerOf != "" && (killed || t.unrecorded) {
				w.lostAnswers[t.answerOf]++
			}
			if killed {
				w.tell("%s %d: %s was killed", i.kind, i.serial, name)
				answered(0, "")
				return
			}
			body := strings.TrimSpace(recorder.Body.String())
			w.tell("%s %d: %s → %d %s", i.kind, i.serial, name, recorder.Code, body)
			answered(recorder.Code, body)
		}()
		i.handler.ServeHTTP(recorder, r)
		killed = i.dead
	}()
}

// run lets things happen until a time.
func (w *world) run(until time.Time) {
	for {
		synctest.Wait()
		select {
		case <-w.wake:
		default:
		}
		now := time.Now()
		next := w.nextEvent()
		due := next != nil && !next.at.After(now)
		w.mu.Lock()
		parked := slices.Clone(w.parked)
		w.mu.Unlock()
		slices.SortFunc(parked, func(a, b *call) int {
			return cmp.Or(cmp.Compare(a.task.id, b.task.id), strings.Compare(a.what, b.what), cmp.Compare(a.serial, b.serial))
		})
		switch {
		case due && (len(parked) == 0 || w.rng.IntN(2) == 0):
			w.events = slices.DeleteFunc(w.events, func(e *event) bool { return e == next })
			next.do()
		case len(parked) > 0 && !w.well && w.rng.IntN(12) == 0:
			w.pass(w.latency())
		case len(parked) > 0:
			w.decide(parked[w.rng.IntN(len(parked))])
		case !now.Before(until):
			return
		default:
			wait := until.Sub(now)
			if next != nil {
				wait = min(wait, next.at.Sub(now))
			}
			w.pass(wait)
		}
	}
}

// pass lets time pass, or less if a request continues before.
func (w *world) pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.wake:
	}
}

// latency is how long something takes: mostly no time, sometimes too long.
func (w *world) latency() time.Duration {
	switch n := w.rng.IntN(20); {
	case n < 12:
		return time.Duration(w.rng.IntN(50)) * time.Millisecond
	case n < 18:
		return time.Duration(w.rng.IntN(3000)) * time.Millisecond
	default:
		return time.Duration(w.rng.IntN(40)) * time.Second
	}
}

func (w *world) nextEvent() *event {
	if len(w.events) == 0 {
		return nil
	}
	return slices.MinFunc(w.events, func(a, b *event) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.serial, b.serial))
	})
}

// decide lets a call return.
func (w *world) decide(c *call) {
	f := w.fate(c)
	if !c.deadline.IsZero() && !time.Now().Before(c.deadline) { // its caller has waited too long
		if f == fine {
			f = []fate{lost, done}[w.rng.IntN(2)]
		}
	}
	if (f == lost || f == done) && w.rng.IntN(4) == 0 && time.Now().Before(c.deadline) { // it hangs first
		w.unpark(c)
		w.tell("  %s hangs", c.what)
		w.at(time.Until(c.deadline), func() { w.answer(c, f) })
		return
	}
	w.unpark(c)
	w.answer(c, f)
}

func (w *world) unpark(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parked = slices.DeleteFunc(w.parked, func(other *call) bool { return other == c })
}

func (w *world) answer(c *call, f fate) {
	if c.task.instance.dead {
		f = dies
	}
	if f != fine || c.kind != "store read" {
		w.tell("  %s %s: %s", c.task.name, c.what, f)
	}
	c.answer <- f
}

// kill ends a process with everything that it was doing. Another replaces it.
func (w *world) kill(i *instance) {
	w.tell("%s %d is killed", i.kind, i.serial)
	i.dead = true
	w.mu.Lock()
	var dead []*call
	w.parked = slices.DeleteFunc(w.parked, func(c *call) bool {
		if c.task.instance == i {
			dead = append(dead, c)
		}
		return c.task.instance == i
	})
	w.mu.Unlock()
	for _, c := range dead {
		c.answer <- dies
	}
}

var randomID = regexp.MustCompile(`\b[0-9a-f]{32}\b`)

// tell adds to the story. Random IDs are replaced by their order.
func (w *world) tell(format string, args ...any) {
	line := randomID.ReplaceAllStringFunc(fmt.Sprintf(format, args...), w.name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, fmt.Sprintf("%12s  %s", time.Since(w.began).Round(time.Millisecond), line))
}

// name returns what the story calls an ID.
func (w *world) name(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.names[id] == "" {
		w.names[id] = fmt.Sprintf("p%d", len(w.names)+1)
	}
	return w.names[id]
}

// chance reports whether something of a probability happens.
func (w *world) chance(p float64) bool { return !w.well && w.rng.Float64() < p }

// between draws a time.
func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rng.Int64N(int64(most-least)+1))
}

// taskOf returns the task that makes a call.
func taskOf(ctx context.Context) *task { return ctx.Value(taskKey{}).(*task) }

func pick[T any](w *world, from ...T) T { return from[w.rng.IntN(len(from))] }
