package registry_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	fake "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/registry"
)

const (
	user   = "canary-user"
	secret = "canary-secret"
)

// hub is a registry that counts requests, and requires a login if it has an
// account.
type hub struct {
	*httptest.Server
	registry http.Handler
	locked   bool         // wants a token
	basic    bool         // wants a password, and no token
	account  bool         // gives tokens to user and secret only
	fail     http.Handler // answers what is asked of a repository

	mu     sync.Mutex
	asked  []string // method and kind of path
	issued int
	valid  map[string]string // token to scope
	broken http.Handler      // answers everything
}

func newHub(t *testing.T, h *hub) *hub {
	t.Helper()
	if h.registry == nil {
		h.registry = fake.New(fake.Logger(log.New(io.Discard, "", 0)))
	}
	h.valid = map[string]string{}
	h.Server = httptest.NewUnstartedServer(h)
	h.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.Server.Start()
	t.Cleanup(h.Close)
	return h
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	broken := h.broken
	h.asked = append(h.asked, r.Method+" "+kind(r.URL.Path))
	h.mu.Unlock()
	switch {
	case broken != nil:
		broken.ServeHTTP(w, r)
	case r.URL.Path == "/token":
		h.token(w, r)
	case !h.allowed(r):
		if h.basic {
			w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
		} else {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="hub"`, h.URL))
		}
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"`+r.Header.Get("Authorization")+`"}]}`, http.StatusUnauthorized)
	case h.fail != nil && r.URL.Path != "/v2/":
		h.fail.ServeHTTP(w, r)
	default:
		h.registry.ServeHTTP(w, r)
	}
}

func kind(path string) string {
	if strings.Contains(path, "/manifests/") {
		return "manifests"
	}
	return path
}

func (h *hub) allowed(r *http.Request) bool {
	username, password, _ := r.BasicAuth()
	switch {
	case h.basic:
		return username == user && password == secret
	case !h.locked:
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	scope, ok := h.valid[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	return ok && r.URL.Path != "/v2/" && strings.Contains(scope, ":"+repositoryOf(r.URL.Path)+":pull")
}

func repositoryOf(path string) string {
	parts := strings.Split(strings.TrimPrefix(path, "/v2/"), "/")
	return strings.Join(parts[:max(0, len(parts)-2)], "/")
}

func (h *hub) token(w http.ResponseWriter, r *http.Request) {
	username, password, _ := r.BasicAuth()
	if h.account && (username != user || password != secret) {
		http.Error(w, "who is "+username+":"+password, http.StatusUnauthorized)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.issued++
	token := fmt.Sprintf("canary-token-%d", h.issued)
	h.valid[token] = r.FormValue("scope")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
}

// expire invalidates all tokens so far.
func (h *hub) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.valid)
}

func (h *hub) breakWith(broken http.Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = broken
}

// takeAsked returns the requests since the last call.
func (h *hub) takeAsked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	asked := h.asked
	h.asked = nil
	return asked
}

func (h *hub) client(t *testing.T, config string) *registry.Client {
	t.Helper()
	c, err := registry.New(h.URL, env.NewSecret(config))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// config is a config.json with an entry for the hub.
func (h *hub) config(entry map[string]string) string {
	raw, err := json.Marshal(map[string]any{"auths": map[string]any{strings.TrimPrefix(h.URL, "http://"): entry}})
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// pushImage pushes a random image without counting it, and returns its digest.
func (h *hub) pushImage(t *testing.T, image string) string {
	t.Helper()
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	return h.push(t, image, img)
}

func (h *hub) push(t *testing.T, image string, what remote.Taggable) string {
	t.Helper()
	open := httptest.NewServer(h.registry)
	defer open.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(open.URL, "http://") + "/" + image)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Push(ref, what); err != nil {
		t.Fatal(err)
	}
	desc, err := remote.Head(ref)
	if err != nil {
		t.Fatal(err)
	}
	return desc.Digest.String()
}
