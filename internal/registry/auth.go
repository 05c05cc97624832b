package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/getto-systems/hubrelay/internal/env"
)

// credentials are what a config.json holds for one registry; zero is nobody.
type credentials struct {
	username      string
	password      env.Secret
	identityToken env.Secret // exchanged for a token, in place of a password
	registryToken env.Secret // a token already: there is no login
}

// mend closes each mistake in a config.json, none of which repeats any of it.
const mend = `it must be a Docker config.json such as {"auths":{"https://index.docker.io/v1/":{"auth":"BASE64 OF USER:TOKEN"}}}`

// parseAuth returns what a Docker config.json holds for the registry at host.
// A file without an entry for it is fine: public repositories need none.
func parseAuth(config env.Secret, host string) (credentials, error) {
	if config.IsZero() {
		return credentials{}, nil
	}
	var file struct {
		Auths       map[string]entry           `json:"auths"`
		CredsStore  string                     `json:"credsStore"`
		CredHelpers map[string]json.RawMessage `json:"credHelpers"`
	}
	if err := json.Unmarshal([]byte(config.Reveal()), &file); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return credentials{}, fmt.Errorf("the credentials are not JSON (at byte %d): %s", syntax.Offset, mend)
		}
		return credentials{}, errors.New("the credentials are not those of Docker: " + mend)
	}
	if file.CredsStore != "" || len(file.CredHelpers) > 0 {
		return credentials{}, errors.New("the credentials name a credential helper (credsStore or credHelpers), and a function has none: " + mend)
	}
	if file.Auths == nil {
		return credentials{}, errors.New(`the credentials have no "auths": ` + mend)
	}

	var found credentials
	foundKey := ""
	for key, e := range file.Auths {
		c, err := e.credentials()
		if err != nil {
			return credentials{}, fmt.Errorf("%w: %s", err, mend)
		}
		if means(key, host) && (foundKey == "" || preferred(key, foundKey)) {
			found, foundKey = c, key
		}
	}
	if foundKey != "" && found.password.IsZero() && found.identityToken.IsZero() && found.registryToken.IsZero() {
		return credentials{}, errors.New("the credentials' entry for the registry holds none: " + mend)
	}
	return found, nil
}

type entry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

func (e entry) credentials() (credentials, error) {
	if e.Auth != "" {
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(e.Auth), "="))
		username, password, ok := strings.Cut(string(raw), ":")
		if err != nil || !ok {
			return credentials{}, errors.New("an auth of the credentials is not the base64 of user:password")
		}
		e.Username, e.Password = username, password
	}
	return credentials{
		username:      e.Username,
		password:      env.NewSecret(e.Password),
		identityToken: env.NewSecret(e.IdentityToken),
		registryToken: env.NewSecret(e.RegistryToken),
	}, nil
}

// dockerHub is what the default registry is called in a config.json.
var dockerHub = []string{"index.docker.io", "docker.io", "registry-1.docker.io"}

// means tells whether a key of a config.json stands for the registry at host.
// A key that goes on after /v1/ or /v2/ does not: the Docker CLI keeps tokens
// of its own under such keys.
func means(key, host string) bool {
	key = strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(key), "https://"), "http://")
	key = strings.TrimSuffix(key, "/")
	key = strings.TrimSuffix(strings.TrimSuffix(key, "/v1"), "/v2")
	host = strings.ToLower(host)
	return key == host || slices.Contains(dockerHub, key) && slices.Contains(dockerHub, host)
}

// preferred tells whether key wins over other where both mean the registry:
// the key that the Docker CLI writes does, then the first by name.
func preferred(key, other string) bool {
	const written = "https://index.docker.io/v1/"
	return key == written || other != written && key < other
}

// session is the login to one repository: Docker Hub's tokens are for one.
type session struct {
	repository string
	turn       chan struct{} // taken by whoever logs in
	current    atomic.Pointer[grant]
}

// grant is what a login gave: a header, "" where the registry asks for none.
type grant struct{ authorization string }

func newSession(repository string) *session {
	return &session{repository: repository, turn: make(chan struct{}, 1)}
}

// login returns the grant that the session holds, or logs in, which makes it a
// fresh one. Callers who come at once share one login. A failed one is not kept.
func (s *session) login(ctx context.Context, c *Client) (g *grant, fresh bool, err error) {
	if g := s.current.Load(); g != nil {
		return g, false, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if g := s.current.Load(); g != nil {
		return g, false, nil
	}
	authorization, err := c.authorize(ctx, s.repository)
	if err != nil {
		return nil, false, loginFailed(err)
	}
	g = &grant{authorization}
	s.current.Store(g)
	return g, true, nil
}

// forget drops a grant that the registry did not take, unless the session has
// another one by now.
func (s *session) forget(g *grant) { s.current.CompareAndSwap(g, nil) }

// authorize asks the registry how to log in, does so, and returns the header
// for further requests.
//
// go-containerregistry's own authenticating transport is not used: its renewal
// of a token races with requests in flight, and its errors lose Retry-After.
func (c *Client) authorize(ctx context.Context, repository string) (string, error) {
	if !c.credentials.registryToken.IsZero() {
		return "Bearer " + c.credentials.registryToken.Reveal(), nil
	}
	challenge, err := transport.Ping(ctx, c.registry, c.transport)
	if err != nil {
		return "", err
	}
	if !strings.EqualFold(challenge.Scheme, "bearer") {
		if c.credentials.password.IsZero() {
			return "", nil
		}
		pair := c.credentials.username + ":" + c.credentials.password.Reveal()
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)), nil
	}
	scope := c.registry.Repo(repository).Scope(transport.PullScope)
	token, err := transport.Exchange(ctx, c.registry, c.authenticator(), c.transport, []string{scope}, challenge)
	if err != nil {
		return "", err
	}
	if token.AccessToken != "" {
		return "Bearer " + token.AccessToken, nil
	}
	return "Bearer " + token.Token, nil
}

func (c *Client) authenticator() authn.Authenticator {
	if c.credentials == (credentials{}) {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{
		Username:      c.credentials.username,
		Password:      c.credentials.password.Reveal(),
		IdentityToken: c.credentials.identityToken.Reveal(),
	})
}
