package registry_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/registry"
)

func TestNewTakesABaseURLOnly(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"https://registry-1.docker.io", "https://registry-1.docker.io/", "https://Registry-1.docker.io:443", "http://127.0.0.1:8080",
		"https://registry.example/", "https://mydocker.io",
	} {
		if _, err := registry.New(good, env.Secret{}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "registry-1.docker.io", "ftp://canary-host", "https://", "https://canary:x@registry.example",
		"https://registry.example/v2", "https://registry.example?canary=1", "https://a b", "https://registry.example/#canary",
		"https://:443", "https://registry.example/canary", "https://registry.example/?",
	} {
		_, err := registry.New(bad, env.Secret{})
		if err == nil {
			t.Errorf("%q is taken", bad)
		} else if strings.Contains(err.Error(), "canary") {
			t.Errorf("the error repeats the URL: %v", err)
		}
	}
}

func TestOtherAddressesOfDockerHubAreRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"https://docker.io", "https://index.docker.io", "https://hub.docker.com", "https://registry.hub.docker.com", "https://www.docker.com",
		"https://docker.com", "https://auth.docker.io", "https://Hub.Docker.com:443/v2/", "https://index.docker.io/v1/",
		"http://registry-1.docker.io", "https://hub.docker.com/r/acme/api",
	} {
		_, err := registry.New(bad, env.Secret{})
		if err == nil || !strings.Contains(err.Error(), "https://registry-1.docker.io") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

func TestDigestIsThatOfTheTagAndIsNoPull(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{})
	index, err := random.Index(64, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	image, multi := h.pushImage(t, "acme/api:1.0"), h.push(t, "acme/api:multi", index)
	c := h.client(t, "")
	for tag, want := range map[string]string{"1.0": image, "multi": multi} {
		if got, err := c.Digest(t.Context(), "acme/api", tag); err != nil || got != want {
			t.Errorf("digest of %s is %q, %v; want %q", tag, got, err, want)
		}
	}
	want := []string{"GET /v2/", "HEAD manifests", "HEAD manifests"}
	if diff := cmp.Diff(want, h.takeAsked()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// manifest is one of so many bytes.
func manifest(size int) string {
	m := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	return m + strings.Repeat(" ", size-len(m))
}

func digestOf(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }

func TestGETIsUsedIfHEADHasNoDigest(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	other := "sha512:" + strings.Repeat("a", 128)
	for name, head := range map[string]struct {
		status int
		header map[string]string
		cost   []string // of a second question
	}{
		"HEAD has no digest":         {200, map[string]string{"Content-Length": "90"}, []string{"HEAD manifests", "GET manifests"}},
		"HEAD has no length either":  {200, nil, []string{"HEAD manifests", "GET manifests"}},
		"HEAD has no type":           {200, map[string]string{"Content-Type": "", "Docker-Content-Digest": other}, []string{"HEAD manifests", "GET manifests"}},
		"HEAD has another algorithm": {200, map[string]string{"Content-Length": "90", "Docker-Content-Digest": other}, []string{"HEAD manifests", "GET manifests"}},
		"HEAD has nonsense":          {200, map[string]string{"Content-Length": "90", "Docker-Content-Digest": "canary"}, []string{"HEAD manifests", "GET manifests"}},
		"HEAD is not found":          {404, nil, []string{"HEAD manifests", "GET manifests"}},
		"HEAD is not allowed":        {405, nil, []string{"HEAD manifests", "GET manifests"}},
		"HEAD is not implemented":    {501, nil, []string{"HEAD manifests", "GET manifests"}},
		"HEAD is a bad request":      {400, nil, []string{"HEAD manifests", "GET manifests"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, &hub{fail: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
				if r.Method == http.MethodHead {
					for key, value := range head.header {
						w.Header().Set(key, value)
					}
					w.WriteHeader(head.status)
					return
				}
				_, _ = io.WriteString(w, manifest(size))
			})})
			c := h.client(t, "")
			for range 2 {
				if got, err := c.Digest(t.Context(), "acme/api", "1.0"); err != nil || got != digestOf(manifest(size)) {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			if diff := cmp.Diff(head.cost, h.takeAsked()[3:]); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

// A GET may count as a pull. So HEAD answers are believed once a registry has
// answered HEAD.
func TestAMissingImageCostsNoPull(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{})
	h.pushImage(t, "acme/api:1.0")
	c := h.client(t, "")
	ask := func(tag string, want ...string) {
		t.Helper()
		_, err := c.Digest(t.Context(), "acme/api", tag)
		if tag == "gone" {
			wantReason(t, err, registry.NotInRegistry)
		} else if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, h.takeAsked()); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
	}
	h.takeAsked()
	ask("gone", "GET /v2/", "HEAD manifests", "GET manifests")
	ask("1.0", "HEAD manifests")
	ask("gone", "HEAD manifests")
}

func TestADenialHasAHintForItsCause(t *testing.T) {
	t.Parallel()
	account := map[string]string{"username": user, "password": secret}
	denies := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	for name, test := range map[string]struct {
		hub   *hub
		entry map[string]string
		hint  string
	}{
		"no account, and the repository is private or not there":       {&hub{locked: true, fail: denies(401)}, nil, "If this one is private, set REGISTRY_AUTH"},
		"no account, and the registry requires one":                    {&hub{locked: true, account: true}, nil, "requires an account"},
		"an account that is not taken":                                 {&hub{locked: true, account: true}, map[string]string{"username": user, "password": "canary-x"}, "does not take the account"},
		"an account that is not taken, without tokens":                 {&hub{basic: true}, map[string]string{"username": user, "password": "canary-x"}, "does not take the account"},
		"an account that may not pull this, or the name has a mistake": {&hub{locked: true, account: true, fail: denies(401)}, account, "takes the account of REGISTRY_AUTH, but not for this repository"},
		"an account that is forbidden to pull this":                    {&hub{locked: true, account: true, fail: denies(403)}, account, "takes the account of REGISTRY_AUTH, but not for this repository"},
		"an account that is forbidden to pull this, without tokens":    {&hub{basic: true, fail: denies(403)}, account, "takes the account of REGISTRY_AUTH, but not for this repository"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, test.hub)
			config := ""
			if test.entry != nil {
				config = h.config(test.entry)
			}
			_, err := h.client(t, config).Digest(t.Context(), "acme/api", "1.0")
			wantReason(t, err, registry.Denied)
			var e *registry.Error
			if errors.As(err, &e) && !strings.Contains(e.Hint, test.hint) {
				t.Errorf("the hint is %q", e.Hint)
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s came, with %q", r.Method, r.URL, r.Header.Get("Authorization"))
	}))
	t.Cleanup(elsewhere.Close)
	redirect := http.RedirectHandler(elsewhere.URL+"/v2/", http.StatusTemporaryRedirect)
	account := map[string]string{"username": user, "password": secret}
	for name, test := range map[string]*hub{
		"of a question":            {locked: true, account: true, fail: redirect},
		"of one with the password": {basic: true, fail: redirect},
		"of a login":               {broken: redirect},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, test)
			_, err := h.client(t, h.config(account)).Digest(t.Context(), "acme/api", "1.0")
			check(t, err, registry.Error{Status: 307, Reason: registry.Unavailable})
		})
	}
}

