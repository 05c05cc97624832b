package notify_test

import (
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/slack"
)

// The message stands, its reply was refused, and then the channel is no more:
// people are to be pinged all the same, in the channel that the route has now.
func TestAReplyWhereTheMessageTakesNothingAnyMore(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*world){
		"the channel was archived, and the route has another": func(w *world) {
			w.slack.refuses = map[string]error{channel: archived}
			w.routes(strings.ReplaceAll(routes, channel, "C0NEW"))
		},
		"the message was deleted": func(w *world) { w.slack.messages = nil },
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				id := w.triggered("acme/api", "1.4.0", 7)
				w.slack.errs = []error{nil, slackAway}
				w.report("status", "failure", "promotion_id", id).is(202)
				w.slack.errs = nil
				change(w)
				w.ticks(3 * time.Hour)
				top, replies := w.slack.shown()
				if len(top) == 0 || len(replies) != 1 || replies[0].thread != top[len(top)-1].ts || replies[0].channel != top[len(top)-1].channel {
					w.t.Errorf("Slack shows %d messages and %d replies; the record is %+v", len(top), len(replies), w.get(id))
				}
			})
		})
	}
}

// What stands behind a & of a text that was not encoded is text.
func TestAnAmpersandOfATextOverrulesNoField(t *testing.T) {
	for name, body := range map[string]string{
		"a title that looks like a status":   "status=failure&repository=acme/api&message=retry until x&status=success",
		"an address with a query of its own": "status=failure&repository=acme/api&message=see https://ci.example/?a=1&b=2",
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				w.call("/", staticToken, body).ok()
				_, text, _ := strings.Cut(body, "message=")
				if top, _ := w.slack.shown(); top[0].Status != slack.Failure || top[0].Text != text {
					w.t.Errorf("Slack shows %s %q", top[0].Status, top[0].Text)
				}
			})
		})
	}
}
