package trigger_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/ledger"
)

// dockerHub is Docker Hub's API, without limits.
type dockerHub struct {
	auditLog bool
	pushes   []hub.Push
	types    map[string]string // of REPOSITORY:TAG: a media type
	fails    map[string]error  // by namespace or repository
	asked    []string
}

func (h *dockerHub) ask(question, of string) error {
	h.asked = append(h.asked, question+" "+of)
	return h.fails[of]
}

func (h *dockerHub) Pushes(_ context.Context, namespace string, since, until time.Time, _ string) (page hub.Page[hub.Push], err error) {
	if err := h.ask("log", namespace); err != nil {
		return page, err
	}
	if !h.auditLog {
		return page, &hub.Error{Status: 403, Reason: hub.NoAuditLog, Cause: hub.ErrNoAuditLog}
	}
	for _, p := range h.pushes {
		if strings.HasPrefix(p.Repository, namespace+"/") && !p.PushedAt.Before(since) && p.PushedAt.Before(until) {
			page.Items = append(page.Items, p)
		}
	}
	return page, nil
}

// Tags has two rows on a page.
func (h *dockerHub) Tags(_ context.Context, repository string, since time.Time, cursor string) (page hub.Page[hub.Tag], err error) {
	if err := h.ask("tags", repository); err != nil {
		return page, err
	}
	newest := h.newest(repository)
	tags := slices.SortedFunc(maps.Values(newest), func(a, b hub.Tag) int { return cmp.Or(b.PushedAt.Compare(a.PushedAt), cmp.Compare(a.Name, b.Name)) })
	tags = slices.DeleteFunc(tags, func(t hub.Tag) bool { return t.PushedAt.Before(since) })
	from, _ := strconv.Atoi(cursor)
	from = min(from, len(tags))
	to := min(from+2, len(tags))
	if page.Items = tags[from:to]; to < len(tags) {
		page.Next = strconv.Itoa(to)
	}
	return page, nil
}

func (h *dockerHub) Tag(_ context.Context, repository, tag string) (hub.Tag, error) {
	if err := h.ask("tag", repository); err != nil {
		return hub.Tag{}, err
	}
	t, ok := h.newest(repository)[tag]
	if !ok {
		return t, &hub.Error{Status: 404, Reason: hub.NotFound}
	}
	return t, nil
}

// newest are the tags of a repository as they are now.
func (h *dockerHub) newest(repository string) map[string]hub.Tag {
	newest := map[string]hub.Tag{}
	for _, p := range h.pushes {
		if p.Repository == repository && !p.PushedAt.Before(newest[p.Tag].PushedAt) {
			newest[p.Tag] = hub.Tag{Name: p.Tag, Digest: p.Digest, PushedAt: p.PushedAt, MediaType: h.types[repository+":"+p.Tag]}
		}
	}
	return newest
}

func (h *dockerHub) Repositories(_ context.Context, namespace, _ string) (page hub.Page[hub.Repository], err error) {
	if err := h.ask("repositories", namespace); err != nil {
		return page, err
	}
	for _, p := range h.pushes {
		if strings.HasPrefix(p.Repository, namespace+"/") {
			page.Items = append(page.Items, hub.Repository{Name: p.Repository})
		}
	}
	return page, nil
}

// pushed adds a push without a webhook. The API's digest is of one platform.
func (h *dockerHub) pushed(repository, tag string) {
	h.pushes = append(h.pushes, hub.Push{Repository: repository, Tag: tag, Digest: "sha256:" + strings.Repeat("0", 64), PushedAt: time.Now()})
}

// found calls /reconcile, and expects a number of missed pushes.
func (w *world) found(want int) {
	w.t.Helper()
	before := len(w.queue.data)
	got := w.post("/reconcile", "")
	if n, _ := got.body["found"].(float64); got.status != 200 || int(n) != want || len(w.queue.data)-before != want {
		w.t.Fatalf("got %d %v, and %d were queued, want %d\n%s", got.status, got.body, len(w.queue.data)-before, want, w.log.String())
	}
}