// The caller that logs in for all others may be canceled before it is done.
func TestACanceledLoginDoesNotFailOtherCallers(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{locked: true})
	want := h.pushImage(t, "acme/api:1.0")
	c := h.client(t, "")
	slow, entered := make(chan struct{}), make(chan struct{}, 2)
	h.breakWith(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		select {
		case <-slow:
		case <-r.Context().Done():
		}
	}))
	ctx, goAway := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := c.Digest(ctx, "acme/api", "1.0")
		first <- err
	}()
	<-entered
	go func() {
		got, err := c.Digest(t.Context(), "acme/api", "1.0")
		if err == nil && got != want {
			err = errors.New(got)
		}
		second <- err
	}()
	time.Sleep(50 * time.Millisecond) // the second waits for the first's login
	h.breakWith(nil)
	goAway()
	close(slow)
	if err := <-first; err == nil {
		t.Error("a caller that went away got an answer")
	}
	if err := <-second; err != nil {
		t.Errorf("the other got %v", err)
	}
}

func TestDigestNeverAsksForWhatIsNoName(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{})
	c := h.client(t, "")
	digest := "sha256:" + strings.Repeat("a", 64)
	for _, image := range [][2]string{{"", "1.0"}, {"acme/../x", "1.0"}, {"acme/api?x", "1.0"}, {"acme/api", ""}, {"acme/api", "../x"}, {"acme/api", digest}, {"ACME/api", "1"}} {
		_, err := c.Digest(t.Context(), image[0], image[1])
		wantReason(t, err, registry.NotInRegistry)
	}
	if asked := h.takeAsked(); len(asked) != 0 {
		t.Errorf("asked %v", asked)
	}
}

