package hub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
)

const (
	user   = "acme-bot"
	secret = "canary-secret"
	config = `{"auths":{"https://index.docker.io/v1/":{"username":"` + user + `","password":"` + secret + `"}}}`
)

// now is fixed to the microsecond, as Docker Hub's times are.
var now = time.Date(2026, 10, 20, 12, 0, 0, 123456000, time.UTC)

// start serves h and returns a client that asks it.
func start(t *testing.T, h http.Handler, config string) *hub.Client {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	c, err := hub.New(server.URL, env.NewSecret(config))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newHub is a Docker Hub with an account that sees all of acme.
func newHub() *hubtest.Server {
	s := hubtest.New()
	s.AddAccount(hubtest.Account{Name: user, Secrets: []string{secret}, Namespaces: []string{"acme"}, AuditLogs: []string{"acme"}})
	return s
}

func digest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

// all reads every page, and counts them.
func all[T any](t *testing.T, page func(cursor string) (hub.Page[T], error)) (items []T, pages int) {
	t.Helper()
	cursor := ""
	for {
		got, err := page(cursor)
		if err != nil {
			t.Fatal(err)
		}
		items, pages, cursor = append(items, got.Items...), pages+1, got.Next
		if cursor == "" {
			return items, pages
		}
	}
}

// refusal checks that err is an *Error that gives nothing away, and returns it.
func refusal(t *testing.T, err error) *hub.Error {
	t.Helper()
	e, ok := errors.AsType[*hub.Error](err)
	if !ok {
		t.Fatalf("got %v, want an *Error", err)
	}
	if text := fmt.Sprintf("%v %+v %s", err, *e, e.Hint); strings.Contains(text, "canary") || strings.Contains(text, "http://") || strings.Contains(text, "127.0.0.1/") {
		t.Errorf("it gives away %s", text)
	}
	if e.Temporary() != (e.Reason == hub.Unavailable || e.Reason == hub.RateLimited) {
		t.Errorf("%s: temporary is %v", e.Reason, e.Temporary())
	}
	if !e.Temporary() && e.Hint == "" && e.Status != 0 {
		t.Errorf("%s has no hint", e.Reason)
	}
	return e
}

func questions(s *hubtest.Server) (logins, others int) {
	for _, c := range s.Calls() {
		if c.Method == http.MethodPost {
			logins++
		} else {
			others++
		}
	}
	return logins, others
}

func TestPushesAreThoseOfTheAuditLog(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pushes       int // one a minute before now
		delay        time.Duration
		since, until time.Duration // before now
		want, pages  int
	}{
		"none":                            {0, 0, time.Hour, 0, 0, 1},
		"a few":                           {10, 0, time.Hour, 0, 10, 1},
		"fewer than Docker Hub's default": {24, 0, time.Hour, 0, 24, 1},
		"as many as that":                 {25, 0, time.Hour, 0, 25, 2},
		"a full page":                     {100, 0, 24 * time.Hour, 0, 100, 2},
		"more than a page":                {210, 0, 24 * time.Hour, 0, 210, 3},
		"since counts, until does not":    {100, 0, 20 * time.Minute, 10 * time.Minute, 10, 1},
		"the newest are not there yet":    {20, 15*time.Minute + 30*time.Second, time.Hour, 0, 5, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newHub()
			s.AuditLog("acme", test.delay)
			now := time.Now().UTC().Truncate(time.Microsecond)
			for i := range test.pushes {
				s.Push(hubtest.Push{
					Repository: "acme/api", Tag: fmt.Sprint("v", i), Digest: digest(i), Actor: "alice",
					At: now.Add(-time.Duration(i+1) * time.Minute),
				})
				s.Push(hubtest.Push{Repository: "other/api", Tag: "v1", Digest: digest(i), At: now})
			}
			c := start(t, s, config)
			got, pages := all(t, func(cursor string) (hub.Page[hub.Push], error) {
				return c.Pushes(t.Context(), "acme", now.Add(-test.since), now.Add(-test.until), cursor)
			})
			if len(got) != test.want || pages != test.pages {
				t.Errorf("got %d pushes on %d pages, want %d on %d", len(got), pages, test.want, test.pages)
			}
			for _, p := range got {
				i := int(now.Sub(p.PushedAt)/time.Minute) - 1
				if want := (hub.Push{Repository: "acme/api", Tag: fmt.Sprint("v", i), Digest: digest(i), PushedAt: now.Add(-time.Duration(i+1) * time.Minute), Actor: "alice"}); p != want {
					t.Errorf("got %+v, want %+v", p, want)
				}
			}
			if logins, _ := questions(s); logins != 1 {
				t.Errorf("%d logins", logins)
			}
		})
	}
}

