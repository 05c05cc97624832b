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
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/getto-systems/hubrelay/internal/httpx"
)

// issuerTimeout bounds one request to an issuer.
const issuerTimeout = 5 * time.Second

// ErrInvalid says that a token is not valid, whatever is asked.
var ErrInvalid = errors.New("the id token is not valid")

// Verifier checks the id tokens that one issuer made for one audience. The
// issuer is asked when the first token comes, and then only for keys that are
// not known yet.
type Verifier struct {
	issuer   string
	audience string
	client   *http.Client

	mu   sync.Mutex
	keys oidc.KeySet // nil until the issuer was discovered
}

// NewVerifier asks nobody anything yet.
func NewVerifier(issuer, audience string) *Verifier {
	return &Verifier{issuer: issuer, audience: audience, client: httpx.NewClient(issuerTimeout)}
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
		return fmt.Errorf("ask %s for its keys: %w", v.issuer, err)
	}
	recorder := &keyRecorder{KeySet: keys}
	idToken, err := oidc.NewVerifier(v.issuer, recorder, &oidc.Config{ClientID: v.audience}).Verify(ctx, token)
	switch {
	case recorder.fetch != nil:
		return fmt.Errorf("ask %s for its keys: %w", v.issuer, recorder.fetch)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := idToken.Claims(claims); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
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

// discover finds where the issuer's keys are, once it succeeds.
func (v *Verifier) discover(ctx context.Context) (oidc.KeySet, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keys != nil {
		return v.keys, nil
	}
	ctx = oidc.ClientContext(ctx, v.client)
	provider, err := oidc.NewProvider(ctx, v.issuer)
	if err != nil {
		return nil, err
	}
	var found struct {
		KeysURL string `json:"jwks_uri"`
	}
	if err := provider.Claims(&found); err != nil {
		return nil, err
	}
	v.keys = oidc.NewRemoteKeySet(ctx, found.KeysURL) // outlives ctx: it keeps its values only
	return v.keys, nil
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
