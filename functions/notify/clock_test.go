package notify_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// Refusals of Slack.
var (
	slackAway   = &slack.Error{Cause: errors.New("no answer")}
	slackLimits = &slack.Error{Status: 429, Code: "ratelimited", RetryAfter: 30 * time.Second}
	archived    = &slack.Error{Status: 200, Code: "is_archived", Hint: "unarchive it"}
)

func TestWhatSlackDoesNotShowTheClockShows(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{
		"away": slackAway, "failing": &slack.Error{Status: 503}, "limiting": slackLimits, "archived": archived,
		"a wrong token": &slack.Error{Status: 200, Code: "invalid_auth"}, "the bot is not in the channel": &slack.Error{Status: 200, Code: "not_in_channel"},
		"a workspace that moves": &slack.Error{Status: 200, Code: "team_added_to_org"}, "who knows what": &slack.Error{Status: 200, Code: "ekm_access_denied"},
		"not Slack at all": &slack.Error{Status: 404}, "an error of its own": errors.New("x"),
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				id := w.triggered("acme/api", "1.4.0", 7)
				w.report("status", "running", "promotion_id", id).ok()
				w.slack.err = refusal
				w.report("status", "failure", "promotion_id", id, "message", "no disk").is(202, `"slack":`)
				w.ticks(2 * time.Hour) // nobody reports any more
				if p := w.state(id, ledger.Failed); !p.Behind() {
					w.t.Fatalf("it counts as shown: %+v", p)
				}
				w.slack.err = nil
				w.ticks(time.Hour + 2*time.Minute)
				top, replies := w.shows(1, 1)
				if m := top[0]; m.Status != slack.Failure || m.Text != "no disk" || replies[0].thread != m.ts {
					w.t.Errorf("Slack shows %+v, %+v", top, replies)
				}
				if !strings.Contains(w.log.String(), "slack not told") {
					w.t.Error("nothing was logged")
				}
				calls := len(w.slack.calls)
				w.ticks(3 * time.Hour)
				if len(w.slack.calls) != calls {
					w.t.Errorf("Slack was called %d times more", len(w.slack.calls)-calls)
				}
			})
		})
	}
}

func TestOnlyTheNewestRevisionIsShown(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.slack.err = slackAway
		for _, status := range []string{"running", "failure", "success"} {
			w.report("status", status, "promotion_id", id).is(202)
		}
		w.slack.err = nil
		w.ticks(10 * time.Minute)
		if top, _ := w.shows(1, 0); top[0].Status != slack.Success {
			w.t.Errorf("Slack shows %+v", top[0])
		}
	})
}

// A report that says nothing new still leads to another call to Slack.
func TestTheNextReportShowsWhatWasRefused(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.slack.errs = []error{slackAway}
		w.report("status", "success", "promotion_id", id).is(202)
		w.report("status", "success", "promotion_id", id).ok()
		w.shows(1, 0)
	})
}

func TestAReplyThatFailsIsRepeated(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.slack.errs = []error{nil, slackAway}
		w.report("status", "failure", "promotion_id", id).is(202)
		w.shows(1, 0)
		w.ticks(3 * time.Minute)
		w.shows(1, 1)
		if len(w.slack.calls) != 3 {
			w.t.Errorf("Slack was called %d times", len(w.slack.calls))
		}
	})
}

func TestSlacksRetryAfterIsKept(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.slack.errs = []error{&slack.Error{Status: 429, Code: "ratelimited", RetryAfter: 25 * time.Minute}}
		w.report("status", "success", "promotion_id", id).is(202)
		limited := time.Now()
		other := w.triggered("acme/api", "1.5.0", 8)
		w.report("status", "success", "promotion_id", other).is(202) // of the same channel
		w.ticks(40 * time.Minute)
		w.shows(2, 0)
		for _, c := range w.slack.calls[1:] {
			if c.at.Before(limited.Add(25 * time.Minute)) {
				w.t.Errorf("Slack was called again after %v", c.at.Sub(limited))
			}
		}
	})
}

