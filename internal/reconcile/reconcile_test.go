package reconcile_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/reconcile"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	routes  = `{
	  "acme/*": {"gitlab": {"project": "acme/{name}"}, "slack": {"channel": "C1"}},
	  "beta/api": {"gitlab": {"project": "beta/api"}, "slack": {"channel": "C1"}}
	}`
)

// api asks a fake Docker Hub without a network, which a bubble's time would wait
// for. As internal/hub, it signs in, and holds back what is over the limit.
type api struct {
	fake    *hubtest.Server
	until   time.Time // it is left alone
	token   string
	expires time.Time
	asked   int
	plan    bool // with an audit log, which knows nothing of what was before it
}

func (a *api) signIn() error {
	w := httptest.NewRecorder()
	a.fake.ServeHTTP(w, httptest.NewRequest("POST", "/v2/auth/token", strings.NewReader(`{"identifier":"acme","secret":"canary"}`)))
	var answer struct {
		Token string `json:"access_token"`
	}
	if w.Code == http.StatusTooManyRequests {
		return a.limited(w.Header())
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Token == "" {
		return &hub.Error{Status: w.Code, Reason: hub.Unavailable, Cause: errors.New("EOF")}
	}
	a.token, a.expires = answer.Token, time.Now().Add(9*time.Minute)
	return nil
}

func (a *api) limited(h http.Header) error {
	unix, err := strconv.ParseInt(h.Get("X-Retry-After"), 10, 64)
	if err != nil {
		return err
	}
	if a.until = time.Unix(unix, 0); unix < 1e6 { // seconds
		a.until = time.Now().Add(time.Duration(unix) * time.Second)
	}
	return &hub.Error{Status: 429, Reason: hub.RateLimited, RetryAfter: time.Until(a.until)}
}

func (a *api) ask(path string, query url.Values, into any) error {
	if left := time.Until(a.until); left > 0 {
		return &hub.Error{Status: 429, Reason: hub.RateLimited, RetryAfter: left}
	}
	if !time.Now().Before(a.expires) {
		if err := a.signIn(); err != nil {
			return err
		}
	}
	a.asked++
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path+"?"+query.Encode(), nil)
	r.Header.Set("Authorization", "Bearer "+a.token)
	a.fake.ServeHTTP(w, r)
	switch w.Code {
	case http.StatusOK:
		return json.Unmarshal(w.Body.Bytes(), into)
	case http.StatusTooManyRequests:
		return a.limited(w.Header())
	case http.StatusNotFound:
		return &hub.Error{Status: 404, Reason: hub.NotFound}
	}
	return &hub.Error{Status: w.Code, Reason: hub.Unavailable, Cause: errors.New("EOF")}
}

func (a *api) Pushes(context.Context, string, time.Time, time.Time, string) (hub.Page[hub.Push], error) {
	if a.plan {
		return hub.Page[hub.Push]{}, nil
	}
	return hub.Page[hub.Push]{}, &hub.Error{Reason: hub.NoAuditLog, Cause: hub.ErrNoAuditLog}
}

type list struct {
	Next    *string
	Results []struct {
		Name     string
		Digest   string
		PushedAt time.Time `json:"tag_last_pushed"`
	}
}

func (l list) next(cursor string) string {
	page, _ := strconv.Atoi(cursor)
	if l.Next == nil {
		return ""
	}
	return strconv.Itoa(max(page, 1) + 1)
}

func (a *api) Tags(_ context.Context, repository string, since time.Time, cursor string) (page hub.Page[hub.Tag], err error) {
	namespace, name, _ := strings.Cut(repository, "/")
	var l list
	if err := a.ask("/v2/namespaces/"+namespace+"/repositories/"+name+"/tags", url.Values{"page": {cursor}, "page_size": {"50"}}, &l); err != nil {
		return page, err
	}
	for _, r := range l.Results {
		if r.PushedAt.Before(since) {
			return page, nil // the newest stand first
		}
		page.Items = append(page.Items, hub.Tag{Name: r.Name, Digest: r.Digest, PushedAt: r.PushedAt})
	}
	page.Next = l.next(cursor)
	return page, nil
}

func (a *api) Tag(context.Context, string, string) (hub.Tag, error) {
	return hub.Tag{}, &hub.Error{Status: 404, Reason: hub.NotFound} // only a push of the audit log is asked about
}

func (a *api) Repositories(_ context.Context, namespace, cursor string) (page hub.Page[hub.Repository], err error) {
	var l list
	if err := a.ask("/v2/namespaces/"+namespace+"/repositories", url.Values{"page": {cursor}, "page_size": {"100"}}, &l); err != nil {
		return page, err
	}
	for _, r := range l.Results {
		page.Items = append(page.Items, hub.Repository{Name: namespace + "/" + r.Name})
	}
	page.Next = l.next(cursor)
	return page, nil
}

// images says what every tag is.
type images struct {
	asked int
	errs  []error          // come first, one each
	fails map[string]error // by REPOSITORY:TAG
	limit int              // after so many questions the registry limits them once; 0 is never
}

func (i *images) Digest(_ context.Context, repository, tag string) (string, error) {
	if i.asked++; i.limit > 0 && i.asked%i.limit == 0 {
		return "", &registry.Error{Status: 429, Reason: registry.RateLimited, RetryAfter: time.Minute}
	}
	if err := i.fails[repository+":"+tag]; err != nil {
		return "", err
	}
	if len(i.errs) > 0 {
		err := i.errs[0]
		i.errs = i.errs[1:]
		return "", err
	}
	return digestA, nil
}

// topic keeps what was published.
type topic struct{ images []string }

func (q *topic) Publish(_ context.Context, _ []byte, attributes map[string]string) (string, error) {
	if attributes["source"] != "reconcile" {
		return "", errors.New("it does not say who queued it")
	}
	q.images = append(q.images, attributes["repository"]+":"+attributes["tag"])
	return "m1", nil
}

// world is a Finder and what is around it.
type world struct {
	*reconcile.Finder
	t      *testing.T
	fake   *hubtest.Server
	api    *api
	images *images
	topic  *topic
	ledger *ledger.Ledger
	log    bytes.Buffer
}

func inABubble(t *testing.T, test func(*testing.T, *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := hubtest.New()
		w := &world{t: t, fake: fake, api: &api{fake: fake}, images: &images{}, topic: &topic{}, ledger: ledger.New(ledger.NewMemory())}
		table, err := route.Parse(routes)
		if err != nil {
			t.Fatal(err)
		}
		w.Finder = reconcile.New(reconcile.Finder{Routes: table, Hub: w.api, Images: w.images, Promotions: w.ledger, Topic: w.topic},
			w.logger())
		fake.AddRepository("beta/api", false)
		fake.AddAccount(hubtest.Account{Name: "acme", Secrets: []string{"canary"}})
		test(t, w)
	})
}

func (w *world) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(&w.log, nil)) }

func (w *world) some(want int) {
	w.t.Helper()
	before := len(w.topic.images)
	found, err := w.Some(w.t.Context())
	if err != nil || found != want || len(w.topic.images)-before != want {
		w.t.Fatalf("found %d, %v, and queued %v; want %d", found, err, w.topic.images[before:], want)
	}
}

func (w *world) pushed(images ...string) {
	for _, image := range images {
		repository, tag, _ := strings.Cut(image, ":")
		w.fake.Push(hubtest.Push{Repository: repository, Tag: tag, Digest: "sha256:" + strings.Repeat("0", 64)})
	}
}

func (w *world) repositories(n int) {
	for i := range n {
		w.fake.AddRepository(fmt.Sprintf("acme/r%03d", i), false)
	}
}

// The number of docs/operations.md.
func TestHowLongAMissedPushTakesWhereThereIsNoAuditLog(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		const most = 45 * time.Minute
		w.repositories(500)
		w.fake.RateLimit(100)
		w.some(0)
		longest := time.Duration(0)
		for i := range 40 { // wherever the round is
			image := fmt.Sprintf("acme/r%03d:1.%d", i*37%500, i)
			time.Sleep(time.Duration(1+i) * 7 * time.Second)
			w.pushed(image)
			pushed := time.Now()
			for !slices.Contains(w.topic.images, image) {
				if time.Since(pushed) > 5*time.Hour {
					t.Fatalf("%s is not found", image)
				}
				time.Sleep(5 * time.Minute) // as Cloud Scheduler calls
				if _, err := w.Some(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			longest = max(longest, time.Since(pushed))
		}
		t.Logf("the longest of %d: %v", len(w.topic.images), longest)
		if longest > most {
			t.Errorf("the longest took %v, want %v", longest, most)
		}
	})
}

func TestAfterALimitItGoesOnWhereItStopped(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.repositories(250)
		w.some(0)
		round := w.api.asked
		w.fake.RateLimit(100)
		time.Sleep(time.Hour)
		before := w.api.asked
		w.some(0)
		w.some(0) // Docker Hub wants to be left alone
		if n := w.api.asked - before; n != 101 {
			t.Errorf("it was asked %d times", n)
		}
		w.pushed("acme/r249:1") // it has not come so far
		time.Sleep(11 * time.Minute)
		before = w.api.asked
		for i := 0; len(w.topic.images) == 0 && i < 5; i++ {
			if _, err := w.Some(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Minute)
		}
		if n := w.api.asked - before; len(w.topic.images) != 1 || n > round-100+10 {
			t.Errorf("found is %v after %d questions; a round takes %d", w.topic.images, n, round)
		}
	})
}

func TestOneCallIsBounded(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.repositories(400)
		w.some(0)
		if w.api.asked > reconcile.MaxPages || w.api.asked < reconcile.MaxPages-5 {
			t.Errorf("%d pages were read", w.api.asked)
		}
		time.Sleep(time.Minute)
		for i := range reconcile.MaxHeads + 50 {
			w.pushed(fmt.Sprintf("beta/api:1.%d", i))
		}
		time.Sleep(11 * time.Minute)
		for len(w.topic.images) < reconcile.MaxHeads+50 {
			before, queued := w.images.asked, len(w.topic.images)
			if _, err := w.Some(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := w.images.asked - before; n > reconcile.MaxHeads {
				t.Errorf("the registry was asked %d times", n)
			}
			if time.Sleep(5 * time.Minute); len(w.topic.images) == queued && w.api.asked > 5000 {
				t.Fatalf("found are %d", queued)
			}
		}
	})
}

func TestARegistryThatDoesNotAnswerOrLimits(t *testing.T) {
	for name, err := range map[string]*registry.Error{
		"no answer": {Reason: registry.Unavailable, Cause: errors.New("EOF")}, "a limit": {Status: 429, Reason: registry.RateLimited, RetryAfter: 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(t *testing.T, w *world) {
				w.some(0)
				time.Sleep(time.Minute)
				w.pushed("acme/api:1", "beta/api:1")
				time.Sleep(11 * time.Minute)
				w.images.errs = []error{err}
				found, got := w.Some(t.Context())
				if limits := err.Reason == registry.RateLimited; (got == nil) != limits || (found == 0) != limits {
					t.Errorf("found %d, %v", found, got)
				}
				time.Sleep(10 * time.Minute)
				if _, err := w.Some(t.Context()); err != nil || len(w.topic.images) != 2 {
					t.Errorf("queued are %v, %v", w.topic.images, err)
				}
			})
		})
	}
}

// Many that do not answer are asked in turn, a few in one call.
func TestNobodyAnswers(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.repositories(20)
		w.some(0)
		time.Sleep(time.Hour)
		w.fake.Away(hubtest.Failure{Status: 502})
		before := w.api.asked
		if _, err := w.Some(t.Context()); err == nil {
			t.Error("nobody hears of it")
		}
		if n := w.api.asked - before; n > reconcile.MaxTroubles {
			t.Errorf("it was asked %d times", n)
		}
		w.fake.Back()
		w.pushed("beta/api:1")
		time.Sleep(11 * time.Minute)
		w.some(1)
	})
}

// All looks back regardless of when a route was added, and changes nothing.
func TestAllLooksFurtherBack(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.pushed("acme/old:1", "acme/api:1", "beta/api:1", "acme/api:latest")
		time.Sleep(time.Hour)
		w.pushed("acme/web:1", "acme/api:2")
		time.Sleep(48 * time.Hour)
		w.some(0)
		all := func(since time.Duration) (found []string) {
			t.Helper()
			missed, err := w.All(t.Context(), time.Now().Add(-since), func(time.Duration) { t.Error("it waits") })
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range missed {
				if m.Digest != digestA || i > 0 && m.Push.PushedAt.Before(missed[i-1].Push.PushedAt) {
					t.Errorf("found is %+v", m)
				}
				found = append(found, m.Push.Repository+":"+m.Push.Tag)
			}
			slices.Sort(found)
			return found
		}
		if got := all(time.Hour); got != nil {
			t.Errorf("found are %v", got)
		}
		if got := all(48*time.Hour + time.Minute); !slices.Equal(got, []string{"acme/api:2", "acme/web:1"}) {
			t.Errorf("found are %v", got)
		}
		want := []string{"acme/api:1", "acme/api:2", "acme/old:1", "acme/web:1", "beta/api:1"}
		for range 2 {
			if got := all(72 * time.Hour); !slices.Equal(got, want) {
				t.Errorf("found are %v", got)
			}
		}
		if tags, _ := w.ledger.Overdue(t.Context(), 10); len(w.topic.images) > 0 || len(tags) > 0 {
			t.Errorf("queued are %v, and %v are to be looked at", w.topic.images, tags)
		}
		missed, err := w.All(t.Context(), time.Now().Add(-72*time.Hour), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range missed {
			for _, want := range []bool{true, false} { // and not twice
				if queued, err := w.Queue(t.Context(), m); err != nil || queued != want {
					t.Errorf("%s is queued: %t, %v, want %t", m.Push.Tag, queued, err, want)
				}
			}
		}
		if got := all(72 * time.Hour); got != nil || len(w.topic.images) != len(want) {
			t.Errorf("found are %v, and queued %v", got, w.topic.images)
		}
	})
}

// An audit log has events of some months, and of a plan that has one.
func TestAllLooksFurtherBackThanAnAuditLog(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.api.plan = true
		w.pushed("acme/api:1", "beta/api:1")
		time.Sleep(200 * 24 * time.Hour)
		missed, err := w.All(t.Context(), time.Now().Add(-300*24*time.Hour), nil)
		if err != nil || len(missed) != 2 {
			t.Errorf("found are %+v, %v", missed, err)
		}
	})
}

func TestAllTellsOfWhatItCouldNotAsk(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.pushed("acme/api:1", "beta/api:1")
		time.Sleep(time.Hour)
		w.images.errs = []error{&registry.Error{Status: 401, Reason: registry.Denied, Hint: "Set REGISTRY_AUTH."}}
		missed, err := w.All(t.Context(), time.Now().Add(-2*time.Hour), nil)
		if len(missed) != 1 || err == nil || !strings.Contains(err.Error(), "Set REGISTRY_AUTH.") || !strings.Contains(err.Error(), "acme/api:1") {
			t.Errorf("found are %+v, %v", missed, err)
		}
	})
}

func TestAllWaitsForLimits(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.repositories(250)
		w.pushed("acme/r249:1", "beta/api:1")
		time.Sleep(time.Hour)
		w.fake.RateLimit(100)
		waits := 0
		missed, err := w.All(t.Context(), time.Now().Add(-2*time.Hour), func(d time.Duration) {
			if waits++; d <= 0 || d > time.Minute {
				t.Errorf("it waits for %v", d)
			}
		})
		if err != nil || len(missed) != 2 || waits != 2 {
			t.Errorf("found are %d, %v, after %d waits", len(missed), err, waits)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w.fake.RateLimit(1)
		if missed, err := w.All(ctx, time.Now().Add(-2*time.Hour), func(time.Duration) { cancel() }); !errors.Is(err, context.Canceled) {
			t.Errorf("found are %v, %v", missed, err)
		}
	})
}

func TestWhatTheRegistryDoesNotHaveIsAskedForLessOften(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.some(0)
		time.Sleep(time.Second)
		w.pushed("beta/api:1.4.0")
		notThere := &registry.Error{Reason: registry.NotInRegistry}
		rounds := func(n int) (asked int) {
			before := w.images.asked
			for range n {
				w.images.errs = []error{notThere}
				time.Sleep(5 * time.Minute)
				w.some(0)
			}
			return w.images.asked - before
		}
		if n := rounds(12); n < 9 {
			t.Errorf("in the first hour it is asked %d times", n)
		}
		if n := rounds(12 * 6); n < 5 || n > 8 {
			t.Errorf("in the next six hours it is asked %d times, want once an hour", n)
		}
		w.images.errs = nil
		for range 12 {
			time.Sleep(5 * time.Minute)
			if _, err := w.Some(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if len(w.topic.images) != 1 {
			t.Errorf("once it is there, %v is found", w.topic.images)
		}
	})
}

// ahead is a store whose time is not that of this instance.
type ahead struct {
	ledger.Store
	by time.Duration
}

func (a ahead) Tags(ctx context.Context, ids ...string) ([]*ledger.Tag, time.Time, error) {
	found, now, err := a.Store.Tags(ctx, ids...)
	return found, now.Add(a.by), err
}

func (a ahead) Promotions(ctx context.Context, ids ...string) ([]*ledger.Promotion, time.Time, error) {
	found, now, err := a.Store.Promotions(ctx, ids...)
	return found, now.Add(a.by), err
}

func (a ahead) Progress(ctx context.Context) (*ledger.Progress, time.Time, error) {
	found, now, err := a.Store.Progress(ctx)
	return found, now.Add(a.by), err
}

// What a push is compared with is of the ledger's time: so is what is late.
func TestTheLedgersClockCounts(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		const by = 5 * time.Hour
		w.Finder.Promotions = ledger.New(ahead{ledger.NewMemory(), by})
		w.some(0) // the routes are known from now on
		time.Sleep(time.Second)
		w.fake.Push(hubtest.Push{Repository: "beta/api", Tag: "1", Digest: digestA, At: time.Now().Add(by)})
		time.Sleep(9 * time.Minute)
		w.some(0)
		time.Sleep(2 * time.Minute)
		w.some(1)
	})
}

// signed pushes so many signatures, which nobody promotes.
func (w *world) signed(repository string, n int) {
	for i := range n {
		w.pushed(fmt.Sprintf("%s:sha256-%064x.sig", repository, i))
	}
}

// Of a repository with more tags than one call may read, the next call reads on.
func TestALongListStandsInNoOthersWay(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.some(0)
		time.Sleep(time.Second)
		w.signed("acme/api", 50*15)
		w.pushed("beta/api:1")
		w.fake.RateLimit(10)
		for range 6 {
			time.Sleep(5 * time.Minute)
			if _, err := w.Some(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if len(w.topic.images) != 1 {
			t.Errorf("queued are %v", w.topic.images)
		}
	})
}

func TestAllEndsHoweverOftenALimitIsReached(t *testing.T) {
	for name, test := range map[string]func(w *world){
		"Docker Hub's, within the tags of a repository": func(w *world) {
			w.signed("acme/api", 50*15)
			w.pushed("beta/api:1")
			w.fake.RateLimit(10)
		},
		"the registry's, within a page": func(w *world) {
			w.images.limit = 3
			w.pushed("beta/api:1", "beta/api:2", "beta/api:3", "beta/api:4", "beta/api:5")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(t *testing.T, w *world) {
				test(w)
				time.Sleep(time.Hour)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				waits := 0
				missed, err := w.All(ctx, time.Now().Add(-2*time.Hour), func(time.Duration) {
					if waits++; waits > 10 {
						cancel()
					}
				})
				if err != nil || len(missed) == 0 || waits == 0 {
					t.Errorf("found are %d, %v, after %d waits", len(missed), err, waits)
				}
			})
		})
	}
}

// A few tags of which the registry never tells do not use up every call.
func TestTagsThatAreNeverToldStandInNoOthersWay(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.some(0)
		time.Sleep(time.Second)
		w.images.fails = map[string]error{}
		for i := range reconcile.MaxTroubles + 1 {
			image := fmt.Sprintf("acme/api:broken-%d", i)
			w.images.fails[image] = &registry.Error{Status: 500, Reason: registry.Unavailable}
			w.pushed(image)
		}
		time.Sleep(time.Second)
		w.pushed("acme/api:1", "acme/web:1", "beta/api:1")
		for range 6 {
			time.Sleep(5 * time.Minute)
			_, _ = w.Some(t.Context())
		}
		if len(w.topic.images) != 3 {
			t.Errorf("queued are %v", w.topic.images)
		}
		clear(w.images.fails)
		for range 3 {
			time.Sleep(5 * time.Minute)
			_, _ = w.Some(t.Context())
		}
		if n := reconcile.MaxTroubles + 4; len(w.topic.images) != n {
			t.Errorf("once they are told, %d are queued, want %d", len(w.topic.images), n)
		}
	})
}

// What one instance could not ask about is asked in the next round, although
// another instance has ended the one before.
func TestARoundThatAnotherInstanceEnds(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.some(0)
		other := reconcile.New(reconcile.Finder{Routes: w.Routes, Hub: w.api, Images: w.images, Promotions: w.ledger, Topic: w.topic}, w.logger())
		time.Sleep(time.Second)
		w.pushed("acme/api:1")
		w.signed("acme/web", 50*15)
		w.images.fails = map[string]error{"acme/api:1": &registry.Error{Status: 500, Reason: registry.Unavailable}}
		time.Sleep(11 * time.Minute)
		w.fake.RateLimit(10)
		_, _ = w.Some(t.Context())
		if w.images.asked != 1 {
			t.Fatalf("the registry was asked %d times", w.images.asked)
		}
		w.fake.RateLimit(0)
		w.images.fails = nil
		time.Sleep(5 * time.Minute)
		if found, err := other.Some(t.Context()); err != nil || found != 0 {
			t.Fatalf("the other one found %d, %v", found, err)
		}
		time.Sleep(5 * time.Minute)
		w.some(1)
	})
}

// Where addresses are shared, others may use up the limit each time.
func TestALimitThatLeavesNothingIsToldOnceAnHour(t *testing.T) {
	inABubble(t, func(t *testing.T, w *world) {
		w.repositories(100)
		w.fake.RateLimit(40)
		told := func(calls int) int {
			before := strings.Count(w.log.String(), "missed pushes not looked for")
			for range calls {
				time.Sleep(5 * time.Minute)
				if _, err := w.Some(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			return strings.Count(w.log.String(), "missed pushes not looked for") - before
		}
		if n := told(24); n != 0 {
			t.Errorf("a limit with which it goes on is told %d times", n)
		}
		w.fake.Away(hubtest.Failure{Status: 429, Header: http.Header{"X-Retry-After": {"30"}}})
		if n := told(36); n < 3 || n > 4 {
			t.Errorf("a limit with which it does not is told %d times in three hours", n)
		}
		if !strings.Contains(w.log.String(), "hub_rate_limited") {
			t.Errorf("the log is %s", w.log.String())
		}
	})
}
