package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Reasons of an Error. The first two pass, the others need a fix.
const (
	Unavailable = "hub_unavailable"  // no answer, or none that makes sense
	RateLimited = "hub_rate_limited" // too many questions

	LoginDenied = "hub_login_denied" // the account is not taken, even for what everybody may see
	Denied      = "hub_denied"       // the account may not see it
	NotFound    = "hub_not_found"    // not there, or not for this account
	SignIn      = "hub_sign_in"      // there is more, but not for nobody
	NoAuditLog  = "hub_no_audit_log" // the plan or the account has none
	TooMuch     = "hub_too_much"     // a list without end
	Refused     = "hub_refused"      // a question that Docker Hub does not take
)

// ErrNoAuditLog says that pushes have to be looked for among the tags.
var ErrNoAuditLog = errors.New("the account sees no audit log")

// Error says why Docker Hub did not tell. It holds no credentials, no URL and
// nothing of an answer's body.
type Error struct {
	Status     int           // of Docker Hub's answer, 0 where there is none
	Reason     string        // one of the above
	Hint       string        // what to fix, or what would help; "" where waiting is all there is to do
	RetryAfter time.Duration // an hour at most, 0 where that is not known
	Cause      error
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Cause.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

// Temporary tells whether the same question may be answered later, with nothing
// fixed.
func (e *Error) Temporary() bool { return e.Reason == Unavailable || e.Reason == RateLimited }

const (
	loginHint = "Docker Hub's API does not take the account in REGISTRY_AUTH: it wants a user's name with a personal access token, " +
		"or an organisation's name with an organisation access token (a password only where two-factor login and SSO are off)"
	deniedHint = "let the account in REGISTRY_AUTH read the namespace's repositories on Docker Hub"
	nobodyHint = "set REGISTRY_AUTH to a Docker config.json with a user name and an access token for Docker Hub: without it only public repositories are seen"
	signInHint = "Docker Hub shows only the beginning of a long list to who is not signed in: " +
		"set REGISTRY_AUTH to a Docker config.json with a user name and an access token for Docker Hub"
	limitHint = "Docker Hub counts who is not signed in by address, which others may share: " +
		"set REGISTRY_AUTH to a Docker config.json with a user name and an access token for Docker Hub"
	auditHint = "the audit log is for organisations on a Team or Business plan, and for an organisation access token or the password of an owner"
	urlHint   = "check that HUB_URL leads to Docker Hub's API"
)

// answer is Docker Hub's, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends one request, unless a limit is known to be reached.
func (c *Client) send(ctx context.Context, method, target string, body []byte, token string) (answer, error) {
	if err := c.hold.err(); err != nil {
		return answer{}, err
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+target, bytes.NewReader(body))
	if err != nil {
		return answer{}, unanswered(err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "hubrelay")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.http.Do(r)
	if err != nil {
		return answer{}, unanswered(err)
	}
	defer res.Body.Close()
	got := answer{status: res.StatusCode, header: res.Header}
	if got.body, err = io.ReadAll(res.Body); err != nil {
		return answer{}, unanswered(err)
	}
	return got, nil
}

// refused makes an Error of an answer that is no 200, and remembers a limit.
func (c *Client) refused(got answer) *Error {
	e := &Error{Status: got.status, Reason: Unavailable, Cause: statusText(got.status)}
	switch status := got.status; {
	case status == http.StatusTooManyRequests:
		e.Reason, e.RetryAfter = RateLimited, limitEnds(got.header, time.Now())
		if !c.signsIn() {
			e.Hint = limitHint
		}
		c.hold.set(e, e.RetryAfter)
	case status == http.StatusUnauthorized:
		e.Reason, e.Hint = Denied, c.accountHint()
	case status == http.StatusRequestTimeout, status >= 500:
		e.RetryAfter = wait(got.header.Get("Retry-After"), time.Now())
	case !isObject(got.body):
		return notJSON(status)
	case status == http.StatusForbidden && !c.signsIn() && bytes.Contains(got.body, []byte("pagination")):
		e.Reason, e.Hint = SignIn, signInHint
	case status == http.StatusForbidden:
		e.Reason, e.Hint = Denied, c.accountHint()
	case status == http.StatusNotFound:
		e.Reason, e.Hint = NotFound, c.accountHint()
	default:
		e.Reason, e.Hint = Refused, urlHint
	}
	return e
}

func (c *Client) accountHint() string {
	if c.signsIn() {
		return deniedHint
	}
	return nobodyHint
}

// notJSON is what stands in front of Docker Hub and answers with a page, with
// whatever status.
func notJSON(status int) *Error {
	return &Error{Status: status, Reason: Unavailable, Hint: urlHint, Cause: fmt.Errorf("%w, and not in JSON", statusText(status))}
}

// unexpected is JSON of another kind than documented.
func unexpected(what string) *Error {
	return &Error{Status: http.StatusOK, Reason: Unavailable, Hint: urlHint, Cause: errors.New("Docker Hub's answer has not " + what + " in it")}
}

func noAuditLog(status int) *Error {
	return &Error{Status: status, Reason: NoAuditLog, Hint: auditHint, Cause: ErrNoAuditLog}
}

func refusedName(what string) *Error {
	return &Error{Reason: Refused, Cause: errors.New("the name " + what)}
}

func statusText(status int) error {
	return errors.New(strings.TrimSpace(fmt.Sprintf("Docker Hub answered %d %s", status, http.StatusText(status))))
}

// unanswered makes an Error of a request that got no answer, or not all of one.
func unanswered(err error) *Error {
	return &Error{Reason: Unavailable, Cause: httpclient.Unanswered(err)}
}

// explain makes an *Error of what went wrong, and says what was being done.
func explain(what string, err error) *Error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = unanswered(err)
	}
	told := *e
	told.Cause = fmt.Errorf("%.300s: %w", what, e.Cause)
	return &told
}

