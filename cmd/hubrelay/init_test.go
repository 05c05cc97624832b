package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/coordinator"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/skip"
)

// answered are all the flags without which init has to ask.
var answered = []string{
	"-project", "acme-hubrelay", "-region", "europe-west1", "-repository", "acme/api",
	"-gitlab-project", "acme/images/api", "-channel", "C0123456789",
}

// initialized is a folder that init has written, and what it said.
func initialized(t *testing.T, flags ...string) (folder, said string) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "set up")
	var out bytes.Buffer
	args := slices.Concat(answered, []string{"-dir", folder}, flags)
	if err := initialize(t.Context(), args, strings.NewReader(""), false, &out); err != nil {
		t.Fatal(err)
	}
	return folder, out.String()
}

func read(t *testing.T, name ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(name...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// next is the line of NEXT.md that begins so.
func next(t *testing.T, folder, command string) string {
	t.Helper()
	lines := regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(command)+` .*$`).FindAllString(read(t, folder, "NEXT.md"), -1)
	if len(lines) != 1 {
		t.Fatalf("NEXT.md has %d lines that begin with %s", len(lines), command)
	}
	return lines[0]
}

// environment is what a shell has that has read the secrets as NEXT.md says, once
// the two are filled in that people fill in.
func environment(t *testing.T, folder string) map[string]string {
	t.Helper()
	text := read(t, folder, "secrets.env")
	for empty, filled := range map[string]string{
		"SLACK_BOT_TOKEN=''":                "SLACK_BOT_TOKEN='xoxb-0123456789'",
		`GITLAB_TRIGGER_TOKENS='{"*": ""}'`: `GITLAB_TRIGGER_TOKENS='{"*": "glptt-0123456789"}'`,
	} {
		if strings.Count(text, empty) != 1 {
			t.Fatalf("secrets.env has not one %s to fill in", empty)
		}
		text = strings.Replace(text, empty, filled, 1)
	}
	if err := os.WriteFile(filepath.Join(folder, "secrets.env"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-euc", next(t, folder, ".")+"\nenv -0")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for pair := range strings.SplitSeq(string(out), "\x00") {
		name, value, _ := strings.Cut(pair, "=")
		set[name] = value
	}
	return set
}

func TestInitSaysWhatItWrote(t *testing.T) {
	t.Parallel()
	folder, said := initialized(t)
	modes := map[string]fs.FileMode{}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		modes[entry.Name()] = info.Mode()
		if !strings.Contains(said, "\n  "+entry.Name()+"  ") {
			t.Errorf("it does not say that it wrote %s", entry.Name())
		}
	}
	want := map[string]fs.FileMode{
		".gitignore": 0o644, ".gitlab-ci.yml": 0o644, "NEXT.md": 0o644, "secrets.env": 0o600, "slack-manifest.yml": 0o644, "terraform.tfvars": 0o644,
	}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Error(diff)
	}
	if !strings.HasSuffix(said, "\n\n"+read(t, folder, "NEXT.md")) {
		t.Error("it does not end with what is left to do")
	}
	if !slices.Contains(strings.Split(read(t, folder, ".gitignore"), "\n"), "/secrets.env") {
		t.Error("git would take the secrets")
	}
}

// The five links, in the order in which each is needed.
func TestInitLinksWhatIsDoneByHand(t *testing.T) {
	t.Parallel()
	_, said := initialized(t, "-gitlab-url", "https://gitlab.acme.example/git/")
	for _, link := range []string{
		"\n## 1. Create the Slack app\n\nhttps://api.slack.com/apps?new_app=1\n",
		"\n## 2. Invite the bot\n\nhttps://slack.com/app_redirect?channel=C0123456789\n",
		"\n## 3. Create a trigger token\n\nhttps://gitlab.acme.example/git/acme/images/api/-/settings/ci_cd#js-pipeline-triggers\n",
		"\n## 4. Set the variables of the pipeline\n\nhttps://gitlab.acme.example/git/acme/images/api/-/settings/ci_cd#js-cicd-variables-settings\n",
		"\n## 5. Register the webhook\n\nhttps://hub.docker.com/repository/docker/acme/api/webhooks\n",
	} {
		_, rest, ok := strings.Cut(said, link)
		if !ok {
			t.Fatalf("%q is not in\n%s", link, said)
		}
		said = rest
	}
}

