// Package hubtest is a fake of Docker Hub's API, for tests and for a machine
// without an account. It behaves as Docker documents and as Docker Hub was seen
// to behave. It holds no images.
package hubtest

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of Docker Hub.
const (
	tokenLife     = 10 * time.Minute
	activeFor     = 30 * 24 * time.Hour // a tag's status is active
	maxPage       = 100
	defaultPage   = 10
	defaultAudit  = 25
	nobodysTags   = 1000 // from this one on nobody who is not signed in sees more
	nobodysRepos  = 100
	limitedMinute = time.Minute
)

// Bounds of a Server's own.
const (
	remembered = 10_000  // pushes and calls that it keeps
	maxBody    = 1 << 20 // bytes of a call
)

// Account is who may sign in: a user with a password or a personal access
// token, or an organisation with an access token.
type Account struct {
	Name    string
	Secrets []string
	// Namespaces are those whose private repositories it sees, besides its own.
	Namespaces []string
	// AuditLogs are the namespaces whose audit log it reads, where there is one.
	AuditLogs []string
}

// Push is one push of a tag.
type Push struct {
	Repository  string // namespace/name; made, and public, where there is none
	Tag         string
	Digest      string
	Platforms   []string  // digests; none: the Digest
	MediaType   string    // an image's where it is ""
	ContentType string    // image where it is ""
	Actor       string    // the namespace where it is ""
	At          time.Time // now where it is zero
}

// Call is what the server was asked.
type Call struct {
	Method  string
	Path    string
	Query   url.Values
	Account string // "" for nobody
}

// Failure is how a call goes wrong. The first that is set of Hang and Reset
// counts, and Status where none is.
type Failure struct {
	Status int // 200 where it is 0
	Header http.Header
	Body   string
	Hang   bool // no answer until the client goes away
	Reset  bool // the connection breaks
}

// Page is what a CDN in front of Docker Hub answers, with any status.
func Page(status int) Failure {
	return Failure{
		Status: status,
		Header: http.Header{"Content-Type": {"text/html; charset=UTF-8"}},
		Body:   "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Checking your browser</body></html>",
	}
}

// Order is how tags are listed.
type Order int

// Orders of tags: Docker Hub's is the first, and others were seen.
const (
	NewestFirst Order = iota
	OldestFirst
	ByName
)

// Server is a Docker Hub. It is safe for concurrent use, and keeps the last
// 10,000 pushes and calls.
type Server struct {
	mux *http.ServeMux

	mu           sync.Mutex
	accounts     []Account
	tokens       map[string]token
	issued       int
	repositories map[string]*repository // by full name
	audit        map[string]auditLog    // by namespace
	pushes       []Push
	order        Order
	perMinute    int
	used         map[string]int // by account, since windowBegin
	windowBegin  time.Time
	failures     []Failure
	away         *Failure
	calls        []Call
}

type token struct {
	account string
	until   time.Time
}

type repository struct {
	private   bool
	created   time.Time
	updatedAt time.Time
	tags      map[string]Push
}

type auditLog struct{ delay time.Duration }

// New returns a Docker Hub without accounts and repositories.
func New() *Server {
	s := &Server{
		mux: http.NewServeMux(), tokens: map[string]token{}, repositories: map[string]*repository{},
		audit: map[string]auditLog{}, used: map[string]int{},
	}
	s.mux.HandleFunc("POST /v2/auth/token", s.login)
	s.mux.HandleFunc("GET /v2/auditlogs/{namespace}", s.signedIn(s.listPushes))
	s.mux.HandleFunc("GET /v2/namespaces/{namespace}/repositories", s.signedIn(s.listRepositories))
	s.mux.HandleFunc("GET /v2/namespaces/{namespace}/repositories/{repository}/tags", s.signedIn(s.listTags))
	s.mux.HandleFunc("GET /v2/namespaces/{namespace}/repositories/{repository}/tags/{tag}", s.signedIn(s.showTag))
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusNotFound, "page not found") })
	return s
}

// AddAccount adds an account, or replaces the one of that name.
func (s *Server) AddAccount(a Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts = slices.DeleteFunc(s.accounts, func(old Account) bool { return old.Name == a.Name })
	s.accounts = append(s.accounts, a)
}

// AddRepository adds a repository without tags, or changes who sees it.
func (s *Server) AddRepository(name string, private bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.find(name).private = private
}

