package gitlab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Reasons of an Error. The first five are temporary, the others are not.
const (
	Unavailable       = "gitlab_unavailable"  // no answer, an unreadable answer, or maintenance
	RateLimited       = "gitlab_rate_limited" // too many requests, or too many pipelines
	Capacity          = "gitlab_capacity"     // a limit of jobs, pipelines, deployments or compute minutes
	ReferenceNotFound = "reference_not_found" // no such ref; some GitLabs say so about refs that exist
	Forbidden         = "forbidden"           // the caller's address is blocked

	VariablesForbidden = "variables_forbidden" // the project allows nobody to set pipeline variables
	NoJobs             = "no_jobs"             // the project's configuration has no job to run
	InputsRefused      = "inputs_refused"      // the project declares other inputs
	Rejected           = "rejected"            // refused for a reason without a name of its own
	Unauthorized       = "unauthorized"        // a job token that is not valid
	NotFound           = "not_found"           // no such project, or another token
	PipelineInvalid    = "pipeline_invalid"    // .gitlab-ci.yml is invalid
	Redirected         = "redirected"          // the API is somewhere else
)

const (
	// maxHost is how long a name in the DNS may be, with a port.
	maxHost = 253 + len(":65535")
	// maxReset bounds what RateLimit-Reset may ask for.
	maxReset = time.Hour
	// pipelineWindow is the period of GitLab's limit of pipelines. GitLab does
	// not say when it ends.
	pipelineWindow = time.Minute
)

// Error says why there is no pipeline, or why that is not known. It never
// contains the token.
type Error struct {
	Status     int           // of GitLab's answer, 0 if there is none
	Reason     string        // one of the above
	Hint       string        // for people: what to fix
	Message    string        // GitLab's own words: one line of 500 runes at most, without HTML
	RetryAfter time.Duration // 0 if GitLab did not say

	// Lost: no complete answer arrived, so the pipeline may exist.
	Lost bool
	// Unrecognized: a 400 in unknown words. It is worth a few more attempts,
	// and then it is final.
	Unrecognized bool
	// Astray: with NotFound, the request did not get to the API of a project, by a
	// wrong base URL or a proxy, and nothing is known of the project or the token.
	Astray bool

	Cause error // why there is no answer, nil if there is one
}

// Temporary reports whether the same request may succeed later.
func (e *Error) Temporary() bool {
	switch e.Reason {
	case Unavailable, RateLimited, Capacity, ReferenceNotFound, Forbidden:
		return true
	}
	return e.Unrecognized
}

func (e *Error) Error() string {
	text := e.Reason
	if e.Status != 0 {
		text += ": GitLab answered " + strconv.Itoa(e.Status)
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Cause }

// refusal makes an Error of an answer other than 201 that came from host.
func (a answer) refusal(r Request, host string) *Error {
	e := &Error{Status: a.status, Reason: Unavailable, RetryAfter: a.retryAfter()}
	if a.err != nil {
		e.Lost, e.Hint = true, about(awayHint, r, host)
		e.Cause = fmt.Errorf("read the answer: %w", httpclient.Unanswered(a.err))
		return e
	}
	e.Lost = a.status == http.StatusRequestTimeout || a.status >= http.StatusInternalServerError
	said := a.said(r.Token)
	e.Message = shorten(said.text)
	for _, o := range outcomes {
		if o.fits(a.status, said) {
			e.Reason, e.Unrecognized = o.reason, o.unrecognized
			e.Hint = about(o.hint, r, host)
			break
		}
	}
	e.Astray = e.Reason == NotFound && (said.nowhere || !said.json)
	if e.Reason == Redirected {
		e.Hint += a.leadsTo(r.Token)
	}
	if e.Status != http.StatusTooManyRequests && e.Reason == RateLimited {
		e.RetryAfter = max(e.RetryAfter, pipelineWindow)
	}
	return e
}

// about fills in the names in a hint.
func about(hint string, r Request, host string) string {
	return strings.NewReplacer("{project}", r.Project, "{ref}", r.Ref, "{host}", host).Replace(hint)
}

// leadsTo returns the target of a redirect without the path and the query,
// which may contain secrets.
func (a answer) leadsTo(token env.Secret) string {
	to, err := url.Parse(a.header.Get("Location"))
	if err != nil || to.Scheme != "https" && to.Scheme != "http" || to.Host == "" || len(to.Host) > maxHost {
		return ""
	}
	return " It leads to " + redact(to.Scheme+"://"+to.Host, token) + "."
}

// retryAfter reads Retry-After. RateLimit-Reset, which GitLab.com sends with
// every answer, counts only where the limit is reached.
func (a answer) retryAfter() time.Duration {
	if a.header.Get("Retry-After") != "" || a.status != http.StatusTooManyRequests {
		return httpclient.RetryAfter(a.header)
	}
	unix, err := strconv.ParseInt(a.header.Get("RateLimit-Reset"), 10, 64)
	if err != nil {
		return 0
	}
	return min(max(0, time.Until(time.Unix(unix, 0)).Round(time.Second)), maxReset)
}

// unanswered makes an Error of a request that got no answer. Without a
// connection nothing was sent, and there is no pipeline.
func unanswered(err error, connected bool, host string) *Error {
	hint := connectHint(err)
	if connected {
		hint = awayHint
	}
	return &Error{
		Reason: Unavailable, Lost: connected, Hint: about(hint, Request{}, host), Cause: httpclient.Unanswered(err),
	}
}

// connectHint says what to fix if there is no connection.
func connectHint(err error) string {
	var (
		name      *net.DNSError
		authority x509.UnknownAuthorityError
		roots     x509.SystemRootsError
		another   x509.HostnameError
		invalid   x509.CertificateInvalidError
		handshake tls.AlertError
		network   *net.OpError
	)
	switch {
	case errors.Is(err, context.Canceled): // by the caller
		return ""
	case errors.As(err, &name):
		return "Check the host {host} in GITLAB_URL: its name cannot be resolved from here."
	case errors.As(err, &authority), errors.As(err, &roots):
		return "{host} has a certificate of an authority that is not known here: " +
			"set SSL_CERT_FILE to a file with your CA's certificate in PEM, where GitLab has one of your own."
	case errors.As(err, &another):
		return "The certificate of {host} is for another name: set GITLAB_URL to a name that it is for, or have one issued for {host}."
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "The certificate of {host} has expired, or is not valid yet: renew it."
	case errors.As(err, &invalid):
		return "The certificate of {host} is not valid: have another one issued, and name its CA in SSL_CERT_FILE where it is your own."
	case errors.Is(err, http.ErrSchemeMismatch):
		return "Set GITLAB_URL to http://{host}, or to a port that speaks TLS: this one answers without."
	case errors.As(err, &handshake):
		return "{host} in GITLAB_URL refuses to speak TLS with hubrelay: check what it asks for, such as a certificate of the client."
	case errors.As(err, &network) && network.Op == "proxyconnect":
		return "Check the proxy in HTTPS_PROXY: it cannot be reached, or does not let {host} through."
	}
	return "Check that {host} in GITLAB_URL can be reached from here: that its port is right, and that no firewall or network is in between."
}
