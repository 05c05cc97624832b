package notify_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// refused creates a promotion that Trigger has given up, and returns its ID and
// the letter.
func (w *world) refused(m ledger.Message, repository, tag string) (id, body string) {
	w.t.Helper()
	c := w.claim(key(repository, tag), m, digestA)
	w.answered(c, ledger.Answer{Dead: true, Reason: "not_found", Hint: "Check the project path.", Words: "404 Project Not Found"})
	return c.ID, letter(m, repository, tag, map[string]string{
		"reason": "not_found", "hint": "Check the project path.", "words": "404 Project Not Found", "promotion_id": c.ID,
	})
}

func TestADeathIsShownOnce(t *testing.T) {
	inABubble(t, func(w *world) {
		m := push("d1")
		id, body := w.refused(m, "acme/api", "1.4.0")
		first := w.dies(body).ok()
		for range 3 { // Pub/Sub delivers at least once; Trigger may have published twice
			if again := w.dies(body).ok(); again.ts != first.ts {
				w.t.Errorf("told again as %s", again.ts)
			}
		}
		w.ticks(3 * time.Hour)
		top, replies := w.shows(1, 1)
		got := top[0]
		if got.Status != slack.Dead || got.channel != channel || got.Reason != "not_found" || got.Hint != "Check the project path." ||
			got.Words != "404 Project Not Found" || got.Digest != digestA || got.PromotionID != id || replies[0].Mention != "@here" {
			w.t.Errorf("Slack shows %+v", got)
		}
		if want := "go run ./cmd/hubrelay replay -subscription projects/p/subscriptions/hubrelay-dead-letters -match acme/api:1.4.0 -apply"; got.Command != want {
			w.t.Errorf("the command is %q, want %q", got.Command, want)
		}
		w.state(id, ledger.Dead)
	})
}

func TestADeathThatTheClockShowedFirst(t *testing.T) {
	inABubble(t, func(w *world) {
		_, body := w.refused(push("d1"), "acme/api", "1.4.0")
		w.tick()
		top, _ := w.shows(1, 1)
		if top[0].Command != "" {
			w.t.Errorf("Slack shows %+v", top[0])
		}
		w.dies(body).ok()
		if top, _ := w.shows(1, 1); top[0].Command == "" {
			w.t.Errorf("Slack shows %+v", top[0])
		}
	})
}

func TestSixLettersOfOnePushAreOneDeath(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*world, ledger.Message){
		"that waited":     func(w *world, m ledger.Message) { w.waits(key("acme/api", "1.4.0"), m, "registry_denied") },
		"that nobody saw": func(*world, ledger.Message) {},
		"that waited for GitLab": func(w *world, m ledger.Message) {
			w.answered(w.claim(key("acme/api", "1.4.0"), m, digestA), ledger.Answer{Message: m, Reason: "forbidden", Hint: "Let it in."})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				var six []ledger.Message
				for i := range 6 {
					six = append(six, push(fmt.Sprint("d", i)))
				}
				time.Sleep(time.Second)
				for _, m := range six {
					prepare(w, m)
				}
				for range 2 {
					for _, m := range six {
						w.dies(givenUp(m, "acme/api", "1.4.0")).is(200)
					}
				}
				w.ticks(10 * time.Minute)
				top, _ := w.shows(1, 1)
				if top[0].Status != slack.Dead || top[0].Attempts != 50 {
					w.t.Errorf("Slack shows %+v", top[0])
				}
				if why := top[0].Reason; name != "that nobody saw" && why == "" {
					w.t.Errorf("the reason is %q", why)
				}
			})
		})
	}
}

// One message shows the death, a replay that dies again, and one that is
// promoted.
func TestOneMessageShowsTheDeathAndWhatFollows(t *testing.T) {
	inABubble(t, func(w *world) {
		k, m := key("acme/api", "1.4.0"), push("d1")
		w.waits(k, m, "registry_denied")
		first := w.dies(givenUp(m, "acme/api", "1.4.0")).ok()

		replay := func() ledger.Message {
			time.Sleep(2 * time.Second)
			m := m
			m.QueuedAt, m.ReplayedAt = time.Now(), time.Now().Truncate(time.Second)
			time.Sleep(2 * time.Second)
			return m
		}
		again := replay()
		w.waits(k, again, "registry_unavailable")
		if a := w.dies(givenUp(again, "acme/api", "1.4.0")).ok(); a.ts != first.ts {
			w.t.Errorf("the second death is told as %s", a.raw)
		}
		w.shows(1, 2)
		again = replay() // that nobody looks at
		if a := w.dies(givenUp(again, "acme/api", "1.4.0")).ok(); a.ts != first.ts {
			w.t.Errorf("the third death is told as %s", a.raw)
		}
		w.shows(1, 3)
		again = replay()
		c := w.claim(k, again, digestA)
		w.answered(c, ledger.Answer{Created: true, Pipeline: ledger.Pipeline{ProjectID: 42, ID: 7}})
		w.tick()
		if top, _ := w.shows(1, 3); top[0].Status != slack.Running || top[0].Command != "" {
			w.t.Errorf("Slack shows %+v", top[0])
		}
		if a := w.report("status", "success", "promotion_id", c.ID).ok(); a.ts != first.ts {
			w.t.Errorf("the success is told as %s", a.raw)
		}
		w.dies(givenUp(m, "acme/api", "1.4.0")).is(200) // late
		w.ticks(2 * time.Hour)
		if top, _ := w.shows(1, 3); top[0].Status != slack.Success {
			w.t.Errorf("Slack shows %+v", top[0])
		}
	})
}

