package simulation

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/internal/route"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run this seed alone, and tell its story")
	forTime  = flag.Duration("for", 0, "how long TestSimulate looks for a seed that breaks a promise; 2m where CI is set, else 30s")
	forever  = flag.Bool("forever", false, "look until stopped")
)

const (
	// unrestTime is how long there are faults. quietTime is how long it then
	// takes until everything has ended: Pub/Sub's attempts, and a pipeline's
	// silence.
	unrestTime = 5 * time.Hour
	quietTime  = 20 * time.Hour
)

// TestSimulate tries seeds until its time is over: from 1 on, so that no change
// fails by chance, or with -forever different ones each time.
func TestSimulate(t *testing.T) {
	if *seedFlag != 0 {
		if broken, story := simulate(t, *seedFlag); len(broken) > 0 {
			t.Errorf("%s\n\n%s", strings.Join(story, "\n"), strings.Join(broken, "\n"))
		} else {
			t.Logf("%s", strings.Join(story, "\n"))
		}
		return
	}
	limit := *forTime
	switch {
	case *forever:
		limit = 10_000 * time.Hour
	case limit == 0 && os.Getenv("CI") != "":
		limit = 2 * time.Minute
	case limit == 0:
		limit = 30 * time.Second
	}
	var (
		end   = time.Now().Add(limit)
		seeds atomic.Int64
		found atomic.Bool
		base  uint64
	)
	if *forever {
		base = rand.Uint64() >> 16
		go func() {
			for range time.Tick(10 * time.Second) {
				fmt.Fprintf(os.Stderr, "%d seeds\n", seeds.Load())
			}
		}()
	}
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for time.Now().Before(end) && !found.Load() {
					seed := base + uint64(seeds.Add(1))
					if broken, _ := simulate(t, seed); len(broken) > 0 {
						found.Store(true)
						t.Errorf("seed %d breaks a promise, and its story is told by\n  go test ./internal/simulation -run TestSimulate -args -seed %d\n%s",
							seed, seed, strings.Join(broken, "\n"))
					}
				}
			})
		}
	})
	t.Logf("%d seeds", seeds.Load())
}

// The same seed must give the same story, otherwise a seed would not be a bug
// report.
func TestTheSameSeedIsTheSameStory(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		_, first := simulate(t, seed+1)
		_, second := simulate(t, seed+1)
		for i := range min(len(first), len(second)) {
			if first[i] != second[i] {
				t.Fatalf("seed %d differs in line %d:\n%s\n%s", seed+1, i, first[i], second[i])
			}
		}
		if len(first) != len(second) {
			t.Fatalf("seed %d tells %d lines, and then %d", seed+1, len(first), len(second))
		}
		if len(first) < 100 {
			t.Errorf("seed %d tells %d lines only", seed+1, len(first))
		}
	}
}

// simulate runs one seed, and returns the broken promises and the story.
func simulate(t *testing.T, seed uint64) (broken, story []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, rng: rand.New(rand.NewPCG(seed, 0)), wake: make(chan struct{}, 1), began: time.Now(),
			names: map[string]string{}, outside: newOutside(),
		}
		w.watched = newWatch(w)
		w.auditLog, w.mayAsk = w.rng.IntN(3) == 0, w.rng.IntN(2) == 0
		w.attempts = pick(w, 5, 12, 50)
		w.reroute()
		for _, kind := range []string{"webhook", "trigger", "trigger", "notify", "notify"} {
			w.start(kind)
		}
		w.clock("notify", "/tick", time.Minute)
		w.clock("trigger", "/reconcile", 5*time.Minute)
		w.plan()
		w.run(w.began.Add(unrestTime))
		w.turnWell()
		w.run(time.Now().Add(quietTime))
		w.events = nil // the clocks
		w.run(time.Now().Add(time.Hour))
		w.watched.check()
		broken, story = w.watched.broken, w.story
	})
	return broken, story
}

