package coordinator_test

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/coordinator"
	"github.com/getto-systems/hubrelay/internal/skip"
)

func project(file string) coordinator.Project {
	return coordinator.Project{Path: "acme/images/api", Files: map[string]string{".gitlab-ci.yml": file}}
}

func names(p *coordinator.Pipeline) string {
	var all []string
	for _, j := range p.Jobs {
		all = append(all, j.Name)
	}
	return strings.Join(all, " ")
}

func create(t *testing.T, p coordinator.Project, r coordinator.Request) *coordinator.Pipeline {
	t.Helper()
	pipeline, err := p.Create(r)
	if err != nil {
		t.Fatal(err)
	}
	return pipeline
}

func TestInputsAreCheckedAsGitLabDoes(t *testing.T) {
	t.Parallel()
	const file = `spec:
  inputs:
    tag: {default: "", regex: '^([a-z0-9.]{0,5})?$'}
    kind: {default: a, options: [a, b]}
    on: {type: boolean, default: false}
    name:
---
job:
  script: ["echo $[[ inputs.name ]] $[[inputs.tag]] $[[ inputs.on ]]"]
`
	for _, c := range []struct {
		name   string
		inputs map[string]any
		refuse string
	}{
		{"all that is required", map[string]any{"name": "x"}, ""},
		{"a required one is missing", nil, "required value has not been provided"},
		{"an unknown one", map[string]any{"name": "x", "other": "y"}, "unknown input arguments: other"},
		{"a value that the expression refuses", map[string]any{"name": "x", "tag": "$(id)"}, "does not match required RegEx"},
		{"a second line behind a value that matches", map[string]any{"name": "x", "tag": "a\nb"}, "does not match required RegEx"},
		{"no option", map[string]any{"name": "x", "kind": "c"}, "allowed options"},
		{"a number where a string is wanted", map[string]any{"name": 1.1}, "is not a string"},
		{"a string where a boolean is wanted", map[string]any{"name": "x", "on": "true"}, "is not a boolean"},
		{"a boolean", map[string]any{"name": "x", "on": true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, err := project(file).Create(coordinator.Request{Inputs: c.inputs})
			if c.refuse != "" {
				if err == nil || !strings.Contains(err.Error(), c.refuse) {
					t.Errorf("got %v, want %q", err, c.refuse)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if on := "false"; c.inputs["on"] == true {
				on = "true"
				if got := p.Jobs[0].Script[0]; got != "echo x  "+on {
					t.Errorf("the script is %q", got)
				}
			}
		})
	}
}

// Inputs are inserted before the YAML is read, so that their types change.
func TestUnquotedInputsAreWhatYAMLMakesOfThem(t *testing.T) {
	t.Parallel()
	p := project("")
	p.Files["inner.yml"] = "spec:\n  inputs:\n    v:\n---\njob: {script: [\"true\"]}\n"
	for _, quote := range []string{"", `"`} {
		p.Files[".gitlab-ci.yml"] = "spec:\n  inputs:\n    v:\n---\ninclude:\n  - local: inner.yml\n    inputs: {v: " + quote + "$[[ inputs.v ]]" + quote + "}\n"
		for _, value := range []string{"1.10", "2026-11-25T21:15:00Z", "1e10", "true", "on"} {
			if _, err := p.Create(coordinator.Request{Inputs: map[string]any{"v": value}}); (err != nil) != (quote == "") {
				t.Errorf("%s%s%s: %v", quote, value, quote, err)
			}
		}
	}
}

func TestWhichJobsAPipelineHas(t *testing.T) {
	t.Parallel()
	const file = `
stages: [build, deploy]
workflow:
  name: of $WHO
  auto_cancel: {on_new_commit: none}
  rules:
    - if: $CI_PIPELINE_SOURCE == "schedule"
      when: never
    - when: always
variables: {WHO: file, EMPTY: ""}
.base:
  script: ["true"]
  tags: [base]
  rules:
    - if: $EMPTY || $WHO
first: {extends: .base, stage: .pre, rules: [{when: on_success}]}
never: {extends: .base}
pushed:
  extends: .base
  stage: build
  rules:
    - if: $CI_PIPELINE_SOURCE == "push"
    - if: $WHO == "trigger"
      allow_failure: true
tagged: {extends: .base, stage: deploy, tags: [own], rules: [{if: '$WHO != "project"'}]}
`
	p := project(file)
	if got := create(t, p, coordinator.Request{Source: "push"}); names(got) != "first pushed tagged" || got.Name != "of file" || got.AutoCancel != "none" {
		t.Errorf("pushed: %q %s %s", names(got), got.Name, got.AutoCancel)
	}
	got := create(t, p, coordinator.Request{Variables: map[string]string{"WHO": "trigger"}})
	if names(got) != "first pushed tagged" || !got.Job("pushed").AllowFailure || got.Job("tagged").Tags[0] != "own" || got.Job("first").Tags[0] != "base" {
		t.Errorf("triggered: %q %+v", names(got), got.Job("pushed"))
	}
	p.Variables = []coordinator.Variable{{Name: "WHO", Value: "project"}}
	if _, err := p.Create(coordinator.Request{}); !errors.Is(err, coordinator.ErrNoJobs) {
		t.Errorf("jobs of .pre alone: %v", err)
	}
	if _, err := p.Create(coordinator.Request{Source: "schedule"}); err == nil || !strings.Contains(err.Error(), "workflow rules") {
		t.Errorf("filtered: %v", err)
	}
}

func TestWhatIsNotKnownIsRefused(t *testing.T) {
	t.Parallel()
	for _, file := range []string{
		"job: {script: [a], parallel: 3}", "job: {script: [a], rules: [{exists: [a]}]}", "job: {script: [a], rules: [{if: '$A = 1'}]}",
		"job: {script: [a], stage: nowhere}", "job: {}", "include: [{project: a/b, file: c}]\njob: {script: [a]}", "job: {script: [a], retry: 3}",
		"job: {script: [!reference [.no, script]]}", "job: {script: [a], variables: {A: [b]}}", "[", "- a",
	} {
		if p, err := project(file).Create(coordinator.Request{}); err == nil {
			t.Errorf("%s has the jobs %s", file, names(p))
		}
	}
}

var shells = map[string][]string{"bash": {"bash", "-l"}, "bash, old": {"bash", "-l"}, "dash": {"dash", "-l"}, "busybox": {"busybox", "sh", "-l"}, "busybox, old": {"busybox", "sh", "-l"}}

// eachShell runs the test with a runner for each shell that jobs have.
func eachShell(t *testing.T, test func(*testing.T, *coordinator.Runner)) {
	t.Parallel()
	for name, shell := range shells {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(shell[0]); err != nil {
				skip.UnlessCI(t, err.Error())
			}
			test(t, &coordinator.Runner{Dir: t.TempDir(), Shell: shell, Old: strings.HasSuffix(name, "old"), Env: []string{"PATH=" + os.Getenv("PATH")}})
		})
	}
}