// The old message cannot be updated: a new one is posted, in the route's
// channel.
func TestANewMessageIsPostedIfTheOldOneCannotBeUpdated(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(*world)
		channel string
	}{
		"the channel was archived, and the route has another": {func(w *world) {
			w.slack.refuses = map[string]error{channel: archived}
			w.routes(strings.ReplaceAll(routes, channel, "C0NEW"))
		}, "C0NEW"},
		"the bot was removed, and the route has another": {func(w *world) {
			w.slack.refuses = map[string]error{channel: &slack.Error{Status: 200, Code: "not_in_channel"}}
			w.routes(strings.ReplaceAll(routes, channel, "C0NEW"))
		}, "C0NEW"},
		"the message was deleted": {func(w *world) { w.slack.messages = nil }, channel},
		"it is too old to be edited": {func(w *world) {
			w.slack.errs = []error{&slack.Error{Status: 200, Code: "edit_window_closed"}}
		}, channel},
		"the token is another bot's": {func(w *world) {
			w.slack.errs = []error{&slack.Error{Status: 200, Code: "cant_update_message"}}
		}, channel},
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				id := w.triggered("acme/api", "1.4.0", 7)
				first := w.report("status", "running", "promotion_id", id).ok()
				c.change(w)
				second := w.report("status", "failure", "promotion_id", id).ok()
				if second.channel != c.channel || second.channel == first.channel && second.ts == first.ts && len(w.slack.messages) != 2 {
					w.t.Errorf("it is told as %s, and was as %s", second.raw, first.raw)
				}
				third := w.report("status", "success", "promotion_id", id).ok()
				if third.ts != second.ts {
					w.t.Errorf("then it is told as %s", third.raw)
				}
				last := w.slack.messages[len(w.slack.messages)-1]
				if last.thread != second.ts || last.channel != c.channel {
					w.t.Errorf("the reply is %+v", last)
				}
			})
		})
	}
}

// The message is there, its reply was refused, and then the channel is gone.
// People must still be pinged, in the channel that the route names now.
func TestAReplyToAMessageThatIsGone(t *testing.T) {
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

// While the route's own channel is archived, nothing is posted elsewhere. Once
// the route is fixed, everything new is shown there.
func TestNothingIsPostedElsewhereWhileTheChannelIsArchived(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.report("status", "running", "promotion_id", id).ok()
		w.slack.refuses = map[string]error{channel: archived}
		w.report("status", "success", "promotion_id", id).is(202, "is_archived", "unarchive it")
		w.ticks(3 * time.Hour)
		w.routes(strings.ReplaceAll(routes, channel, "C0NEW"))
		w.ticks(2 * time.Hour)
		top, _ := w.shows(2, 0)
		if top[1].channel != "C0NEW" || top[1].Status != slack.Success {
			w.t.Errorf("Slack shows %+v", top)
		}
	})
}

// If the route's channel changes, existing messages stay where they are.
func TestAMessageStaysInItsChannel(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.report("status", "running", "promotion_id", id).ok()
		w.routes(strings.ReplaceAll(routes, channel, "C0NEW"))
		w.report("status", "success", "promotion_id", id).ok()
		if top, _ := w.shows(1, 0); top[0].channel != channel || top[0].Status != slack.Success {
			w.t.Errorf("Slack shows %+v", top)
		}
	})
}

func TestSixtyFailuresInOneChannel(t *testing.T) {
	inABubble(t, func(w *world) {
		const many = 60
		w.slack.limited = true
		w.slack.takes = 200 * time.Millisecond
		var ids []string
		for i := range many {
			ids = append(ids, w.triggered("acme/api", fmt.Sprint("1.", i), int64(i+1)))
		}
		var running sync.WaitGroup
		for i, id := range ids {
			running.Go(func() {
				time.Sleep(time.Duration(i) * 500 * time.Millisecond)
				if a := w.report("status", "failure", "promotion_id", id); a.status != 200 && a.status != 202 {
					w.t.Errorf("got %d %s", a.status, a.raw)
				}
			})
		}
		running.Wait()
		w.ticks(10 * time.Minute)
		w.shows(many, many)
		last := map[string]time.Time{}
		for _, c := range w.slack.calls {
			if gap := c.at.Sub(last[c.channel]); !last[c.channel].IsZero() && gap < time.Second {
				w.t.Errorf("two calls within %v", gap)
			}
			last[c.channel] = c.at
		}
		if w.slack.refused > 0 {
			w.t.Errorf("Slack refused %d calls", w.slack.refused)
		}
	})
}