// plan schedules what happens outside of hubrelay.
func (w *world) plan() {
	images := []string{"acme/api:1.4.0"}
	if w.rng.IntN(2) == 0 {
		images = append(images, pick(w, "acme/api:1.5.0", "acme/web:1.4.0", "acme/each:1.4.0"))
	}
	if w.rng.IntN(12) == 0 {
		w.loops = images[0]
	}
	digests := func(image string) string { return fmt.Sprintf("sha256:%063x%d", len(image), 1+w.rng.IntN(3)) }
	for _, image := range images {
		at := w.between(time.Second, time.Minute)
		for range 1 + w.rng.IntN(5) {
			w.at(at, func() {
				if w.rng.IntN(12) == 0 && w.now(image) != "" {
					w.pushImage(image, "")
					return
				}
				w.pushImage(image, digests(image))
			})
			at += pick(w, w.between(time.Second, 30*time.Second), w.between(time.Minute, 10*time.Minute), w.between(10*time.Minute, 2*time.Hour))
		}
	}
	for range w.rng.IntN(5) {
		w.at(w.between(0, unrestTime), func() {
			switch w.rng.IntN(9) {
			case 0:
				w.kill(w.any(pick(w, "trigger", "notify")))
				w.refill()
			case 1:
				w.replay()
			case 2:
				w.tell("the routes change")
				w.reroute()
				for _, i := range slices.Clone(w.instances) {
					if w.rng.IntN(2) == 0 { // otherwise it finishes its running requests
						w.kill(i)
					}
				}
				w.redeploy()
			case 3:
				channel := pick(w, "C1", "C2")
				w.archived[channel] = !w.archived[channel]
				w.tell("%s is archived: %v", channel, w.archived[channel])
			case 4:
				w.foreign()
			case 5:
				refs := slices.Sorted(maps.Keys(w.messages))
				if len(refs) > 0 {
					ref := pick(w, refs...)
					w.tell("somebody deletes the message %s", ref)
					delete(w.messages, ref)
				}
			case 6:
				w.tell("the GitLab project is renamed")
				w.renamed = true
			default:
				kind := pick(w, "registry", "gitlab", "slack", "store write", "store read", "registry", "gitlab")
				f := map[string][]fate{
					"registry": {lost, "denied", "missing", "stale"}, "gitlab": {lost, "capacity", "never", "no connection", "limited", done},
					"slack": {lost, "limited", done}, "store write": {lost, done}, "store read": {lost},
				}[kind]
				now := weather{pick(w, f...), time.Now().Add(pick(w, w.between(time.Minute, 10*time.Minute), w.between(10*time.Minute, 4*time.Hour)))}
				w.tell("%s: %s until %v", kind, now.fate, now.until.Sub(w.began).Round(time.Second))
				w.weather[kind] = now
			}
		})
	}
	for range w.rng.IntN(3) {
		w.at(w.between(0, time.Hour), func() {
			w.kill(w.any(pick(w, "trigger", "notify")))
			w.refill()
		})
	}
}

// refill starts an instance for each that was killed.
func (w *world) refill() {
	for kind, n := range map[string]int{"webhook": 1, "trigger": 2, "notify": 2} {
		for alive := w.count(kind); alive < n; alive++ {
			w.start(kind)
		}
	}
}

func (w *world) count(kind string) (n int) {
	for _, i := range w.instances {
		if i.kind == kind && !i.dead {
			n++
		}
	}
	return n
}

// redeploy sends new requests to new instances; the old ones finish their
// running requests.
func (w *world) redeploy() {
	w.instances = nil
	for _, kind := range []string{"webhook", "trigger", "trigger", "notify", "notify"} {
		w.start(kind)
	}
}

// reroute makes a table: keys, channels, projects and rules change.
func (w *world) reroute() {
	w.tables++
	channel := pick(w, "C1", "C2")
	r := func(project string) map[string]any {
		return map[string]any{
			"gitlab": map[string]any{"project": project},
			"slack":  map[string]any{"channel": channel, "tell": pick(w, "all", "all", "failures")},
		}
	}
	routes := map[string]any{"acme/*": r("acme/images/{name}")}
	if w.rng.IntN(2) == 0 {
		routes["acme/api"] = r("acme/images/api")
	}
	each := r("acme/images/each")
	each["once_per"] = "delivery"
	routes["acme/each"] = each
	if w.tables > 1 && w.rng.IntN(4) == 0 {
		routes["acme/*"].(map[string]any)["tags"] = map[string]any{"exclude": []string{"1.4.*"}}
	}
	text, err := json.Marshal(routes)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.table, err = route.Parse(string(text)); err != nil {
		w.t.Fatal(err)
	}
}

// foreign sends a report about a promotion from another pipeline of the
// project, or from its own pipeline about another image.
func (w *world) foreign() {
	if len(w.pipelines) == 0 {
		return
	}
	theirs := w.pipelines[w.rng.IntN(len(w.pipelines))]
	p := *theirs
	if w.rng.IntN(3) == 0 {
		p.digest = fmt.Sprintf("sha256:%064x", 4711)
		w.report(&p, pick(w, "success", "failure"), "of another image")
		return
	}
	p.id, p.source = 1000+int64(w.rng.IntN(1000)), pick(w, "trigger", "push", "schedule")
	if w.rng.IntN(3) == 0 {
		p.projectID = "8" // it took over the path
	}
	w.report(&p, pick(w, "success", "failure"), "a stranger")
}

// turnWell ends all faults.
func (w *world) turnWell() {
	w.tell("all is well again")
	if w.rng.IntN(2) == 0 {
		w.replay()
	}
	w.well = true
	w.archived = map[string]bool{}
	if w.rng.IntN(3) == 0 { // except one channel, which the routes no longer name
		old := w.channel()
		w.archived[map[string]string{"C1": "C2", "C2": "C1"}[old]] = true
	}
}

// channel is that of the current routes.
func (w *world) channel() string {
	found, _ := w.table.Find("acme/api")
	return found.Slack.Channel
}
