// Package registry asks a container registry what a tag is now.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Timeout bounds one call of a Client, with all the requests that it sends.
const Timeout = 10 * time.Second

// maxLogins bounds the repositories whose login is kept.
const maxLogins = 256

// Client asks one registry. It is safe for concurrent use. It logs in once per
// repository, and again when the registry no longer accepts that login.
//
// It asks once, and a second time only if a stored login failed. All other
// retries are the caller's. Redirects are not followed, and nothing is sent in
// plain text to a registry whose URL is https. Every error is an *Error.
type Client struct {
	registry name.Registry
	options  []remote.Option
	heads    atomic.Bool // the registry has answered a HEAD request

	mu     sync.Mutex
	logins map[string]*remote.Puller // by repository: Docker Hub's tokens are for one
}

// New returns a Client of the registry at baseURL, such as
// https://registry-1.docker.io; http means plain HTTP. auth is the content of
// a Docker config.json, or zero to ask anonymously. No request is sent before
// the first call. The error contains neither of the two.
func New(baseURL string, auth env.Secret) (*Client, error) {
	base, err := parseBase(baseURL)
	if err != nil {
		return nil, err
	}
	options := []name.Option{name.StrictValidation}
	if base.Scheme == "http" {
		options = append(options, name.Insecure)
	}
	registry, err := name.NewRegistry(base.Host, options...)
	if err != nil {
		return nil, errors.New("the registry's host is not one")
	}
	account, err := env.ParseDockerAccount(auth, base.Host)
	if err != nil {
		return nil, err
	}
	hub, err := env.ParseDockerAccount(auth, "docker.io")
	if err != nil {
		return nil, err
	}
	if account == (env.DockerAccount{}) && hub == (env.DockerAccount{}) && !auth.IsZero() {
		return nil, errors.New("the credentials are for other registries: " + env.DockerConfigHint)
	}
	authenticator := authn.Anonymous
	if account != (env.DockerAccount{}) {
		authenticator = authn.FromConfig(authn.AuthConfig{Username: account.Name, Password: account.Password.Reveal()})
	}
	return &Client{
		registry: registry,
		options: []remote.Option{
			remote.WithTransport(guard{httpclient.NewTransport(), base, account != (env.DockerAccount{})}),
			remote.WithAuth(authenticator),
			remote.WithUserAgent("hubrelay"),
			remote.WithRetryPredicate(func(error) bool { return false }),
		},
		logins: map[string]*remote.Puller{},
	}, nil
}

const dockerHubRegistry = "registry-1.docker.io"

func parseBase(text string) (*url.URL, error) {
	base, err := url.Parse(text)
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Hostname() == "" {
		return nil, errors.New("the registry must be a URL that starts with https:// or http://")
	}
	host := strings.ToLower(base.Hostname())
	ofDocker := strings.HasSuffix("."+host, ".docker.io") || strings.HasSuffix("."+host, ".docker.com")
	switch {
	case ofDocker && (host != dockerHubRegistry || base.Scheme != "https"):
		return nil, errors.New("the registry of Docker Hub is at https://" + dockerHubRegistry)
	case strings.Trim(base.Path, "/") != "" || base.User != nil || strings.ContainsAny(text, "?#"):
		return nil, errors.New("the registry must be a plain base URL such as https://" + dockerHubRegistry + ", without path, user or query")
	}
	return base, nil
}

// OfDockerHub tells whether the registry is Docker Hub's, of whose pushes its API
// tells.
func (c *Client) OfDockerHub() bool {
	host, _, _ := strings.Cut(c.registry.RegistryStr(), ":")
	return strings.EqualFold(host, dockerHubRegistry)
}

// Digest returns the digest, sha256:…, of the manifest or index that the tag
// points to now. It asks with HEAD, which Docker Hub does not count as a pull,
// and with GET if the answer to HEAD has no digest.
func (c *Client) Digest(ctx context.Context, repository, tag string) (string, error) {
	digest, _, err := c.Look(ctx, repository, tag)
	return digest, err
}

// Pulls is what a registry says about its limit of pulls. Docker Hub counts
// each GET of a manifest, by account, or by address if there is no account.
type Pulls struct {
	Limit     int
	Remaining int
	Window    time.Duration // zero if the registry does not say
}

// Look is like Digest, and also returns what is left of the limit of pulls: nil
// if the registry names none.
func (c *Client) Look(ctx context.Context, repository, tag string) (string, *Pulls, error) {
	var noted atomic.Pointer[Pulls]
	digest, err := c.digest(context.WithValue(ctx, pullsKey{}, &noted), repository, tag)
	return digest, noted.Load(), err
}