// What NEXT.md says of the runbook and of Terraform is there.
func TestInitNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	folder, _ := initialized(t)
	next, runbook, outputs := read(t, folder, "NEXT.md"), read(t, "../../docs/operations.md"), read(t, "../../terraform/outputs.tf")
	for _, title := range []string{"### 3. The Google Cloud project", "**Where the state is.**", "**For private images**", "### 7. A real tag"} {
		if !strings.Contains(runbook, title) || !strings.Contains(next, "*"+strings.Trim(title, "#*.0123456789 ")+"*") {
			t.Errorf("%q is not in both", title)
		}
	}
	names := regexp.MustCompile(`output -raw ([a-z_]+)`).FindAllStringSubmatch(next, -1)
	if len(names) != 2 {
		t.Errorf("%d outputs of Terraform", len(names))
	}
	for _, name := range names {
		if !strings.Contains(outputs, `output "`+name[1]+`"`) {
			t.Errorf("Terraform has no output %s", name[1])
		}
	}
}

func TestInitKeepsSecretsInOneFile(t *testing.T) {
	t.Parallel()
	folder, said := initialized(t)
	again, _ := initialized(t)
	secrets := regexp.MustCompile(`[0-9a-f]{48}`).FindAllString(read(t, folder, "secrets.env"), -1)
	if len(secrets) != 2 || secrets[0] == secrets[1] {
		t.Fatalf("%d secrets were made", len(secrets))
	}
	for _, secret := range secrets {
		if strings.Contains(read(t, again, "secrets.env"), secret) {
			t.Error("a secret is not new each time")
		}
		for _, f := range written {
			if f.name != "secrets.env" && strings.Contains(read(t, folder, f.name), secret) {
				t.Errorf("%s has a secret", f.name)
			}
		}
		if strings.Contains(said, secret) {
			t.Error("a secret is printed")
		}
	}
}

func TestTheEnvironmentOfInitHasTheSettings(t *testing.T) {
	t.Parallel()
	folder, _ := initialized(t, "-language", "ja", "-gitlab-url", "https://gitlab.acme.example")
	set := environment(t, folder)
	routes, err := route.Parse(set["ROUTES"])
	if err != nil {
		t.Fatal(err)
	}
	r, ok := routes.Find("acme/api")
	if !ok || r.GitLab.Project != "acme/images/api" || r.Slack.Channel != "C0123456789" {
		t.Errorf("the route is %+v", r)
	}
	tokens, err := auth.ParseTokens(set["WEBHOOK_TOKENS"])
	if err != nil || !tokens.Valid(set["WEBHOOK_TOKEN"]) {
		t.Errorf("the webhook's token: %v", err)
	}
	for name, want := range map[string]string{
		"GITLAB_TRIGGER_TOKENS": `{"*": "glptt-0123456789"}`, "SLACK_BOT_TOKEN": "xoxb-0123456789",
		"GITLAB_URL": "https://gitlab.acme.example", "DEFAULT_CHANNEL": "C0123456789", "LANGUAGE": "ja",
	} {
		if set[name] != want {
			t.Errorf("%s is %q, not %q", name, set[name], want)
		}
	}
	if len(set["COSIGN_PASSWORD"]) < auth.MinToken {
		t.Error("there is no password for the key")
	}
}