func TestAWindowWithoutAnEndReachesUntilNow(t *testing.T) {
	t.Parallel()
	s := newHub()
	s.AuditLog("acme", 0)
	s.Push(hubtest.Push{Repository: "acme/api", Tag: "v1", Digest: digest(1)})
	got, err := start(t, s, config).Pushes(t.Context(), "acme", time.Now().Add(-time.Hour), time.Time{}, "")
	if err != nil || len(got.Items) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestWithoutAnAuditLogTheErrorSaysSo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config    string
		namespace string
		failure   *hubtest.Failure
		reason    string
		asked     int
	}{
		"a plan without one":           {config, "acme", nil, hub.NoAuditLog, 1},
		"a namespace of others":        {config, "other", nil, hub.NoAuditLog, 1},
		"an API that has no such log":  {config, "acme", &hubtest.Failure{Status: 404, Body: `{"message":"canary"}`}, hub.NoAuditLog, 1},
		"nobody, who is not asked":     {"", "acme", nil, hub.NoAuditLog, 0},
		"a plan that has to be paid":   {config, "acme", &hubtest.Failure{Status: 402, Body: `{"message":"canary"}`}, hub.NoAuditLog, 1},
		"a question that is not taken": {config, "acme", &hubtest.Failure{Status: 400, Body: `{"message":"canary"}`}, hub.NoAuditLog, 1},
		"an end that is gone":          {config, "acme", &hubtest.Failure{Status: 410, Body: `{"message":"canary"}`}, hub.NoAuditLog, 1},
		"a page of a CDN is no sign":   {config, "acme", new(hubtest.Page(403)), hub.Unavailable, 1},
		"nor is a page not found":      {config, "acme", new(hubtest.Page(404)), hub.Unavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newHub()
			s.AuditLog("other", 0)
			c := start(t, s, test.config)
			if test.config != "" {
				_, _ = c.Repositories(t.Context(), "acme", "") // logs in
			}
			before := len(s.Calls())
			if test.failure != nil {
				s.Fail(*test.failure)
			}
			_, err := c.Pushes(t.Context(), test.namespace, now, time.Time{}, "")
			e := refusal(t, err)
			if e.Reason != test.reason || errors.Is(err, hub.ErrNoAuditLog) != (test.reason == hub.NoAuditLog) {
				t.Errorf("got %v", err)
			}
			if asked := len(s.Calls()) - before; asked != test.asked {
				t.Errorf("asked %d times, want %d", asked, test.asked)
			}
		})
	}
}

// A login that is taken everywhere else may be none for the audit log.
func TestALoginThatTheAuditLogAloneDoesNotTake(t *testing.T) {
	t.Parallel()
	s := newHub()
	s.AddRepository("acme/api", true)
	c := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/auditlogs/") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		s.ServeHTTP(w, r)
	}), config)
	for range 2 { // with a new login, and with one that is remembered
		if _, err := c.Pushes(t.Context(), "acme", now, time.Time{}, ""); !errors.Is(err, hub.ErrNoAuditLog) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := c.Tags(t.Context(), "acme/api", now, ""); err != nil {
		t.Error(err)
	}
}

