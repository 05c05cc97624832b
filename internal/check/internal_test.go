package check

import (
	"strings"
	"testing"
	"time"
)

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
	f.Add("spec: {}", "a")
	f.Add("a: &a [*a]", "a")
	f.Fuzz(func(t *testing.T, text, value string) {
		c, err := parseConfig([]byte(text))
		if err != nil {
			return
		}
		if len(c.refuses(map[string]string{"a": value})) == 0 && c.Inputs["a"] == nil {
			if _, declared := c.Inputs["a"]; !declared {
				t.Error("an input that is not declared is taken")
			}
		}
		c.keepsPromotions()
	})
}
