package sandbox_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// waits waits until a promotion of an image waits for a reason, or is dead of
// it.
func (b *box) waits(image string, state ledger.State, reason string) sandbox.Row {
	b.t.Helper()
	var last []sandbox.Row
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		last, _, _ = b.Rows(sandbox.Query{Text: image})
		if len(last) == 1 && last[0].State == state && last[0].Reason == reason {
			return last[0]
		}
	}
	b.t.Fatalf("%s is not %s, %s: %+v", image, state, reason, last)
	return sandbox.Row{}
}

func (b *box) forward(d time.Duration) {
	b.t.Helper()
	if err := b.Forward(context.Background(), d); err != nil {
		b.t.Fatal(err)
	}
}

// Each row of the table of GitLab's answers: a temporary failure waits with its
// reason, any other is dead, and both are promoted after the fault is removed.
func TestEveryAnswerOfGitLab(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	for i, c := range []struct {
		answer string
		state  ledger.State
		reason string
	}{
		{"too_many_pipelines", ledger.Waiting, "gitlab_rate_limited"},
		{"rate_limited", ledger.Waiting, "gitlab_rate_limited"},
		{"capacity", ledger.Waiting, "gitlab_capacity"},
		{"reference_not_found", ledger.Waiting, "reference_not_found"},
		{"forbidden", ledger.Waiting, "forbidden"},
		{"maintenance", ledger.Waiting, "gitlab_unavailable"},
		{"away", ledger.Waiting, "gitlab_unavailable"},
		{"conflict", ledger.Waiting, "gitlab_unavailable"},
		{"hangs", ledger.Waiting, "gitlab_unavailable"},
		{"variables_forbidden", ledger.Dead, "variables_forbidden"},
		{"no_jobs", ledger.Dead, "no_jobs"},
		{"inputs_refused", ledger.Dead, "inputs_refused"},
		{"pipeline_invalid", ledger.Dead, "pipeline_invalid"},
		{"rejected", ledger.Dead, "rejected"},
		{"unknown", ledger.Dead, "rejected"},
		{"unauthorized", ledger.Dead, "unauthorized"},
		{"not_found", ledger.Dead, "not_found"},
		{"not_gitlab", ledger.Dead, "not_found"},
		{"redirected", ledger.Dead, "redirected"},
		{"moved", ledger.Dead, "rejected"},
	} {
		tried[c.answer] = true
		t.Run(c.answer, func(t *testing.T) {
			t.Parallel()
			b := start(t, sandbox.Config{})
			fault := sandbox.Fault{Stage: sandbox.GitLab, Answer: c.answer}
			if c.answer == "hangs" {
				fault.Latency = 100 * time.Millisecond // a minute would take a minute
			}
			if _, err := b.SetFault(fault); err != nil {
				t.Fatal(err)
			}
			image := fmt.Sprintf("acme/a%d:1", i)
			b.good("POST", "/api/push", "image", image, "kind", "single")
			row := b.waits(image, c.state, c.reason)
			if row.Hint == "" {
				t.Error("there is no hint")
			}
			b.good("POST", "/api/well")
			if c.state == ledger.Dead {
				b.wait(1, "dead letter", image, c.reason, "")
				b.good("POST", "/api/replay", "match", image)
			} else {
				b.forward(2 * time.Minute) // of a limit
			}
			b.comes(image, ledger.Promoted)
			if n := len(b.GitLab.Pipelines()); n != 1 {
				t.Errorf("there are %d pipelines", n)
			}
		})
	}
	tried["lost"] = true // below
	b := start(t, sandbox.Config{})
	for _, a := range b.Answers() {
		if a.Stage == sandbox.GitLab && !tried[a.Answer] {
			t.Errorf("%s is not tried", a.Answer)
		}
	}
	b.goWrong(sandbox.GitLab, "lost", 1)
	b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
	row := b.comes("acme/api:2.0.0", ledger.Promoted)
	b.settle()
	story, _, _ := b.Story(row.ID)
	if n := len(b.GitLab.Pipelines()); n > 2 || !story.Promotion.Lost {
		t.Errorf("there are %d pipelines of %+v", n, story.Promotion)
	}
}