// everyWay runs a test with the audit log and with the lists of tags, once
// reconcile knows the routes.
func everyWay(t *testing.T, test func(w *world)) {
	t.Helper()
	for name, auditLog := range map[string]bool{"audit log": true, "lists of tags": false} {
		t.Run(name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				w.hub = &dockerHub{auditLog: auditLog, types: map[string]string{}, fails: map[string]error{}}
				w.routes(routes)
				w.found(0)
				time.Sleep(time.Minute)
				test(w)
			})
		})
	}
}

func TestAMissedPushIsFound(t *testing.T) {
	t.Parallel()
	everyWay(t, func(w *world) {
		w.hub.pushed("acme/api", "1.4.0")
		time.Sleep(9 * time.Minute)
		w.found(0) // its webhook may come
		time.Sleep(2 * time.Minute)
		w.found(1)
		m := w.queued()
		if a := w.queue.attributes[0]; a["source"] != "reconcile" || a["repository"] != "acme/api" || a["tag"] != "1.4.0" || a["id"] != m.id || len(m.id) != 64 ||
			!m.pushed.Equal(w.hub.pushes[0].PushedAt) {
			w.t.Errorf("queued is %+v of %+v", m, a)
		}
		if !strings.Contains(w.log.String(), `"message":"missed push found"`) || len(w.pipelines.requests) > 0 {
			w.t.Errorf("%d pipelines, and the log is %s", len(w.pipelines.requests), w.log.String())
		}
		w.found(0) // its message is on the way
		w.deliver(m).is(200, "triggered", "")
		if got := w.pipelines.requests[0].Inputs["image_digest"]; got != digestA {
			w.t.Errorf("promoted is %s, which the API says and the registry does not", got)
		}
		for range 30 {
			time.Sleep(time.Hour)
			w.found(0)
		}
		w.asked(1, 0)
	})
}

func TestAPushWithAWebhookIsNotFoundAsMissed(t *testing.T) {
	t.Parallel()
	everyWay(t, func(w *world) {
		w.hub.pushed("acme/api", "1.4.0")
		w.deliver(webhook("1")).is(200, "triggered", "")
		for range 30 {
			time.Sleep(time.Hour)
			w.found(0)
		}
		if w.images.asked > 2 {
			w.t.Errorf("the registry was asked %d times", w.images.asked)
		}
	})
}

// The registry lagged: the webhook's look saw the image before.
func TestAPushThatTheRegistryDidNotShowYetIsFound(t *testing.T) {
	t.Parallel()
	everyWay(t, func(w *world) {
		w.report(w.deliver(webhook("1")).is(200, "triggered", ""), ledger.Promoted)
		time.Sleep(time.Hour)
		w.hub.pushed("acme/api", "1.4.0")
		w.deliver(webhook("2")).is(200, "ignored", "duplicate")
		w.images.digest = digestB
		time.Sleep(11 * time.Minute)
		w.found(1)
	})
}