// TestTerraformTakesWhatInitWrites has Terraform itself look at it: every rule for
// what can be set, and the whole configuration, without an account.
func TestTerraformTakesWhatInitWrites(t *testing.T) {
	t.Parallel()
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		skip.UnlessCI(t, "terraform on what init writes: it is not installed")
	}
	for _, flags := range [][]string{nil, {"-language", "ja", "-gitlab-url", "https://gitlab.acme.example:8443/git", "-force"}} {
		t.Run(fmt.Sprint(flags), func(t *testing.T) {
			t.Parallel()
			folder, _ := initialized(t, flags...)
			checkout := t.TempDir()
			if err := os.CopyFS(filepath.Join(checkout, "terraform"), os.DirFS("../../terraform")); err != nil {
				t.Fatal(err)
			}
			set := environment(t, folder)
			run := func(in string, args ...string) string {
				t.Helper()
				cmd := exec.Command(terraform, args...)
				cmd.Dir = checkout
				cmd.Env = append(os.Environ(), "TF_IN_AUTOMATION=1", "NO_COLOR=1")
				for name, value := range set {
					if strings.HasPrefix(name, "TF_VAR_") {
						cmd.Env = append(cmd.Env, name+"="+value)
					}
				}
				cmd.Stdin = strings.NewReader(in)
				var said bytes.Buffer
				cmd.Stderr = &said
				out, err := cmd.Output()
				if err != nil && args[1] == "init" {
					skip.UnlessCI(t, "terraform on what init writes: its providers could not be had: "+said.String())
				}
				if err != nil {
					t.Fatalf("terraform %v: %v\n%s%s", args, err, out, &said)
				}
				return string(out)
			}
			cp := exec.Command("sh", "-euc", next(t, folder, "cp"))
			cp.Dir = checkout
			if out, err := cp.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			const rules, settings = "-chdir=terraform/tests/variables", "-var-file=../../terraform.tfvars"
			run("", rules, "init")
			if out := run("", rules, "plan", settings); !strings.Contains(out, "No changes.") {
				t.Errorf("terraform plan says: %s", out)
			}
			encoded := strings.Trim(run("base64encode(jsonencode(var.routes))\n", rules, "console", settings), "\"\n")
			text, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				t.Fatalf("%v in %s", err, encoded)
			}
			theirs, err := route.Parse(string(text))
			if err != nil {
				t.Fatalf("%v in %s", err, text)
			}
			ours, err := route.Parse(set["ROUTES"])
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(ours.All(), theirs.All(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("ROUTES of secrets.env (-), routes of terraform.tfvars (+):\n%s", diff)
			}
			run("", "-chdir=terraform", "fmt", "-check", "terraform.tfvars")
			run("", "-chdir=terraform", "init", "-backend=false", "-input=false")
			run("", "-chdir=terraform", "validate")
		})
	}
}

// What init knows of Terraform's rules is what stands there.
func TestInitKnowsTerraformsRules(t *testing.T) {
	t.Parallel()
	variables, locals := read(t, "../../terraform/variables.tf"), read(t, "../../terraform/locals.tf")
	for _, rule := range []*regexp.Regexp{projectID, region} {
		if !strings.Contains(variables, `can(regex("`+rule.String()+`", var.`) {
			t.Errorf("terraform/variables.tf has not the rule %s", rule)
		}
	}
	if !strings.Contains(locals, `notify_audience = "https://${var.region}-${var.project_id}.cloudfunctions.net/${local.notify}"`) || !strings.Contains(locals, `notify  = "${var.name}-notify"`) {
		t.Error("terraform/locals.tf makes another audience of Notify")
	}
}

// The files are those that docs/gitlab.md shows, but for what is one's own.
func TestInitWritesTheFilesOfTheDocuments(t *testing.T) {
	t.Parallel()
	folder, _ := initialized(t)
	own := regexp.MustCompile(`(?m)^( *)(?:- (?:component|remote):|(notify_[a-z]+:)).*$`)
	var pipelines, manifests []string
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(read(t, "../../docs/gitlab.md"), -1) {
		text := strings.TrimSuffix(strings.ReplaceAll("\n"+block[1], "\n   ", "\n"), "   ")[1:]
		if text, _, ok := strings.Cut(text, "\n# A job of your own"); ok && strings.HasPrefix(text, "spec:") {
			pipelines = append(pipelines, own.ReplaceAllString(text, "$1$2"))
		}
		if strings.HasPrefix(block[1], "display_information:") {
			manifests = append(manifests, block[1])
		}
	}
	if diff := cmp.Diff(pipelines, []string{own.ReplaceAllString(read(t, folder, ".gitlab-ci.yml"), "$1$2")}); diff != "" {
		t.Errorf("docs/gitlab.md (-), init (+):\n%s", diff)
	}
	if diff := cmp.Diff(manifests, []string{read(t, folder, "slack-manifest.yml")}); diff != "" {
		t.Errorf("docs/gitlab.md (-), init (+):\n%s", diff)
	}
}

