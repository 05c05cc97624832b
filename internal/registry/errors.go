package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Reasons of an Error.
const (
	NotInRegistry = "not_in_registry"       // no such image, or not one that can be pulled yet
	Denied        = "registry_denied"       // the registry wants other credentials
	RateLimited   = "registry_rate_limited" // too many questions
	Unavailable   = "registry_unavailable"  // anything else: no answer, or none that makes sense
)

// Error says why the registry could not tell. Whatever it is may pass: an image
// may be pullable in a minute, a repository may be let in to. It holds no credentials, no URL
// and nothing of an answer's body.
type Error struct {
	Status int    // of the registry's answer, 0 where there is none
	Reason string // one of the above
	Hint   string // what to mend, "" where waiting is all there is to do
	Cause  error
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Cause.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

const deniedHint = "set REGISTRY_AUTH to the Docker config.json of an account that may pull the repository; " +
	"Docker Hub denies a repository that does not exist in the same way"

func denied(status int) *Error {
	return &Error{Status: status, Reason: Denied, Hint: deniedHint, Cause: statusText(status)}
}

// refused makes an Error of an answer that is not what was asked for.
func refused(res *http.Response) *Error {
	switch status := res.StatusCode; status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return denied(status)
	case http.StatusNotFound:
		return &Error{Status: status, Reason: NotInRegistry, Cause: statusText(status)}
	case http.StatusTooManyRequests:
		return &Error{Status: status, Reason: RateLimited, Cause: statusText(status)}
	default:
		return &Error{Status: status, Reason: Unavailable, Cause: statusText(status)}
	}
}

func statusText(status int) error {
	return errors.New(strings.TrimSpace(fmt.Sprintf("the registry answered %d %s", status, http.StatusText(status))))
}

// unreachable makes an Error of a request that got no answer.
func unreachable(err error) *Error {
	return &Error{Reason: Unavailable, Cause: httpclient.Unanswered(err)}
}

// loginFailed makes an Error of a login that failed.
func loginFailed(err error) error {
	var (
		ours   *Error
		theirs *transport.Error
	)
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unreachable(err)
	case !errors.As(err, &theirs):
		return &Error{Reason: Unavailable, Cause: errors.New("the registry or its token server gave no answer that can be used to log in")}
	case theirs.StatusCode == http.StatusUnauthorized:
		return denied(theirs.StatusCode)
	default:
		return &Error{Status: theirs.StatusCode, Reason: Unavailable, Cause: fmt.Errorf("log in: %w", statusText(theirs.StatusCode))}
	}
}

// explain makes an *Error of what went wrong, and says what was being done.
func explain(what string, err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = unreachable(err)
	}
	told := *e
	told.Cause = fmt.Errorf("%s: %w", what, e.Cause)
	return &told
}
