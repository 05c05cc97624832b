package hub

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
)

// direct calls a handler without a network, which has a clock of its own.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

func newClient(t *testing.T, s *hubtest.Server, name, secret string) *Client {
	t.Helper()
	config := ""
	if name != "" {
		s.AddAccount(hubtest.Account{Name: name, Secrets: []string{secret}})
		config = fmt.Sprintf(`{"auths":{"docker.io":{"username":%q,"password":%q}}}`, name, secret)
	}
	c, err := New("http://hub.example", env.NewSecret(config))
	if err != nil {
		t.Fatal(err)
	}
	c.http.Transport = direct{s}
	return c
}

func TestALimitIsKeptBeforeItIsReached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New()
		s.AddRepository("acme/api", false)
		s.RateLimit(3)
		c := newClient(t, s, "", "")
		ask := func() error {
			_, err := c.Tags(t.Context(), "acme/api", time.Now(), "")
			return err
		}
		for range 3 {
			if err := ask(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Second)
		e, _ := errors.AsType[*Error](ask())
		if e == nil || e.Reason != RateLimited || !e.Temporary() || e.RetryAfter != 40*time.Second || e.Status != 0 {
			t.Fatalf("got %+v", e)
		}
		if asked := len(s.Calls()); asked != 3 {
			t.Errorf("asked %d times", asked)
		}
		time.Sleep(e.RetryAfter)
		if err := ask(); err != nil {
			t.Error(err)
		}
	})
}

func TestALimitThatOthersHaveReachedIsKeptFromThenOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New()
		s.AddRepository("acme/api", false)
		s.RateLimit(1)
		one, other := newClient(t, s, "", ""), newClient(t, s, "", "") // from one address
		if _, err := one.Tags(t.Context(), "acme/api", time.Now(), ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for i, status := range []int{429, 429, 429} {
			_, err := other.Tags(t.Context(), "acme/api", time.Now(), "")
			e, _ := errors.AsType[*Error](err)
			if e == nil || e.Reason != RateLimited || e.Status != status || e.RetryAfter != 59*time.Second {
				t.Fatalf("call %d: got %+v", i, e)
			}
		}
		if asked := len(s.Calls()); asked != 2 {
			t.Errorf("asked %d times", asked)
		}
		time.Sleep(59 * time.Second)
		if _, err := other.Tags(t.Context(), "acme/api", time.Now(), ""); err != nil {
			t.Error(err)
		}
	})
}

func TestANamespaceOf500RepositoriesTakesSixMinutesAtALimitOf100(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New()
		s.RateLimit(100)
		c := newClient(t, s, "acme", "secret")
		for i := range 500 {
			s.Push(hubtest.Push{Repository: fmt.Sprintf("acme/r%03d", i), Tag: "v1"})
		}
		begin := time.Now()
		var names []string
		found := 0
		patiently := func(ask func() error) {
			for {
				err := ask()
				if err == nil {
					return
				}
				e, ok := errors.AsType[*Error](err)
				if !ok || !e.Temporary() || e.RetryAfter <= 0 {
					t.Fatal(err)
				}
				time.Sleep(e.RetryAfter)
			}
		}
		for cursor := ""; ; {
			var page Page[Repository]
			patiently(func() (err error) {
				page, err = c.Repositories(t.Context(), "acme", cursor)
				return err
			})
			for _, r := range page.Items {
				names = append(names, r.Name)
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		for _, name := range names {
			patiently(func() error {
				page, err := c.Tags(t.Context(), name, begin.Add(-time.Hour), "")
				found += len(page.Items)
				return err
			})
		}
		took := time.Since(begin)
		t.Logf("500 repositories took %v", took)
		if found != 500 || took > 6*time.Minute {
			t.Errorf("found %d in %v", found, took)
		}
		for _, call := range s.Calls() {
			if call.Account == "" && call.Method != http.MethodPost {
				t.Fatalf("%s was asked as nobody", call.Path)
			}
		}
		// Five pages of repositories, one of each one's tags, and one login in
		// each ten minutes.
		if asked := len(s.Calls()); asked != 506 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func TestALoginIsRenewedBeforeItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New()
		s.AddRepository("acme/api", true)
		c := newClient(t, s, "acme", "secret")
		for range 60 { // an hour
			if _, err := c.Tags(t.Context(), "acme/api", time.Now(), ""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		logins := 0
		for _, call := range s.Calls() {
			if call.Method == http.MethodPost {
				logins++
			}
		}
		if asked := len(s.Calls()) - logins; logins != 6 || asked != 60 {
			t.Errorf("%d logins, %d questions", logins, asked)
		}
	})
}

func TestARefusedLoginIsTriedAgainAfterAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New()
		s.AddRepository("acme/api", true)
		c := newClient(t, s, "acme", "secret")
		s.AddAccount(hubtest.Account{Name: "acme", Secrets: []string{"another"}})
		ask := func() error {
			_, err := c.Tags(t.Context(), "acme/api", time.Now(), "")
			return err
		}
		for range 3 {
			if e, _ := errors.AsType[*Error](ask()); e == nil || e.Reason != LoginDenied {
				t.Fatalf("got %+v", e)
			}
		}
		s.AddAccount(hubtest.Account{Name: "acme", Secrets: []string{"secret"}})
		time.Sleep(loginPause)
		if err := ask(); err != nil {
			t.Error(err)
		}
		if asked := len(s.Calls()); asked != 3 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func TestAListWithoutAnEndIsAnError(t *testing.T) {
	t.Parallel()
	pages := 0
	c, err := New("http://hub.example", env.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	c.http.Transport = direct{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		pages++
		_, _ = io.WriteString(w, `{"next":"https://hub.docker.com/","results":[{"name":"v1","last_updated":"2026-10-20T12:00:00Z"}]}`)
	})}
	cursor := ""
	for {
		page, err := c.Tags(t.Context(), "acme/api", time.Unix(1, 0), cursor)
		if e, ok := errors.AsType[*Error](err); ok {
			if e.Reason != TooMuch || e.Temporary() || pages != maxPages {
				t.Errorf("after %d pages: %v", pages, err)
			}
			return
		}
		if cursor = page.Next; err != nil || cursor == "" || pages > maxPages {
			t.Fatalf("after %d pages: %q, %v", pages, cursor, err)
		}
	}
}

func TestHowLongATokenLives(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for name, test := range map[string]struct {
		claims string
		want   time.Duration
	}{
		"its beginning and end count, not our clock": {`{"iat":1000,"exp":1600}`, 10 * time.Minute},
		"an end alone is by our clock":               {`{"exp":1800000120}`, 2 * time.Minute},
		"a fraction":                                 {`{"iat":1000.5,"exp":1601.9}`, 601 * time.Second},
		"it has ended":                               {`{"exp":1700000000}`, 0},
		"it never ends":                              {`{"iat":1,"exp":99999999999999}`, maxLife},
		"no end":                                     {`{"iat":1000}`, defaultLife},
		"an end of another type":                     {`{"exp":"soon"}`, defaultLife},
		"no JSON":                                    {`x`, defaultLife},
	} {
		token := "e30." + base64URL(test.claims) + ".sig"
		if got := lifeOf(token, now); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	for _, token := range []string{"", "opaque", "a.b", "a.!.c"} {
		if got := lifeOf(token, now); got != defaultLife {
			t.Errorf("%q: %v", token, got)
		}
	}
}
