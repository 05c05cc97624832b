package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/getto-systems/hubrelay/internal/httpclient"
)

const (
	// issuerTimeout bounds one request to an issuer.
	issuerTimeout = 5 * time.Second
	// An issuer is asked for its keys in a burst of at most keyBurst, and then
	// at most once every keyPause, because anybody can make tokens with unknown
	// keys.
	keyBurst = 10
	keyPause = time.Second
	// maxCause bounds the text of an error of go-oidc, in bytes: it may contain
	// the issuer's whole answer.
	maxCause = 300
)

// ErrInvalid means that a token is not valid.
var ErrInvalid = errors.New("the id token is not valid")

// Verifier checks the id tokens that one issuer made for one audience. It asks
// the issuer when the first token arrives, and later only for unknown keys.
//
// However many tokens with unknown keys arrive, the issuer's keys are then at
// most a second old, and a token that none of them signed is not valid. So
// forged tokens can delay a genuine token with a new key by at most that
// second.
type Verifier struct {
	issuer   string
	audience string
	client   *http.Client

	keys   atomic.Pointer[oidc.RemoteKeySet] // nil until the issuer was discovered
	asking singleflight.Group
	away   atomic.Pointer[error] // why the last request for keys failed, nil if it did not
}

// NewVerifier sends no request yet.
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
	signatures := &keySet{keys: keys, away: &v.away}
	idToken, err := oidc.NewVerifier(v.issuer, signatures, &oidc.Config{ClientID: v.audience}).Verify(ctx, token)
	switch {
	case signatures.unknown != nil:
		return fmt.Errorf("ask %s for its keys: %.*s", v.issuer, maxCause, signatures.unknown.Error())
	case err != nil:
		return fmt.Errorf("%w: %.*s", ErrInvalid, maxCause, err.Error())
	}
	if err := idToken.Claims(claims); err != nil {
		return fmt.Errorf("%w: %.*s", ErrInvalid, maxCause, err.Error())
	}
	return nil
}

// claimsIssuer reports whether a token names the issuer. This proves nothing,
// but saves a request to the issuer for every arbitrary string.
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

// discover finds the address of the issuer's keys, and keeps it once it
// succeeds. Concurrent callers share one request.
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
	seldom.Transport = limited{v.client.Transport, rate.NewLimiter(rate.Every(keyPause), keyBurst)}
	v.keys.Store(oidc.NewRemoteKeySet(oidc.ClientContext(ctx, &seldom), found.KeysURL))
	return nil
}

var errAskedJustNow = errors.New("the issuer was asked a moment ago")

// limited refuses requests that are too frequent.
type limited struct {
	http.RoundTripper
	limit *rate.Limiter
}

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	if !l.limit.Allow() {
		return nil, errAskedJustNow
	}
	return l.RoundTripper.RoundTrip(r)
}

// keySet distinguishes an invalid signature from one that cannot be checked.
// go-oidc reports both in the same way.
type keySet struct {
	keys    oidc.KeySet
	away    *atomic.Pointer[error]
	unknown error // why the issuer's keys are not known
}

func (s *keySet) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := s.keys.VerifySignature(ctx, token)
	switch {
	case err == nil:
	case errors.Is(err, errAskedJustNow):
		if away := s.away.Load(); away != nil {
			s.unknown = *away
		}
	case strings.HasPrefix(err.Error(), "fetching keys"):
		s.unknown = err
		if ctx.Err() == nil { // otherwise the caller is gone
			s.away.Store(&err)
		}
	default:
		s.away.Store(nil)
	}
	return payload, err
}