func TestNoMorePagesOfTagsAreReadThanAreNeeded(t *testing.T) {
	t.Parallel()
	const tags = 420 // one an hour
	for name, test := range map[string]struct {
		order  hubtest.Order
		config string
		since  time.Duration
		want   int
		pages  int
	}{
		"the newest first":                {hubtest.NewestFirst, config, 24 * time.Hour, 24, 1},
		"the newest first, as nobody":     {hubtest.NewestFirst, "", 24 * time.Hour, 24, 1},
		"the newest first, of a week":     {hubtest.NewestFirst, config, 7 * 24 * time.Hour, 168, 4},
		"the newest first, of all times":  {hubtest.NewestFirst, config, 1000 * time.Hour, tags, 9},
		"nothing new":                     {hubtest.NewestFirst, config, time.Minute, 0, 1},
		"the oldest first: all are read":  {hubtest.OldestFirst, config, 24 * time.Hour, 24, 9},
		"in another order: all are read":  {hubtest.ByName, config, 24 * time.Hour, 24, 9},
		"another order, and nothing new":  {hubtest.ByName, config, time.Minute, 0, 9},
		"the oldest first, of all times":  {hubtest.OldestFirst, config, 1000 * time.Hour, tags, 9},
		"the oldest first, and as nobody": {hubtest.OldestFirst, "", 24 * time.Hour, 24, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newHub()
			for i := range tags {
				s.Push(hubtest.Push{Repository: "acme/api", Tag: fmt.Sprint("v", i*11%tags), Digest: digest(i), At: now.Add(-time.Duration(i+1) * time.Hour)})
			}
			s.List(test.order)
			c := start(t, s, test.config)
			got, pages := all(t, func(cursor string) (hub.Page[hub.Tag], error) {
				return c.Tags(t.Context(), "acme/api", now.Add(-test.since), cursor)
			})
			if len(got) != test.want || pages != test.pages {
				t.Errorf("got %d tags on %d pages, want %d on %d", len(got), pages, test.want, test.pages)
			}
			for _, tag := range got {
				if tag.PushedAt.Before(now.Add(-test.since)) {
					t.Errorf("%s was pushed at %v", tag.Name, tag.PushedAt)
				}
			}
		})
	}
}

func TestATagIsWhatDockerHubSaysOfIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		push hubtest.Push
		want hub.Tag
	}{
		"an image": {
			hubtest.Push{Tag: "v1", Digest: digest(1), At: now},
			hub.Tag{Name: "v1", Digest: digest(1), Images: []string{digest(1)}, PushedAt: now, MediaType: "application/vnd.docker.container.image.v1+json", ContentType: "image"},
		},
		"an image of several platforms": {
			hubtest.Push{Tag: "v1", Digest: digest(1), Platforms: []string{digest(2), digest(3)}, At: now},
			hub.Tag{Name: "v1", Digest: digest(1), Images: []string{digest(2), digest(3)}, PushedAt: now, MediaType: "application/vnd.oci.image.index.v1+json", ContentType: "image"},
		},
		"a chart": {
			hubtest.Push{Tag: "v1", Digest: digest(1), MediaType: "application/vnd.cncf.helm.config.v1+json", ContentType: "helm", At: now},
			hub.Tag{Name: "v1", Digest: digest(1), Images: []string{digest(1)}, PushedAt: now, MediaType: "application/vnd.cncf.helm.config.v1+json", ContentType: "helm"},
		},
		"one that nobody pulls any more": {
			hubtest.Push{Tag: "v1", Digest: digest(1), At: now.AddDate(-1, 0, 0)},
			hub.Tag{Name: "v1", Digest: digest(1), Images: []string{digest(1)}, PushedAt: now.AddDate(-1, 0, 0), MediaType: "application/vnd.docker.container.image.v1+json", ContentType: "image"},
		},
		"one without a digest": {
			hubtest.Push{Tag: "v1", At: now},
			hub.Tag{Name: "v1", PushedAt: now, MediaType: "application/vnd.docker.container.image.v1+json", ContentType: "image"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newHub()
			test.push.Repository = "library/api"
			s.Push(test.push)
			c := start(t, s, "")
			listed, err := c.Tags(t.Context(), "api", now.AddDate(-2, 0, 0), "")
			if err != nil || len(listed.Items) != 1 {
				t.Fatalf("got %+v, %v", listed, err)
			}
			single, err := c.Tag(t.Context(), "api", "v1")
			if err != nil {
				t.Fatal(err)
			}
			for _, got := range []hub.Tag{listed.Items[0], single} {
				if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", test.want) {
					t.Errorf("got  %+v\nwant %+v", got, test.want)
				}
			}
			_, err = c.Tag(t.Context(), "api", "v2")
			if e := refusal(t, err); e.Reason != hub.NotFound || !strings.Contains(err.Error(), "tag v2 of api") {
				t.Errorf("of a tag that is not there it says %v", err)
			}
		})
	}
}

