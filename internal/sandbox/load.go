package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
)

// Bounds of a load.
const (
	maxPushes    = 10_000
	maxPerSecond = 500
	maxSeconds   = 3600 // of the series
	loadTag      = "1.0.0"
)

// Load is a burst of pushes, and its progress. The series have one value per
// second.
type Load struct {
	Pushes    int       `json:"pushes"`
	PerSecond int       `json:"per_second"`
	Running   bool      `json:"running"` // not every image has ended yet
	BeganAt   time.Time `json:"began_at,omitzero"`
	Sent      int       `json:"sent"`
	Promoted  int       `json:"promoted"`
	Ended     int       `json:"ended"`  // in another way: failed, dead, skipped, superseded; or not pushed
	P50       float64   `json:"p50_ms"` // from the push to the promotion, of all
	P95       float64   `json:"p95_ms"`

	Series struct {
		Second   []int     `json:"second"`   // since it began
		Sent     []int     `json:"sent"`     // in that second
		Promoted []int     `json:"promoted"` // likewise
		P50      []float64 `json:"p50_ms"`   // of those that were promoted in that second
		P95      []float64 `json:"p95_ms"`
	} `json:"series"`
}

// load is the newest one.
type load struct {
	mu       sync.Mutex
	now      Load
	sending  bool
	pushedAt map[string]time.Time // by image, until it has ended
	sent     []int                // by second
	took     [][]time.Duration    // likewise
}

// errSending means that another load is in progress.
var errSending = errors.New("another load still pushes its images")

// StartLoad pushes images to REPOSITORY-1, REPOSITORY-2 and so on, perSecond of
// them each second. There is one load at a time.
func (s *Sandbox) StartLoad(repository string, pushes, perSecond int) error {
	repository = cmp.Or(repository, "load/image")
	image := fmt.Sprintf("%s-%d", repository, pushes)
	switch {
	case s.elsewhere:
		return errElsewhere
	case pushes < 1 || pushes > maxPushes:
		return fmt.Errorf("pushes is between 1 and %d", maxPushes)
	case perSecond < 1 || perSecond > maxPerSecond:
		return fmt.Errorf("per_second is between 1 and %d", maxPerSecond)
	case dockerhub.CheckRepository(image) != nil:
		return fmt.Errorf("repository: %w", dockerhub.CheckRepository(image))
	}
	table, err := route.Parse(s.Routes())
	if err != nil {
		return err
	}
	if e := table.Explain(image, loadTag); !e.Promoted {
		return fmt.Errorf("by the routes %s is not promoted (%s): give another repository, or change the routes", image+":"+loadTag, e.Reason)
	}
	l := &s.load
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sending {
		return errSending
	}
	l.now = Load{Pushes: pushes, PerSecond: perSecond, Running: true, BeganAt: time.Now()}
	l.pushedAt, l.sent, l.took = map[string]time.Time{}, nil, nil
	s.index.listen(l.wrote)
	l.sending = true
	go s.send(repository, pushes, perSecond)
	return nil
}

// send pushes the images of a load.
func (s *Sandbox) send(repository string, pushes, perSecond int) {
	const atOnce = 16
	var running sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for n := 1; n <= pushes && s.ctx.Err() == nil; n++ {
		if n > 1 {
			select {
			case <-tick.C:
			case <-s.ctx.Done():
			}
		}
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			name := fmt.Sprintf("%s-%d", repository, n)
			s.load.sends(name + ":" + loadTag)
			if _, err := s.registry.write(name, loadTag, random.Image); err != nil {
				s.load.ends(name+":"+loadTag, false)
			}
		})
	}
	running.Wait()
	s.load.mu.Lock()
	defer s.load.mu.Unlock()
	s.load.sending = false
}

// second is the number of seconds since the load began. The caller holds the
// lock.
func (l *load) second() int { return min(int(time.Since(l.now.BeganAt)/time.Second), maxSeconds-1) }

func (l *load) sends(image string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pushedAt[image] = time.Now()
	l.now.Sent++
	count(&l.sent, l.second())
}

// wrote is called with every promotion that is written.
func (l *load) wrote(p ledger.Promotion) {
	if !p.Note && p.State.Ended() {
		l.ends(p.Repository+":"+p.Tag, p.State == ledger.Promoted)
	}
}

func (l *load) ends(image string, promoted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pushed, ok := l.pushedAt[image]
	if !ok {
		return
	}
	delete(l.pushedAt, image)
	if promoted {
		l.now.Promoted++
		for second := l.second(); len(l.took) <= second; {
			l.took = append(l.took, nil)
		}
		l.took[l.second()] = append(l.took[l.second()], time.Since(pushed))
	} else {
		l.now.Ended++
	}
	l.now.Running = l.now.Promoted+l.now.Ended < l.now.Pushes
}

func count(list *[]int, at int) {
	for len(*list) <= at {
		*list = append(*list, 0)
	}
	(*list)[at]++
}

// Load returns the progress of the newest load.
func (s *Sandbox) Load() Load {
	l := &s.load
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now
	if now.Pushes == 0 {
		return now
	}
	seconds := max(len(l.sent), len(l.took))
	if now.Running {
		seconds = max(seconds, l.second()+1)
	}
	var all []time.Duration
	for second := range seconds {
		var took []time.Duration
		sent := 0
		if second < len(l.took) {
			took = slices.Sorted(slices.Values(l.took[second]))
		}
		if second < len(l.sent) {
			sent = l.sent[second]
		}
		all = append(all, took...)
		now.Series.Second = append(now.Series.Second, second)
		now.Series.Sent = append(now.Series.Sent, sent)
		now.Series.Promoted = append(now.Series.Promoted, len(took))
		now.Series.P50 = append(now.Series.P50, quantile(took, 50))
		now.Series.P95 = append(now.Series.P95, quantile(took, 95))
	}
	slices.Sort(all)
	now.P50, now.P95 = quantile(all, 50), quantile(all, 95)
	return now
}

// quantile returns a percentile of durations, in milliseconds; 0 if there are
// none.
func quantile(sorted []time.Duration, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := sorted[min(len(sorted)-1, len(sorted)*percent/100)]
	return float64(at.Microseconds()) / 1000
}