func run(t *testing.T, r *coordinator.Runner, p *coordinator.Pipeline) *coordinator.Result {
	t.Helper()
	result, err := r.Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func TestAPipelineRuns(t *testing.T) {
	eachShell(t, func(t *testing.T, r *coordinator.Runner) {
		p := project(`
stages: [one, two]
.quoted: {script: ["echo \"it's $GREETING\""]}
first:
  stage: one
  variables: {GREETING: "$NAME and 'more'", KEPT: {value: "$NAME", expand: false}}
  script:
    - !reference [.quoted, script]
    - |
      echo "KEPT=$KEPT" > left.env
      echo "file $(cat "$SECRET") from $SECRET"
      cat
  after_script: ['echo "status $CI_JOB_STATUS"; echo AFTER=yes >> left.env']
  artifacts: {reports: {dotenv: left.env}}
second:
  stage: two
  script: ['echo "got $KEPT $AFTER"', "ls", "false | true"]
third:
  stage: .post
  rules: [{when: on_failure}]
  dependencies: []
  script: ['echo "nothing: ${AFTER-none}"']
fourth: {stage: .post, script: ["echo never"]}
`)
		p.Variables = []coordinator.Variable{{Name: "NAME", Value: "you"}, {Name: "SECRET", Value: "several\nlines", File: true}}
		result := run(t, r, create(t, p, coordinator.Request{}))
		for job, says := range map[string][]string{
			"first":  {"it's you and 'more'", "file several\nlines from /", "status success"},
			"second": {"got $NAME yes", "left.env"}, // the folder stays
		} {
			for _, words := range says {
				if !strings.Contains(result.Jobs[job].Log, words) {
					t.Errorf("%s does not say %q: %s", job, words, result.Jobs[job].Log)
				}
			}
		}
		if r.Shell[0] == "dash" { // which has no pipefail
			if result.Status != "success" {
				t.Errorf("the pipeline is %s", result.Status)
			}
			return
		}
		if result.Status != "failed" || result.Jobs["second"].Code != 1 || !strings.Contains(result.Jobs["third"].Log, "nothing: none") {
			t.Errorf("got %+v", result)
		}
		if _, ran := result.Jobs["fourth"]; ran {
			t.Error("a job ran after a failure")
		}
	})
}

func TestRetriesByExitCode(t *testing.T) {
	eachShell(t, func(t *testing.T, r *coordinator.Runner) {
		const file = `
job:
  retry: {max: 2, when: [runner_system_failure], exit_codes: [6]}
  script: ['echo again >> tries', 'n=$(wc -l < tries)', 'if [ "$n" -lt 3 ]; then exit "$CODE"; fi']
`
		for code, tries := range map[string]int{"6": 3, "3": 1} {
			r.Dir = t.TempDir()
			result := run(t, r, create(t, project(file), coordinator.Request{Variables: map[string]string{"CODE": code}}))
			if len(result.Order) != tries || result.Jobs["job"].Number != tries || (result.Status == "success") != (tries == 3) {
				t.Errorf("code %s: %+v", code, result)
			}
		}
		r.Dir = t.TempDir()
		r.Sabotage = func(_ string, attempt int) coordinator.Sabotage { return coordinator.Sabotage{Before: attempt == 1} }
		if result := run(t, r, create(t, project(file), coordinator.Request{Variables: map[string]string{"CODE": "0"}})); result.Status != "success" || len(result.Order) != 2 {
			t.Errorf("after the runner was lost: %+v", result)
		}
	})
}

func TestACanceledJob(t *testing.T) {
	eachShell(t, func(t *testing.T, r *coordinator.Runner) {
		p := create(t, project(`
job:
  script: ["echo A=b > left.env", "sleep 60"]
  after_script: ['echo "status $CI_JOB_STATUS"']
  artifacts: {when: always, reports: {dotenv: left.env}}
later: {stage: .post, script: ["true"]}
`), coordinator.Request{})
		for why, s := range map[string]coordinator.Sabotage{"canceled": {Cancel: time.Second}, "failed": {Kill: time.Second}} {
			r.Sabotage = func(string, int) coordinator.Sabotage { return s }
			began := time.Now()
			result := run(t, r, p)
			job := result.Jobs["job"]
			if job.Status != why || !strings.Contains(job.Log, "status "+why) || !maps.Equal(job.Dotenv, map[string]string{"A": "b"}) || time.Since(began) > 20*time.Second {
				t.Errorf("%s: %+v after %v", why, result, time.Since(began))
			}
			if len(result.Order) != 1 {
				t.Errorf("%s: ran %v", why, result.Order)
			}
		}
	})
}

func TestJobsOfOneResourceGroupWait(t *testing.T) {
	t.Parallel()
	r := &coordinator.Runner{Dir: t.TempDir(), Shell: []string{"sh", "-l"}, Env: []string{"PATH=" + os.Getenv("PATH")}}
	var at, most atomic.Int32
	r.Heard = func(_, line string) {
		switch line {
		case "in":
			most.Store(max(most.Load(), at.Add(1)))
		case "out":
			at.Add(-1)
		}
	}
	p := create(t, project(`job: {resource_group: "of $WHO", script: [echo in, sleep 0.2, echo out]}`), coordinator.Request{Variables: map[string]string{"WHO": "x"}})
	if p.Jobs[0].ResourceGroup != "of x" {
		t.Errorf("the group is %q", p.Jobs[0].ResourceGroup)
	}
	done := make(chan *coordinator.Result)
	for range 3 {
		go func() {
			result, err := r.Run(t.Context(), p)
			if err != nil {
				t.Error(err)
			}
			done <- result
		}()
	}
	for range 3 {
		if result := <-done; result != nil && result.Status != "success" {
			t.Errorf("got %+v", result)
		}
	}
	if most.Load() != 1 {
		t.Errorf("%d ran at once", most.Load())
	}
}

func TestIDTokens(t *testing.T) {
	t.Parallel()
	r := &coordinator.Runner{Dir: t.TempDir(), Shell: []string{"sh", "-l"}, Env: []string{"PATH=" + os.Getenv("PATH")}}
	r.Token = func(_ *coordinator.Pipeline, audience string) (string, error) { return "token for " + audience, nil }
	result := run(t, r, create(t, project(`job: {id_tokens: {T: {aud: "https://$WHO"}}, script: ['echo "$T"']}`), coordinator.Request{Variables: map[string]string{"WHO": "x"}}))
	if !strings.Contains(result.Jobs["job"].Log, "token for https://x") || !slices.Equal(result.Order, []string{"job"}) {
		t.Errorf("got %+v", result)
	}
}

func FuzzCreate(f *testing.F) {
	f.Add("spec:\n  inputs:\n    a: {default: b}\n---\njob:\n  script: [!reference [.x, script]]\n.x: {script: [a]}\n")
	f.Add("a: &x {script: [a]}\nb: *x\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = project(text).Create(coordinator.Request{}) })
}