func TestRepositoriesAreThoseThatTheAccountSees(t *testing.T) {
	t.Parallel()
	s := newHub()
	for i := range 230 {
		s.AddRepository(fmt.Sprintf("acme/r%03d", i), i%2 == 0)
	}
	s.Push(hubtest.Push{Repository: "acme/r001", Tag: "v1", Digest: digest(1), At: now})
	s.Push(hubtest.Push{Repository: "other/api", Tag: "v1", Digest: digest(1), At: now})

	c := start(t, s, config)
	got, pages := all(t, func(cursor string) (hub.Page[hub.Repository], error) {
		return c.Repositories(t.Context(), "acme", cursor)
	})
	if len(got) != 230 || pages != 3 || got[1] != (hub.Repository{Name: "acme/r001", UpdatedAt: now}) || got[2] != (hub.Repository{Name: "acme/r002"}) {
		t.Errorf("got %d on %d pages: %+v", len(got), pages, got[:3])
	}

	c = start(t, s, "")
	first, err := c.Repositories(t.Context(), "acme", "")
	if err != nil || len(first.Items) != 100 || first.Next == "" {
		t.Fatalf("as nobody: got %d, %q, %v", len(first.Items), first.Next, err)
	}
	_, err = c.Repositories(t.Context(), "acme", first.Next)
	if e := refusal(t, err); e.Reason != hub.SignIn || !strings.Contains(e.Hint, "REGISTRY_AUTH") {
		t.Errorf("the second page as nobody: %v", err)
	}
}