func TestWhereDeadLettersGo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, repository, channel string
		prepare                   func(*world)
	}{
		{"to the route's channel", "other/x", "C0OTHER", nil},
		{"without a route to the default", "nobody/x", "C0DEFAULT", nil},
		{"where their message is, though the route is gone", "other/x", "C0OTHER", func(w *world) {
			m := push("d0")
			w.waits(key("other/x", "1"), m, "registry_denied")
			w.ticks(12 * time.Minute)
			w.routes(strings.ReplaceAll(routes, "other/*", "elsewhere/*"))
		}},
		{"to the default, where the route is gone", "other/x", "C0DEFAULT", func(w *world) {
			w.routes(strings.ReplaceAll(routes, "other/*", "elsewhere/*"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				if c.prepare != nil {
					c.prepare(w)
				}
				m := push("d1")
				if a := w.dies(givenUp(m, c.repository, "1")).ok(); a.channel != c.channel {
					w.t.Errorf("it is told in %s", a.channel)
				}
				top, _ := w.slack.shown()
				if len(top) != 1 || top[0].Status != slack.Dead || top[0].Repository != c.repository {
					w.t.Errorf("Slack shows %+v", top)
				}
			})
		})
	}
}

func TestMalformedLetters(t *testing.T) {
	inABubble(t, func(w *world) {
		body := rawLetter("m1", `{"id":`, map[string]string{"reason": "malformed", "hint": "Publish messages with the webhook."})
		for range 2 {
			if a := w.dies(body).ok(); a.channel != "C0DEFAULT" {
				w.t.Errorf("it is told in %s", a.channel)
			}
		}
		top, _ := w.shows(1, 1)
		if m := top[0]; m.Status != slack.Dead || m.Reason != "malformed" || m.Hint == "" || !strings.Contains(m.Text, "not a push") || m.Command != "" {
			w.t.Errorf("Slack shows %+v", m)
		}
		w.dies(rawLetter("m2", `{"id":`, map[string]string{"reason": "malformed"})).ok()
		w.shows(2, 2)
		w.dies("{}").is(400)
		w.dies("hello").is(400)
		w.dies(`{"message":{"data":"` + strings.Repeat("A", 17<<20) + `"}}`).is(413)
	})
}

func TestSlackIsDownForADeadLetter(t *testing.T) {
	inABubble(t, func(w *world) {
		_, body := w.refused(push("d1"), "acme/api", "1.4.0")
		w.slack.err = slackAway
		w.dies(body).is(202) // it is recorded: Pub/Sub need not bring it again
		w.ticks(10 * time.Minute)
		w.slack.err = nil
		w.ticks(time.Hour)
		w.shows(1, 1)
	})
}

func TestALedgerThatIsDownForADeadLetter(t *testing.T) {
	inABubble(t, func(w *world) {
		w.broken(brokenLedger{bury: errors.New("away"), note: errors.New("away")})
		w.dies(letter(push("d1"), "acme/api", "1.4.0", nil)).is(503)
		w.dies(rawLetter("m1", "x", nil)).is(503)
		w.shows(0, 0)
	})
}

// Pub/Sub kept an attribute of an earlier death: it is not the reason of this
// one.
func TestALetterOfPubSubHasTheReasonOfItsWait(t *testing.T) {
	inABubble(t, func(w *world) {
		m := push("d1")
		w.waits(key("acme/api", "1.4.0"), m, "not_in_registry")
		body := strings.Replace(givenUp(m, "acme/api", "1.4.0"), `"id":"d1"`, `"id":"d1","reason":"unauthorized","hint":"x"`, 1)
		w.dies(body).ok()
		top, _ := w.shows(1, 1)
		if m := top[0]; m.Reason != "not_in_registry" || m.Attempts != 50 || m.Hint != "Fix not_in_registry." {
			w.t.Errorf("Slack shows %+v", m)
		}
	})
}

func TestLettersOncePerDelivery(t *testing.T) {
	inABubble(t, func(w *world) {
		for i := range 2 {
			m := push(fmt.Sprint("d", i))
			w.waits(ledger.WebhookKey("acme/each", "1", m.ID, m.ReceivedAt), m, "registry_denied")
			w.dies(givenUp(m, "acme/each", "1")).ok()
			w.dies(givenUp(m, "acme/each", "1")).is(200, "{}")
		}
		w.shows(2, 2)
	})
}

// Trigger has published the letter, and was killed before it recorded the death.
func TestALetterThatIsAheadOfTheRecord(t *testing.T) {
	inABubble(t, func(w *world) {
		m := push("d1")
		c := w.claim(key("acme/api", "1.4.0"), m, digestA)
		body := letter(m, "acme/api", "1.4.0", map[string]string{"reason": "not_found", "hint": "Check it.", "promotion_id": c.ID})
		w.dies(body).is(503)
		time.Sleep(2 * time.Minute) // Pub/Sub brings both again: the message first
		c = w.claim(key("acme/api", "1.4.0"), m, digestA)
		w.dies(body).is(503)
		w.answered(c, ledger.Answer{Dead: true, Reason: "not_found", Hint: "Check it."})
		w.dies(body).ok()
		w.dies(body).ok()
		w.shows(1, 1)
	})
}

// The letter names its promotion: a later change of once_per does not matter.
func TestALetterOfARouteWithAnotherOncePerNow(t *testing.T) {
	inABubble(t, func(w *world) {
		id, body := w.refused(push("d1"), "acme/api", "1.4.0")
		w.routes(strings.ReplaceAll(routes, `"acme/images/api"}`, `"acme/images/api"}, "once_per": "delivery"`))
		w.dies(body).ok()
		w.dies(body).ok()
		top, _ := w.shows(1, 1)
		if top[0].PromotionID != id || top[0].Command == "" {
			w.t.Errorf("Slack shows %+v", top[0])
		}
	})
}
