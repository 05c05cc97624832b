// Package registry asks a container registry what a tag is now, and whether
// it is signed.
package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Timeout bounds one call of a Client, with all the requests that it takes.
const Timeout = 10 * time.Second

// maxSessions bounds the repositories whose login is remembered.
const maxSessions = 256

// maxDrain is how much is read of an answer that nobody looks at, in bytes, so
// that its connection can be used again.
const maxDrain = 64 << 10

// Client asks one registry. It is safe for concurrent use. It logs in once per
// repository, and again when the registry no longer takes that login.
//
// A request is sent once, and a second time only where a remembered login has
// expired: who asks again, and when, is the caller's to say. Redirects of a
// question are not followed, and nothing is sent in the clear to a registry
// whose URL is https. Every error is an *Error.
type Client struct {
	base        *url.URL
	registry    name.Registry
	credentials credentials
	transport   http.RoundTripper
	http        *http.Client

	mu       sync.Mutex
	sessions map[string]*session // by repository
}

// New returns a Client of the registry at baseURL, such as
// https://registry-1.docker.io; http means plain HTTP. auth is the content of
// a Docker config.json, or zero to ask as nobody. There is no request before
// the first question. The error repeats neither of the two.
func New(baseURL string, auth env.Secret) (*Client, error) {
	base, err := url.Parse(baseURL)
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Host == "" {
		return nil, errors.New("the registry must be a URL that starts with https:// or http://")
	}
	if strings.Trim(base.Path, "/") != "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("the registry must be a plain base URL such as https://registry-1.docker.io, without path, user or query")
	}
	options := []name.Option{name.StrictValidation}
	if base.Scheme == "http" {
		options = append(options, name.Insecure)
	}
	registry, err := name.NewRegistry(base.Host, options...)
	if err != nil {
		return nil, errors.New("the registry's host is not one")
	}
	credentials, err := parseAuth(auth, base.Host)
	if err != nil {
		return nil, err
	}
	guarded := transport.NewUserAgent(guard{httpclient.NewTransport(), base}, "hubrelay")
	return &Client{
		base:        base,
		registry:    registry,
		credentials: credentials,
		transport:   guarded,
		http: &http.Client{
			Transport:     guarded,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		sessions: map[string]*session{},
	}, nil
}

// Digest returns the digest, sha256:…, of the manifest or index that the tag
// points to now. It asks with HEAD, which Docker Hub does not count as a pull.
func (c *Client) Digest(ctx context.Context, repository, tag string) (string, error) {
	if err := errors.Join(dockerhub.CheckRepository(repository), dockerhub.CheckTag(tag)); err != nil {
		return "", &Error{Reason: NotInRegistry, Cause: err}
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()

	digest, err := c.head(ctx, repository, tag)
	if err != nil {
		return "", explain("digest of "+repository+":"+tag, err)
	}
	return digest, nil
}

// manifestTypes are all that a tag may point to. A registry that is asked for
// less converts, or says that there is nothing.
var manifestTypes = strings.Join([]string{
	string(types.OCIImageIndex),
	string(types.OCIManifestSchema1),
	string(types.DockerManifestList),
	string(types.DockerManifestSchema2),
}, ", ")

// head returns the digest of the manifest that the tag points to.
func (c *Client) head(ctx context.Context, repository, tag string) (string, error) {
	res, err := c.ask(ctx, http.MethodHead, repository, "manifests/"+tag, manifestTypes)
	if err != nil {
		return "", err
	}
	defer drain(res.Body)
	if res.StatusCode != http.StatusOK {
		return "", refused(res)
	}
	digest := res.Header.Get("Docker-Content-Digest")
	if dockerhub.CheckDigest(digest) != nil {
		return "", &Error{
			Status: res.StatusCode,
			Reason: Unavailable,
			Cause:  errors.New("the answer has no SHA-256 digest in its Docker-Content-Digest header"),
		}
	}
	return digest, nil
}

// ask sends one question about a repository. The answer may have any status
// but those that guard keeps back, and 401.
func (c *Client) ask(ctx context.Context, method, repository, path, accept string) (*http.Response, error) {
	s := c.session(repository)
	for range 2 {
		grant, fresh, err := s.login(ctx, c)
		if err != nil {
			return nil, err
		}
		// The URL is made of checked names only.
		req, err := http.NewRequestWithContext(ctx, method, c.base.Scheme+"://"+c.base.Host+"/v2/"+repository+"/"+path, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", accept)
		if grant.authorization != "" {
			req.Header.Set("Authorization", grant.authorization)
		}
		res, err := c.http.Do(req)
		if err != nil {
			return nil, err
		}
		if res.StatusCode != http.StatusUnauthorized {
			return res, nil
		}
		drain(res.Body)
		s.forget(grant)
		if fresh {
			break
		}
	}
	return nil, denied(http.StatusUnauthorized)
}

// session returns what is remembered of a repository. When there is too much
// to remember, everything is forgotten: that costs a login, nothing else.
func (c *Client) session(repository string) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.sessions[repository]
	if !ok {
		if len(c.sessions) >= maxSessions {
			clear(c.sessions)
		}
		s = newSession(repository)
		c.sessions[repository] = s
	}
	return s
}

// guard is beneath everything that a Client sends, logins included. It keeps
// to the scheme of the registry, and turns what is of no use into an *Error
// before a layer above it can put a URL or a body into its own.
type guard struct {
	next http.RoundTripper
	base *url.URL
}

var errScheme = errors.New("a request left the scheme of the registry's URL")

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	// A login tries https before http for hosts that look local, and the other
	// way round where it takes long.
	inTheClear := r.URL.Scheme == "http" && g.base.Scheme == "https"
	encrypted := r.URL.Scheme == "https" && g.base.Scheme == "http" && r.URL.Host == g.base.Host
	if inTheClear || encrypted {
		return nil, errScheme
	}
	res, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, unreachable(err)
	}
	if res.StatusCode == http.StatusForbidden || res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500 {
		defer drain(res.Body)
		return nil, refused(res)
	}
	return res, nil
}

func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxDrain)
	_ = body.Close()
}