// The six traps: none of them is promoted, restarted or queued again and again.
func TestWhatIsNotMissed(t *testing.T) {
	t.Parallel()
	wider := strings.Replace(routes, `{"exclude": ["*-rc*"]}`, `{}`, 1)
	more := strings.Replace(routes, `"acme/each"`, `"acme/more": {"gitlab": {"project": "acme/images/more"}, "slack": {"channel": "C1"}}, "acme/each"`, 1)
	for _, c := range []struct {
		name string
		test func(w *world)
	}{
		{"a route that was added later", func(w *world) {
			w.hub.pushed("acme/more", "1")
			time.Sleep(time.Hour)
			w.routes(more)
		}},
		{"a route that was removed and added again", func(w *world) {
			w.routes(more)
			w.found(0)
			w.routes(routes)
			w.found(0)
			time.Sleep(time.Minute)
			w.hub.pushed("acme/more", "1")
			time.Sleep(time.Hour)
			w.found(0)
			w.routes(more)
		}},
		{"rules that were widened", func(w *world) {
			w.hub.pushed("acme/api", "2-rc1")
			time.Sleep(time.Hour)
			w.found(0)
			w.routes(wider)
		}},
		{"rules that were widened and narrowed and widened", func(w *world) {
			w.routes(wider)
			w.found(0)
			w.routes(routes)
			w.found(0)
			time.Sleep(time.Minute)
			w.hub.pushed("acme/api", "2-rc1")
			time.Sleep(time.Hour)
			w.found(0)
			w.routes(wider)
		}},
		{"an exact key that goes, and whose repository a wider glob takes", func(w *world) {
			glob := strings.Replace(routes, `"acme/each"`, `"acme/*": {"gitlab": {"project": "acme/images/{name}"}, "slack": {"channel": "C1"}}, "acme/each"`, 1)
			w.routes(glob)
			w.found(0)
			time.Sleep(time.Minute)
			w.hub.pushed("acme/api", "2-rc1")
			time.Sleep(time.Hour)
			w.found(0)
			w.routes(strings.Replace(glob, `"acme/api"`, `"acme/other"`, 1))
		}},
		{"a tag that died without a digest", func(w *world) {
			w.hub.pushed("acme/api", "1.4.0")
			m := webhook("1")
			w.images.err = forbidden
			w.deliver(m).is(503, "retry", "registry_denied")
			w.die(m)
			w.images.err = nil
		}},
		{"one that died with a digest", func(w *world) {
			w.hub.pushed("acme/api", "1.4.0")
			w.pipelines.errs = []error{never}
			w.deliver(webhook("1")).is(200, "dead", "not_found")
			w.queue.data = nil
		}},
		{"one that failed", func(w *world) {
			w.hub.pushed("acme/api", "1.4.0")
			w.report(w.deliver(webhook("1")).is(200, "triggered", ""), ledger.Failed)
		}},
		{"one that failed, once per delivery", func(w *world) {
			w.hub.pushed("acme/each", "1.4.0")
			w.report(w.deliver(webhook("1").of("acme/each", "1.4.0")).is(200, "triggered", ""), ledger.Failed)
		}},
		{"one whose records of webhooks have expired", func(w *world) {
			w.report(w.deliver(webhook("1").of("acme/each", "1.4.0")).is(200, "triggered", ""), ledger.Promoted)
			time.Sleep(2 * ledger.Retention)
			w.hub.pushed("acme/each", "1.4.0") // the same image
		}},
		{"one whose promotion is long ago", func(w *world) {
			w.report(w.deliver(webhook("1")).is(200, "triggered", ""), ledger.Promoted)
			time.Sleep(2 * ledger.Retention)
			w.hub.pushed("acme/api", "1.4.0")
		}},
		{"a chart that many other tags were pushed after", func(w *world) {
			w.hub.types["acme/api:1.4.0"] = "application/vnd.cncf.helm.config.v1+json"
			w.hub.pushed("acme/api", "1.4.0")
			for i := range 5 {
				time.Sleep(time.Second)
				w.hub.pushed("acme/api", fmt.Sprintf("1.4.0-rc%d", i))
			}
			time.Sleep(11 * time.Minute)
		}},
		{"a chart beside the image", func(w *world) {
			w.hub.types["acme/api:1.4.0"] = "application/vnd.cncf.helm.config.v1+json"
			w.hub.pushed("acme/api", "1.4.0")
		}},
		{"the moving tag, a signature, and what the rules exclude", func(w *world) {
			for _, tag := range []string{"latest", "sha256-" + strings.Repeat("a", 64) + ".sig", "1-rc1"} {
				w.hub.pushed("acme/api", tag)
			}
			w.hub.pushed("acme/unrouted", "1")
		}},
		{"one that is gone", func(w *world) {
			w.images.err = notThere
			w.hub.pushed("acme/api", "1.4.0")
		}},
		{"one of over a day ago", func(w *world) {
			w.hub.pushed("acme/api", "1.4.0")
			time.Sleep(25 * time.Hour)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			everyWay(t, func(w *world) {
				c.test(w)
				requests := len(w.pipelines.requests)
				// Ended ones are looked at once more, which starts nothing.
				if got := w.post("/reconcile", ""); got.body["found"] != 0.0 {
					w.t.Errorf("found are %v", got.body["found"])
				}
				for range w.queue.data {
					w.deliver(w.queued())
				}
				queued := len(w.queue.data)
				for range 60 {
					time.Sleep(30 * time.Minute)
					w.found(0)
				}
				if len(w.pipelines.requests) > requests || len(w.queue.data) > queued {
					w.t.Errorf("%d pipelines and %d messages more", len(w.pipelines.requests)-requests, len(w.queue.data)-queued)
				}
			})
		})
	}
}