func TestTheRegistryGoesWrong(t *testing.T) {
	t.Parallel()
	for answer, reason := range map[string]string{
		"not_found": "not_in_registry", "unauthorized": "registry_denied", "rate_limited": "registry_rate_limited", "away": "registry_unavailable",
	} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			b := start(t, sandbox.Config{})
			b.goWrong(sandbox.Registry, answer, 0)
			b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
			b.waits("acme/api:2.0.0", ledger.Waiting, reason)
			b.good("POST", "/api/well")
			b.comes("acme/api:2.0.0", ledger.Promoted)
		})
	}
}

// What Slack refuses is shown after the fault is removed.
func TestSlackGoesWrong(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"rate_limited", "away", "archived", "not_in_channel", "invalid_auth", "lost"} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			b := start(t, sandbox.Config{})
			b.goWrong(sandbox.Slack, answer, 0)
			b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
			if row := b.comes("acme/api:2.0.0", ledger.Promoted); row.Shown {
				t.Errorf("it counts as shown: %+v", row)
			}
			b.wait(1, "notify", "acme/api:2.0.0", "slack not told", "")
			b.good("POST", "/api/well")
			for range 20 { // refusals in a row postpone the next attempt
				if rows, _, _ := b.Rows(sandbox.Query{Text: "acme/api:2.0.0"}); rows[0].Shown {
					break
				}
				b.forward(10 * time.Minute)
			}
			b.shows("acme/api:2.0.0", isDone)
		})
	}
}

func TestWebhookGoesWrong(t *testing.T) {
	t.Parallel()
	for answer, arrives := range map[string]bool{"503": false, "killed_before_publish": false, "killed_after_publish": true, "slow": true} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			b := start(t, sandbox.Config{})
			f, err := b.SetFault(sandbox.Fault{Stage: sandbox.Webhook, Answer: answer, Times: 1, Latency: 50 * time.Millisecond})
			if err != nil || f.ID == 0 {
				t.Fatal(err)
			}
			b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
			if answer != "slow" {
				b.wait(1, "docker hub", "acme/api:2.0.0", "the webhook", "")
			}
			if !arrives {
				time.Sleep(200 * time.Millisecond)
				if rows, _, _ := b.Rows(sandbox.Query{}); len(rows) != 0 {
					t.Fatalf("there is %+v", rows)
				}
				b.forward(11 * time.Minute) // reconcile finds it
				b.wait(1, "trigger", "acme/api:2.0.0", "missed push found", "")
			}
			b.comes("acme/api:2.0.0", ledger.Promoted)
			b.good("POST", "/api/push", "image", "acme/api:2.1.0", "kind", "single")
			b.comes("acme/api:2.1.0", ledger.Promoted)
		})
	}
}

// A function that is killed restarts, and nothing is lost or done twice.
func TestFunctionsAreKilled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		stage  sandbox.Stage
		answer string
	}{
		{sandbox.Trigger, "killed"}, {sandbox.Trigger, "killed_before"}, {sandbox.Trigger, "slow"},
		{sandbox.Notify, "killed"}, {sandbox.Notify, "killed_before"}, {sandbox.Notify, "slow"},
	} {
		t.Run(string(c.stage)+" "+c.answer, func(t *testing.T) {
			t.Parallel()
			b := start(t, sandbox.Config{})
			if _, err := b.SetFault(sandbox.Fault{Stage: c.stage, Answer: c.answer, Times: 2, Latency: 10 * time.Millisecond}); err != nil {
				t.Fatal(err)
			}
			b.good("POST", "/api/push", "image", "acme/api:2.0.0")
			b.comes("acme/api:2.0.0", ledger.Promoted)
			b.shows("acme/api:2.0.0", isDone)
			if n := len(b.GitLab.Pipelines()); n != 1 {
				t.Errorf("there are %d pipelines", n)
			}
			if want := strings.HasPrefix(c.answer, "killed"); want != (b.count(string(c.stage), "", "was killed", "") > 0) {
				t.Errorf("it was killed: %t", !want)
			}
		})
	}
}

func TestPipelinesGoWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answer  string
		forward time.Duration
		state   ledger.State
		reason  string
	}{
		{"fails", 0, ledger.Failed, "pipeline_failed"},
		{"silent", 2 * time.Hour, ledger.Triggered, ""},
		{"slow", 11 * time.Minute, ledger.Promoted, ""},
		{"canceled", 25 * time.Minute, ledger.Failed, "canceled"},
		{"unreported", 25 * time.Minute, ledger.Failed, "unreported"},
		{"stuck", 2 * time.Hour, ledger.Triggered, ""},
	} {
		t.Run(c.answer, func(t *testing.T) {
			t.Parallel()
			b := startAs(t, sandbox.Config{}) // as deployed
			b.goWrong(sandbox.Pipeline, c.answer, 1)
			b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
			if c.forward > 0 {
				b.wait(1, "pipeline 1", "acme/api:2.0.0", "", "")
				if c.answer == "slow" {
					story, _, _ := b.Story(b.comes("acme/api:2.0.0", ledger.Triggered).ID)
					if !slices.ContainsFunc(story.Bars, func(bar sandbox.Bar) bool { return bar.Stage == sandbox.Pipeline && bar.End.IsZero() }) {
						t.Errorf("a pipeline that runs is no bar that goes on: %+v", story.Bars)
					}
				}
				b.good("POST", "/api/clock", "forward", c.forward.String())
			}
			row := b.waits("acme/api:2.0.0", c.state, c.reason)
			if row.Silent != (c.answer == "silent") {
				t.Errorf("silent: %+v", row)
			}
			switch c.answer {
			case "fails", "silent", "canceled":
				if c.answer == "silent" {
					b.shows("acme/api:2.0.0", isSilent)
				}
				b.bad(409, "no such pipeline", "POST", "/api/retry", "pipeline", "7")
				b.good("POST", "/api/retry", "pipeline", "1")
				b.comes("acme/api:2.0.0", ledger.Promoted)
				eventually(t, "the end", func() bool { return b.GitLab.Pipelines()[0].Status == "success" })
				b.bad(409, "it has succeeded", "POST", "/api/retry", "pipeline", "1")
			case "stuck":
				if m, _ := b.shows("acme/api:2.0.0", runs); !strings.Contains(string(m.Blocks), "No runner") {
					t.Errorf("Slack shows %s", m.Blocks)
				}
			case "slow":
				story, _, _ := b.Story(row.ID)
				for _, bar := range story.Bars {
					if bar.Stage == sandbox.Pipeline && bar.End.Sub(bar.Start) < 10*time.Minute {
						t.Errorf("it took %s", bar.End.Sub(bar.Start))
					}
				}
			}
		})
	}
}

func TestTheLedgerGoesWrong(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"away", "lost", "slow"} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			b := start(t, sandbox.Config{})
			if _, err := b.SetFault(sandbox.Fault{Stage: sandbox.Ledger, Answer: answer, Latency: 20 * time.Millisecond}); err != nil {
				t.Fatal(err)
			}
			b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
			if answer != "slow" {
				b.wait(1, "trigger", "acme/api:2.0.0", "push put off", "ledger_unavailable")
			}
			b.good("POST", "/api/well")
			b.comes("acme/api:2.0.0", ledger.Promoted)
			b.shows("acme/api:2.0.0", isDone)
		})
	}
}

func TestTheTopicGoesWrong(t *testing.T) {
	t.Parallel()
	t.Run("late", func(t *testing.T) {
		t.Parallel()
		b := start(t, sandbox.Config{})
		b.goWrong(sandbox.Topic, "late", 1)
		b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
		b.wait(1, "webhook", "acme/api:2.0.0", "push queued", "")
		time.Sleep(300 * time.Millisecond)
		if n := b.count("trigger", "acme/api:2.0.0", "", ""); n != 0 {
			t.Errorf("Trigger said %d things", n)
		}
		b.forward(time.Minute)
		b.comes("acme/api:2.0.0", ledger.Promoted)
	})
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		b := start(t, sandbox.Config{})
		b.goWrong(sandbox.Topic, "twice", 1)
		b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
		row := b.comes("acme/api:2.0.0", ledger.Promoted)
		b.wait(1, "trigger", "acme/api:2.0.0", "push ignored", "duplicate")
		if story, _, _ := b.Story(row.ID); len(b.GitLab.Pipelines()) != 1 || story.Hints[0].Attempts != 1 {
			t.Errorf("%d pipelines, hints %+v", len(b.GitLab.Pipelines()), story.Hints)
		}
	})
	t.Run("out of order", func(t *testing.T) {
		t.Parallel()
		b := start(t, sandbox.Config{})
		b.goWrong(sandbox.Topic, "out_of_order", 1)
		b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
		b.wait(1, "webhook", "acme/api:2.0.0", "push queued", "")
		time.Sleep(200 * time.Millisecond)
		b.good("POST", "/api/push", "image", "acme/api:2.0.1", "kind", "single")
		later, earlier := b.comes("acme/api:2.0.1", ledger.Promoted), b.comes("acme/api:2.0.0", ledger.Promoted)
		if !later.CreatedAt.Before(earlier.CreatedAt) {
			t.Errorf("%s began before %s", earlier.Image, later.Image)
		}
	})
}

