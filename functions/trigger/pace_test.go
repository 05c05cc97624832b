package trigger_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

// limitedGitLab creates 25 pipelines a minute, as GitLab.com does for a project
// and commit, and takes a second for each.
type limitedGitLab struct {
	mu      sync.Mutex
	created []time.Time
	asked   int
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
	return gitlab.Pipeline{URL: "https://gitlab.example/p/1"}, nil
}

func (g *limitedGitLab) FindPipeline(context.Context, gitlab.Search) (gitlab.Pipeline, bool, error) {
	return gitlab.Pipeline{}, false, errors.New("not asked for")
}

// Five hundred pushes at once, a Pub/Sub that delivers all of them again at the
// same moments, without jitter, and two instances of Trigger.
func TestABurstDrainsWithoutDeadLetters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const pushes = 500
		table, err := route.Parse(routes)
		if err != nil {
			t.Fatal(err)
		}
		g, l := &limitedGitLab{}, ledger.NewMemory()
		instances := make([]http.Handler, 2)
		for i := range instances {
			instances[i] = trigger.New(trigger.Trigger{
				Routes: table, Tokens: trigger.Tokens{"*": env.NewSecret("t")}, Claims: l, Pipelines: g, DeadLetters: &queue{},
			}, gcplog.New(io.Discard, "p"))
		}
		var (
			running sync.WaitGroup
			mu      sync.Mutex
			most    int
		)
		began := time.Now()
		for i := range pushes {
			running.Go(func() {
				data := fmt.Appendf(nil, `{"id":"d%d","repository":"acme/api","tag":"1.%d"}`, i, i)
				body, _ := json.Marshal(map[string]any{"message": map[string]any{"data": data, "messageId": "m"}})
				wait := 10 * time.Second
				for attempt := 1; ; attempt++ {
					w := httptest.NewRecorder()
					instances[(i+attempt)%2].ServeHTTP(w, httptest.NewRequest("POST", "/", bytes.NewReader(body)))
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
		// Deployed are 20 attempts.
		if most > 15 {
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
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.pipelines.errs = []error{&gitlab.Error{Status: 429, Reason: gitlab.RateLimited, RetryAfter: time.Minute}}
		w.deliver(t, "1", "acme/api", "1").is(t, 503, "retry", "gitlab_rate_limited")
		limited := time.Now()
		w.deliver(t, "2", "acme/each", "1").is(t, 200, "triggered", "")
		if !time.Now().Equal(limited) {
			t.Error("another project waited")
		}
		for attempt := 0; w.deliver(t, "1", "acme/api", "1").status != 200; attempt++ {
			if attempt == 10 {
				t.Fatal("the project is never asked about again")
			}
		}
		if since := time.Since(limited); since < time.Minute {
			t.Errorf("GitLab was asked again after %v", since)
		}
		if len(w.pipelines.requests) != 3 {
			t.Errorf("GitLab was asked %d times", len(w.pipelines.requests))
		}
	})
}

func TestAPipelineInDoubtIsLookedFor(t *testing.T) {
	t.Parallel()
	inDoubt := &gitlab.Error{Reason: gitlab.Unavailable, Ambiguous: true}
	for _, c := range []struct {
		name     string
		token    bool
		left     string
		err      error
		first    error
		status   int
		outcome  string
		url      string
		requests int // to create one
		searches int
	}{
		{"it is there", true, "https://gitlab.example/p/left", nil, inDoubt, 200, "triggered", "https://gitlab.example/p/left", 1, 1},
		{"it is not there", true, "", nil, inDoubt, 200, "triggered", "https://gitlab.example/p/1", 2, 1},
		{"GitLab does not say", true, "", inDoubt, inDoubt, 503, "retry", "", 1, 1},
		{"GitLab lets nobody look", true, "", &gitlab.Error{Status: 401, Reason: gitlab.SearchRefused}, inDoubt, 200, "dead", "", 1, 1},
		{"without a token", false, "", nil, inDoubt, 200, "triggered", "https://gitlab.example/p/1", 2, 0},
		{"without doubt", true, "", nil, &gitlab.Error{Status: 500, Reason: gitlab.Unavailable}, 200, "triggered", "https://gitlab.example/p/1", 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.pipelines.errs, w.pipelines.left, w.pipelines.searchErr = []error{c.first}, c.left, c.err
			if c.token {
				w.apiTokens = trigger.Tokens{"*": env.NewSecret("canary-api")}
			}
			w.deliver(t, "1", "acme/api", "1.4.0").is(t, 503, "retry", "gitlab_unavailable")
			got := w.deliver(t, "1", "acme/api", "1.4.0")
			if got.status != c.status || got.body["outcome"] != c.outcome || got.body["pipeline_url"] != c.url {
				t.Errorf("got %d %v", got.status, got.body)
			}
			if len(w.pipelines.requests) != c.requests || len(w.pipelines.searches) != c.searches {
				t.Errorf("asked for %v, looked for %v", w.pipelines.requests, w.pipelines.searches)
			}
			for _, s := range w.pipelines.searches {
				if s.Name != "hubrelay 1" || s.Project != "acme/images/api" {
					t.Errorf("looked for %+v", s)
				}
			}
		})
	}
}

func TestTheLedgerKnowsWhyAPushWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := ledger.NewMemory()
	w.ledger = l
	w.images.err = &registry.Error{Status: 404, Reason: "not_in_registry"}
	w.deliver(t, "1", "acme/api", "1.4.0").is(t, 503, "retry", "not_in_registry")
	if p, err := l.Get(t.Context(), "1"); err != nil || p.Reason != "not_in_registry" || p.State != ledger.Claimed {
		t.Errorf("the record is %+v, %v", p, err)
	}
	w.images.err = nil
	w.deliver(t, "1", "acme/api", "1.4.0").is(t, 200, "triggered", "")
	if p, err := l.Get(t.Context(), "1"); err != nil || p.Reason != "" || p.State != ledger.Triggered {
		t.Errorf("the record is %+v, %v", p, err)
	}
}
