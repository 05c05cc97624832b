package trigger_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
)

// limitedGitLab creates 25 pipelines a minute, like GitLab.com for a project
// and commit, and takes a second for each.
type limitedGitLab struct {
	mu      sync.Mutex
	created []time.Time
	asked   int
}

func (*limitedGitLab) FindJob(context.Context, gitlab.JobQuery) (gitlab.Job, bool, error) {
	return gitlab.Job{}, false, nil
}

func (g *limitedGitLab) CreatePipeline(context.Context, gitlab.Request) (gitlab.Pipeline, error) {
	time.Sleep(time.Second)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	recent := 0
	for _, at := range g.created {
		if time.Since(at) < time.Minute {
			recent++
		}
	}
	if recent >= 25 {
		return gitlab.Pipeline{}, &gitlab.Error{Status: 400, Reason: gitlab.RateLimited, RetryAfter: time.Minute}
	}
	g.created = append(g.created, time.Now())
	return gitlab.Pipeline{ID: int64(g.asked), ProjectID: 42, URL: "https://gitlab.example/p/1"}, nil
}

// steady is a registry in which every tag is one image.
type steady struct{}

func (steady) Digest(context.Context, string, string) (string, error) { return digestA, nil }

// Five hundred pushes at once, a Pub/Sub that delivers all of them again at the
// same moments, without jitter, and two instances of Trigger.
func TestABurstDrainsWithoutDeadLetters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const (
			pushes   = 500
			attempts = 50 // that Pub/Sub makes
		)
		table, err := route.Parse(routes)
		if err != nil {
			t.Fatal(err)
		}
		g, l := &limitedGitLab{}, ledger.New(ledger.NewMemory())
		instances := make([]http.Handler, 2)
		for i := range instances {
			instances[i] = trigger.New(trigger.Trigger{
				Routes: table, Tokens: trigger.Tokens{"*": env.NewSecret("t")}, Promotions: l, Images: steady{}, Pipelines: g,
				Queue: &queue{}, DeadLetters: &queue{},
			}, gcplog.New(io.Discard, "p"))
		}
		var (
			running sync.WaitGroup
			mu      sync.Mutex
			most    int
		)
		began := time.Now()
		for i := range pushes {
			m := webhook(fmt.Sprint("d", i)).of("acme/api", fmt.Sprint("1.", i))
			running.Go(func() {
				body := m.body(t)
				wait := 10 * time.Second
				for attempt := 1; ; attempt++ {
					w := httptest.NewRecorder()
					instances[(i+attempt)%2].ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(body)))
					if w.Code == http.StatusOK {
						mu.Lock()
						defer mu.Unlock()
						most = max(most, attempt)
						return
					}
					time.Sleep(wait)
					wait = min(2*wait, 600*time.Second)
				}
			})
		}
		running.Wait()
		if len(g.created) != pushes {
			t.Errorf("%d pipelines", len(g.created))
		}
		if most > attempts/3 {
			t.Errorf("a push took %d deliveries", most)
		}
		if refused := g.asked - pushes; refused > pushes/4 {
			t.Errorf("GitLab refused %d requests", refused)
		}
		t.Logf("%d pushes took %v, %d deliveries at most, and GitLab refused %d requests",
			pushes, time.Since(began), most, g.asked-pushes)
	})
}

func TestAnotherProjectDoesNotWait(t *testing.T) {
	inABubble(t, func(w *world) {
		w.pipelines.errs = []error{&gitlab.Error{Status: 429, Reason: gitlab.RateLimited, RetryAfter: time.Minute}}
		m := webhook("1").of("acme/api", "1")
		w.deliver(m).is(503, "retry", "gitlab_rate_limited")
		limited := time.Now()
		w.deliver(webhook("2").of("acme/each", "1")).is(200, "triggered", "")
		if !time.Now().Equal(limited) {
			w.t.Error("another project waited")
		}
		w.deliver(webhook("3").of("acme/api", "latest")).is(200, "ignored", "moving_tag")
		if !time.Now().Equal(limited) {
			w.t.Error("what is ignored waited")
		}
		for attempt := 0; w.deliver(m).status != 200; attempt++ {
			if attempt == 10 {
				w.t.Fatal("the project is never asked about again")
			}
		}
		if since := time.Since(limited); since < time.Minute {
			w.t.Errorf("GitLab was asked again after %v", since)
		}
		w.asked(3, 0)
	})
}

// An instance asks GitLab for five pipelines at a time.
func TestAnInstanceThatIsBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table, err := route.Parse(routes)
		if err != nil {
			t.Fatal(err)
		}
		g := &slowGitLab{}
		h := trigger.New(trigger.Trigger{
			Routes: table, Tokens: trigger.Tokens{"*": env.NewSecret("t")}, Promotions: ledger.New(ledger.NewMemory()), Images: steady{},
			Pipelines: g, Queue: &queue{}, DeadLetters: &queue{},
		}, gcplog.New(io.Discard, "p"))
		var running sync.WaitGroup
		answers := make(chan string, 20)
		for i := range 20 {
			m := webhook("d").of("acme/api", fmt.Sprint(i))
			running.Go(func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(m.body(t))))
				answers <- w.Body.String()
			})
		}
		running.Wait()
		close(answers)
		busy := 0
		for a := range answers {
			if strings.Contains(a, `"reason":"busy"`) {
				busy++
			}
		}
		if g.most != 5 || busy == 0 || busy == 20 {
			t.Errorf("%d at once, %d of 20 were busy", g.most, busy)
		}
	})
}

// slowGitLab is slow, and counts concurrent requests.
type slowGitLab struct {
	mu        sync.Mutex
	now, most int
}

func (*slowGitLab) FindJob(context.Context, gitlab.JobQuery) (gitlab.Job, bool, error) {
	return gitlab.Job{}, false, nil
}

func (g *slowGitLab) CreatePipeline(context.Context, gitlab.Request) (gitlab.Pipeline, error) {
	g.mu.Lock()
	g.now++
	g.most = max(g.most, g.now)
	g.mu.Unlock()
	time.Sleep(15 * time.Second)
	g.mu.Lock()
	g.now--
	g.mu.Unlock()
	return gitlab.Pipeline{}, nil
}