// Push moves a tag, and tells the audit log. A push of long ago does not move
// a tag that was pushed since.
func (s *Server) Push(p Push) {
	if p.At.IsZero() {
		p.At = time.Now()
	}
	if p.Actor == "" {
		p.Actor, _, _ = strings.Cut(p.Repository, "/")
	}
	p.Platforms = slices.Clone(p.Platforms)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.find(p.Repository)
	if !r.tags[p.Tag].At.After(p.At) {
		r.tags[p.Tag] = p
	}
	if p.At.After(r.updatedAt) {
		r.updatedAt = p.At
	}
	s.pushes = appendBounded(s.pushes, p)
}

// DeleteTag deletes a tag.
func (s *Server) DeleteTag(repository, tag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.find(repository).tags, tag)
}

// AuditLog gives a namespace a plan with an audit log, in which pushes show
// after the delay.
func (s *Server) AuditLog(namespace string, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.audit[namespace] = auditLog{delay}
}

// NoAuditLog takes back AuditLog.
func (s *Server) NoAuditLog(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.audit, namespace)
}

// List sets the order in which tags are listed.
func (s *Server) List(order Order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = order
}

// RateLimit makes the server take n calls of an account in a minute, and
// answer 429 to more; who is not signed in is one account. 0, as at first, is
// no limit. Docker Hub's own was seen to be 180.
func (s *Server) RateLimit(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.perMinute, s.used = n, map[string]int{}
}

// ExpireTokens makes every token that was given invalid.
func (s *Server) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Fail makes the next calls go wrong, one each.
func (s *Server) Fail(f ...Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, f...)
}

// Away makes every call go wrong until Back is called. Failures that Fail asked
// for come first.
func (s *Server) Away(f Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = &f
}

// Back takes back Away.
func (s *Server) Back() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = nil
}

// Calls returns what the server was asked, oldest first.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// find returns a repository, which it makes where there is none.
func (s *Server) find(name string) *repository {
	r, ok := s.repositories[name]
	if !ok {
		r = &repository{created: time.Now(), tags: map[string]Push{}}
		s.repositories[name] = r
	}
	return r
}

// ServeHTTP answers paths below the base URL: a prefix must be stripped.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "request entity too large")
		return
	}
	failure, fails := s.begin(r)
	if fails {
		failure.answer(w, r)
		return
	}
	again := *r
	again.Body = io.NopCloser(bytes.NewReader(body))
	s.mux.ServeHTTP(w, &again)
}

// begin remembers a call, and takes the failure that is due.
func (s *Server) begin(r *http.Request) (Failure, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	account, _ := s.who(r)
	s.calls = appendBounded(s.calls, Call{r.Method, r.URL.Path, r.URL.Query(), account})
	switch {
	case len(s.failures) > 0:
		f := s.failures[0]
		s.failures = s.failures[1:]
		return f, true
	case s.away != nil:
		return *s.away, true
	}
	return Failure{}, false
}

func (f Failure) answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case f.Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case f.Reset:
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), f.Header)
	w.WriteHeader(cmp.Or(f.Status, http.StatusOK))
	_, _ = io.WriteString(w, f.Body)
}

// login gives a token for an account.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Identifier, Secret string }
	if json.NewDecoder(r.Body).Decode(&asked) != nil || asked.Identifier == "" || asked.Secret == "" {
		refuse(w, http.StatusBadRequest, "invalid request")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.counts(w, "") {
		return
	}
	i := slices.IndexFunc(s.accounts, func(a Account) bool { return a.Name == asked.Identifier })
	if i < 0 || !slices.Contains(s.accounts[i].Secrets, asked.Secret) {
		reply(w, http.StatusUnauthorized, map[string]any{"detail": "Incorrect authentication credentials"})
		return
	}
	now := time.Now()
	text := s.sign(now)
	s.tokens[text] = token{asked.Identifier, now.Add(tokenLife)}
	reply(w, http.StatusOK, map[string]any{"access_token": text})
}

// sign makes a token that has the form of a JWT.
func (s *Server) sign(now time.Time) string {
	part := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	s.issued++
	return part(map[string]any{"alg": "none", "typ": "JWT"}) + "." +
		part(map[string]any{"iat": now.Unix(), "exp": now.Add(tokenLife).Unix(), "scope": "repo:read", "jti": s.issued}) + "." +
		base64.RawURLEncoding.EncodeToString([]byte("no signature"))
}

// who returns who asks, "" for nobody. It is not ok where there is a header
// that is not valid.
func (s *Server) who(r *http.Request) (account string, ok bool) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", true
	}
	bearer, _ := strings.CutPrefix(header, "Bearer ")
	t, ok := s.tokens[bearer]
	if !ok || !time.Now().Before(t.until) {
		return "", false
	}
	return t.account, true
}

