package trigger

import (
	"context"
	"hash/fnv"
	"sync"
	"time"

	"github.com/getto-systems/hubrelay/internal/gitlab"
)

const (
	// atOnce is how many pipelines one instance creates at a time.
	atOnce = 5
	// turnTime is how long an attempt waits until it may ask GitLab.
	turnTime = 20 * time.Second
	// maxWait bounds how long an attempt waits while GitLab limits its project.
	maxWait = 80 * time.Second
	// maxPause bounds how long requests for a project are paused.
	maxPause = 10 * time.Minute
)

// pace limits an instance's requests to what GitLab allows.
type pace struct {
	turns chan struct{}

	mu    sync.Mutex
	until map[string]time.Time // by project: GitLab limits it until then
}

func newPace() *pace {
	return &pace{turns: make(chan struct{}, atOnce), until: map[string]time.Time{}}
}

// turn waits until GitLab may be asked for a pipeline of the project. It
// returns a function that ends the turn, or the outcome of an attempt that gets
// none. While GitLab limits the project, each attempt waits for a different
// time. Pub/Sub's back-off has no jitter, so attempts that were refused
// together would come back together, until they are dead letters.
func (p *pace) turn(ctx context.Context, project, attempt string) (end func(), none *outcome) {
	if wait := p.paused(project); wait > 0 {
		sleep(ctx, time.Duration(part(attempt)*float64(min(2*wait, maxWait))))
	}
	ctx, cancel := context.WithTimeout(ctx, turnTime)
	defer cancel()
	select {
	case p.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, putOff("busy")
	}
	if p.paused(project) > 0 { // still, or again
		<-p.turns
		return nil, putOff(gitlab.RateLimited)
	}
	return func() { <-p.turns }, nil
}

// part maps attempts evenly to the range from 0 to 1.
func part(attempt string) float64 {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(attempt))
	return float64(hash.Sum64()*0x9E3779B97F4A7C15>>11) / (1 << 53) // the high bits of FNV alone are too similar
}

// putOff is an outcome without an error: GitLab was not asked.
func putOff(reason string) *outcome {
	o := retry(reason, nil)
	return &o
}

func (p *pace) paused(project string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := time.Until(p.until[project])
	if wait <= 0 {
		delete(p.until, project)
	}
	return wait
}

// pause stops requests for a project for a time.
func (p *pace) pause(project string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(min(d, maxPause)); until.After(p.until[project]) {
		p.until[project] = until
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