// die is Pub/Sub's dead letter, as Notify records it.
func (w *world) die(m message) {
	w.t.Helper()
	if _, err := w.ledger.Bury(w.t.Context(), ledger.Letter{
		Key:     ledger.Key{Repository: m.repository, Tag: m.tag},
		Message: ledger.Message{ID: m.id, QueuedAt: m.queued, PushedAt: m.pushed, ReceivedAt: m.received}, NewID: ledger.NewID(), Attempts: 50,
	}, ledger.Outboxes{Lease: time.Minute, SilentAfter: time.Hour}); err != nil {
		w.t.Fatal(err)
	}
}

func TestAPushAfterADeathIsFound(t *testing.T) {
	t.Parallel()
	everyWay(t, func(w *world) {
		m := webhook("1")
		w.images.err = forbidden
		w.deliver(m).is(503, "retry", "registry_denied")
		w.hub.pushed("acme/api", "1.4.0")
		time.Sleep(time.Minute)
		w.die(m)
		w.images.err = nil
		time.Sleep(2 * time.Minute)
		w.hub.pushed("acme/api", "1.4.0")
		time.Sleep(11 * time.Minute)
		w.found(1)
		w.deliver(w.queued()).is(200, "triggered", "")
	})
}

// The repository is new, and the webhook of its first push is lost.
func TestTheFirstPushToARepositoryIsFound(t *testing.T) {
	t.Parallel()
	everyWay(t, func(w *world) {
		w.routes(`{"acme/*": {"gitlab": {"project": "acme/images/{name}"}, "slack": {"channel": "C1"}}}`)
		w.found(0)
		time.Sleep(time.Hour)
		w.hub.pushed("acme/new", "1")
		time.Sleep(11 * time.Minute)
		w.found(1)
	})
}

func TestEverythingIsCoveredWhereNamespacesAreNamed(t *testing.T) {
	t.Parallel()
	everyWay(t, func(w *world) {
		w.routes(`{"acme/api": {"gitlab": {"project": "acme/api"}, "slack": {"channel": "C1"}}, "*": {"gitlab": {"project": "{namespace}/{name}"}, "slack": {"channel": "C1"}}}`)
		w.found(0)
		time.Sleep(time.Minute)
		w.hub.pushed("acme/web", "1")
		w.hub.pushed("other/web", "1") // nobody names its namespace
		time.Sleep(11 * time.Minute)
		w.found(1)
	})
}

