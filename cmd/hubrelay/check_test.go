package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// settingsFile writes a file for -env.
func settingsFile(t *testing.T, lines ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hubrelay.env")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const oneRoute = `ROUTES={"acme/api": {"gitlab": {"project": "acme/images/api"}, "tags": {"include": ["semver:>=1.2"]}, "slack": {"channel": "C1234"}}}`

func TestExplainAPush(t *testing.T) {
	t.Parallel()
	file := settingsFile(t, oneRoute)
	var out bytes.Buffer
	if err := run(t.Context(), []string{"check", "-env", file, "-explain", "acme/api:1.2.0-rc1"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"acme/api:1.2.0-rc1 is not promoted: tag_rules.\n", `tags.include has "semver:>=1.2", which does not match: the tag is a pre-release`, `The route is "acme/api".`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := run(t.Context(), []string{"check", "-env", file, "-explain", "acme/api:1.4.0", "-json"}, &out); err != nil {
		t.Fatal(err)
	}
	var said struct {
		Version    int
		Promoted   bool
		IncludedBy string `json:"included_by"`
	}
	if err := json.Unmarshal(out.Bytes(), &said); err != nil || said.Version != 1 || !said.Promoted || said.IncludedBy != "semver:>=1.2" {
		t.Errorf("%v, %s", err, out.String())
	}
}

func TestOnlyTakesAListWithSpaces(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"check", "-env", settingsFile(t, oneRoute), "-only", " routes.table, routes.tags"}, &out); err != nil || !strings.Contains(out.String(), "routes.tags") {
		t.Errorf("%v, %s", err, out.String())
	}
}

// The code with which a check ends is told by its error.
func TestHowACheckEnds(t *testing.T) {
	t.Parallel()
	const token = "xoxb-canary-0123456789"
	fake := slacktest.New(token)
	fake.AddChannel("C1234", "images")
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	slack := []string{oneRoute, "SLACK_API_URL=" + server.URL, "DEFAULT_CHANNEL=C1234"}
	right := settingsFile(t, append(slack, "SLACK_BOT_TOKEN="+token)...)
	wrong := settingsFile(t, append(slack, "SLACK_BOT_TOKEN=xoxb-canary-another")...)
	away := settingsFile(t, oneRoute, "SLACK_API_URL=http://127.0.0.1:1", "SLACK_BOT_TOKEN="+token)
	for _, c := range []struct {
		name, args string
		code       int
		says       string // what is written, or the error
	}{
		{"all is well", "check -only slack -env " + right, 0, "✔ pass slack.channel C1234: the bot is in #images"},
		{"as JSON", "check -only slack -json -env " + right, 0, `"version": 1`},
		{"something failed", "check -only slack -env " + wrong, 1, "✗ fail slack.token"},
		{"something could not be checked", "check -only slack -env " + away, 2, "? unknown slack.token"},
		{"nothing was checked", "check -only deployed.webhook -env " + right, 2, "nothing was checked"},
		{"the flags are wrong", "check -oly slack", 2, "not defined: -oly"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), strings.Fields(c.args), &out)
		code := 0
		var end exit
		switch {
		case errors.As(err, &end):
			code = end.code
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		}
		text := out.String()
		if err != nil {
			text += err.Error()
		}
		if code != c.code || !strings.Contains(text, c.says) || strings.Contains(text, "canary") || strings.Contains(text, "\x1b") {
			t.Errorf("%s: ends with %d and says\n%s", c.name, code, text)
		}
	}
}

func TestSettingsOfACheckComeFromWhatTerraformHas(t *testing.T) {
	t.Parallel()
	outputs := filepath.Join(t.TempDir(), "outputs.json")
	text := `{"settings": {"value": {"trigger": {"ROUTES": "{\"acme/web\": {\"gitlab\": {\"project\": \"acme/x\"}, \"slack\": {\"channel\": \"C1\"}}}"}}}}`
	if err := os.WriteFile(outputs, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, says string }{
		{"-terraform " + outputs, "acme/web:1 is promoted."},
		{"-terraform ../../terraform/terraform.tfvars.example", "acme/web:1 is promoted."},
		{"-terraform " + outputs + " -env " + settingsFile(t, oneRoute), "acme/web:1 is not promoted: no_route."},
	} {
		var out bytes.Buffer
		if err := run(t.Context(), strings.Fields("check -explain acme/web:1 "+c.args), &out); err != nil || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %v %s", c.args, err, out.String())
		}
	}
}

