package pipeline

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/internal/coordinator"
)

// examples are the files of YAML in docs/gitlab.md that include the template:
// the first for a route with inputs, the second for one with variables.
func examples(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(strings.ReplaceAll(read(t, "../../docs/gitlab.md"), "\n   ", "\n"), -1) {
		if strings.Contains(block[1], "component:") {
			found = append(found, strings.NewReplacer("https://…", "https://notify.example", "@COMMIT", "@1").Replace(block[1]))
		}
	}
	if len(found) != 2 {
		t.Fatalf("docs/gitlab.md has %d examples", len(found))
	}
	return found
}

func documented(t *testing.T, file string) coordinator.Project {
	t.Helper()
	return coordinator.Project{
		Path: "acme/images/api", Files: map[string]string{".gitlab-ci.yml": file},
		Elsewhere: map[string]string{"gitlab.example/acme/hubrelay/promote@1": read(t, templateFile)},
	}
}

func jobNames(p *coordinator.Pipeline) []string {
	var names []string
	if p != nil {
		for _, j := range p.Jobs {
			names = append(names, j.Name)
		}
	}
	return names
}

var hubrelayJobs = []string{"hubrelay-running", "hubrelay-promote", "hubrelay-done", "hubrelay-failed"}

// asSent is what hubrelay sends; each value is one that YAML could take for
// something else.
func asSent(tag, promotion string) map[string]string {
	return map[string]string{
		"image_repository": "acme/api", "image_tag": tag, "image_digest": someHash, "image_pushed_at": "2026-11-25T21:15:00.123456789Z", "promotion_id": promotion,
	}
}

func TestWhichPipelinesHaveTheJobs(t *testing.T) {
	t.Parallel()
	inputs, variables := examples(t)[0], examples(t)[1]
	own := []coordinator.Variable{
		{Name: "IMAGE_TAG", Value: "1.0.0"}, {Name: "IMAGE_REPOSITORY", Value: "acme/own"}, {Name: "IMAGE_DIGEST", Value: "x"}, {Name: "HUBRELAY_INPUT_TAG", Value: "own"},
	}
	for _, c := range []struct {
		name, file, source string
		inputs, variables  map[string]string
		project            []coordinator.Variable
		has                bool
	}{
		{"inputs", inputs, "trigger", asSent("1.0.0", somePromotion), nil, nil, true},
		{"inputs, by hand", inputs, "web", asSent("1.0.0", somePromotion), nil, nil, true},
		{"inputs that look like numbers", inputs, "trigger", asSent("1.10", strings.Repeat("1", 32)), nil, nil, true},
		{"inputs that look like powers", inputs, "trigger", asSent("1e10", "0000000000000000000000000000e100"), nil, nil, true},
		{"inputs that look like truth", inputs, "trigger", asSent("on", somePromotion), nil, nil, true},
		{"inputs that look like nothing", inputs, "trigger", asSent("null", somePromotion), nil, nil, true},
		{"inputs, in a project with variables of the same names", inputs, "trigger", asSent("1.0.0", somePromotion), nil, own, true},
		{"no inputs", inputs, "push", nil, nil, nil, false},
		{"no inputs, in a project with variables of the same names", inputs, "push", nil, nil, own, false},
		{"variables", variables, "trigger", nil, asSent("1.0.0", somePromotion), nil, true},
		{"variables, by hand", variables, "web", nil, asSent("1.0.0", somePromotion), nil, true},
		{"variables, in a project with variables of the same names", variables, "trigger", nil, asSent("1.0.0", somePromotion), own, true},
		{"no variables", variables, "push", nil, nil, nil, false},
		{"no variables, in a project with variables of the same names", variables, "push", nil, nil, own, false},
		{"a trigger of somebody else, in such a project", variables, "trigger", nil, nil, own, false},
		{"a promotion of no image", variables, "trigger", nil, asSent("", somePromotion), nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := documented(t, c.file+"\nunrelated: {stage: deploy, script: [\"true\"], rules: [{if: '$CI_PIPELINE_SOURCE != \"trigger\"'}]}\n")
			p.Variables = c.project
			r := coordinator.Request{Source: c.source, Variables: map[string]string{}, Inputs: map[string]any{}}
			for k, v := range c.inputs {
				r.Inputs[k] = v
			}
			for k, v := range c.variables {
				r.Variables[strings.ToUpper(k)] = v
			}
			made, err := p.Create(r)
			if err != nil && c.has {
				t.Fatal(err)
			}
			for _, name := range hubrelayJobs {
				if slices.Contains(jobNames(made), name) != c.has {
					t.Errorf("it has the jobs %v", jobNames(made))
				}
			}
			if !c.has {
				return
			}
			if group := made.Job("hubrelay-promote").ResourceGroup; !strings.HasPrefix(group, "hubrelay/acme/api") {
				t.Errorf("the resource group is %s", group)
			}
			if c.source == "trigger" && (made.AutoCancel != "none" || !strings.HasPrefix(made.Name, "acme/api:")) {
				t.Errorf("the pipeline is %q, auto_cancel %q", made.Name, made.AutoCancel)
			}
		})
	}
}

