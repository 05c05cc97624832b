package slack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	api "github.com/slack-go/slack"
)

// Error says why Slack did not do as it was asked. It never holds the token.
type Error struct {
	Code       string // Slack's own, such as not_in_channel; "" where there is none
	Status     int    // of an answer that is no 200
	Hint       string // what to mend, "" where nothing is
	RetryAfter time.Duration
	Cause      error
}

func (e *Error) Error() string {
	switch {
	case e.Code != "":
		return "slack: " + e.Code
	case e.Status != 0:
		return "slack answered " + strconv.Itoa(e.Status)
	}
	return "slack: " + e.Cause.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

// passing are the errors that pass.
var passing = []string{
	"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout",
}

// Temporary tells whether the same call may succeed later. Of an answer that
// cannot be read nothing else is known than that it is not what Slack sends.
func (e *Error) Temporary() bool {
	if e.Code != "" {
		return slices.Contains(passing, e.Code)
	}
	return e.Status == 0 || e.Status == 429 || e.Status >= 500
}

// IsGone tells whether a message cannot be updated any more, so that only a
// new one can tell what happened.
func IsGone(err error) bool {
	var e *Error
	return errors.As(err, &e) && slices.Contains([]string{"message_not_found", "cant_update_message", "edit_window_closed"}, e.Code)
}

const tokenHint = "set SLACK_BOT_TOKEN to the bot token of an app that is installed in the workspace"

// hints say what to mend, by Slack's code.
var hints = map[string]string{
	"channel_not_found": "set slack.channel of the route to the ID of a channel that the bot can see",
	"not_in_channel":    "invite the bot to the channel",
	"is_archived":       "the channel is archived: set slack.channel of the route to another one",
	"restricted_action": "the workspace does not let the bot post there",
	"missing_scope":     "give the app the scope chat:write, and install it again",
	"invalid_auth":      tokenHint,
	"not_authed":        tokenHint,
	"account_inactive":  tokenHint,
	"token_revoked":     tokenHint,
	"token_expired":     tokenHint,
	"message_not_found": "the ts names no message of the channel: leave it out to post a new one",
}

// explain makes an *Error of what slack-go says.
func explain(err error) *Error {
	var (
		limited *api.RateLimitedError
		status  api.StatusCodeError
		refusal api.SlackErrorResponse
		network *net.OpError
	)
	switch {
	case errors.As(err, &limited):
		return &Error{Code: "ratelimited", Status: 429, RetryAfter: max(0, limited.RetryAfter), Cause: err}
	case errors.As(err, &status):
		return &Error{Status: status.Code, Cause: err}
	case errors.As(err, &refusal):
		return &Error{Code: code(refusal.Err), Hint: hints[refusal.Err], Cause: errors.New(code(refusal.Err))}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Cause: fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)}
	case errors.Is(err, context.Canceled):
		return &Error{Cause: context.Canceled}
	case errors.As(err, &network):
		return &Error{Cause: network}
	}
	// What else there is may repeat what was sent or received.
	return &Error{Cause: errors.New("no answer that can be read")}
}

// code keeps an error of Slack if it looks like one: those are words in lower
// case.
func code(s string) string {
	for _, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "unknown_error"
		}
	}
	if s == "" || len(s) > 80 {
		return "unknown_error"
	}
	return s
}