// signedIn serves an account or nobody, and refuses a wrong bearer even where
// nobody is served.
func (s *Server) signedIn(serve func(w http.ResponseWriter, r *http.Request, as Account)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		name, ok := s.who(r)
		if !ok {
			refuse(w, http.StatusUnauthorized, "unauthorized")
			return
		}
		if !s.counts(w, name) {
			return
		}
		as := Account{}
		if i := slices.IndexFunc(s.accounts, func(a Account) bool { return a.Name == name }); name != "" && i >= 0 {
			as = s.accounts[i]
		}
		serve(w, r, as)
	}
}

// counts counts a call, and says what is left of the minute. Where it is over
// the limit, it is answered.
func (s *Server) counts(w http.ResponseWriter, account string) bool {
	if s.perMinute == 0 {
		return true
	}
	now := time.Now()
	if now.Sub(s.windowBegin) >= limitedMinute {
		s.windowBegin, s.used = now, map[string]int{}
	}
	s.used[account]++
	reset := strconv.FormatFloat(math.Ceil(float64(s.windowBegin.Add(limitedMinute).UnixMilli())/1000), 'f', 0, 64)
	if s.used[account] > s.perMinute {
		w.Header().Set("X-Retry-After", reset)
		reply(w, http.StatusTooManyRequests, map[string]any{"detail": "Rate limit exceeded", "error": false})
		return false
	}
	w.Header().Set("X-RateLimit-Limit", strconv.Itoa(s.perMinute))
	w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(s.perMinute-s.used[account]))
	w.Header().Set("X-RateLimit-Reset", reset)
	return true
}

func (a Account) sees(namespace string) bool {
	return a.Name != "" && (a.Name == namespace || slices.Contains(a.Namespaces, namespace))
}

func (s *Server) listPushes(w http.ResponseWriter, r *http.Request, as Account) {
	namespace := r.PathValue("namespace")
	log, ok := s.audit[namespace]
	switch {
	case as.Name == "":
		refuse(w, http.StatusUnauthorized, "unauthorized")
		return
	case !ok || !slices.Contains(as.AuditLogs, namespace):
		refuse(w, http.StatusForbidden, "forbidden")
		return
	}
	query := r.URL.Query()
	from, fromErr := bound(query.Get("from"))
	to, toErr := bound(query.Get("to"))
	if fromErr != nil || toErr != nil {
		reply(w, http.StatusBadRequest, map[string]any{"code": 3, "message": "parsing time", "details": []any{}})
		return
	}
	now := time.Now()
	events := []map[string]any{}
	newest := slices.SortedStableFunc(slices.Values(s.pushes), func(a, b Push) int { return b.At.Compare(a.At) })
	for _, p := range newest {
		owner, _, _ := strings.Cut(p.Repository, "/")
		action := query.Get("action")
		if owner != namespace || p.At.Before(from) || !to.IsZero() && p.At.After(to) || now.Before(p.At.Add(log.delay)) ||
			action != "" && action != "repo.tag.push" {
			continue
		}
		events = append(events, map[string]any{
			"account": namespace, "action": "repo.tag.push", "name": p.Repository, "actor": p.Actor,
			"data":               map[string]any{"digest": p.Digest, "tag": p.Tag},
			"timestamp":          stamp(p.At),
			"action_description": fmt.Sprintf("pushed the tag %s with the digest %.19s to the repository %s\n", p.Tag, p.Digest, p.Repository),
		})
	}
	page, size := paging(query, defaultAudit)
	reply(w, http.StatusOK, map[string]any{"logs": cut(events, page, size)})
}

// bound reads a time that may be missing.
func bound(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339, text)
}

func (s *Server) listRepositories(w http.ResponseWriter, r *http.Request, as Account) {
	namespace := r.PathValue("namespace")
	rows := []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(s.repositories)) {
		owner, short, _ := strings.Cut(name, "/")
		found := s.repositories[name]
		if owner != namespace || found.private && !as.sees(namespace) {
			continue
		}
		rows = append(rows, map[string]any{
			"name": short, "namespace": owner, "repository_type": "image", "status": 1, "status_description": "active",
			"description": "", "is_private": found.private, "star_count": 0, "pull_count": 0,
			"last_updated": optional(found.updatedAt), "last_modified": optional(found.updatedAt), "date_registered": stamp(found.created),
			"affiliation": "", "media_types": []string{}, "content_types": []string{"image"}, "categories": []any{},
		})
	}
	list(w, r, rows, as, nobodysRepos)
}