// A repository that is refused or does not answer does not block others. Only
// one that does not answer makes the call fail.
func TestARefusedRepositoryDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	const three = `{
	  "acme/api": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}},
	  "beta/api": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}},
	  "beta/web": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}}
	}`
	for _, c := range []struct {
		name, what string
		err        error
		status     int
		both       bool // with an audit log, too
	}{
		{"a namespace that is refused", "acme", &hub.Error{Status: 403, Reason: hub.Denied, Hint: "Fix it."}, 200, true},
		{"a namespace that does not answer", "acme", &hub.Error{Reason: hub.Unavailable, Cause: errors.New("EOF")}, 503, true},
		{"a repository that is refused", "beta/api", &hub.Error{Status: 404, Reason: hub.NotFound}, 200, false},
		{"a repository that does not answer", "beta/api", &hub.Error{Reason: hub.Unavailable}, 503, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			everyWay(t, func(w *world) {
				if w.hub.auditLog && !c.both {
					return
				}
				w.routes(three)
				w.found(0)
				time.Sleep(time.Minute)
				w.hub.fails[c.what] = c.err
				w.hub.pushed("beta/web", "1")
				time.Sleep(11 * time.Minute)
				if got := w.post("/reconcile", ""); got.status != c.status || len(w.queue.data) != 1 {
					w.t.Errorf("got %d %v, and %d messages", got.status, got.body, len(w.queue.data))
				}
				if c.status == 200 && !strings.Contains(w.log.String(), "missed pushes not looked for") {
					w.t.Errorf("nobody hears of it: %s", w.log.String())
				}
			})
		})
	}
}

func TestDockerHubIsLeftAloneForAsLongAsItAsks(t *testing.T) {
	t.Parallel()
	everyWay(t, func(w *world) {
		w.hub.pushed("acme/api", "1.4.0")
		time.Sleep(11 * time.Minute)
		w.hub.fails["acme"] = &hub.Error{Status: 429, Reason: hub.RateLimited, RetryAfter: 30 * time.Minute}
		w.found(0)
		delete(w.hub.fails, "acme")
		before := len(w.hub.asked)
		time.Sleep(29 * time.Minute)
		w.found(0)
		if len(w.hub.asked) > before {
			w.t.Errorf("it was asked %v", w.hub.asked[before:])
		}
		time.Sleep(2 * time.Minute)
		w.found(1)
	})
}

func TestOneAsksDockerHubAtATime(t *testing.T) {
	t.Parallel()
	everyWay(t, func(w *world) {
		w.hub.pushed("acme/api", "1.4.0")
		time.Sleep(11 * time.Minute)
		if _, err := w.ledger.Resume(w.t.Context(), time.Hour, nil); err != nil {
			w.t.Fatal(err)
		}
		w.found(0)
		time.Sleep(2 * time.Hour)
		w.found(0) // the other one did not know the routes
		w.hub.pushed("acme/api", "1.5.0")
		time.Sleep(11 * time.Minute)
		w.found(1)
	})
}

func TestReconcileQueuesLaterWhatItCannotQueueNow(t *testing.T) {
	t.Parallel()
	everyWay(t, func(w *world) {
		w.hub.pushed("acme/api", "1.4.0")
		time.Sleep(11 * time.Minute)
		w.queue.err = errors.New("away")
		if got := w.post("/reconcile", ""); got.status != 503 {
			w.t.Errorf("got %d %v", got.status, got.body)
		}
		w.queue.err = nil
		w.found(0)
		time.Sleep(ledger.StartingLookBy)
		w.reconcile(1)
		w.deliver(w.queued()).is(200, "triggered", "")
	})
}

func TestARegistryThatDeniesIsAskedAgainOnceItIsMended(t *testing.T) {
	t.Parallel()
	everyWay(t, func(w *world) {
		w.images.err = forbidden
		w.hub.pushed("acme/api", "1.4.0")
		time.Sleep(3 * time.Hour)
		w.found(0)
		w.found(0)
		if n := strings.Count(w.log.String(), "Set REGISTRY_AUTH."); n != 1 {
			w.t.Errorf("it is said %d times", n)
		}
		w.images.err = nil
		w.found(1)
	})
}

