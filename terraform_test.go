package hubrelay

// These tests compare values that are in terraform/ and in the code, without
// running Terraform. Terraform's own tests are in terraform/tests.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// captures returns the sorted distinct first groups of a pattern.
func captures(pattern, text string) []string {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found[m[1]] = true
	}
	return slices.Sorted(maps.Keys(found))
}

func TestEntryPointsAreDeployed(t *testing.T) {
	t.Parallel()
	registered := captures(`register\("([A-Za-z]+)"`, read(t, "hubrelay.go"))
	deployed := captures(`entry_point = "([A-Za-z]+)"`, read(t, "terraform/functions.tf"))
	if len(registered) != 3 || !slices.Equal(registered, deployed) {
		t.Errorf("registered are %v, deployed %v", registered, deployed)
	}
}

func TestSettingsAreThoseOfTerraform(t *testing.T) {
	t.Parallel()
	functions, secrets := read(t, "terraform/functions.tf"), read(t, "terraform/secrets.tf")
	for _, name := range []string{"webhook", "trigger", "notify"} {
		block := regexp.MustCompile(`(?s)    ` + name + ` = \{\n.*?      environment = \{\n(.*?)\n      \}`).FindStringSubmatch(functions)
		if block == nil {
			t.Fatalf("terraform/functions.tf has no environment for %s", name)
		}
		set := captures(`(?m)^\s+([A-Z_]+)\s+=`, block[1])
		set = append(set, captures(`(?m)^    ([A-Z_]+) = \{\n      function = "`+name+`"`, secrets)...)

		var code strings.Builder
		files, err := filepath.Glob("functions/" + name + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				code.WriteString(read(t, file))
			}
		}
		wanted := captures(`(?:r\.(?:String|Required|Secret|URL|OneOf)\(|env\.Parse\(r, )"([A-Z_]+)"`, code.String())
		for _, setting := range wanted {
			if !slices.Contains(set, setting) {
				t.Errorf("%s reads %s, which terraform/ does not set", name, setting)
			}
		}
		for _, setting := range set {
			if !slices.Contains(wanted, setting) {
				t.Errorf("terraform/ sets %s for %s, which does not read it", setting, name)
			}
		}
	}
}

func TestTheSandboxDeliversAsDeployed(t *testing.T) {
	t.Parallel()
	attempts := regexp.MustCompile(`(?s)variable "max_delivery_attempts" \{.*?default\s+= (\d+)\n`).FindStringSubmatch(read(t, "terraform/variables.tf"))
	if len(attempts) != 2 {
		t.Fatal("terraform/variables.tf has no max_delivery_attempts")
	}
	if attempts[1] != fmt.Sprint(sandbox.MaxDeliveryAttempts) {
		t.Errorf("terraform/ delivers %q times, the sandbox %d", attempts[1:], sandbox.MaxDeliveryAttempts)
	}
	pubsub := read(t, "terraform/pubsub.tf")
	for name, want := range map[string]string{
		"minimum_backoff": fmt.Sprintf("%.0fs", sandbox.Deployed.Min.Seconds()),
		"maximum_backoff": fmt.Sprintf("%.0fs", sandbox.Deployed.Max.Seconds()),
	} {
		if got := captures(name+` = "([0-9a-z]+)"`, pubsub); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %v in terraform/, %s in the sandbox", name, got, want)
		}
	}
}

// terraform/ allows two instances of Trigger, because each creates five
// pipelines at a time.
func TestGitLabIsAskedForTenPipelinesAtOnce(t *testing.T) {
	t.Parallel()
	if got := captures(`atOnce = (\d+)\n`, read(t, "functions/trigger/pace.go")); !slices.Equal(got, []string{"5"}) {
		t.Errorf("an instance creates %v", got)
	}
}

func TestThePageSaysHowLongAttemptsWait(t *testing.T) {
	t.Parallel()
	documented := captures(`Attempts for that project wait up to (\d+) seconds`, read(t, "docs/architecture.md"))
	if got := captures(`maxWait = (\d+) \* time\.Second`, read(t, "functions/trigger/pace.go")); len(got) != 1 || !slices.Equal(got, documented) {
		t.Errorf("attempts wait for %v, docs/architecture.md says %v", got, documented)
	}
}

// refusedByType are refused by the types of Terraform's variables, so that no
// validation and no test of Terraform's has them.
var refusedByType = []string{"gitlab_missing", "project_missing", "slack_missing"}

func TestRoutesAreAcceptedAndRefusedAlike(t *testing.T) {
	t.Parallel()
	if _, err := route.Parse(read(t, "terraform/tests/routes/accepted.json")); err != nil {
		t.Errorf("Terraform accepts what hubrelay refuses: %v", err)
	}
	var refused map[string]json.RawMessage
	if err := json.Unmarshal([]byte(read(t, "terraform/tests/routes/refused.json")), &refused); err != nil {
		t.Fatal(err)
	}
	tests := captures(`\["(\w+)"\]`, read(t, "terraform/tests/routes.tftest.hcl"))
	for name, table := range refused {
		if _, err := route.Parse(string(table)); err == nil {
			t.Errorf("%s is accepted", name)
		}
		if !slices.Contains(tests, name) && !slices.Contains(refusedByType, name) {
			t.Errorf("%s is not among Terraform's tests", name)
		}
	}
}