func TestALoginIsSharedAndRenewedOnce(t *testing.T) {
	t.Parallel()
	s := newHub()
	s.AddRepository("acme/secret", true)
	c := start(t, s, config)
	ask := func() error {
		_, err := c.Tags(t.Context(), "acme/secret", now, "")
		return err
	}
	together := func() {
		t.Helper()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := ask(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	together()
	if logins, others := questions(s); logins != 1 || others != 8 {
		t.Errorf("%d logins, %d questions", logins, others)
	}
	s.ExpireTokens()
	if err := ask(); err != nil {
		t.Error(err)
	}
	if logins, others := questions(s); logins != 2 || others != 10 {
		t.Errorf("after the end of a token: %d logins, %d questions", logins, others)
	}
	s.Away(hubtest.Failure{Status: 401, Body: `{"message":"canary"}`})
	before := len(s.Calls())
	e := refusal(t, ask())
	if asked := len(s.Calls()) - before; asked > 4 || e.Status != 401 {
		t.Errorf("%d requests, and %v", asked, e)
	}
}

func TestNobodySendsNoHeader(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"no config":           "",
		"an entry of another": `{"auths":{"registry.example":{"username":"u","password":"canary"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newHub()
			s.AddRepository("acme/api", false)
			s.AddRepository("acme/secret", true)
			c := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "" || r.Method != http.MethodGet {
					t.Errorf("got %s %s with %v", r.Method, r.URL, r.Header)
				}
				s.ServeHTTP(w, r)
			}), config)
			if _, err := c.Tags(t.Context(), "acme/api", now, ""); err != nil {
				t.Error(err)
			}
			_, err := c.Tags(t.Context(), "acme/secret", now, "")
			if e := refusal(t, err); e.Reason != hub.NotFound || !strings.Contains(e.Hint, "REGISTRY_AUTH") {
				t.Errorf("got %v, %s", err, e.Hint)
			}
		})
	}
}

func TestALoginThatIsRefusedIsAnErrorForPublicRepositoriesToo(t *testing.T) {
	t.Parallel()
	s := newHub()
	s.AddRepository("acme/api", false)
	c := start(t, s, strings.ReplaceAll(config, secret, "canary-wrong"))
	for range 3 {
		_, err := c.Tags(t.Context(), "acme/api", now, "")
		e := refusal(t, err)
		if e.Reason != hub.LoginDenied || e.Status != 401 || !strings.Contains(e.Hint, "REGISTRY_AUTH") || e.RetryAfter < 0 || e.RetryAfter > time.Minute {
			t.Fatalf("got %v, %+v", err, e)
		}
	}
	if logins, others := questions(s); logins != 1 || others != 0 {
		t.Errorf("%d logins, %d questions", logins, others)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	json := func(status int, header ...string) hubtest.Failure {
		f := hubtest.Failure{Status: status, Body: `{"message":"canary","errinfo":{}}`, Header: http.Header{}}
		for i := 0; i < len(header); i += 2 {
			f.Header.Set(header[i], header[i+1])
		}
		return f
	}
	in := func(d time.Duration) string { return fmt.Sprint(time.Now().Add(d).Unix()) }
	for name, test := range map[string]struct {
		failure hubtest.Failure
		reason  string
		wait    time.Duration // about
	}{
		"a page of a CDN, as a success":      {hubtest.Page(200), hub.Unavailable, 0},
		"a page of a CDN, with a 403":        {hubtest.Page(403), hub.Unavailable, 0},
		"a page of a CDN, with a 404":        {hubtest.Page(404), hub.Unavailable, 0},
		"a page of a CDN, with a 429":        {hubtest.Page(429), hub.RateLimited, time.Minute},
		"a page of a CDN, with a 502":        {hubtest.Page(502), hub.Unavailable, 0},
		"nothing":                            {hubtest.Failure{}, hub.Unavailable, 0},
		"JSON that was cut":                  {hubtest.Failure{Body: `{"results":[{"na`}, hub.Unavailable, 0},
		"JSON that is no object":             {hubtest.Failure{Body: `["canary"]`}, hub.Unavailable, 0},
		"JSON of something else":             {hubtest.Failure{Body: `{"detail":"canary"}`}, hub.Unavailable, 0},
		"a list that is none":                {hubtest.Failure{Body: `{"results":"canary"}`}, hub.Unavailable, 0},
		"a list of nothing that is known":    {hubtest.Failure{Body: `{"results":["canary",7]}`}, hub.Unavailable, 0},
		"too much":                           {hubtest.Failure{Body: `{"results":[]` + strings.Repeat(" ", 5<<20) + `}`}, hub.Unavailable, 0},
		"a broken connection":                {hubtest.Failure{Reset: true}, hub.Unavailable, 0},
		"a redirect":                         {json(302, "Location", "https://canary.example/"), hub.Refused, 0},
		"a question that is not taken":       {json(400), hub.Refused, 0},
		"no right to see it":                 {json(403), hub.Denied, 0},
		"nothing there":                      {json(404), hub.NotFound, 0},
		"maintenance":                        {json(503, "Retry-After", "120"), hub.Unavailable, 2 * time.Minute},
		"a limit, with a Unix time":          {json(429, "X-Retry-After", in(40*time.Second)), hub.RateLimited, 40 * time.Second},
		"a limit, with seconds":              {json(429, "X-Retry-After", "30"), hub.RateLimited, 30 * time.Second},
		"a limit, with the usual header":     {json(429, "Retry-After", "20"), hub.RateLimited, 20 * time.Second},
		"a limit, with a Unix time in it":    {json(429, "Retry-After", in(40*time.Second)), hub.RateLimited, 40 * time.Second},
		"a limit, with a time that is over":  {json(429, "X-Retry-After", in(-time.Minute), "Retry-After", "10"), hub.RateLimited, 10 * time.Second},
		"a limit, with when the count ends":  {json(429, "X-RateLimit-Reset", in(50*time.Second)), hub.RateLimited, 50 * time.Second},
		"a limit, with nothing":              {json(429), hub.RateLimited, time.Minute},
		"a limit, with something else":       {json(429, "X-Retry-After", "canary"), hub.RateLimited, time.Minute},
		"a limit that never ends":            {json(429, "X-Retry-After", "99999999999999"), hub.RateLimited, time.Hour},
		"a limit, with what is not a number": {json(429, "X-Retry-After", "NaN"), hub.RateLimited, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newHub()
			s.AddRepository("acme/api", false)
			c := start(t, s, config)
			if _, err := c.Repositories(t.Context(), "acme", ""); err != nil { // logs in
				t.Fatal(err)
			}
			s.Fail(test.failure)
			if test.failure.Reset {
				s.Fail(test.failure) // Go asks again where a connection that was kept breaks
			}
			_, err := c.Tags(t.Context(), "acme/api", now, "")
			e := refusal(t, err)
			if e.Reason != test.reason || e.RetryAfter > test.wait || e.RetryAfter < test.wait-30*time.Second {
				t.Errorf("got %v, retry after %v; want %s after %v", err, e.RetryAfter, test.reason, test.wait)
			}
			if !strings.Contains(err.Error(), "tags of acme/api") {
				t.Errorf("what was asked is missing: %v", err)
			}
		})
	}
}

func TestALimitOfNobodysSaysWhatWouldHelp(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]bool{"": true, config: false} {
		s := newHub()
		s.AddRepository("acme/api", false)
		c := start(t, s, config)
		if _, err := c.Tags(t.Context(), "acme/api", now, ""); err != nil {
			t.Fatal(err)
		}
		s.Away(hubtest.Failure{Status: 429, Body: `{"detail":"canary"}`})
		for range 2 { // the second is not asked
			_, err := c.Tags(t.Context(), "acme/api", now, "")
			if e := refusal(t, err); e.Reason != hub.RateLimited || strings.Contains(e.Hint, "REGISTRY_AUTH") != want {
				t.Errorf("got %v, with the hint %q", e, e.Hint)
			}
		}
	}
}

func TestALoginThatFailsOtherwise(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		failure hubtest.Failure
		reason  string
	}{
		"a page of a CDN":               {hubtest.Page(200), hub.Unavailable},
		"a page of a CDN, with a 403":   {hubtest.Page(403), hub.Unavailable},
		"no token in the answer":        {hubtest.Failure{Body: `{"token":"canary"}`}, hub.Unavailable},
		"a token that cannot be sent":   {hubtest.Failure{Body: `{"access_token":"canary\r\nX: y"}`}, hub.Unavailable},
		"a token that is far too long":  {hubtest.Failure{Body: `{"access_token":"` + strings.Repeat("canary", 1<<12) + `"}`}, hub.Unavailable},
		"a token of another type":       {hubtest.Failure{Body: `{"access_token":7}`}, hub.Unavailable},
		"a broken connection":           {hubtest.Failure{Reset: true}, hub.Unavailable},
		"a limit":                       {hubtest.Failure{Status: 429, Body: `{}`}, hub.RateLimited},
		"an account without the right":  {hubtest.Failure{Status: 403, Body: `{"message":"canary"}`}, hub.LoginDenied},
		"an account that is none":       {hubtest.Failure{Status: 400, Body: `{"message":"canary"}`}, hub.LoginDenied},
		"a second factor":               {hubtest.Failure{Status: 401, Body: `{"login_2fa_token":"canary"}`}, hub.LoginDenied},
		"an API that has no such login": {hubtest.Failure{Status: 404, Body: `{"message":"canary"}`}, hub.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newHub()
			s.AddRepository("acme/api", false)
			s.Fail(test.failure)
			c := start(t, s, config)
			_, err := c.Tags(t.Context(), "acme/api", now, "")
			if e := refusal(t, err); e.Reason != test.reason || !strings.Contains(err.Error(), "log in") {
				t.Errorf("got %v, want %s", err, test.reason)
			}
			if _, others := questions(s); others != 0 {
				t.Error("it was asked all the same")
			}
		})
	}
}