// The pipeline has the jobs of the template and no others, and its reports go where
// the project's variable says.
func TestThePipelineThatInitWrites(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		skip.UnlessCI(t, "the pipeline that init writes: there is no curl")
	}
	promote := read(t, "../../templates/promote.yml")
	for _, c := range []struct{ name, template, address string }{
		{"the template of this version", "", "https://raw.githubusercontent.com/getto-systems/hubrelay/" + release + "/templates/promote.yml"},
		{"a URL", "https://mirror.example/a~b/promote.yml", "https://mirror.example/a~b/promote.yml"},
		{"a component", "acme/hubrelay/promote@1.2.3", "gitlab.example/acme/hubrelay/promote@1.2.3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var report map[string][]string
			notify := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm()
				report = r.PostForm
			}))
			t.Cleanup(notify.Close)
			folder, _ := initialized(t, "-template", c.template)
			project := coordinator.Project{
				Path: "acme/images/api", Files: map[string]string{".gitlab-ci.yml": read(t, folder, ".gitlab-ci.yml")},
				Elsewhere: map[string]string{c.address: promote},
				Variables: []coordinator.Variable{{Name: "NOTIFY_URL", Value: notify.URL}},
			}
			made, err := project.Create(coordinator.Request{Inputs: map[string]any{
				"image_repository": "acme/api", "image_tag": "1.10", "image_digest": "sha256:" + strings.Repeat("a", 64),
				"image_pushed_at": "2026-11-25T21:15:00.123456Z", "promotion_id": strings.Repeat("1", 32),
			}})
			if err != nil {
				t.Fatal(err)
			}
			var jobs []string
			for _, j := range made.Jobs {
				jobs = append(jobs, j.Name)
			}
			if diff := cmp.Diff([]string{"hubrelay-running", "hubrelay-promote", "hubrelay-done", "hubrelay-failed"}, jobs); diff != "" {
				t.Error(diff)
			}
			if made.Name != "acme/api:1.10" || made.AutoCancel != "none" {
				t.Errorf("the pipeline is %q, auto_cancel %q", made.Name, made.AutoCancel)
			}
			var audience string
			runner := &coordinator.Runner{
				Dir: t.TempDir(), Shell: []string{"sh"}, Env: []string{"PATH=" + os.Getenv("PATH")},
				Token: func(_ *coordinator.Pipeline, a string) (string, error) { audience = a; return "a.b.c", nil },
			}
			attempt, err := runner.RunJob(t.Context(), made, "hubrelay-running", nil)
			if err != nil || attempt.Status != "success" {
				t.Fatalf("%v\n%s", err, attempt.Log)
			}
			if audience != "https://europe-west1-acme-hubrelay.cloudfunctions.net/hubrelay-notify" {
				t.Errorf("the audience is %s", audience)
			}
			if got := fmt.Sprint(report["status"], report["repository"], report["tag"]); got != "[running] [acme/api] [1.10]" {
				t.Errorf("Notify was told %v", report)
			}
			if made, err := project.Create(coordinator.Request{Source: "push"}); err == nil {
				t.Errorf("a commit has a pipeline of %d jobs", len(made.Jobs))
			}
		})
	}
}