// Names of settings mean something else to others, too.
func TestTheEnvironmentOfAShellDoesNotMakeACheckFail(t *testing.T) {
	t.Setenv("LANGUAGE", "en_US:en")
	t.Setenv("REGISTRY", "ghcr.io")
	t.Setenv("SLACK_BOT_TOKEN", "canary with spaces")
	t.Setenv("TF_VAR_notify_tokens", "canary, and not a list")
	outputs := filepath.Join(t.TempDir(), "outputs.json")
	text := `{"settings": {"value": {"notify": {"LANGUAGE": "ja", "ROUTES": "{}"}}}}`
	if err := os.WriteFile(outputs, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said := func(args ...string) string {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{"check"}, args...), &out)
		text := out.String()
		if err != nil {
			text += err.Error()
		}
		if strings.Contains(text, "canary") {
			t.Errorf("a value of the environment shows in\n%s", text)
		}
		return text
	}
	if text := said("-only", "settings", "-env", settingsFile(t, oneRoute, "REGISTRY=", "SLACK_BOT_TOKEN=", "NOTIFY_TOKENS=0123456789abcdefghij")); strings.Contains(text, "LANGUAGE") || strings.Contains(text, "settings.trigger REGISTRY") || !strings.Contains(text, "SLACK_BOT_TOKEN: is required") {
		t.Errorf("a file does not count before the environment, or gettext's LANGUAGE is taken:\n%s", text)
	}
	if text := said("-explain", "acme/api:1.2.0", "-env", settingsFile(t, oneRoute)); !strings.Contains(text, "is promoted") {
		t.Errorf("more than ROUTES is needed to explain:\n%s", text)
	}
	t.Setenv("TF_VAR_webhook_tokens", "canary")
	if text := said("-only", "settings"); !strings.Contains(text, "TF_VAR_notify_tokens is not a list") || !strings.Contains(text, "TF_VAR_webhook_tokens is not a list") {
		t.Errorf("not every mistake is told:\n%s", text)
	}
	t.Setenv("TF_VAR_webhook_tokens", "")
	t.Setenv("TF_VAR_notify_tokens", "")
	if text := said("-only", "settings", "-terraform", outputs); strings.Contains(text, "LANGUAGE") || strings.Contains(text, "settings.trigger REGISTRY") {
		t.Errorf("the environment says how the functions are set:\n%s", text)
	}
	if text := said("-terraform", os.DevNull); !strings.Contains(text, "none of hubrelay's inputs") {
		t.Errorf("nothing is taken for settings:\n%s", text)
	}
	if text := said("-terraform", "-", "-env", "-"); !strings.Contains(text, "cannot both be standard input") {
		t.Errorf("got\n%s", text)
	}
}

// Who waits for an input that does not come can be interrupted.
func TestAnInterruptEndsTheWaitForInput(t *testing.T) {
	silent, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = typed.Close(), silent.Close() })
	stdin := os.Stdin
	os.Stdin = silent
	t.Cleanup(func() { os.Stdin = stdin })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	var end exit
	if err := run(ctx, []string{"check", "-terraform", "-"}, &bytes.Buffer{}); !errors.As(err, &end) || end.code != 2 || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("it ends with %v", err)
	}
}

func TestColoursAreForTerminals(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if coloured(file) || coloured(&bytes.Buffer{}) {
		t.Error("a file is coloured")
	}
}

// Whether Docker Hub calls, the ledger knows.
func TestACheckReadsTheLedger(t *testing.T) {
	t.Setenv("FIRESTORE_EMULATOR_HOST", gcptest.Firestore(t))
	const name = "firestore:projects/demo/databases/check"
	l, err := ledger.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	file := settingsFile(t, oneRoute, "LEDGER="+name, "RECONCILE=off")
	check := func() string {
		t.Helper()
		var out bytes.Buffer
		_ = run(t.Context(), []string{"check", "-only", "deployed.heard", "-env", file}, &out)
		return out.String()
	}
	contains(t, check(), "- skip deployed.heard acme/api: Docker Hub has never called")
	if err := l.Found(t.Context(), "acme/api", "acme/api", "paste the URL"); err != nil {
		t.Fatal(err)
	}
	contains(t, check(), "✗ fail deployed.heard acme/api: Docker Hub has never called, and reconcile has found 1 push")
	if err := l.HeardOf(t.Context(), "acme/api"); err != nil {
		t.Fatal(err)
	}
	contains(t, check(), "✔ pass deployed.heard acme/api: Docker Hub has called")
}