func TestCredentialsAreAcceptedAndRefusedAlike(t *testing.T) {
	t.Parallel()
	tests := read(t, "terraform/tests/registry_auth.tftest.hcl")
	registry := captures(`  registry += "(.*)"`, tests)
	if len(registry) != 1 {
		t.Fatalf("the tests have the registries %v", registry)
	}
	for _, file := range []string{"accepted", "refused"} {
		var table map[string]json.RawMessage
		if err := json.Unmarshal([]byte(read(t, "terraform/tests/registry_auth/"+file+".json")), &table); err != nil {
			t.Fatal(err)
		}
		for name, config := range table {
			settings := map[string]string{"REGISTRY": registry[0], "REGISTRY_AUTH": string(config)}
			_, err := trigger.ReadSettings(func(setting string) string { return settings[setting] })
			// Without the other settings there is always an error.
			if refused := strings.Contains(err.Error(), "credentials"); refused != (file == "refused") {
				t.Errorf("%s: refused is %t: %v", name, refused, err)
			}
			if !strings.Contains(tests, file+`.json"))["`+name+`"]`) {
				t.Errorf("%s is not among Terraform's tests", name)
			}
		}
	}
}

func TestTokensAreCheckedAlike(t *testing.T) {
	t.Parallel()
	m := regexp.MustCompile(`(?m)^  placeholder = "(.*)"$`).FindStringSubmatch(read(t, "terraform/grammar.tf"))
	if m == nil {
		t.Fatal("terraform/grammar.tf has no placeholder")
	}
	if theirs := strings.ReplaceAll(m[1], `\\`, `\`); theirs != auth.Placeholder {
		t.Errorf("placeholders are %s in terraform/, %s here", theirs, auth.Placeholder)
	}
	if least := fmt.Sprintf("try(length(token), 0) >= %d", auth.MinToken); strings.Count(read(t, "terraform/variables.tf"), least) != 2 {
		t.Errorf("terraform/variables.tf does not say %q of both kinds of tokens", least)
	}
	if !strings.Contains(read(t, "terraform/secrets.tf"), `join("\n", var.webhook_tokens)`) {
		t.Error("terraform/ does not write one token a line")
	}
}

// A Webhook without the exclusion has its URLs, and the tokens in them, in the
// log. Terraform makes what a resource depends on before it, and removes it after.
func TestWebhookIsNeverThereWithoutTheLogExclusion(t *testing.T) {
	t.Parallel()
	function := regexp.MustCompile(`(?s)resource "google_cloudfunctions2_function" "this" \{.*?\n\}\n`).FindString(read(t, "terraform/functions.tf"))
	needs := regexp.MustCompile(`(?s)\n  depends_on = \[(.*?)\]`).FindStringSubmatch(function)
	if needs == nil || !strings.Contains(needs[1], "google_logging_project_exclusion.webhook_urls,") {
		t.Errorf("the functions depend on %v", needs)
	}
	if strings.Contains(regexp.MustCompile(`(?s)resource "google_logging_project_exclusion" "webhook_urls" \{.*?\n\}\n`).FindString(read(t, "terraform/monitoring.tf")), "google_cloudfunctions2_function") {
		t.Error("the exclusion waits for the functions")
	}
}

// Inputs that no example needs to show: those with their default, and
// alternatives to an input that is shown.
var inNoExample = []string{"alerts", "existing_secrets", "ledger_location", "public_access", "reconcile", "registry"}

func TestTheCompleteExampleIsComplete(t *testing.T) {
	t.Parallel()
	example := read(t, "terraform/examples/complete/main.tf")
	for _, name := range captures(`(?m)^variable "([a-z_]+)"`, read(t, "terraform/variables.tf")) {
		if shown := regexp.MustCompile(`(?m)^  ` + name + ` +=`).MatchString(example); shown == slices.Contains(inNoExample, name) {
			t.Errorf("%s: in the example is %t", name, shown)
		}
	}
}

// terraform/ca.tf relies on this: SSL_CERT_FILE adds a CA to those of the
// system's directory of certificates. The pool is read once in a process, so
// another process checks it.
func TestTheCAOfGitLabIsTrustedBesideTheSystems(t *testing.T) {
	if files := os.Getenv("CERTIFICATES_TO_BE_TRUSTED"); files != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range filepath.SplitList(files) {
			block, _ := pem.Decode([]byte(read(t, file)))
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		return
	}
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("functions run on Linux; other systems ask their own store of certificates")
	}
	directory := t.TempDir()
	system := filepath.Join(directory, "system.pem")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(system, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600); err != nil {
		t.Fatal(err)
	}
	const gitlab = "terraform/examples/complete/ca.pem"
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+gitlab, "SSL_CERT_DIR="+directory,
		"CERTIFICATES_TO_BE_TRUSTED="+gitlab+string(os.PathListSeparator)+system)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