func TestInitAsks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		flags []string
		typed string
		said  []string          // in this order
		wants map[string]string // what stands in which file
	}{
		{
			"everything, with defaults", nil, "acme-hubrelay\n\nacme/api\n\n\nC0123456789\n\n\n",
			[]string{"ID of the Google Cloud project: ", "Region for everything; it cannot be changed later [europe-west1]: ", "URL of GitLab [https://gitlab.com]: ", "[acme/api]: ", "en or ja [en]: ", "/templates/promote.yml]: ", "Written into"},
			map[string]string{"terraform.tfvars": `region     = "europe-west1"`, ".gitlab-ci.yml": "remote: https://raw.githubusercontent.com/", "NEXT.md": "https://gitlab.com/acme/api/-/settings"},
		},
		{
			"nothing but what the flags leave open", []string{"-project", "acme-hubrelay", "-region", "asia-northeast1", "-repository", "acme/api", "-gitlab-url", "https://gitlab.acme.example", "-language", "ja", "-template", "a/b/promote@1"},
			"\nC0123456789", []string{"Path of the GitLab project that runs the pipeline [acme/api]: ", "ID of the Slack channel", "Written into"},
			map[string]string{"terraform.tfvars": `language   = "ja"`, ".gitlab-ci.yml": "component: $CI_SERVER_FQDN/a/b/promote@1"},
		},
		{
			"again, with a word about what is wrong", nil,
			"\nAcme Images\n123456789012\n acme-hubrelay \neurope-west1-a\neu\nus-central1\napi\nacme/api:1.0\nhttps://hub.docker.com/r/acme/api\nAcme/API\nacme/api\nhttp://gitlab.acme.example\ngitlab.com\nhttps://user:canary@gitlab.com\nhttps://gitlab.acme.example/\nhttps://gitlab.acme.example/acme/images/api\n4711\napi\nacme/images/api\n#images\nimages\nU0123456789\nC0123456789\nfr\nja\npromote.yml\nacme/hubrelay/promote\nhttp://x.example/promote.yml\nacme/hubrelay/promote@0.1.0\n",
			[]string{
				"An answer is required", "is not the ID of a project", "is not the ID of a project", "Region",
				"is not a region", "is not a region", "Repository",
				"is not a namespace and a name", "without registry and tag", "is not a namespace", "is not a namespace", "URL of GitLab",
				"is not the URL of a GitLab, which starts with https://", "is not the URL", "is not the URL", "Path of the GitLab project",
				"is not the path of a project, such as acme/images/api, which is neither its URL nor its ID", "is not the path", "is not the path", "ID of the Slack channel",
				"is not the ID of a channel", "is not the ID of a channel", "is not the ID of a channel", "Language",
				"is not a language", "Where GitLab finds the template", "is not where", "is not where", "is not where", "Written into",
			},
			map[string]string{"terraform.tfvars": `"acme/api" = {`, "secrets.env": "GITLAB_URL='https://gitlab.acme.example'", ".gitlab-ci.yml": "component: $CI_SERVER_FQDN/acme/hubrelay/promote@0.1.0"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var (
				folder = filepath.Join(t.TempDir(), "new", "folder")
				out    bytes.Buffer
			)
			if err := initialize(t.Context(), append(c.flags, "-dir", folder), strings.NewReader(c.typed), true, &out); err != nil {
				t.Fatalf("%v after\n%s", err, out.String())
			}
			rest := out.String()
			for _, want := range c.said {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("%q is not in its place in\n%s", want, out.String())
				}
				rest = after
			}
			for name, want := range c.wants {
				if text := read(t, folder, name); !strings.Contains(text, want) {
					t.Errorf("%s has no %q:\n%s", name, want, text)
				}
			}
		})
	}
}

func TestMistakesOfInit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		flags []string
		wants []string
	}{
		{"no flags and no terminal", nil, []string{"no terminal", "-project, -region, -repository, -gitlab-project, -channel"}},
		{"some flags and no terminal", []string{"-project", "acme-hubrelay", "-channel", "C0123456789"}, []string{"give -region, -repository, -gitlab-project"}},
		{"flags that are wrong and flags that are missing", []string{"-project", "Acme", "-repository", "acme/api:1", "-language", "fr"},
			[]string{"-project: this is not the ID", "-repository: this is not a namespace", "-language: this is not a language", "-region, -gitlab-project, -channel"}},
		{"a GitLab at a port that cannot be", []string{"-gitlab-url", "https://gitlab.acme.example:99999"}, []string{"-gitlab-url: "}},
		{"a GitLab at a port that Terraform does not take", []string{"-gitlab-url", "https://gitlab.acme.example:0443"}, []string{"-gitlab-url: "}},
		{"a project in the place of GitLab", []string{"-gitlab-url", "https://gitlab.com/acme/images/api"}, []string{"-gitlab-url: this is the URL of a group or project"}},
		{"the path of a clone", []string{"-gitlab-project", "acme/images/api.git"}, []string{"-gitlab-project: this is the path of a clone: leave out .git"}},
		{"a registry in the place of a namespace", []string{"-repository", "docker.io/api"}, []string{"-repository: this is not a namespace and a name"}},
		{"a page that shows the template", []string{"-template", "https://github.com/getto-systems/hubrelay/blob/v0.1.0/templates/promote.yml"}, []string{"-template: this is not where a template is, but a page that shows it"}},
		{"a GitLab without a name", []string{"-gitlab-url", "https://..."}, []string{"-gitlab-url: "}},
		{"secrets in the wrong place", []string{"-gitlab-url", "https://user:canary@gitlab.com", "-channel", "xoxb-canary", "-project", "canary!"}, []string{"-gitlab-url: ", "-channel: ", "-project: "}},
		{"an argument", []string{"acme/api"}, []string{`no arguments, and "acme/api" is one`}},
		{"no folder", []string{"-dir", ""}, []string{"-dir is empty"}},
		{"a folder that is a file", []string{"-dir", "init.go"}, []string{"init.go", "not a directory"}},
		{"a flag that there is not", []string{"-poject", "x"}, []string{"not defined: -poject", "hubrelay init -h"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := []string{"-dir", filepath.Join(t.TempDir(), "new")}
			err := initialize(t.Context(), append(dir, c.flags...), strings.NewReader("not read"), false, io.Discard)
			if err == nil {
				t.Fatal("was taken")
			}
			for _, want := range c.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "canary") {
				t.Errorf("it is not one line, or repeats a secret: %v", err)
			}
			if entries, _ := os.ReadDir(filepath.Dir(dir[1])); len(entries) > 0 {
				t.Errorf("it left %v", entries)
			}
		})
	}
}