func TestACallerWhoGivesUpIsNotKept(t *testing.T) {
	t.Parallel()
	s := newHub()
	s.Away(hubtest.Failure{Hang: true})
	c := start(t, s, config)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Tags(ctx, "acme/api", now, "")
	if e := refusal(t, err); e.Reason != hub.Unavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestATokenGoesNowhereElse(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was asked for, with %v", r.URL, r.Header)
	}))
	t.Cleanup(elsewhere.Close)
	s := newHub()
	c := start(t, s, config)
	s.Push(hubtest.Push{Repository: "acme/api", Tag: "v1", Digest: digest(1), At: now})
	if _, err := c.Tags(t.Context(), "acme/api", now, ""); err != nil { // logs in
		t.Fatal(err)
	}
	for _, failure := range []hubtest.Failure{
		{Body: fmt.Sprintf(`{"next":"%s/v2?page=2","results":[{"name":"v2","last_updated":"2026-10-20T12:00:01Z"}]}`, elsewhere.URL)},
		{Status: 307, Header: http.Header{"Location": {elsewhere.URL}}},
	} {
		s.Fail(failure)
		page, err := c.Tags(t.Context(), "acme/api", now, "")
		if err == nil {
			_, err = c.Tags(t.Context(), "acme/api", now, page.Next)
		}
		if failure.Status == 0 && err != nil {
			t.Error(err)
		}
	}
	for _, call := range s.Calls() {
		if call.Account == "" && call.Method != http.MethodPost {
			t.Errorf("%s was asked as nobody", call.Path)
		}
	}
}

func TestAListGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	s := newHub()
	for i := range 120 {
		s.Push(hubtest.Push{Repository: "acme/api", Tag: fmt.Sprint("v", i), Digest: digest(i), At: now.Add(-time.Duration(i) * time.Minute)})
	}
	first, err := start(t, s, config).Tags(t.Context(), "acme/api", now.Add(-99*time.Minute), "")
	if err != nil || len(first.Items) != 50 || first.Next == "" {
		t.Fatalf("got %d, %v", len(first.Items), err)
	}
	another := start(t, s, config)
	for name, test := range map[string]struct {
		cursor, repository string
		first              string
	}{
		"another client, with another time": {first.Next, "acme/api", "v50"},
		"what cannot be read begins anew":   {"canary", "acme/api", "v0"},
		"so does what was cut":              {first.Next[:20], "acme/api", "v0"},
	} {
		got, err := another.Tags(t.Context(), test.repository, now.Add(-200*time.Minute), test.cursor)
		if err != nil || len(got.Items) == 0 || got.Items[0].Name != test.first {
			t.Errorf("%s: got %+v, %v", name, got.Items, err)
		}
		if test.first == "v50" && (len(got.Items) != 50 || got.Next == "") {
			t.Errorf("%s: got %d, %q", name, len(got.Items), got.Next)
		}
	}
	s.Push(hubtest.Push{Repository: "acme/web", Tag: "w1", Digest: digest(1), At: now})
	got, err := another.Tags(t.Context(), "acme/web", now, first.Next)
	if err != nil || len(got.Items) != 1 {
		t.Errorf("the cursor of another list: got %+v, %v", got, err)
	}
	for i := 40; i < 120; i++ {
		s.DeleteTag("acme/api", fmt.Sprint("v", i))
	}
	if got, err := another.Tags(t.Context(), "acme/api", now, first.Next); err != nil || len(got.Items) != 0 || got.Next != "" {
		t.Errorf("a list that has become shorter: got %+v, %v", got, err)
	}
	s.Fail(hubtest.Failure{Status: 404, Body: `{"message":"invalid page"}`})
	if got, err := another.Tags(t.Context(), "acme/api", now, first.Next); err != nil || len(got.Items) != 0 || got.Next != "" {
		t.Errorf("a page that is not there any more: got %+v, %v", got, err)
	}
}