// A hundred promotions that cannot be shown do not block others.
func TestUndeliverablePromotionsDoNotStarveOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		repository string // of those that cannot be shown
		refuse     func(*world)
	}{
		"in an archived channel": {"other/x", func(w *world) { w.slack.refuses = map[string]error{"C0OTHER": archived} }},
		"in a channel that is gone": {"other/x", func(w *world) {
			w.slack.refuses = map[string]error{"C0OTHER": &slack.Error{Status: 200, Code: "channel_not_found"}}
		}},
		"in a channel that hangs": {"other/x", func(w *world) {
			w.slack.refuses = map[string]error{"C0OTHER": slackAway}
			w.slack.takes = slack.Timeout
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				c.refuse(w)
				for i := range 100 {
					w.triggered(c.repository, fmt.Sprint("1.", i), int64(i+1))
				}
				time.Sleep(time.Hour) // all of them are silent
				w.ticks(30 * time.Minute)
				w.triggered("acme/api", "1.4.0", 777)
				w.ticks(time.Hour + 5*time.Minute)
				top, _ := w.shows(1, 1)
				if top[0].Status != slack.Silent || top[0].Repository != "acme/api" {
					w.t.Errorf("Slack shows %+v", top)
				}
				w.slack.refuses, w.slack.takes = nil, 0
				w.ticks(2*time.Hour + 10*time.Minute)
				w.shows(101, 101)
			})
		})
	}
}

// The same for promotions of the same channel whose texts Slack refuses.
func TestMessagesThatSlackRefusesDoNotStarveOthersOfTheirChannel(t *testing.T) {
	inABubble(t, func(w *world) {
		for i := range 100 {
			id := w.triggered("acme/api", fmt.Sprint("1.", i), int64(i+1))
			w.slack.errs = []error{&slack.Error{Status: 200, Code: "msg_blocks_too_long"}}
			w.report("status", "success", "promotion_id", id).is(202)
		}
		w.slack.err = &slack.Error{Status: 200, Code: "msg_blocks_too_long"}
		w.ticks(2 * time.Hour)
		w.slack.err = nil
		m := push("late")
		c := w.claim(key("acme/quiet", "1"), m, digestA)
		w.answered(c, ledger.Answer{Dead: true, Reason: "not_found"})
		w.ticks(5 * time.Minute)
		top, _ := w.slack.shown()
		for _, m := range top {
			if m.Status == slack.Dead {
				return
			}
		}
		w.t.Error("the death is not told")
	})
}

func TestSilence(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.ticks(59 * time.Minute)
		w.shows(0, 0)
		w.ticks(2 * time.Minute)
		top, replies := w.shows(1, 1)
		if m := top[0]; m.Status != slack.Silent || m.Silence != time.Hour || m.PipelineURL == "" || replies[0].Mention != "@here" {
			w.t.Errorf("Slack shows %+v", m)
		}
		w.state(id, ledger.Triggered)
		w.report("status", "running", "promotion_id", id).ok()
		if top, _ := w.shows(1, 1); top[0].Status != slack.Running {
			w.t.Errorf("Slack shows %+v", top[0])
		}
		w.ticks(62 * time.Minute)
		w.shows(1, 2)
		w.ticks(6*time.Hour - 5*time.Minute)
		w.state(id, ledger.Running)
		w.ticks(10 * time.Minute)
		if p := w.state(id, ledger.Failed); p.Reason != "silent" || p.By != ledger.ByClock {
			w.t.Errorf("it is %+v", p)
		}
		top, _ = w.shows(1, 3)
		if top[0].Status != slack.Failure || top[0].Reason != "silent" {
			w.t.Errorf("Slack shows %+v", top[0])
		}
		w.report("status", "success", "promotion_id", id).ok() // it was down, and is back
		if top, _ := w.shows(1, 3); top[0].Status != slack.Success || top[0].Reason != "" {
			w.t.Errorf("Slack shows %+v", top[0])
		}
	})
}

func TestSilentAfterIsASetting(t *testing.T) {
	inABubble(t, func(w *world) {
		w.settings.SilentAfter = 10 * time.Minute
		w.restart()
		w.triggered("acme/api", "1.4.0", 7)
		w.ticks(9 * time.Minute)
		w.shows(0, 0)
		w.ticks(3 * time.Minute)
		if top, _ := w.shows(1, 1); top[0].Silence != 10*time.Minute {
			w.t.Errorf("Slack shows %+v", top[0])
		}
	})
}

// Forty promotions of three minutes each wait for each other: none is silent.
func TestPromotionsThatWaitTheirTurnAreNotSilent(t *testing.T) {
	inABubble(t, func(w *world) {
		var ids []string
		for i := range 40 {
			ids = append(ids, w.triggered("acme/quiet", fmt.Sprint("1.", i), int64(i+1)))
		}
		for _, id := range ids {
			w.report("status", "running", "promotion_id", id).is(200)
			w.ticks(3 * time.Minute)
			w.report("status", "success", "promotion_id", id).is(200)
		}
		w.ticks(2 * time.Hour)
		w.shows(0, 0)
	})
}