// Whether Docker Hub is asked, and what the log says about what is not covered.
func TestReconcileIsOnWhereTheRegistryIsDockerHubs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change map[string]string
		on     bool
		wrong  string
	}{
		{"as it is", nil, true, ""},
		{"the registry's name is set", map[string]string{"REGISTRY": "https://registry-1.docker.io"}, true, ""},
		{"with a slash", map[string]string{"REGISTRY": "https://registry-1.docker.io/"}, true, ""},
		{"in capitals, as host names may be", map[string]string{"REGISTRY": "https://Registry-1.Docker.IO"}, true, ""},
		{"with its port", map[string]string{"REGISTRY": "https://registry-1.docker.io:443"}, true, ""},
		{"another registry", map[string]string{"REGISTRY": "https://registry.example"}, false, ""},
		{"another registry, and a Docker Hub", map[string]string{"REGISTRY": "https://registry.example", "HUB_URL": "https://hub.example"}, true, ""},
		{"off", map[string]string{"RECONCILE": "off"}, false, ""},
		{"off, with a line break behind it", map[string]string{"RECONCILE": "off\n"}, false, ""},
		{"off, with a Docker Hub", map[string]string{"RECONCILE": "off", "HUB_URL": "https://hub.example"}, false, ""},
		{"neither on nor off", map[string]string{"RECONCILE": "no"}, false, "RECONCILE"},
		{"no URL", map[string]string{"HUB_URL": "hub.docker.com"}, false, "HUB_URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			settings := map[string]string{
				"ROUTES":                `{"*/api": {"gitlab": {"project": "acme/api"}, "slack": {"channel": "C1"}}}`,
				"GITLAB_TRIGGER_TOKENS": `{"*":"canary"}`, "TOPIC": "projects/p/topics/pushes",
				"DEAD_LETTER_TOPIC": "projects/p/topics/dead", "LEDGER": "memory:hub", "PUBSUB_EMULATOR_HOST": "127.0.0.1:1",
			}
			for name, value := range c.change {
				settings[name] = value
			}
			var log bytes.Buffer
			_, err := trigger.FromEnv(gcplog.NewContext(t.Context(), gcplog.New(&log, "p")), func(name string) string { return settings[name] })
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// For a namespace that no key names, it logs that it does not look
			// there.
			if said := strings.Contains(log.String(), "missed pushes not looked for") && strings.Contains(log.String(), "*/api"); said != c.on {
				t.Errorf("it is on: %t, want %t\n%s", said, c.on, log.String())
			}
			// So it does of all that stands at another registry. Who switches it off knows.
			if said := strings.Contains(log.String(), "the registry is not Docker Hub's"); said != (c.name == "another registry") {
				t.Errorf("it is on: %t, and at the start it says %s", c.on, log.String())
			}
		})
	}
}

// asks starts a pipeline that does not report, and sets GitLab's answer about
// it.
func asks(t *testing.T, test func(w *world, id string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apiTokens = trigger.Tokens{"acme/api": env.NewSecret("canary-api")}
		w.routes(routes)
		id := w.deliver(webhook("1")).is(200, "triggered", "")
		time.Sleep(9 * time.Minute)
		test(w, id)
	})
}