func TestNamesThatDockerHubDoesNotHaveAreNotAsked(t *testing.T) {
	t.Parallel()
	s := newHub()
	c := start(t, s, config)
	for name, ask := range map[string]func() error{
		"a repository of three parts": func() error { _, err := c.Tags(t.Context(), "acme/api/x", now, ""); return err },
		"no repository":               func() error { _, err := c.Tags(t.Context(), "", now, ""); return err },
		"a way out of the path":       func() error { _, err := c.Tags(t.Context(), "acme/../x", now, ""); return err },
		"a tag in three parts":        func() error { _, err := c.Tag(t.Context(), "acme/api/x", "v1"); return err },
		"a way out of the tags":       func() error { _, err := c.Tag(t.Context(), "acme/api", "../x"); return err },
		"a query in a namespace":      func() error { _, err := c.Repositories(t.Context(), "acme?x", ""); return err },
		"a namespace with a slash":    func() error { _, err := c.Pushes(t.Context(), "acme/api", now, now, ""); return err },
	} {
		if e := refusal(t, ask()); e.Reason != hub.Refused {
			t.Errorf("%s: got %v", name, e)
		}
	}
	if calls := s.Calls(); len(calls) != 0 {
		t.Errorf("asked %v", calls)
	}
}

func TestMistakesOfNewRepeatNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ url, config string }{
		"no URL":                  {"canary", ""},
		"another scheme":          {"ftp://canary.example", ""},
		"a password in the URL":   {"https://u:canary@hub.docker.com", ""},
		"a query in the URL":      {"https://hub.docker.com?canary", ""},
		"a config that is none":   {"https://hub.docker.com", "canary"},
		"an entry without a word": {"https://hub.docker.com", `{"auths":{"docker.io":{"username":"canary"}}}`},
	} {
		c, err := hub.New(test.url, env.NewSecret(test.config))
		if err == nil || c != nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := hub.New("https://hub.docker.com/", env.NewSecret(config)); err != nil {
		t.Error(err)
	}
}

func TestABaseURLMayHaveAPath(t *testing.T) {
	t.Parallel()
	s := newHub()
	s.Push(hubtest.Push{Repository: "acme/api", Tag: "v1", Digest: digest(1), At: now})
	server := httptest.NewServer(http.StripPrefix("/hub", s))
	t.Cleanup(server.Close)
	c, err := hub.New(server.URL+"/hub/", env.NewSecret(config))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Tags(t.Context(), "acme/api", now, "")
	if err != nil || !slices.ContainsFunc(got.Items, func(tag hub.Tag) bool { return tag.Name == "v1" }) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestSigningInTellsWhetherTheAccountIsTaken(t *testing.T) {
	t.Parallel()
	fake := newHub()
	if account, err := start(t, fake, config).SignIn(t.Context()); !account || err != nil {
		t.Errorf("got %t, %v", account, err)
	}
	if account, err := start(t, fake, "").SignIn(t.Context()); account || err != nil {
		t.Errorf("as nobody: got %t, %v", account, err)
	}
	_, err := start(t, fake, strings.Replace(config, secret, "canary-wrong", 1)).SignIn(t.Context())
	if e := refusal(t, err); e.Reason != hub.LoginDenied {
		t.Errorf("got %v", err)
	}
	if logins, others := questions(fake); logins != 2 || others != 0 {
		t.Errorf("%d logins, %d other questions", logins, others)
	}
}
