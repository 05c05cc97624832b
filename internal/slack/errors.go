package slack

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

const (
	maxCode   = 80  // bytes of a code; Slack's longest has about 40
	maxDetail = 300 // characters of Slack's own words that are kept
)

// unknown is the code of a refusal without a code that can be shown.
const unknown = "unknown_error"

// Error says why Slack did not do what was asked, or why that is not known. It
// never contains the token.
type Error struct {
	Code       string        // Slack's own, such as not_in_channel; "" if there is none
	Status     int           // of the answer, 0 if there is none
	Hint       string        // for people: what to fix, "" if nothing is
	RetryAfter time.Duration // 0 if Slack did not say
	Cause      error         // nil if Code and Status say everything
}

func (e *Error) Error() string {
	text := "slack"
	switch {
	case e.Code != "":
		text = "slack: " + e.Code
	case e.Status != 0:
		text = "slack answered " + strconv.Itoa(e.Status)
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Cause }

// Temporary reports whether the same call may succeed later, with nothing
// fixed. Slack may still have done it: sometimes it answers 429 to a message
// that it has posted.
func (e *Error) Temporary() bool {
	switch {
	case e.Status == 0, e.Status == http.StatusRequestTimeout, e.Status == http.StatusTooManyRequests, e.Status >= 500:
		return true
	}
	return classes[e.Code].temporary
}

// IsGone reports whether a message, or its channel, accepts no more updates, so
// that only a new message can show what happened, perhaps in another channel.
// Keep the Ref until there is one: a channel may be opened again.
func IsGone(err error) bool {
	var e *Error
	return errors.As(err, &e) && classes[e.Code].gone
}

// IsLost reports whether the answer did not arrive, or could not be read. Slack
// may then have done what was asked. A complete refusal is not lost, and
// neither is a call that never reached Slack.
func IsLost(err error) bool {
	var (
		e           *Error
		network     *net.OpError
		certificate *tls.CertificateVerificationError
	)
	if !errors.As(err, &e) {
		return false
	}
	switch {
	case e.Status == 0:
		unsent := errors.As(e.Cause, &network) && network.Op == "dial" || errors.As(e.Cause, &certificate)
		return !unsent
	case e.Status == http.StatusOK:
		return e.Code == ""
	}
	return e.Status >= 500
}

// answer is the part of Slack's answer that is read.
type answer struct {
	OK       bool     `json:"ok"`
	Code     string   `json:"error,omitempty"`
	Channel  string   `json:"channel"`
	TS       string   `json:"ts"`
	Metadata metadata `json:"response_metadata,omitzero"`
}

type metadata struct {
	Messages []string `json:"messages"`
}

// readAnswer returns the part of an answer that names a message, or why there
// is none. Only a 200 that says ok is a success. An answer that is complete but
// invalid must not lead to a retry, which could post the message twice.
func readAnswer(status int, header http.Header, body []byte, token env.Secret) (answer, *Error) {
	var a answer
	// A field of an unexpected type is left out, and the rest is read.
	var odd *json.UnmarshalTypeError
	err := json.Unmarshal(body, &a)
	readable := err == nil || errors.As(err, &odd)

	refusal := &Error{Status: status, RetryAfter: httpclient.RetryAfter(header)}
	switch {
	case readable && a.Code != "":
		refusal.Code = codeOf(redact(a.Code, token))
		refusal.Hint = hintOf(refusal.Code)
		if said := first(httpclient.OneLine(redact(strings.Join(a.Metadata.Messages, ", "), token)), maxDetail); said != "" {
			refusal.Cause = errors.New(said)
		}
	case status != http.StatusOK:
		if !refusal.Temporary() {
			refusal.Hint = apiHint
		}
	case !readable:
		refusal.Hint, refusal.Cause = apiHint, errors.New("the answer is not JSON")
	case !a.OK:
		refusal.Code, refusal.Hint = unknown, apiHint
	case a.Channel == "", a.TS == "":
		refusal.Hint, refusal.Cause = apiHint, errors.New("the answer names no message")
	default:
		return answer{OK: true, Channel: a.Channel, TS: a.TS}, nil
	}
	return answer{}, refusal
}

// codeOf keeps an error code of Slack if it looks like one: they are words in
// lower case.
func codeOf(s string) string {
	for _, c := range []byte(s) {
		if c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return unknown
		}
	}
	if len(s) > maxCode {
		return unknown
	}
	return s
}

// redact removes the token from text.
func redact(text string, token env.Secret) string {
	if token.IsZero() {
		return text
	}
	return strings.ReplaceAll(text, token.Reveal(), fmt.Sprint(token))
}

// unanswered makes an Error of a call that got no answer, or an incomplete one.
func unanswered(err error) *Error { return &Error{Cause: httpclient.Unanswered(err)} }