func TestASilentPipelineIsAskedAbout(t *testing.T) {
	t.Parallel()
	ended := func(status string) *gitlab.Job {
		return &gitlab.Job{Status: status, FinishedAt: time.Now().Add(-11 * time.Minute)}
	}
	for _, c := range []struct {
		name   string
		job    func() *gitlab.Job
		state  ledger.State
		reason string
		hint   string
		waits  string
	}{
		{"failed", func() *gitlab.Job { return ended("failed") }, ledger.Failed, "pipeline_failed", "", ""},
		{"failed, at a time that GitLab does not say", func() *gitlab.Job { return &gitlab.Job{Status: "failed"} }, ledger.Failed, "pipeline_failed", "", ""},
		{"failed just now: it may report", func() *gitlab.Job { return &gitlab.Job{Status: "failed", FinishedAt: time.Now()} }, ledger.Triggered, "", "", ""},
		{"canceled", func() *gitlab.Job { return ended("canceled") }, ledger.Failed, "canceled", "", ""},
		{"canceled before it ran", func() *gitlab.Job { return &gitlab.Job{Status: "canceled"} }, ledger.Failed, "canceled", "", ""},
		{"being canceled", func() *gitlab.Job { return &gitlab.Job{Status: "canceling"} }, ledger.Triggered, "", "", ""},
		{"skipped, for an earlier job failed", func() *gitlab.Job { return &gitlab.Job{Status: "skipped"} }, ledger.Failed, "canceled", "", ""},
		{"succeeded without a report", func() *gitlab.Job { return ended("success") }, ledger.Failed, "unreported", "notify_url", ""},
		{"succeeded just now", func() *gitlab.Job { return &gitlab.Job{Status: "success", FinishedAt: time.Now()} }, ledger.Triggered, "", "", ""},
		{"no such job", func() *gitlab.Job { return nil }, ledger.Failed, "no_promotion_job", "templates/promote.yml", ""},
		{"waits for a runner", func() *gitlab.Job { return &gitlab.Job{Status: "pending"} }, ledger.Triggered, "", "runner", "pending"},
		{"waits for another promotion", func() *gitlab.Job { return &gitlab.Job{Status: "waiting_for_resource"} }, ledger.Triggered, "", "resource_group", "waiting_for_resource"},
		{"waits for a hand", func() *gitlab.Job { return &gitlab.Job{Status: "manual"} }, ledger.Triggered, "", "by hand", "manual"},
		{"waits for earlier jobs", func() *gitlab.Job { return &gitlab.Job{Status: "created"} }, ledger.Triggered, "", "Earlier jobs", "created"},
		{"is put off", func() *gitlab.Job { return &gitlab.Job{Status: "scheduled"} }, ledger.Triggered, "", "delayed", "scheduled"},
		{"is prepared", func() *gitlab.Job { return &gitlab.Job{Status: "preparing"} }, ledger.Triggered, "", "prepares", "preparing"},
		{"runs", func() *gitlab.Job { return &gitlab.Job{Status: "running"} }, ledger.Triggered, "", "", ""},
		{"a status that is not known", func() *gitlab.Job { return &gitlab.Job{Status: "resting"} }, ledger.Triggered, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			asks(t, func(w *world, id string) {
				w.pipelines.job = c.job()
				got := w.post("/reconcile", "")
				if got.status != 200 || got.body["asked"] != 1.0 {
					w.t.Fatalf("got %d %v", got.status, got.body)
				}
				if q := w.pipelines.queries[0]; q.ProjectID != "42" || q.PipelineID != "1" || q.Token.Reveal() != "canary-api" {
					w.t.Errorf("asked %+v", q)
				}
				p := w.current()
				if p.ID != id || p.State != c.state || p.Reason != c.reason || !strings.Contains(p.Hint, c.hint) || p.JobWaits != c.waits {
					w.t.Errorf("it is %s %s %q, waits for %q", p.State, p.Reason, p.Hint, p.JobWaits)
				}
				if c.state != ledger.Failed {
					w.notSilent(c.waits != "")
					return
				}
				// The next push starts immediately, and a late report counts.
				time.Sleep(time.Second)
				w.deliver(webhook("2")).is(200, "triggered", "")
				w.report(id, ledger.Promoted)
				if p, err := w.ledger.Get(w.t.Context(), id); err != nil || p.State != ledger.Promoted {
					w.t.Errorf("after a report it is %s, %v", p.State, err)
				}
			})
		})
	}
}

// notSilent lets two hours pass in which GitLab's answer stays the same, and
// the clock ticks.
func (w *world) notSilent(waits bool) {
	w.t.Helper()
	for range 24 {
		time.Sleep(5 * time.Minute)
		if w.pipelines.job.FinishedAt != (time.Time{}) {
			return
		}
		w.post("/reconcile", "")
		w.tick()
	}
	if p := w.current(); p.Silent() || p.ToldJob != waits {
		w.t.Errorf("it is silent: %t, told as waiting: %t, want %t", p.Silent(), p.ToldJob, waits)
	}
}

