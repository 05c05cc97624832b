package registry

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Reasons of an Error.
const (
	NotInRegistry = "not_in_registry"       // no such image, or not one that can be pulled yet
	Denied        = "registry_denied"       // the registry refuses the credentials
	RateLimited   = "registry_rate_limited" // too many requests
	Unavailable   = "registry_unavailable"  // anything else: no answer, or an invalid one
)

// Error says why the registry did not give the digest. It contains no
// credentials, no URL, and no part of an answer's body.
type Error struct {
	Status     int           // of the registry's answer, 0 if there is none
	Reason     string        // one of the above
	Hint       string        // what to fix, "" if only waiting helps
	RetryAfter time.Duration // 0 if the registry did not say
	Cause      error
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Cause.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

// Temporary is true: an image may be pullable in a minute, a repository may be
// opened to an account.
func (e *Error) Temporary() bool { return true }

// What to fix if the registry denies a repository. The registry says neither
// whether the repository exists nor whether it is private.
const (
	closedHint = "The registry requires an account. " +
		"Set REGISTRY_AUTH to the Docker config.json of one that may pull the repository."
	anonymousHint = "hubrelay asked without an account, which is enough for a public repository. " +
		"If this one is private, set REGISTRY_AUTH to the Docker config.json of an account that may pull it; " +
		"if it is public, check its name: a registry denies a repository that does not exist in the same way."
	loginHint = "The registry does not take the account of REGISTRY_AUTH, and until it does denies public repositories, too. " +
		"Check the account's name, and whether its token was revoked or has expired."
	accountHint = "The registry takes the account of REGISTRY_AUTH, but not for this repository. " +
		"Let the account pull it, or check the repository's name: a registry denies one that does not exist in the same way."
)

// refused makes an Error of a refusal to a request about a tag.
func refused(res *http.Response, account bool) *Error {
	e := &Error{
		Status:     res.StatusCode,
		Reason:     Unavailable,
		RetryAfter: httpclient.RetryAfter(res.Header),
		Cause:      errors.New(strings.TrimSpace(fmt.Sprintf("the registry answered %d %s", res.StatusCode, http.StatusText(res.StatusCode)))),
	}
	switch res.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.Reason = Denied
		password := strings.HasPrefix(strings.ToLower(res.Header.Get("WWW-Authenticate")), "basic")
		switch {
		case !account:
			e.Hint = anonymousHint
		case password && res.StatusCode == http.StatusUnauthorized:
			e.Hint = loginHint
		default:
			e.Hint = accountHint
		}
	case http.StatusNotFound:
		e.Reason = NotInRegistry
	case http.StatusTooManyRequests:
		e.Reason = RateLimited
	}
	return e
}

// loginRefused makes an Error of a refused login.
func loginRefused(res *http.Response, account bool) *Error {
	e := refused(res, account)
	e.Cause = fmt.Errorf("log in: %w", e.Cause)
	switch {
	case e.Reason == NotInRegistry:
		e.Reason = Unavailable // a server without a login is not a registry
	case e.Reason == Denied && account:
		e.Hint = loginHint
	case e.Reason == Denied:
		e.Hint = closedHint
	}
	return e
}

// unreachable makes an Error of a request that got no answer, or an unreadable
// one.
func unreachable(err error) *Error {
	return &Error{Reason: Unavailable, Cause: httpclient.Unanswered(err)}
}

// explain makes an *Error of any error, and says what was being done.
func explain(ref name.Tag, err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = unreachable(err)
	}
	told := *e
	told.Cause = fmt.Errorf("digest of %s:%s: %w", ref.RepositoryStr(), ref.TagStr(), e.Cause)
	return &told
}
