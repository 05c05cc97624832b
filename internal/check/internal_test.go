package check

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/route"
)

// Nobody who hangs keeps a check from its end, and what was found is told.
func TestItEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newChecker(Options{Getenv: func(string) string { return "" }}, 2)
		first := []*probe{c.add("slack.channel", "answers", nil, func(context.Context) result { return pass("at once") })} // or it might not get its turn
		c.add("slack.channel", "hangs", first, func(ctx context.Context) result {
			<-ctx.Done()
			return unknown("", "%v", ctx.Err())
		})
		deaf := c.add("slack.channel", "does not listen", first, func(context.Context) result {
			time.Sleep(time.Hour)
			return pass("late")
		})
		c.add("slack.channel", "waits for its turn", first, func(context.Context) result {
			time.Sleep(time.Hour)
			return pass("late")
		})
		c.add("slack.channel", "needs who does not listen", []*probe{deaf}, func(context.Context) result { return pass("late") })
		c.add("deployed.webhook", "waits for nobody of another section", nil, func(context.Context) result { return pass("at once") })
		for range 20 {
			c.add("dockerhub.pull", "hangs", nil, func(ctx context.Context) result {
				<-ctx.Done()
				return unknown("", "%v", ctx.Err())
			})
		}
		c.add("gitlab.url", "waits for nobody of another section", nil, func(context.Context) result { return pass("at once") })
		ctx, cancel := context.WithTimeout(t.Context(), Timeout)
		defer cancel()
		began := time.Now()
		r := c.look(ctx)
		if took := time.Since(began); took > Timeout+time.Second {
			t.Errorf("it took %s", took)
		}
		// Who does not listen may have had its turn, or not: then what needs it is
		// known not to be asked.
		if unknown := r.Unknown(); r.Count(Pass) != 3 || unknown != 23 && unknown != 24 || r.ExitCode() != 2 {
			t.Errorf("found %+v", r.Findings)
		}
		time.Sleep(3 * time.Hour) // they end at last
	})
}

// What the ledger and Docker Hub know of a repository's webhook.
func TestWhetherDockerHubCalls(t *testing.T) {
	t.Parallel()
	newest := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		called bool
		found  int
		known  bool
		want   Status
		says   string
	}{
		{"it has called", true, 0, false, Pass, "has called"},
		{"it has called, and not always", true, 3, true, Pass, "has called"},
		{"it has never called, and reconcile has found a push", false, 1, true, Fail, "reconcile has found 1 push that"},
		{"it has never called, and reconcile has found several", false, 2, false, Fail, "reconcile has found 2 pushes that"},
		{"it has never called, and there is a tag", false, 0, true, Warn, "the newest push is of 2026-11-20 00:00:00"},
		{"nothing was pushed", false, 0, false, Skip, "no push is known"},
	} {
		got := judgeHeard(c.called, c.found, newest, c.known)
		if got.status != c.want || !strings.Contains(got.found, c.says) || got.unknown {
			t.Errorf("%s: got %+v", c.name, got)
		}
	}
}

// Of the tags that Docker Hub has, those count that the route promotes.
func TestTheNewestPush(t *testing.T) {
	t.Parallel()
	fake := hubtest.New()
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	client, err := hub.New(server.URL, env.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	at := func(day int) time.Time { return time.Date(2026, 11, day, 0, 0, 0, 0, time.UTC) }
	for tag, day := range map[string]int{"1.0.0": 10, "1.1.0": 12, "latest": 13, "1.2.0-rc1": 14} {
		fake.Push(hubtest.Push{Repository: "acme/api", Tag: tag, Digest: "sha256:" + strings.Repeat("0", 64), At: at(day)})
	}
	to := target{repository: "acme/api", route: route.Route{Latest: "latest", Tags: route.Tags{Exclude: []string{"*-rc*"}}}}
	if got, known := newestPush(t.Context(), client, to); !known || !got.Equal(at(12)) {
		t.Errorf("got %s, %t", got, known)
	}
	to.repository = "acme/nosuch"
	if _, known := newestPush(t.Context(), client, to); known {
		t.Error("a push of a repository that is not there is known")
	}
}

func TestWhichImageIsMeant(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Image{
		"acme/api": {"acme/api", ""}, "acme/api:1.0": {"acme/api", "1.0"}, "nginx": {"library/nginx", ""},
		"": {}, "ACME/api": {}, "acme/api:": {}, "acme/api:a/b": {}, "https://acme/api": {},
		"docker.io/acme/api": {}, "index.docker.io/library/nginx:1": {},
	} {
		got, err := ParseImage(text)
		if got != want || (err == nil) != (want != Image{}) {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
}

func TestSecretsAreTakenOut(t *testing.T) {
	t.Parallel()
	settings := map[string]string{
		"WEBHOOK_TOKENS": "canary-one\ncanary-one-and-more\n", "SLACK_BOT_TOKEN": "xoxb-canary", "GITLAB_API_TOKENS": `{"*":"glpat-canary"}`,
		"REGISTRY_AUTH": `{"auths":{"x":{"auth":"Y2FuYXJ5Cg==","password":"canary-password","username":"acme"}}}`, "NOTIFY_TOKENS": "short",
	}
	hide := newRedactor(func(name string) string { return settings[name] })
	got := hide("canary-one-and-more canary-one xoxb-canary glpat-canary Y2FuYXJ5Cg== canary-password acme short")
	if want := "[secret] [secret] [secret] [secret] [secret] [secret] acme short"; got != want {
		t.Errorf("got %s", got)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("spec:\n  inputs:\n    a: {default: x, options: [x, y], regex: ^x, type: string}\n    b:\n---\nworkflow: {name: x, rules: [{auto_cancel: {on_new_commit: none}}]}\n", "x")
	f.Add("job: {script: [true]}", "")
	f.Add("spec: {include: [{local: inputs.yml}]}\n---\njob: {}\n", "x")
	f.Add("spec: {}", "a")
	f.Add("a: &a [*a]", "a")
	f.Fuzz(func(t *testing.T, text, value string) {
		c, err := parseConfig([]byte(text))
		if err != nil {
			return
		}
		if len(c.refuses(map[string]string{"a": value})) == 0 && c.Inputs["a"] == nil && !c.InputsElsewhere {
			if _, declared := c.Inputs["a"]; !declared {
				t.Error("an input that is not declared is taken")
			}
		}
		c.keepsPromotions()
	})
}