// tick is the clock's.
func (w *world) tick() {
	w.t.Helper()
	if _, err := w.ledger.Tick(w.t.Context(), w.current().ID, ledger.Outboxes{Lease: time.Second, SilentAfter: time.Hour}); err != nil {
		w.t.Fatal(err)
	}
}

func TestSilenceStaysIfGitLabDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		err    error
		tokens trigger.Tokens
		said   bool
	}{
		{"no token", nil, nil, false},
		{"no token for this route", nil, trigger.Tokens{"acme/each": env.NewSecret("canary-api")}, false},
		{"a token that is not taken", &gitlab.Error{Status: 401, Reason: "unauthorized", Hint: "Set it."}, trigger.Tokens{"*": env.NewSecret("canary-api")}, true},
		{"a project that it may not see", &gitlab.Error{Status: 404, Reason: "unauthorized", Hint: "Set it."}, trigger.Tokens{"*": env.NewSecret("canary-api")}, true},
		{"no answer", fmt.Errorf("ask: %w", &gitlab.Error{Reason: "gitlab_unavailable", Lost: true}), trigger.Tokens{"*": env.NewSecret("canary-api")}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			asks(t, func(w *world, id string) {
				w.apiTokens = c.tokens
				w.routes(routes)
				w.pipelines.jobErr = c.err
				for range 12 {
					if got := w.post("/reconcile", ""); got.status != 200 || got.body["asked"] != 0.0 {
						w.t.Fatalf("got %d %v", got.status, got.body)
					}
					w.tick()
					time.Sleep(5 * time.Minute)
				}
				if p := w.current(); p.ID != id || p.State != ledger.Triggered || !p.Silent() {
					w.t.Errorf("it is %s, silent: %t", p.State, p.Silent())
				}
				if said := strings.Contains(w.log.String(), "pipeline not asked about"); said != c.said {
					w.t.Errorf("the log is %s", w.log.String())
				}
				if n := len(w.pipelines.queries); n > 8 || c.tokens == nil && n > 0 || slices.ContainsFunc(w.pipelines.queries, func(q gitlab.JobQuery) bool { return q.Token.IsZero() }) {
					w.t.Errorf("GitLab was asked %d times", n)
				}
			})
		})
	}
}

// A limit is one of whoever's token asks: others are asked for all the same.
func TestWhomGitLabLimitsAsksNoMoreInThisCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apiTokens = trigger.Tokens{"acme/api": env.NewSecret("canary-api"), "acme/each": env.NewSecret("canary-each"), "acme/web": env.NewSecret("canary-api")}
		w.routes(strings.Replace(routes, "{", `{"acme/web": {"gitlab": {"project": "acme/web"}, "slack": {"channel": "C1"}},`, 1))
		for i := range 5 {
			w.deliver(webhook(fmt.Sprint(i)).of("acme/api", fmt.Sprint(i))).is(200, "triggered", "")
		}
		w.deliver(webhook("5").of("acme/each", "5")).is(200, "triggered", "")
		w.deliver(webhook("6").of("acme/web", "6")).is(200, "triggered", "") // with a token of the same text
		time.Sleep(9 * time.Minute)
		w.pipelines.jobErr = fmt.Errorf("ask: %w", &gitlab.Error{Status: 429, Reason: gitlab.RateLimited})
		if got := w.post("/reconcile", ""); got.status != 200 || got.body["asked"] != 0.0 {
			t.Errorf("got %d %v", got.status, got.body)
		}
		tokens := map[string]int{}
		for _, q := range w.pipelines.queries {
			tokens[q.Token.Reveal()]++
		}
		if tokens["canary-api"] != 1 || tokens["canary-each"] != 1 {
			t.Errorf("GitLab was asked with %v", tokens)
		}
	})
}