func TestDockerHubsAPIIsDown(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.goWrong(sandbox.Hub, "away", 0)
	b.goWrong(sandbox.Hub, "lost", 1)
	b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
	b.wait(1, "trigger", "", "request failed", "hub_unavailable")
	b.bad(502, "503", "POST", "/api/reconcile")
	b.good("POST", "/api/well")
	b.comes("acme/api:2.0.0", ledger.Promoted)
}

// At the speeds of the deployment, hours pass in seconds.
func TestTheClockGoesForward(t *testing.T) {
	t.Parallel()
	t.Run("a lost push is found", func(t *testing.T) {
		t.Parallel()
		b := startAs(t, sandbox.Config{})
		b.goWrong(sandbox.Hub, "lost", 1)
		b.good("POST", "/api/clock", "forward", "1s") // reconcile learns the routes
		time.Sleep(1100 * time.Millisecond)
		digest := b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")["digest"]
		b.good("POST", "/api/clock", "forward", "9m")
		if rows, _, _ := b.Rows(sandbox.Query{}); len(rows) != 0 {
			t.Errorf("after nine minutes there is %+v", rows)
		}
		b.good("POST", "/api/clock", "forward", "5m")
		if row := b.comes("acme/api:2.0.0", ledger.Promoted); row.Digest != digest {
			t.Errorf("%+v", row)
		}
	})
	t.Run("what waits is delivered until it is dead", func(t *testing.T) {
		t.Parallel()
		b := startAs(t, sandbox.Config{})
		b.goWrong(sandbox.GitLab, "capacity", 0)
		b.good("POST", "/api/push", "image", "acme/api:2.0.0", "kind", "single")
		b.waits("acme/api:2.0.0", ledger.Waiting, "gitlab_capacity")
		b.good("POST", "/api/clock", "forward", "30m")
		now := b.good("GET", "/api/clock")
		if at, err := time.Parse(time.RFC3339, now["now"].(string)); err != nil || time.Until(at) < 29*time.Minute {
			t.Errorf("it is %v", now)
		}
		row := b.waits("acme/api:2.0.0", ledger.Waiting, "gitlab_capacity")
		if row.Deliveries < 6 || row.Deliveries > 10 { // 10, 20, … 320 s, then 600 s
			t.Errorf("it was delivered %d times", row.Deliveries)
		}
		if n := len(b.Slack.Messages()); n != 0 {
			t.Errorf("Slack was told after half an hour: %d", n)
		}
		b.good("POST", "/api/clock", "forward", "45m")
		waiting, _ := b.shows("acme/api:2.0.0", runs)
		if !strings.Contains(string(waiting.Blocks), "60 minutes") {
			t.Errorf("Slack does not say for how long: %s", waiting.Blocks)
		}
		b.good("POST", "/api/clock", "forward", "8h")
		for range 20 { // what takes longer than fifteen seconds passes at once
			if rows, _, _ := b.Rows(sandbox.Query{States: []ledger.State{ledger.Dead}}); len(rows) > 0 {
				break
			}
			b.good("POST", "/api/clock", "forward", "2h")
		}
		b.waits("acme/api:2.0.0", ledger.Dead, "gitlab_capacity")
		b.shows("acme/api:2.0.0", isDead)
		b.good("POST", "/api/well")
		b.good("POST", "/api/replay")
		b.comes("acme/api:2.0.0", ledger.Promoted)
	})
	t.Run("whatever is broken", func(t *testing.T) {
		t.Parallel()
		b := startAs(t, sandbox.Config{})
		b.goWrong(sandbox.Trigger, "killed_before", 0)
		if _, err := b.SetFault(sandbox.Fault{Stage: sandbox.Notify, Answer: "slow", Times: 1, Latency: time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		if got := b.good("POST", "/api/clock", "forward", "10s"); got["ahead"] != "10s" {
			t.Errorf("it is %v", got)
		}
		if left := b.Faults(); len(left) != 1 {
			t.Errorf("Notify was not called: there are %+v", left)
		}
	})
	t.Run("it goes forward by a time", func(t *testing.T) {
		t.Parallel()
		b := start(t, sandbox.Config{})
		for _, bad := range []string{"", "0s", "-1m", "1", "soon", "100000h"} {
			b.bad(400, "10m", "POST", "/api/clock", "forward", bad)
		}
	})
}

// The answers of the calls and the events contain no secret.
func TestNoSecretComesOut(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.goWrong(sandbox.GitLab, "away", 1)
	b.goWrong(sandbox.GitLab, "not_found", 1)
	b.goWrong(sandbox.Slack, "away", 2)
	b.goWrong(sandbox.Notify, "killed", 1)
	b.good("POST", "/api/push", "image", "acme/api:2.0.0")
	b.good("POST", "/api/push", "image", "acme/web:2.0.0")
	token := b.WebhookURL[strings.LastIndex(b.WebhookURL, "/")+1:]
	// A hostile caller repeats what it knows.
	for _, body := range []string{`{"push_data":{"tag":"` + token + `"}}`, token, `{"repository":{"repo_name":"` + token + `"},"push_data":{"tag":"Bearer eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl"}}`} {
		b.call("POST", "/api/webhook", "", body)
	}
	res, err := http.Post(b.WebhookURL+"/wrong", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	b.shows("acme/api:2.0.0", "")
	b.settle()
	time.Sleep(time.Second)
	var out strings.Builder
	write := func(v any) {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(raw)
	}
	for _, path := range []string{"/api/", "/api/promotions", "/api/events", "/api/faults", "/api/stages", "/api/routes", "/api/load", "/api/clock"} {
		write(b.good("GET", path))
	}
	rows, _, _ := b.Rows(sandbox.Query{})
	for _, row := range rows {
		write(b.good("GET", "/api/promotions/"+row.ID))
	}
	b.mu.Lock()
	for _, ev := range b.events {
		write(ev)
	}
	b.mu.Unlock()
	text := out.String()
	if len(rows) < 2 || !strings.Contains(text, "•••") {
		t.Fatalf("there are %d rows, and nothing is hidden", len(rows))
	}
	for _, secret := range []string{token, "glptt-", "glpat-", "xoxb-", "eyJ", "sandbox-"} {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%s comes out: %.200s", secret, text[max(0, i-100):])
		}
	}
}

func TestRequestsFromElsewhereAreRefused(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	host := strings.TrimPrefix(b.URL, "http://")
	port := host[strings.LastIndex(host, ":"):]
	for _, c := range []struct {
		name, method, path, host string
		header                   map[string]string
		want                     int
	}{
		{"curl", "POST", "/api/well", host, nil, 200},
		{"by name", "POST", "/api/well", "localhost" + port, nil, 200},
		{"by IPv6", "POST", "/api/well", "[::1]" + port, nil, 200},
		{"through a tunnel to another port", "GET", "/api/faults", "localhost:1", nil, 200},
		{"the console", "GET", "/", host, nil, 418},
		{"a name that leads here", "GET", "/", "evil.example", nil, 403},
		{"a name that leads here, with the port", "GET", "/api/faults", "evil.example" + port, nil, 403},
		{"a name that looks like ours", "GET", "/api/faults", "localhost.evil.example", nil, 403},
		{"an address of the network", "GET", "/api/faults", "192.168.1.5" + port, nil, 403},
		{"Trigger by another name", "POST", "/trigger/", "evil.example", nil, 403},
		{"the fake of Slack by another name", "POST", "/slack/api/auth.test", "evil.example", nil, 403},
		{"our own page", "POST", "/api/well", host, map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": b.URL}, 200},
		{"our own page, of an old browser", "POST", "/api/well", host, map[string]string{"Origin": b.URL}, 200},
		{"another site", "POST", "/api/well", host, map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403},
		{"another site, of an old browser", "POST", "/api/well", host, map[string]string{"Origin": "https://evil.example"}, 403},
		{"another port of this machine", "POST", "/api/well", host, map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:1"}, 403},
		{"another site deletes", "DELETE", "/api/faults/1", host, map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"another site posts to the console", "POST", "/", host, map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"Webhook asks for a token", "POST", "/webhook/x", "evil.example", nil, 401},
		{"Notify asks for a token", "POST", "/notify/", "evil.example", nil, 401},
		{"the registry is open to everyone who reaches it", "GET", "/v2/", "registry.example", nil, 200},
		{"a page whose name leads here pushes", "POST", "/v2/acme/api/blobs/uploads/", "evil.example", map[string]string{"Origin": "http://evil.example"}, 403},
		{"a page whose name leads here reads the registry", "GET", "/v2/", "evil.example", map[string]string{"Sec-Fetch-Site": "same-origin"}, 403},
		{"another site pushes", "POST", "/v2/acme/api/blobs/uploads/", host, map[string]string{"Origin": "https://evil.example"}, 403},
		{"another site posts to Webhook", "POST", "/webhook/x", host, map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"another site posts to Notify", "POST", "/notify/", host, map[string]string{"Origin": "https://evil.example"}, 403},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, b.URL+c.path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		for name, value := range c.header {
			req.Header.Set(name, value)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", c.name, res.Status, c.want)
		}
	}
}

// By a public URL neither the page nor the calls can be reached.
func TestThePublicURLHasNoConsole(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{PublicURL: "https://public.example"})
	for _, path := range []string{"/", "/api/", "/api/faults", "/api/events", "/trigger/", "/gitlab/", "/slack/api/auth.test"} {
		for name, change := range map[string]func(*http.Request){
			"by its name":     func(r *http.Request) { r.Host = "public.example" },
			"through a proxy": func(r *http.Request) { r.Header.Set("X-Forwarded-For", "203.0.113.7") },
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			change(req)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusNotFound {
				t.Errorf("%s %s: %s", path, name, res.Status)
			}
		}
	}
	if got := b.good("GET", "/api/faults"); got["set"] == nil {
		t.Errorf("on this machine: %v", got)
	}
}

const page = "../../docs/sandbox.md"

// The page has a row for each answer, with its text; -update writes them.
func TestThePageHasEveryAnswer(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, sandbox.Config{})
	var rows strings.Builder
	for _, a := range b.Answers() {
		fmt.Fprintf(&rows, "| `%s` | `%s` | %s |\n", a.Stage, a.Answer, a.What)
	}
	const head = "| stage | answer | what happens |\n|---|---|---|\n"
	before, after, ok := strings.Cut(string(text), head)
	if !ok {
		t.Fatalf("%s has no table of answers", page)
	}
	_, after, _ = strings.Cut("\n"+after, "\n\n")
	want := before + head + rows.String() + "\n" + after
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("the table of answers in %s is out of date: run go test ./internal/sandbox -run %s -update", page, t.Name())
	}
	for _, call := range b.good("GET", "/api/")["calls"].([]any) {
		method, rest, _ := strings.Cut(call.(string), " ")
		path, _, _ := strings.Cut(strings.Fields(rest)[0], "?")
		if !strings.Contains(string(text), "| `"+method+" "+path+"` |") {
			t.Errorf("%s does not have %s %s", page, method, path)
		}
	}
}

var update = flag.Bool("update", false, "write what is made of the code")

// Every command of the page works as it is, except for the port.
func TestThePagesCommandsWork(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	b := startAs(t, sandbox.Config{})
	run := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for command := range strings.Lines(block[1]) {
			if strings.Contains(command, "/api/replay") {
				b.wait(1, "notify", "", "dead letter recorded", "not_found")
			}
			command = strings.ReplaceAll(strings.TrimSpace(command), "http://127.0.0.1:8080", b.URL)
			out, err := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(command, "curl ", "curl -sS --fail-with-body ", 1)).CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
			run++
			time.Sleep(300 * time.Millisecond) // as people do
		}
	}
	if run < 10 {
		t.Errorf("there are only %d commands", run)
	}
	for _, tag := range []string{"1.5.0", "1.6.0", "1.7.0", "1.8.0"} {
		b.comes("acme/api:"+tag, ledger.Promoted)
	}
}