// hold keeps requests back until some time.
type hold struct {
	mu    sync.Mutex
	why   *Error
	until time.Time
}

func (h *hold) set(why *Error, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := time.Now().Add(d); until.After(h.until) {
		h.why, h.until = why, until
	}
}

// err says why there must be no request now.
func (h *hold) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	left := time.Until(h.until)
	if left <= 0 {
		return nil
	}
	e := *h.why
	e.RetryAfter = left
	return &e
}

// heed holds back what would be over the limit.
func (c *Client) heed(h http.Header) {
	left, err := strconv.ParseInt(h.Get("X-RateLimit-Remaining"), 10, 64)
	if err != nil || left > 0 {
		return
	}
	if d := wait(h.Get("X-RateLimit-Reset"), time.Now()); d > 0 {
		c.hold.set(&Error{Reason: RateLimited, Cause: errors.New("no more requests are taken for now")}, d)
	}
}

// limitEnds returns how long a 429 asks to wait, and a minute, over which
// Docker Hub counts, where that is not said.
func limitEnds(h http.Header, now time.Time) time.Duration {
	for _, name := range []string{"X-Retry-After", "Retry-After", "X-RateLimit-Reset"} {
		if d := wait(h.Get(name), now); d > 0 {
			return d
		}
	}
	return time.Minute
}

// wait reads a Unix time, as Docker Hub sends it, seconds, or a date. It is 0
// for what is none of them or has passed, and an hour at most.
func wait(value string, now time.Time) time.Duration {
	const (
		limit     = time.Hour
		firstUnix = 9e8 // 1998; as seconds that is 28 years
	)
	value = strings.TrimSpace(value)
	number, err := strconv.ParseFloat(value, 64)
	if err != nil {
		at, err := http.ParseTime(value)
		if err != nil {
			return 0
		}
		return min(max(0, at.Sub(now)), limit)
	}
	if number >= firstUnix {
		number -= float64(now.UnixMilli()) / 1000
	}
	if !(number > 0) { // NaN is not
		return 0
	}
	return time.Duration(min(number, limit.Seconds()) * float64(time.Second))
}