func (c *Client) digest(ctx context.Context, repository, tag string) (string, error) {
	if err := errors.Join(dockerhub.CheckRepository(repository), dockerhub.CheckTag(tag)); err != nil {
		return "", &Error{Reason: NotInRegistry, Cause: err}
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()

	ref := c.registry.Repo(repository).Tag(tag)
	for again := false; ; again = true {
		login, remembered, err := c.login(repository)
		if err != nil {
			return "", explain(ref, err)
		}
		digest, err := c.ask(ctx, login, ref)
		if err == nil {
			return digest, nil
		}
		refusal := explain(ref, err)
		if refusal.Reason == Denied {
			c.forget(repository, login)
		}
		// A stored login may have expired, or its caller may have disconnected
		// while it was made.
		theirs := refusal.Status == http.StatusUnauthorized || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		if again || !remembered || !theirs || ctx.Err() != nil {
			return "", refusal
		}
	}
}

// login returns the client for a repository, and whether it was stored. The
// client logs in at its first request, once for all callers. When there are too
// many, all are dropped, which costs another login and nothing else.
func (c *Client) login(repository string) (p *remote.Puller, remembered bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.logins[repository]; ok {
		return p, true, nil
	}
	if len(c.logins) >= maxLogins {
		clear(c.logins)
	}
	p, err = remote.NewPuller(c.options...)
	if err == nil {
		c.logins[repository] = p
	}
	return p, false, err
}

// forget drops a login, unless it was replaced in the meantime.
func (c *Client) forget(repository string, p *remote.Puller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logins[repository] == p {
		delete(c.logins, repository)
	}
}

func (c *Client) ask(ctx context.Context, login *remote.Puller, ref name.Tag) (string, error) {
	head, err := login.Head(ctx, ref)
	if err == nil && dockerhub.CheckDigest(head.Digest.String()) == nil {
		c.heads.Store(true)
		return head.Digest.String(), nil
	}
	if err != nil && !c.mayKnowMore(err) {
		return "", err
	}
	got, err := login.Get(ctx, ref)
	if err != nil {
		return "", err
	}
	var manifest struct {
		SchemaVersion int `json:"schemaVersion"`
	}
	if json.Unmarshal(got.Manifest, &manifest) != nil || manifest.SchemaVersion == 0 {
		return "", &Error{Status: http.StatusOK, Reason: Unavailable, Cause: errors.New("the answer is no manifest")}
	}
	return got.Digest.String(), nil
}

// mayKnowMore reports whether a registry that answered HEAD with this error may
// answer GET. Some do not support HEAD, and some leave out headers that the
// specification does not require.
func (c *Client) mayKnowMore(err error) bool {
	var refusal *Error
	if !errors.As(err, &refusal) {
		return true // an answer without the headers
	}
	switch refusal.Status {
	case http.StatusNotFound:
		return !c.heads.Load()
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
		return true
	}
	return false
}

// guard is the transport of everything that a Client sends, including logins.
// It enforces the scheme of the registry. It turns every answer into an *Error
// that is neither 200 nor the registry's request for a login, before a layer
// above can follow a redirect, retry, or put a URL or a body into an error of
// its own.
type guard struct {
	next    http.RoundTripper
	base    *url.URL
	account bool // there is an account
}

var errScheme = errors.New("a request left the scheme of the registry's URL")

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	// A login tries https before http for hosts that look local, and in the
	// other order if it takes long.
	inTheClear := r.URL.Scheme == "http" && g.base.Scheme == "https"
	encrypted := r.URL.Scheme == "https" && g.base.Scheme == "http" && r.URL.Host == g.base.Host
	if inTheClear || encrypted {
		return nil, errScheme
	}
	res, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, unreachable(err)
	}
	notePulls(r.Context(), res.Header)
	challenged := res.StatusCode == http.StatusUnauthorized && r.URL.Path == "/v2/"
	if res.StatusCode == http.StatusOK || challenged {
		return res, nil
	}
	_ = res.Body.Close()
	if strings.Contains(r.URL.Path, "/manifests/") {
		return nil, refused(res, g.account)
	}
	return nil, loginRefused(res, g.account)
}

type pullsKey struct{}

// notePulls reads the headers in which Docker Hub says how many pulls are left,
// such as ratelimit-remaining: 76;w=21600.
func notePulls(ctx context.Context, h http.Header) {
	noted, ok := ctx.Value(pullsKey{}).(*atomic.Pointer[Pulls])
	limit, window, limitOK := pulls(h.Get("Ratelimit-Limit"))
	remaining, _, remainingOK := pulls(h.Get("Ratelimit-Remaining"))
	if ok && limitOK && remainingOK {
		noted.Store(&Pulls{limit, remaining, window})
	}
}

func pulls(text string) (n int, window time.Duration, ok bool) {
	number, rest, _ := strings.Cut(text, ";")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < 0 {
		return 0, 0, false
	}
	seconds, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(rest), "w="), 10, 31)
	if err == nil {
		window = time.Duration(seconds) * time.Second
	}
	return n, window, true
}
