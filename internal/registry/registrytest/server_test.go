package registrytest_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/registry/registrytest"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func start(t *testing.T) (*registrytest.Server, string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	fake := registrytest.New("http://" + server.Listener.Addr().String())
	server.Config.Handler = fake
	server.Start()
	t.Cleanup(server.Close)
	fake.AddAccount("acme", "canary-password")
	fake.AddAccount("other", "canary-other")
	fake.AddRepository("acme/api", "acme")
	fake.AddRepository("acme/open")
	fake.Tag("acme/api", "1.0.0", digest)
	fake.Tag("acme/open", "1.0.0", digest)
	return fake, server.URL
}

// The server also gives tokens without the right to pull, and denies requests
// with them.
func TestWhoMayPull(t *testing.T) {
	t.Parallel()
	_, url := start(t)
	for _, c := range []struct{ account, password, repository, tag, reason string }{
		{"acme", "canary-password", "acme/api", "1.0.0", ""},
		{"acme", "canary-password", "acme/open", "1.0.0", ""},
		{"acme", "canary-password", "acme/api", "2.0.0", registry.NotInRegistry},
		{"acme", "canary-password", "acme/nosuch", "1.0.0", registry.Denied},
		{"acme", "canary-wrong", "acme/open", "1.0.0", registry.Denied},
		{"other", "canary-other", "acme/api", "1.0.0", registry.Denied},
		{"", "", "acme/api", "1.0.0", registry.Denied},
		{"", "", "acme/open", "1.0.0", ""},
	} {
		var config env.Secret
		if c.account != "" {
			config = env.NewSecret(`{"auths":{"` + strings.TrimPrefix(url, "http://") + `":{"username":"` + c.account + `","password":"` + c.password + `"}}}`)
		}
		client, err := registry.New(url, config)
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.Digest(t.Context(), c.repository, c.tag)
		var e *registry.Error
		if c.reason == "" && (got != digest || err != nil) || c.reason != "" && (!errors.As(err, &e) || e.Reason != c.reason) {
			t.Errorf("%s asks for %s:%s: got %s, %v", c.account, c.repository, c.tag, got, err)
		}
	}
}

func TestAnswersOfAStatus(t *testing.T) {
	t.Parallel()
	fake, url := start(t)
	client, err := registry.New(url, env.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	fake.Answer(http.StatusTooManyRequests)
	var e *registry.Error
	if _, err := client.Digest(t.Context(), "acme/open", "1.0.0"); !errors.As(err, &e) || e.Reason != registry.RateLimited {
		t.Errorf("got %v", err)
	}
	fake.Answer(0)
	fake.LimitPulls(100, 76)
	got, pulls, err := client.Look(t.Context(), "acme/open", "1.0.0")
	if got != digest || pulls == nil || *pulls != (registry.Pulls{Limit: 100, Remaining: 76, Window: 6 * time.Hour}) || err != nil {
		t.Errorf("got %s, %+v, %v", got, pulls, err)
	}
}