func TestWaitingIsShown(t *testing.T) {
	t.Parallel()
	for reason, after := range map[string]time.Duration{
		"registry_denied": 10 * time.Minute, "not_in_registry": time.Hour, "registry_unavailable": time.Hour,
	} {
		t.Run(reason, func(t *testing.T) {
			inABubble(t, func(w *world) {
				k, m := key("acme/api", "1.4.0"), push("d1")
				id := w.waits(k, m, reason)
				w.ticks(after - time.Minute)
				w.shows(0, 0)
				w.ticks(2 * time.Minute)
				top, replies := w.shows(1, 1)
				if got := top[0]; got.Status != slack.Waiting || got.Reason != reason || got.Hint != "Fix "+reason+"." ||
					got.Since < after-time.Minute || got.Since > after+2*time.Minute || replies[0].Mention != "@here" {
					w.t.Errorf("Slack shows %+v", got)
				}
				w.waits(k, m, reason)
				w.ticks(2 * time.Hour)
				w.shows(1, 1)
				c := w.claim(k, m, digestA)
				if c.ID != id {
					w.t.Fatal("it is another promotion")
				}
				w.answered(c, ledger.Answer{Created: true})
				w.tick()
				if top, _ := w.shows(1, 1); top[0].Status != slack.Running {
					w.t.Errorf("Slack shows %+v", top[0])
				}
				w.report("status", "success", "promotion_id", id).ok()
				w.shows(1, 1)
			})
		})
	}
}

// If the tag of a promotion that was shown as waiting moves, the message no
// longer says that it waits.
func TestAShownWaitEndsAsSuperseded(t *testing.T) {
	inABubble(t, func(w *world) {
		k, m := key("acme/api", "1.4.0"), push("d1")
		w.answered(w.claim(k, m, digestA), ledger.Answer{Message: m, Reason: "forbidden", Hint: "Let it in."})
		w.ticks(12 * time.Minute)
		w.shows(1, 1)
		w.claim(k, push("d2"), digestB)
		w.ticks(2 * time.Minute)
		if top, _ := w.shows(1, 1); top[0].Status != slack.Superseded {
			w.t.Errorf("Slack shows %+v", top[0])
		}
	})
}

func TestAShortWaitIsNotShown(t *testing.T) {
	inABubble(t, func(w *world) {
		k, m := key("acme/api", "1.4.0"), push("d1")
		w.answered(w.claim(k, m, digestA), ledger.Answer{Message: m, Reason: "gitlab_unavailable"})
		w.ticks(5 * time.Minute)
		w.answered(w.claim(k, push("d2"), digestB), ledger.Answer{Created: true}) // the first is superseded
		w.ticks(30 * time.Minute)
		w.shows(0, 0)
	})
}

// If the ledger cannot record that there is a message, there may be two. That
// is counted.
func TestAMessageThatCouldNotBeRecorded(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.broken(brokenLedger{shown: errors.New("away")})
		w.report("status", "success", "promotion_id", id).ok()
		if !strings.Contains(w.log.String(), "message may stand twice") || !strings.Contains(w.log.String(), "ledger not updated") {
			w.t.Errorf("logged is %s", w.log.String())
		}
		w.broken(brokenLedger{})
		w.ticks(3 * time.Minute)
		w.shows(2, 0)
		if p := w.get(id); p.Behind() || p.TS != "2.0" {
			w.t.Errorf("it is %+v", p)
		}
	})
}

func TestAnAnswerOfSlackThatIsLost(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.slack.errs = []error{slackAway}
		w.report("status", "success", "promotion_id", id).is(202)
		if !strings.Contains(w.log.String(), "message may stand twice") {
			w.t.Errorf("logged is %s", w.log.String())
		}
	})
}

func TestTheClockWithoutALedger(t *testing.T) {
	inABubble(t, func(w *world) {
		w.triggered("acme/api", "1.4.0", 7)
		time.Sleep(time.Hour)
		w.broken(brokenLedger{due: errors.New("away")})
		w.call("/tick", googleToken, "").is(503)
		w.broken(brokenLedger{tick: errors.New("away")})
		w.call("/tick", googleToken, "").is(503)
		w.broken(brokenLedger{})
		if a := w.tick(); fmt.Sprint(a.body["due"], a.body["shown"]) != "1 1" {
			w.t.Errorf("got %s", a.raw)
		}
		if a := w.tick(); fmt.Sprint(a.body["due"], a.body["shown"]) != "0 0" {
			w.t.Errorf("got %s", a.raw)
		}
	})
}