// tags returns the tags of the repository in the path, or answers that as sees
// none.
func (s *Server) tags(w http.ResponseWriter, r *http.Request, as Account) (tags map[string]Push, ok bool) {
	namespace := r.PathValue("namespace")
	found, ok := s.repositories[namespace+"/"+r.PathValue("repository")]
	if !ok || found.private && !as.sees(namespace) {
		refuse(w, http.StatusNotFound, "object not found")
		return nil, false
	}
	return found.tags, true
}

func (s *Server) showTag(w http.ResponseWriter, r *http.Request, as Account) {
	tags, ok := s.tags(w, r, as)
	if !ok {
		return
	}
	p, ok := tags[r.PathValue("tag")]
	if !ok {
		refuse(w, http.StatusNotFound, "object not found")
		return
	}
	reply(w, http.StatusOK, p.row())
}

func (s *Server) listTags(w http.ResponseWriter, r *http.Request, as Account) {
	tags, ok := s.tags(w, r, as)
	if !ok {
		return
	}
	rows := []map[string]any{}
	for _, p := range slices.SortedFunc(maps.Values(tags), s.order.compare) {
		rows = append(rows, p.row())
	}
	list(w, r, rows, as, nobodysTags)
}

func (o Order) compare(a, b Push) int {
	byName := strings.Compare(a.Tag, b.Tag)
	switch o {
	case OldestFirst:
		return cmp.Or(a.At.Compare(b.At), byName)
	case ByName:
		return byName
	}
	return cmp.Or(b.At.Compare(a.At), byName)
}

func (p Push) row() map[string]any {
	status := "active"
	if time.Since(p.At) > activeFor {
		status = "inactive"
	}
	platforms, mediaType := p.Platforms, "application/vnd.oci.image.index.v1+json"
	if len(platforms) == 0 {
		platforms, mediaType = []string{p.Digest}, "application/vnd.docker.container.image.v1+json"
	}
	images := []map[string]any{}
	for i, digest := range platforms {
		images = append(images, map[string]any{
			"architecture": []string{"amd64", "arm64", "unknown"}[min(i, 2)], "features": "", "variant": nil, "digest": digest,
			"os": "linux", "os_features": "", "os_version": nil, "size": 1234567, "status": status,
			"last_pulled": nil, "last_pushed": stamp(p.At),
		})
	}
	return map[string]any{
		"creator": 7, "id": 11, "images": images, "last_updated": stamp(p.At), "last_updater": 7,
		"last_updater_username": p.Actor, "name": p.Tag, "repository": 13, "full_size": 1234567, "v2": true,
		"tag_status": status, "tag_last_pulled": nil, "tag_last_pushed": stamp(p.At), "digest": p.Digest,
		"media_type":   cmp.Or(p.MediaType, mediaType),
		"content_type": cmp.Or(p.ContentType, "image"),
	}
}

// list answers a page of rows, with a link to the next one.
func list(w http.ResponseWriter, r *http.Request, rows []map[string]any, as Account, nobodys int) {
	query := r.URL.Query()
	page, size := paging(query, defaultPage)
	if as.Name == "" && (page-1)*size >= nobodys {
		refuse(w, http.StatusForbidden, "pagination offset too large for anonymous requests; sign in to page further")
		return
	}
	var next any
	if page*size < len(rows) {
		query.Set("page", strconv.Itoa(page+1))
		next = "https://hub.docker.com" + r.URL.Path + "?" + query.Encode()
	}
	reply(w, http.StatusOK, map[string]any{"count": len(rows), "next": next, "previous": nil, "results": cut(rows, page, size)})
}

// paging returns which page is asked for, and of what size.
func paging(query url.Values, size int) (page, pageSize int) {
	const pages = 1 << 20
	page, err := strconv.Atoi(query.Get("page"))
	if err != nil || page < 1 || page > pages {
		page = 1
	}
	if n, err := strconv.Atoi(query.Get("page_size")); err == nil && n > 0 {
		size = min(n, maxPage)
	}
	return page, size
}

func cut(rows []map[string]any, page, size int) []map[string]any {
	begin := min((page-1)*size, len(rows))
	return rows[begin:min(begin+size, len(rows))]
}

// stamp is a time as Docker Hub writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999999Z") }

func optional(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

func refuse(w http.ResponseWriter, status int, message string) {
	reply(w, status, map[string]any{"message": message, "errinfo": map[string]any{}})
}

func reply(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

func appendBounded[T any](list []T, item T) []T {
	if len(list) >= remembered {
		list = slices.Delete(list, 0, len(list)-remembered+1)
	}
	return append(list, item)
}