func TestWhatTheRegistrySaysBecomesAReason(t *testing.T) {
	t.Parallel()
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	reset := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	page := func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "<html>Please sign in</html>") }
	huge := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		w.Header().Set("Docker-Content-Digest", "sha256:x")
		for range 70 {
			_, _ = fmt.Fprint(w, strings.Repeat(" ", 64<<10))
		}
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   registry.Error
	}{
		"an image that is not there":         {status(404), registry.Error{Status: 404, Reason: registry.NotInRegistry}},
		"no credentials":                     {status(401), registry.Error{Status: 401, Reason: registry.Denied}},
		"other credentials":                  {status(403), registry.Error{Status: 403, Reason: registry.Denied}},
		"too many questions":                 {status(429, "Retry-After", "7"), registry.Error{Status: 429, Reason: registry.RateLimited, RetryAfter: 7 * time.Second}},
		"a registry that fails":              {status(500), registry.Error{Status: 500, Reason: registry.Unavailable}},
		"a registry in maintenance":          {status(503, "Retry-After", "30"), registry.Error{Status: 503, Reason: registry.Unavailable, RetryAfter: 30 * time.Second}},
		"a registry that sends elsewhere":    {status(307, "Location", "/v2/elsewhere?canary=1"), registry.Error{Status: 307, Reason: registry.Unavailable}},
		"a registry that hangs":              {hang, registry.Error{Reason: registry.Unavailable}},
		"a connection that is reset":         {reset, registry.Error{Reason: registry.Unavailable}},
		"an answer without a digest":         {status(200), registry.Error{Status: 200, Reason: registry.Unavailable}},
		"an answer with a digest that is no": {status(200, "Docker-Content-Digest", "canary"), registry.Error{Status: 200, Reason: registry.Unavailable}},
		"a page of a proxy":                  {page, registry.Error{Status: 200, Reason: registry.Unavailable}},
		"a huge answer":                      {huge, registry.Error{Status: 200, Reason: registry.Unavailable}},
	} {
		for _, everywhere := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, from the start %v", name, everywhere), func(t *testing.T) {
				t.Parallel()
				h := newHub(t, &hub{fail: test.answer})
				if everywhere {
					h.breakWith(test.answer)
				}
				want := test.want
				if everywhere && want.Reason == registry.NotInRegistry {
					want.Reason = registry.Unavailable // what has no /v2/ is no registry
				}
				c := h.client(t, "")
				ctx := t.Context()
				if strings.HasSuffix(name, "hangs") {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
					defer cancel()
				}
				_, err := c.Digest(ctx, "acme/api", "1.0")
				check(t, err, want)
			})
		}
	}
}

func check(t *testing.T, err error, want registry.Error) {
	t.Helper()
	var got *registry.Error
	if !errors.As(err, &got) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if got.Status != want.Status && got.Status != 0 || got.Reason != want.Reason || got.RetryAfter != want.RetryAfter || !got.Temporary() {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if (got.Hint != "") != (want.Reason == registry.Denied) {
		t.Errorf("hint is %q", got.Hint)
	}
	if text := fmt.Sprintf("%v %+v %s", err, *got, got.Hint); strings.Contains(text, "canary") || strings.Contains(text, "http:") {
		t.Errorf("the error says too much: %s", text)
	}
}

func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	var e *registry.Error
	if !errors.As(err, &e) || e.Reason != reason {
		t.Errorf("got %v, want %s", err, reason)
	}
}

