package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/sync/singleflight"

	"github.com/getto-systems/hubrelay/internal/httpclient"
)

const (
	// issuerTimeout bounds one request to an issuer.
	issuerTimeout = 5 * time.Second
	// An issuer is asked for its keys maxKeyRequests times within keyWindow at
	// most: anybody can make tokens of keys that are not known.
	maxKeyRequests = 20
	keyWindow      = 10 * time.Second
	// maxCause bounds what is told of an error of go-oidc, in bytes: it may
	// hold the issuer's whole answer.
	maxCause = 300
)

// ErrInvalid says that a token is not valid, whatever is asked.
var ErrInvalid = errors.New("the id token is not valid")

// Verifier checks the id tokens that one issuer made for one audience. The
// issuer is asked when the first token comes, and then only for keys that are
// not known yet.
type Verifier struct {
	issuer   string
	audience string
	client   *http.Client

	keys   atomic.Pointer[oidc.RemoteKeySet] // nil until the issuer was discovered
	asking singleflight.Group
}

// NewVerifier asks nobody anything yet.
func NewVerifier(issuer, audience string) *Verifier {
	return &Verifier{issuer: issuer, audience: audience, client: httpclient.New(issuerTimeout)}
}

// Verify checks the token's signature, issuer, audience and time, and reads
// its claims. It returns ErrInvalid for a bad token; any other error means
// that the issuer could not be asked.
func (v *Verifier) Verify(ctx context.Context, token string, claims any) error {
	if !v.claimsIssuer(token) {
		return fmt.Errorf("%w: it is not one of %s", ErrInvalid, v.issuer)
	}
	keys, err := v.discover(ctx)
	if err != nil {
		return fmt.Errorf("ask %s for its keys: %.*s", v.issuer, maxCause, err.Error())
	}
	recorder := &keyRecorder{KeySet: keys}
	idToken, err := oidc.NewVerifier(v.issuer, recorder, &oidc.Config{ClientID: v.audience}).Verify(ctx, token)
	switch {
	case recorder.fetch != nil:
		return fmt.Errorf("ask %s for its keys: %.*s", v.issuer, maxCause, recorder.fetch.Error())
	case err != nil:
		return fmt.Errorf("%w: %.*s", ErrInvalid, maxCause, err.Error())
	}
	if err := idToken.Claims(claims); err != nil {
		return fmt.Errorf("%w: %.*s", ErrInvalid, maxCause, err.Error())
	}
	return nil
}

// claimsIssuer tells whether a token says of itself that the issuer made it.
// It proves nothing; it spares the issuer a question about any string that
// somebody sends.
func (v *Verifier) claimsIssuer(token string) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return false
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	return json.Unmarshal(payload, &claims) == nil && claims.Issuer == v.issuer
}

// discover finds where the issuer's keys are, once it succeeds. Those who ask
// at once share one answer.
func (v *Verifier) discover(ctx context.Context) (oidc.KeySet, error) {
	if keys := v.keys.Load(); keys != nil {
		return keys, nil
	}
	asked := v.asking.DoChan("", func() (any, error) {
		return nil, v.ask(context.WithoutCancel(ctx))
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case answer := <-asked:
		return v.keys.Load(), answer.Err
	}
}

func (v *Verifier) ask(ctx context.Context) error {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, v.client), v.issuer)
	if err != nil {
		return err
	}
	var found struct {
		KeysURL string `json:"jwks_uri"`
	}
	if err := provider.Claims(&found); err != nil {
		return err
	}
	seldom := *v.client
	seldom.Transport = &limited{RoundTripper: v.client.Transport}
	v.keys.Store(oidc.NewRemoteKeySet(oidc.ClientContext(ctx, &seldom), found.KeysURL))
	return nil
}

// limited refuses to make more than maxKeyRequests within keyWindow.
type limited struct {
	http.RoundTripper

	mu    sync.Mutex
	began time.Time // the window
	made  int       // requests in it
}

func (l *limited) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	if time.Since(l.began) > keyWindow {
		l.began, l.made = time.Now(), 0
	}
	l.made++
	tooMany := l.made > maxKeyRequests
	l.mu.Unlock()
	if tooMany {
		return nil, errors.New("too many tokens of unknown keys came at once")
	}
	return l.RoundTripper.RoundTrip(r)
}

// keyRecorder keeps the error of fetching keys, which go-oidc reports in the
// same way as a wrong signature.
type keyRecorder struct {
	oidc.KeySet
	fetch error
}

func (r *keyRecorder) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := r.KeySet.VerifySignature(ctx, token)
	if err != nil && strings.HasPrefix(err.Error(), "fetching keys") {
		r.fetch = err
	}
	return payload, err
}
