// Package registrytest is a fake of Docker Hub's registry for clients that only
// read: it has logins by token, and the digests of tags. It has no images.
package registrytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Server is a registry. It is safe for concurrent use.
type Server struct {
	baseURL string
	mux     *http.ServeMux

	mu        sync.Mutex
	passwords map[string]string          // of accounts
	private   map[string]map[string]bool // repository → accounts that may pull it
	tags      map[string]string          // repository:tag → digest
	public    map[string]bool            // repositories
	grants    map[string]string          // token → the repository that it may pull, "" for none
	limit     int                        // pulls, 0 for none
	left      int
	status    int // of every answer about a manifest, if it is set
}

// New returns a registry without repositories. baseURL is where it can be
// reached, without a trailing slash.
func New(baseURL string) *Server {
	s := &Server{
		baseURL: baseURL, mux: http.NewServeMux(), passwords: map[string]string{}, private: map[string]map[string]bool{},
		tags: map[string]string{}, public: map[string]bool{}, grants: map[string]string{},
	}
	s.mux.HandleFunc("GET /token", s.login)
	s.mux.HandleFunc("GET /v2/{$}", func(w http.ResponseWriter, _ *http.Request) { s.challenge(w, "") })
	s.mux.HandleFunc("GET /v2/{namespace}/{name}/manifests/{tag}", s.manifest) // and HEAD
	return s
}

// ServeHTTP answers at the root of the base URL.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// AddAccount adds an account.
func (s *Server) AddAccount(name, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passwords[name] = password
}

// AddRepository adds a repository that everybody may pull, or only the given
// accounts if there are any.
func (s *Server) AddRepository(repository string, accounts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.public[repository] = len(accounts) == 0
	s.private[repository] = map[string]bool{}
	for _, a := range accounts {
		s.private[repository][a] = true
	}
}

// Tag points a tag of a repository to a digest.
func (s *Server) Tag(repository, tag, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tags[repository+":"+tag] = digest
}

// LimitPulls makes every answer say how many pulls of the limit are left in six
// hours.
func (s *Server) LimitPulls(limit, left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit, s.left = limit, left
}

// Answer makes every request about a tag get this status. 0 resets it.
func (s *Server) Answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// login returns a token. The token has the right to pull only if the account
// has it. For a repository that does not exist, or that others own, it returns
// a token without that right.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	name, password, signsIn := r.BasicAuth()
	parts := strings.Split(r.FormValue("scope"), ":") // repository:acme/api:pull
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.passwords[name]; signsIn && (!ok || known != password) {
		reply(w, http.StatusUnauthorized, map[string]any{"details": "incorrect username or password"})
		return
	}
	repository := ""
	if len(parts) == 3 && parts[0] == "repository" && (s.public[parts[1]] || signsIn && s.private[parts[1]][name]) {
		repository = parts[1]
	}
	token := "token-" + strconv.Itoa(len(s.grants))
	s.grants[token] = repository
	reply(w, http.StatusOK, map[string]any{"token": token, "access_token": token, "expires_in": 300})
}

func (s *Server) challenge(w http.ResponseWriter, scope string) {
	text := fmt.Sprintf(`Bearer realm="%s/token",service="registry.docker.io"`, s.baseURL)
	if scope != "" {
		text += `,scope="` + scope + `",error="insufficient_scope"`
	}
	w.Header().Set("WWW-Authenticate", text)
	refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
}

func (s *Server) manifest(w http.ResponseWriter, r *http.Request) {
	repository := r.PathValue("namespace") + "/" + r.PathValue("name")
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	granted, ok := s.grants[token]
	if !ok || granted != repository {
		s.challenge(w, "repository:"+repository+":pull")
		return
	}
	if s.limit > 0 {
		w.Header().Set("Ratelimit-Limit", strconv.Itoa(s.limit)+";w=21600")
		w.Header().Set("Ratelimit-Remaining", strconv.Itoa(s.left)+";w=21600")
	}
	digest, ok := s.tags[repository+":"+r.PathValue("tag")]
	switch {
	case s.status != 0:
		refuse(w, s.status, "UNKNOWN", http.StatusText(s.status))
	case !ok:
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
	default:
		w.Header().Set("Docker-Content-Digest", digest)
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		w.Header().Set("Content-Length", "1234")
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	reply(w, status, map[string]any{"errors": []any{map[string]any{"code": code, "message": message}}})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