// A build in the pipeline that hubrelay starts would push, and start the next
// pipeline.
func TestTheExamplesKeepOwnJobsOut(t *testing.T) {
	t.Parallel()
	for i, file := range examples(t) {
		r := coordinator.Request{Inputs: map[string]any{}, Variables: map[string]string{}}
		for k, v := range asSent("1.0.0", somePromotion) {
			if i == 0 {
				r.Inputs[k] = v
			} else {
				r.Variables[strings.ToUpper(k)] = v
			}
		}
		made, err := documented(t, file).Create(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := jobNames(made); len(got) != len(hubrelayJobs) {
			t.Errorf("triggered, it has %v", got)
		}
		made, err = documented(t, file).Create(coordinator.Request{Source: "push"})
		if err != nil || !slices.Equal(jobNames(made), []string{"build"}) {
			t.Errorf("pushed, it has %v, %v", jobNames(made), err)
		}
	}
}

func TestRunnerTagsReachEveryJob(t *testing.T) {
	t.Parallel()
	for _, file := range examples(t) {
		r := coordinator.Request{Inputs: map[string]any{}, Variables: map[string]string{}}
		for k, v := range asSent("1.0.0", somePromotion) {
			if strings.HasPrefix(file, "spec:") {
				r.Inputs[k] = v
			} else {
				r.Variables[strings.ToUpper(k)] = v
			}
		}
		made, err := documented(t, file+"\n.hubrelay: {tags: [docker]}\n").Create(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range made.Jobs {
			if !slices.Equal(j.Tags, []string{"docker"}) {
				t.Errorf("%s has the tags %v", j.Name, j.Tags)
			}
		}
	}
}

func TestStagesThatGitLabTakes(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{"deploy", "Déploiement", "デプロイ", "build & sign", "deploy:prod", "a/b (c), d+e", "it's", "$x", "#1", strings.Repeat("x", 255)} {
		p := consumer(t, map[string]any{
			"notify_url": "https://n.example", "notify_audience": "n", "image_repository": "acme/api", "image_tag": "1.0.0", "stage": stage,
		})
		p.Files[".gitlab-ci.yml"] += fmt.Sprintf("stages: [build, %q]\n", stage)
		if made, err := p.Create(coordinator.Request{}); err != nil || made.Job("hubrelay-promote").Stage != stage {
			t.Errorf("%q: %v", stage, err)
		}
	}
	for _, stage := range []string{"", `a"b`, `a\b`, "a\nb"} {
		p := consumer(t, map[string]any{"notify_url": "https://n.example", "notify_audience": "n", "image_tag": "1.0.0", "stage": stage})
		if _, err := p.Create(coordinator.Request{}); err == nil || !strings.Contains(err.Error(), "`stage` input") {
			t.Errorf("%q: %v", stage, err)
		}
	}
}

// The component's own pipeline, as GitLab would run it.
func TestTheComponentAssertsItsJobs(t *testing.T) {
	t.Parallel()
	p := coordinator.Project{
		Path: "acme/hubrelay", Files: map[string]string{".gitlab-ci.yml": read(t, "../../.gitlab-ci.yml")},
		Elsewhere: map[string]string{"gitlab.example/acme/hubrelay/promote@" + strings.Repeat("c", 40): read(t, templateFile)},
	}
	made, err := p.Create(coordinator.Request{Source: "push"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"jobs", "component"}, hubrelayJobs...) {
		if made.Job(name) == nil {
			t.Errorf("there is no job %s in %v", name, jobNames(made))
		}
	}
	if made.Job("release") != nil {
		t.Error("a branch is released")
	}
	made.Jobs = slices.DeleteFunc(made.Jobs, func(j *job) bool { return j.Name == "component" })
	runner := &coordinator.Runner{
		Dir: t.TempDir(), Shell: []string{"sh", "-l"}, Env: []string{"PATH=" + os.Getenv("PATH")},
		Token: func(*coordinator.Pipeline, string) (string, error) { return "a.b.c", nil },
	}
	result, err := runner.Run(t.Context(), made)
	if err != nil {
		t.Fatal(err)
	}
	if result.Status != "success" || !slices.Equal(result.Order, []string{"hubrelay-running", "hubrelay-promote", "hubrelay-done", "jobs"}) {
		t.Errorf("got %+v", result)
	}
	p.Variables = []coordinator.Variable{{Name: "CI_COMMIT_TAG", Value: "v1.2.3"}}
	if made, err := p.Create(coordinator.Request{Source: "push"}); err != nil || made.Job("release") == nil {
		t.Errorf("a version is not released: %v", err)
	}
}

// The image of the jobs has the versions of the tests.
func TestTheImageHasTheTestedVersions(t *testing.T) {
	t.Parallel()
	makefile, dockerfile := read(t, "../../Makefile"), read(t, "../../images/promote/Dockerfile")
	for _, tool := range []string{"CRANE", "COSIGN"} {
		version := regexp.MustCompile(tool + ` := (\S+)`).FindStringSubmatch(makefile)
		if version == nil || !strings.Contains(dockerfile, "ARG "+tool+"="+version[1]+"\n") {
			t.Errorf("images/promote/Dockerfile has another %s than the Makefile: %v", tool, version)
		}
	}
	notary := regexp.MustCompile(`NOTARY := (\S+)`).FindStringSubmatch(makefile)
	if notary == nil || !strings.Contains(dockerfile, notary[1]+" is the one that is tested") {
		t.Errorf("images/promote/Dockerfile names another notary than the Makefile: %v", notary)
	}
}