func TestATimeOutDiffersFromOtherFailures(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{fail: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.client(t, "").Digest(ctx, "acme/api", "1.0"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestARegistryThatIsNotThereIsUnavailable(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	for _, scheme := range []string{"http", "https"} {
		c, err := registry.New(scheme+strings.TrimPrefix(server.URL, "http"), env.Secret{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Digest(t.Context(), "acme/api", "1.0")
		wantReason(t, err, registry.Unavailable)
		if !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: the error does not say why: %v", scheme, err)
		}
	}
}

func TestNothingIsSentInTheClearToAnHTTPSRegistry(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{})
	h.pushImage(t, "acme/api:1.0")
	h.takeAsked()
	c, err := registry.New("https"+strings.TrimPrefix(h.URL, "http"), env.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Digest(t.Context(), "acme/api", "1.0")
	wantReason(t, err, registry.Unavailable)
	if asked := h.takeAsked(); len(asked) != 0 {
		t.Errorf("asked %v", asked)
	}
}

func TestALoginServesARepositoryUntilItExpires(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{locked: true, account: true})
	want := h.pushImage(t, "acme/api:1.0")
	c := h.client(t, h.config(map[string]string{"username": user, "password": secret}))
	ask := func() {
		t.Helper()
		if got, err := c.Digest(t.Context(), "acme/api", "1.0"); err != nil || got != want {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	ask()
	ask()
	if diff := cmp.Diff([]string{"GET /v2/", "GET /token", "HEAD manifests", "HEAD manifests"}, h.takeAsked()); diff != "" {
		t.Errorf("two questions (-want +got):\n%s", diff)
	}
	h.expire()
	ask()
	ask()
	if diff := cmp.Diff([]string{"HEAD manifests", "GET /v2/", "GET /token", "HEAD manifests", "HEAD manifests"}, h.takeAsked()); diff != "" {
		t.Errorf("after the token expired (-want +got):\n%s", diff)
	}
	// Another repository needs a token of its own.
	_, err := c.Digest(t.Context(), "acme/web", "1.0")
	wantReason(t, err, registry.NotInRegistry)
	if diff := cmp.Diff([]string{"GET /v2/", "GET /token", "HEAD manifests"}, h.takeAsked()); diff != "" {
		t.Errorf("another repository (-want +got):\n%s", diff)
	}
}

func TestQuestionsAtOnceShareALogin(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{locked: true})
	h.pushImage(t, "acme/api:1.0")
	c := h.client(t, "")
	for range 3 {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if _, err := c.Digest(t.Context(), "acme/api", "1.0"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		h.expire()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.issued != 3 {
		t.Errorf("%d logins, want 3", h.issued)
	}
}

func TestAFailedLoginIsNotRemembered(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{locked: true})
	h.pushImage(t, "acme/api:1.0")
	c := h.client(t, "")
	for _, failing := range []http.HandlerFunc{
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusFound) },
		func(w http.ResponseWriter, r *http.Request) { // a token that is none
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token?canary=1"`, r.Host))
			if r.URL.Path != "/token" {
				w.WriteHeader(http.StatusUnauthorized)
			}
			_, _ = fmt.Fprint(w, `{"refresh_token":"canary"}`)
		},
		func(w http.ResponseWriter, _ *http.Request) { // a realm inside of the network
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://canary@169.254.169.254/canary"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		func(w http.ResponseWriter, r *http.Request) { // a token server that sends elsewhere
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://canary:canary@%s/token"`, r.Host))
			if r.URL.Path != "/token" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			http.Redirect(w, r, "http://127.0.0.2/canary?canary=1", http.StatusFound)
		},
	} {
		h.breakWith(failing)
		_, err := c.Digest(t.Context(), "acme/api", "1.0")
		check(t, err, registry.Error{Status: 302, Reason: registry.Unavailable})
		h.breakWith(nil)
		if _, err := c.Digest(t.Context(), "acme/api", "1.0"); err != nil {
			t.Errorf("the failure is remembered: %v", err)
		}
		h.expire()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Digest(ctx, "acme/api", "1.0")
	wantReason(t, err, registry.Unavailable)
	if _, err := c.Digest(t.Context(), "acme/api", "1.0"); err != nil {
		t.Errorf("a caller that went away is remembered: %v", err)
	}
}

func TestOfTooManyRepositoriesAllAreForgotten(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{})
	c := h.client(t, "")
	for i := range 1000 {
		_, err := c.Digest(t.Context(), fmt.Sprintf("acme/api-%d", i), "1.0")
		wantReason(t, err, registry.NotInRegistry)
	}
	h.takeAsked()
	_, err := c.Digest(t.Context(), "acme/api-0", "1.0")
	wantReason(t, err, registry.NotInRegistry)
	if !slices.Contains(h.takeAsked(), "GET /v2/") {
		t.Error("the first of 1000 repositories is still remembered")
	}
}

func TestWhatIsLeftOfALimitOfPulls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit, remaining string
		want             *registry.Pulls
	}{
		{"100;w=21600", "76;w=21600", &registry.Pulls{Limit: 100, Remaining: 76, Window: 6 * time.Hour}},
		{"100", "0", &registry.Pulls{Limit: 100}},
		{"100;w=x", " 7 ;w=21600", &registry.Pulls{Limit: 100, Remaining: 7}},
		{"", "", nil}, {"100;w=21600", "", nil}, {"x", "y", nil}, {"-1", "-1", nil}, {"99999999999999999999", "1", nil},
	} {
		h := newHub(t, &hub{fail: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ratelimit-limit", c.limit)
			w.Header().Set("ratelimit-remaining", c.remaining)
			w.WriteHeader(http.StatusTooManyRequests)
		})})
		_, got, err := h.client(t, "").Look(t.Context(), "acme/api", "1")
		wantReason(t, err, registry.RateLimited)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q, %q: %s", c.limit, c.remaining, diff)
		}
	}
}
