package check_test

import (
	"os"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/check"
	"github.com/getto-systems/hubrelay/internal/route"
)

func TestLinesOfAFile(t *testing.T) {
	t.Parallel()
	got, names, err := check.ParseEnv("\ufeff# settings\r\n\nTOPIC=projects/p/topics/t \nexport LANGUAGE = ja\n" +
		`ROUTES='{"acme/*": {` + "\n" + `  "x": "\n"}}' # two lines` + "\n" +
		`WEBHOOK_TOKENS="one\ntwo"` + "\n" + `QUOTED="a \" \\ b"` + "\nEMPTY=\nEQUALS=a=b#c\n" +
		"TF_VAR_webhook_tokens=\"[\\\"$WEBHOOK_TOKENS\\\"]\"\n" + `DEFAULT_CHANNEL='$C1' # ours` + "\nOTHER=a # b\n" + `GITLAB_URL="\$x $1 $"` + "\n")
	want := map[string]string{
		"TOPIC": "projects/p/topics/t", "LANGUAGE": "ja", "ROUTES": "{\"acme/*\": {\n  \"x\": \"\\n\"}}", "WEBHOOK_TOKENS": "one\ntwo",
		"QUOTED": `a " \ b`, "EMPTY": "", "EQUALS": "a=b#c",
		"TF_VAR_webhook_tokens": `["$WEBHOOK_TOKENS"]`, "DEFAULT_CHANNEL": "$C1", "OTHER": "a # b", "GITLAB_URL": "$x $1 $",
	}
	if d := diff.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	if d := diff.Diff([]string{"TOPIC", "LANGUAGE", "ROUTES", "WEBHOOK_TOKENS", "QUOTED", "EMPTY", "EQUALS", "TF_VAR_webhook_tokens", "DEFAULT_CHANNEL", "OTHER", "GITLAB_URL"}, names); d != "" {
		t.Error(d)
	}
	for text, want := range map[string]string{
		"A='\n\n'\ncanary": "line 4 is not NAME=VALUE",
		"A='" + strings.Repeat("\n", check.MaxSource): "line 1: the value of A has no closing quote",
		"\ncanary":                "line 2 is not NAME=VALUE",
		"A B=canary":              "line 1 is not NAME=VALUE",
		"=canary":                 "line 1 is not NAME=VALUE",
		"A='canary":               "line 1: the value of A has no closing quote",
		"\nA=\"canary\nx\n":       "line 2: the value of A has no closing quote",
		"A=\"canary\\\"":          "no closing quote",
		"A='canary' b":            "line 1: something follows the quoted value of A",
		"A=1\nB=2\nA=canary":      "line 3: A is set twice",
		"A=1\nROUTES: {canary}\n": "line 2 is not NAME=VALUE",

		// Who wrote these for a shell would get another value from it.
		"A=1\nWEBHOOK_TOKENS=$canary": "line 2: WEBHOOK_TOKENS has a $ or a ` that a shell would expand",
		"TOPIC=\"${canary}\"":         "line 1: TOPIC has a $",
		"SLACK_BOT_TOKEN=$(canary)":   "line 1: SLACK_BOT_TOKEN has a $",
		"SLACK_BOT_TOKEN=`canary`":    "line 1: SLACK_BOT_TOKEN has a $",
		`TOPIC="\\$canary"`:           "line 1: TOPIC has a $",

		"OIDC_AUDIENCE=https://canary # ours": "line 1: a comment follows the value of OIDC_AUDIENCE",

		// Windows writes such files.
		"\xff\xfeA\x00=\x00c\x00a\x00n\x00a\x00r\x00y\x00": "save it as UTF-8",
	} {
		_, _, err := check.ParseEnv(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestOutputsOfTerraform(t *testing.T) {
	t.Parallel()
	got, err := check.ParseTerraform([]byte(`{
	  "webhook_url": {"sensitive": false, "type": "string", "value": "https://webhook.example"},
	  "trigger_url": {"value": "https://trigger.example"},
	  "pushes_topic": {"value": "projects/p/topics/old"},
	  "commands": {"value": {"ready": "curl"}},
	  "settings": {"type": ["object", {}], "value": {
	    "webhook": {"TOPIC": "projects/p/topics/pushes"},
	    "notify": {"ROUTES": "{}", "LEDGER": "firestore:projects/p/databases/d"}
	  }}
	}`))
	want := map[string]string{
		"WEBHOOK_URL": "https://webhook.example", "TRIGGER_URL": "https://trigger.example", "TOPIC": "projects/p/topics/pushes",
		"ROUTES": "{}", "LEDGER": "firestore:projects/p/databases/d",
	}
	if d := diff.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	for text, want := range map[string]string{
		``: "is not what terraform output -json prints", `[]`: "is not what terraform output", `{"a": 1}`: "not from a .tfvars.json",
		`{}`: "none of hubrelay's outputs", `{"other": {"value": 1}}`: "none of hubrelay's outputs",
		`{"ledger": {"value": 1}}`: "the output ledger is not a text", `{"settings": {"value": "x"}}`: "the output settings",
	} {
		if _, err := check.ParseTerraform([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// Windows PowerShell writes a byte order mark, or UTF-16.
func TestFilesOfWindows(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"\ufeff{\"ledger\": {\"value\": \"memory:x\"}}\r\n", "\ufeff\r\nlanguage = \"ja\"\r\n"} {
		if got, _, err := check.ParseTerraformFile([]byte(text)); err != nil || len(got) != 1 {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"\xff\xfe{\x00}\x00", "\xfe\xff\x00{\x00}", "l\x00=\x00"} {
		if _, _, err := check.ParseTerraformFile([]byte(text)); err == nil || !strings.Contains(err.Error(), "save it as UTF-8") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Terraform takes secrets from there, too.
func TestSecretsAmongTheInputsOfTerraform(t *testing.T) {
	t.Parallel()
	got, err := check.ParseVariables(`
language              = "ja"
webhook_tokens        = ["one", "two"]
gitlab_trigger_tokens = {"*" = "three"}
gitlab_api_tokens     = null
notify_tokens         = []
slack_bot_token       = "xoxb-4"`)
	want := map[string]string{
		"LANGUAGE": "ja", "WEBHOOK_TOKENS": "one\ntwo", "GITLAB_TRIGGER_TOKENS": `{"*":"three"}`, "GITLAB_API_TOKENS": "", "NOTIFY_TOKENS": "", "SLACK_BOT_TOKEN": "xoxb-4",
	}
	if d := diff.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	for text, want := range map[string]string{
		"webhook_tokens = \"canary\"":          "webhook_tokens is not a list of texts",
		"gitlab_trigger_tokens = [\"canary\"]": "gitlab_trigger_tokens is not a map of texts",
		"slack_bot_token = [\"canary\"]":       "slack_bot_token is not a text",
		"slack_bot_token = canary":             "variables not allowed",
	} {
		if _, err := check.ParseVariables(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestInputsOfTerraform(t *testing.T) {
	t.Parallel()
	got, deployed, err := check.ParseTerraformFile([]byte(`
# comment
project_id = "acme-hubrelay" // another
gitlab_url = "https://gitlab.example/\u00e9$${x}"
reconcile  = "false"
silent_after = 90
registry     = null
sizes = { webhook = { cpu = 1, memory = "256Mi" } }
alert_channels = ["a", "b",]
kms_key = null
/* routes
   follow */
routes = {
  "acme/*" = {
    gitlab = { project = "acme/images/{name}", "ref": "main" }
    slack  = { channel = "C1" }
    tags   = { include = ["v*", "semver:>=1.2"] }
    inputs = { level = 3, strict = true, name = "x" }
    latest = null
  }
}
default_channel = "C1"`))
	if err != nil || deployed {
		t.Fatal(err, deployed)
	}
	want := map[string]string{
		"GITLAB_URL": "https://gitlab.example/é${x}", "RECONCILE": "off", "DEFAULT_CHANNEL": "C1", "SILENT_AFTER": "90",
		"ROUTES": `{"acme/*":{"gitlab":{"project":"acme/images/{name}","ref":"main"},"inputs":{"level":"3","name":"x","strict":"true"},"latest":null,"slack":{"channel":"C1"},"tags":{"include":["v*","semver:\u003e=1.2"]}}}`,
	}
	if d := diff.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := route.Parse(got["ROUTES"]); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"registry = \n":                              "line 1: invalid expression",
		"registry":                                   "line 1: argument or block definition required",
		"routes {\n}":                                "line 1: unexpected \"routes\" block",
		"\nregistry = file(\"canary\")":              "line 2: function calls not allowed",
		"registry = canary":                          "line 1: variables not allowed",
		"registry = \"canary":                        "line 1: unterminated template string",
		"registry = \"${canary}\"":                   "line 1: variables not allowed",
		`registry = "canary\q"`:                      "line 1: invalid escape sequence",
		"\nregistry = \"canary\" b":                  "line 2: missing newline after argument",
		"routes = [1 2]":                             "line 1: missing item separator",
		"registry = 1\nregistry = 2":                 "line 2: attribute redefined",
		"routes = {a = {inputs = {b = 1e99999999}}}": "too large",
		"silent_after = 1e99999999":                  "too large",
		"silent_after = 1e-99999999":                 "too large",
		"gitlab_url = [1]":                           "gitlab_url is not a string",
		"reconcile = \"canary\"":                     "reconcile is not a bool",
		"":                                           "none of hubrelay's inputs",
		"webhook_url = \"https://x\"":                "none of hubrelay's inputs",
		"routes = " + strings.Repeat("[", 30):        "line 1: missing expression",
		"routes = " + strings.Repeat("[", 50_000):    "brackets",
		"routes = " + strings.Repeat("(", 50_000):    "brackets",
		"routes = " + strings.Repeat("-", 1_000_000): "bytes",
	} {
		if _, err := check.ParseVariables(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// What is deployed by the example is what is checked before the deploy.
func TestTheExampleOfTerraform(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../terraform/terraform.tfvars.example")
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := check.ParseTerraformFile(text)
	want := map[string]string{
		"DEFAULT_CHANNEL": "C0123456789",
		"ROUTES":          `{"acme/*":{"gitlab":{"project":"acme/images/{name}"},"slack":{"channel":"C0123456789"}}}`,
	}
	if d := diff.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}

func TestSettingsOfAnEnvironment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, variable, value, want, err string }{
		{"WEBHOOK_TOKENS", "TF_VAR_webhook_tokens", `["one","two"]`, "one\ntwo", ""},
		{"NOTIFY_TOKENS", "TF_VAR_notify_tokens", `["one",]`, "one", ""},
		{"GITLAB_TRIGGER_TOKENS", "TF_VAR_gitlab_trigger_tokens", `{"*" = "one"}`, `{"*":"one"}`, ""},
		{"GITLAB_API_TOKENS", "TF_VAR_gitlab_api_tokens", `{"*": "one", acme = "two"}`, `{"*":"one","acme":"two"}`, ""},
		{"SLACK_BOT_TOKEN", "TF_VAR_slack_bot_token", " xoxb-1\n", "xoxb-1", ""},
		{"REGISTRY_AUTH", "TF_VAR_registry_auth", `{"auths":{}}`, `{"auths":{}}`, ""},
		{"ROUTES", "TF_VAR_routes", `{}`, "", ""},
		{"ROUTES", "ROUTES", " {} ", "{}", ""},
		{"LANGUAGE", "LANGUAGE", "ja", "ja", ""},
		{"LANGUAGE", "LANGUAGE", "en_US:en", "", ""},
		{"WEBHOOK_TOKENS", "TF_VAR_webhook_tokens", "", "", ""},
		{"WEBHOOK_TOKENS", "TF_VAR_webhook_tokens", "canary", "", "TF_VAR_webhook_tokens is not a list"},
		{"WEBHOOK_TOKENS", "TF_VAR_webhook_tokens", `[["canary"]]`, "", "TF_VAR_webhook_tokens is not a list"},
		{"WEBHOOK_TOKENS", "TF_VAR_webhook_tokens", strings.Repeat("[", 50_000) + "canary", "", "brackets"},
		{"GITLAB_TRIGGER_TOKENS", "TF_VAR_gitlab_trigger_tokens", `["canary"]`, "", "TF_VAR_gitlab_trigger_tokens is not a map"},
	} {
		got, err := check.Environment(c.name, func(name string) string {
			if name == c.variable {
				return c.value
			}
			return ""
		})
		if got != c.want || (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%s=%s: %q, %v", c.variable, c.value, got, err)
		}
	}
}

func FuzzSources(f *testing.F) {
	f.Add("A=1\nexport B='x\ny'\nC=\"\\n\"")
	f.Add(`{"settings": {"value": {"webhook": {"TOPIC": "t"}}}}`)
	f.Add("routes = {\n \"a/*\" = { gitlab = { project = \"p\" }, inputs = { n = 1 } }\n}\n# x\nreconcile = true")
	f.Add(`{"*" = "a\u00e9$${"}`)
	f.Fuzz(func(t *testing.T, text string) {
		if values, names, err := check.ParseEnv(text); err == nil && len(values) != len(names) {
			t.Errorf("%d values of %d names", len(values), len(names))
		}
		if values, _, err := check.ParseTerraformFile([]byte(text)); err == nil && values["ROUTES"] != "" {
			_, _ = route.Parse(values["ROUTES"])
		}
		for _, name := range []string{"WEBHOOK_TOKENS", "GITLAB_TRIGGER_TOKENS"} {
			_, _ = check.Environment(name, func(string) string { return text })
		}
	})
}