func TestTicksMayOverlap(t *testing.T) {
	inABubble(t, func(w *world) {
		for i := range 20 {
			w.triggered("acme/api", fmt.Sprint("1.", i), int64(i+1))
		}
		time.Sleep(time.Hour)
		w.slack.takes = 700 * time.Millisecond
		var running sync.WaitGroup
		for range 4 {
			running.Go(func() { w.tick() })
			time.Sleep(time.Second)
		}
		running.Wait()
		w.ticks(3 * time.Minute)
		w.shows(20, 20)
	})
}

// A call of the clock ends before the next one, however slow Slack is.
func TestATickIsBounded(t *testing.T) {
	inABubble(t, func(w *world) {
		for i := range 50 {
			w.triggered("acme/api", fmt.Sprint("1.", i), int64(i+1))
		}
		time.Sleep(time.Hour)
		w.slack.takes = slack.Timeout
		w.slack.err = slackAway
		began := time.Now()
		w.tick()
		if took := time.Since(began); took > time.Minute+10*time.Second {
			w.t.Errorf("it took %v", took)
		}
	})
}

func TestOnlyGoogleCallsTheClockAndBringsLetters(t *testing.T) {
	inABubble(t, func(w *world) {
		w.triggered("acme/api", "1.4.0", 7)
		time.Sleep(time.Hour)
		body := letter(push("d1"), "acme/api", "1.4.0", nil)
		for _, path := range []string{"/tick", "/dead-letter"} {
			for name, token := range map[string]string{
				"no token": "", "the reporters' token": staticToken, "GitLab's": pipeline{}.token(), "no JSON": "x",
				"another account": `{"email":"evil@p.iam.gserviceaccount.com","email_verified":true}`,
				"no account":      `{"email_verified":true}`,
				"not verified":    `{"email":"` + pushAccount + `","email_verified":false}`,
			} {
				if a := w.call(path, token, body); a.status != 401 {
					w.t.Errorf("%s lets %s in: %d %s", path, name, a.status, a.raw)
				}
			}
		}
		w.settings.PushTokens = noIssuer{}
		w.restart()
		w.call("/tick", googleToken, "").is(503)
		w.settings.PushTokens = nil
		w.restart()
		w.call("/tick", googleToken, "").is(404, "PUSH_AUDIENCE")
		w.call("/dead-letter", googleToken, body).is(404, "PUSH_AUDIENCE")
		w.shows(0, 0)
	})
}

// Docker Hub never calls for the repository: Slack says so once, and how to fix
// it.
func TestTheClockShowsAWebhookThatWasNotRegistered(t *testing.T) {
	inABubble(t, func(w *world) {
		for range 5 {
			if err := w.ledger.Found(context.Background(), "acme/api", "acme/api", "Paste the URL."); err != nil {
				t.Fatal(err)
			}
		}
		w.ticks(time.Hour)
		top, replies := w.slack.shown()
		if len(top) != 1 || len(replies) != 1 || top[0].Event != slack.Registration || top[0].Status != slack.Waiting || top[0].Hint != "Paste the URL." {
			t.Errorf("Slack shows %+v and %+v", top, replies)
		}
	})
}

// ahead is a store whose time is not that of this instance.
type ahead struct {
	ledger.Store
	by time.Duration
}

func (a ahead) Tags(ctx context.Context, ids ...string) ([]*ledger.Tag, time.Time, error) {
	found, now, err := a.Store.Tags(ctx, ids...)
	return found, now.Add(a.by), err
}

func (a ahead) Promotions(ctx context.Context, ids ...string) ([]*ledger.Promotion, time.Time, error) {
	found, now, err := a.Store.Promotions(ctx, ids...)
	return found, now.Add(a.by), err
}

func (a ahead) Progress(ctx context.Context) (*ledger.Progress, time.Time, error) {
	found, now, err := a.Store.Progress(ctx)
	return found, now.Add(a.by), err
}

// How long something has waited is the difference of two times of the ledger.
func TestTheLedgersClockSaysForHowLongItWaits(t *testing.T) {
	inABubble(t, func(w *world) {
		w.ledger = ledger.New(ahead{ledger.NewMemory(), -5 * time.Hour})
		w.settings.Promotions = w.ledger
		w.routes(routes)
		w.waits(key("acme/api", "1.4.0"), push("d1"), "not_in_registry")
		w.ticks(62 * time.Minute)
		if top, _ := w.shows(1, 1); top[0].Since < 59*time.Minute || top[0].Since > 62*time.Minute {
			w.t.Errorf("Slack shows %+v", top[0])
		}
	})
}