func TestInitWhereTheInputEnds(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]string{
		"":                           "the input has ended; nothing was written. These flags answer the rest: -project, -region, -repository, -gitlab-url, -gitlab-project, -channel, -language, -template",
		"acme-hubrelay\nus-central1": "These flags answer the rest: -repository, -gitlab-url, -gitlab-project, -channel, -language, -template",
		strings.Repeat("a", longestAnswer+1) + "\n": "read the answer: bufio.Scanner: token too long",
	} {
		parent := t.TempDir()
		err := initialize(t.Context(), []string{"-dir", filepath.Join(parent, "new")}, strings.NewReader(typed), true, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50q: %v", typed, err)
		}
		if entries, _ := os.ReadDir(parent); len(entries) > 0 {
			t.Errorf("it left %v", entries)
		}
	}
}

func TestAnInterruptedInitLeavesNothing(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	in, typed := io.Pipe()
	t.Cleanup(func() { _ = typed.Close() })
	var (
		out  screen
		done = make(chan error)
	)
	go func() { done <- initialize(ctx, []string{"-dir", filepath.Join(parent, "new")}, in, true, &out) }()
	fmt.Fprintln(typed, "acme-hubrelay")
	out.wait(t, "Region")
	cancel()
	select {
	case err := <-done:
		if err == nil || err.Error() != "interrupted; nothing was written" {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on")
	}
	if entries, _ := os.ReadDir(parent); len(entries) > 0 {
		t.Errorf("it left %v", entries)
	}
}

// tree is what is in a folder: the text of each file, "/" for a folder.
func tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(folder, name)
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			all[relative] = "/"
		case entry.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			all[relative] = "to " + target
			return err
		default:
			all[relative] = read(t, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestInitOverwritesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make func(folder string) error
		want string
	}{
		{"a file", func(folder string) error {
			return os.WriteFile(filepath.Join(folder, "NEXT.md"), []byte("mine"), 0o600)
		}, "has NEXT.md: give another -dir, or -force to overwrite"},
		{"two files", func(folder string) error {
			return errorsOf(os.WriteFile(filepath.Join(folder, "secrets.env"), nil, 0o600), os.WriteFile(filepath.Join(folder, ".gitignore"), nil, 0o600))
		}, "has secrets.env, .gitignore"},
		{"a link that leads nowhere", func(folder string) error {
			return os.Symlink("/does/not/exist", filepath.Join(folder, "terraform.tfvars"))
		}, "has terraform.tfvars"},
		{"a folder of that name", func(folder string) error { return os.Mkdir(filepath.Join(folder, ".gitlab-ci.yml"), 0o700) }, "has a folder called .gitlab-ci.yml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			if err := c.make(folder); err != nil {
				t.Fatal(err)
			}
			before := tree(t, folder)
			err := initialize(t.Context(), append([]string{"-dir", folder}, answered...), nil, false, io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if diff := cmp.Diff(before, tree(t, folder)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestInitWritesBesideWhatIsThere(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "README.md"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := initialize(t.Context(), append([]string{"-dir", folder}, answered...), nil, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, folder); len(got) != len(written)+2 || got["README.md"] != "mine" {
		t.Errorf("there is %v", got)
	}
}

func TestInitOverwritesByForce(t *testing.T) {
	t.Parallel()
	folder, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "file")
	for _, err := range []error{
		os.WriteFile(elsewhere, []byte("mine"), 0o600),
		os.WriteFile(filepath.Join(folder, "secrets.env"), []byte("old"), 0o644),
		os.Symlink(elsewhere, filepath.Join(folder, "NEXT.md")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := initialize(t.Context(), append([]string{"-force", "-dir", folder}, answered...), nil, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, folder); len(got) != len(written)+1 || got["secrets.env"] == "old" || !strings.HasPrefix(got["NEXT.md"], "# ") {
		t.Errorf("there is %v", got)
	}
	if info, err := os.Stat(filepath.Join(folder, "secrets.env")); err != nil || info.Mode() != 0o600 {
		t.Errorf("the secrets have the mode %v, %v", info.Mode(), err)
	}
	if read(t, elsewhere) != "mine" {
		t.Error("what a link leads to was overwritten")
	}
}

// Whatever fails, at whichever file, the folder is what it was.
func TestInitWritesAllOrNothing(t *testing.T) {
	t.Parallel()
	files := func() []file {
		made := slices.Clone(written)
		for i := range made {
			made[i].text = []byte("new")
		}
		return made
	}
	for _, force := range []bool{false, true} {
		for at := range written {
			folder := t.TempDir()
			if force {
				for _, f := range written {
					if err := os.WriteFile(filepath.Join(folder, f.name), []byte("old"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			before := tree(t, folder)
			ctx := &interrupted{Context: t.Context(), after: at}
			if err := place(ctx, folder, files(), force); err == nil || err.Error() != "interrupted" {
				t.Errorf("force %t, at file %d: %v", force, at, err)
			}
			if diff := cmp.Diff(before, tree(t, folder)); diff != "" {
				t.Errorf("force %t, at file %d: %s", force, at, diff)
			}
		}
	}
	for _, name := range []string{"NEXT.md", "not/there"} {
		parent := t.TempDir()
		made := files()
		made[len(made)-1].name = name
		made = append(made, made[0]) // stands there by then
		if err := place(t.Context(), filepath.Join(parent, "a", "b"), made, false); err == nil {
			t.Errorf("%s: was written", name)
		}
		if entries, _ := os.ReadDir(parent); len(entries) > 0 {
			t.Errorf("%s: it left %v", name, entries)
		}
	}
}

// interrupted is done when it was asked that often.
type interrupted struct {
	context.Context
	after int
}

func (i *interrupted) Err() error {
	if i.after--; i.after < 0 {
		return context.Canceled
	}
	return nil
}

// Nobody makes folders there, not even root.
func TestInitWhereNobodyMayWrite(t *testing.T) {
	t.Parallel()
	err := initialize(t.Context(), append([]string{"-dir", "/proc/new/folder"}, answered...), nil, false, io.Discard)
	if err == nil || !strings.HasPrefix(err.Error(), "nothing was written: ") {
		t.Error(err)
	}
}

func TestNobodyAnswersFromNowhere(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = null.Close() })
	plain, err := os.Open("init.go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	if canAnswer(null) || canAnswer(plain) {
		t.Error("a question would be asked of nobody")
	}
}

// What an answer may hold means nothing to a shell, to YAML, to HCL or to Markdown.
func FuzzAnswersOfInit(f *testing.F) {
	for _, text := range []string{"acme-hubrelay", "europe-west1", "acme/api", "https://gitlab.com:8443/git", "acme/images/api", "C0123456789", "en", "acme/hubrelay/promote@~latest", "a/${b}", "a/b' 'c", "https://x/#y", "a: b", "https://:"} {
		f.Add(text)
	}
	plain := regexp.MustCompile(`^[A-Za-z0-9._~:/@%+-]+$`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, q := range questions(&answers{}) {
			if answer, err := q.read(text); err == nil && (!plain.MatchString(answer) || strings.HasSuffix(answer, ":")) {
				t.Errorf("-%s takes %q", q.flag, text)
			}
		}
	})
}
