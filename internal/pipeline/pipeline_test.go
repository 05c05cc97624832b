// Package pipeline makes templates/promote.yml, the GitLab component, and tests
// it: the scripts run as GitLab would run them, against a registry in memory,
// with the real crane, cosign and curl.
package pipeline

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const templateFile = "../../templates/promote.yml"

var update = flag.Bool("update", false, "write "+templateFile)

// build returns template.yml with each line `# inline: a.sh b.sh` replaced by
// those files, indented as the line is: GitLab hands a consumer the template
// alone.
func build(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(read(t, "template.yml")) {
		indent, names, ok := strings.Cut(line, "# inline: ")
		if !ok {
			out.WriteString(line)
			continue
		}
		for _, name := range strings.Fields(names) {
			for line := range strings.Lines(read(t, name)) {
				if line != "\n" {
					out.WriteString(indent)
				}
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

func TestTemplateIsMadeOfItsSources(t *testing.T) {
	t.Parallel()
	want := build(t)
	if *update {
		if err := os.WriteFile(templateFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, templateFile) != want {
		t.Errorf("%s is not what internal/pipeline makes: run make template", templateFile)
	}
}

// GitLab puts inputs into the text of the template wherever it says so. In a
// script that would let an input be code.
func TestNoScriptHoldsAnInput(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"common.sh", "cosign.sh", "content-trust.sh", "promote.sh", "report.sh"} {
		if strings.Contains(read(t, name), "$[[") {
			t.Errorf("%s holds an input", name)
		}
		if !strings.Contains(read(t, "template.yml"), name) {
			t.Errorf("%s is not in the template", name)
		}
	}
	for _, line := range regexp.MustCompile(`(?m)^ +- \|\n( +)(.*)$`).FindAllStringSubmatch(read(t, "template.yml"), -1) {
		if !strings.HasPrefix(line[2], "# inline: ") {
			t.Errorf("a script of the template holds %q, which is of none of the files", line[2])
		}
	}
}

// job is a job of the template, as a pipeline with some inputs has it.
type job struct {
	script    string
	variables map[string]string
}

// jobOf does what GitLab does: it puts the inputs in, and follows extends.
func jobOf(t *testing.T, name string, inputs map[string]string) job {
	t.Helper()
	header, body, _ := strings.Cut(read(t, templateFile), "\n---\n")
	var spec struct {
		Spec struct {
			Inputs map[string]struct {
				Default *string
				Regex   string
				Options []string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(header), &spec); err != nil {
		t.Fatal(err)
	}
	for input := range inputs {
		if _, ok := spec.Spec.Inputs[input]; !ok {
			t.Fatalf("the template has no input %s", input)
		}
	}
	for input, is := range spec.Spec.Inputs {
		value, ok := inputs[input]
		switch {
		case !ok && is.Default == nil:
			t.Fatalf("the input %s is required", input)
		case !ok:
			value = *is.Default
		}
		if !regexp.MustCompile(is.Regex).MatchString(value) || is.Options != nil && !slices.Contains(is.Options, value) {
			t.Fatalf("GitLab would refuse %q as %s", value, input)
		}
		body = strings.ReplaceAll(body, "$[[ inputs."+input+" ]]", value)
	}
	var jobs map[string]struct {
		Extends   string
		Script    []yaml.Node
		Variables map[string]variable
	}
	if err := yaml.Unmarshal([]byte(body), &jobs); err != nil {
		t.Fatal(err)
	}
	made := job{variables: map[string]string{}}
	for ; name != ""; name = jobs[name].Extends {
		if _, ok := jobs[name]; !ok {
			t.Fatalf("the template has no job %s", name)
		}
		for k, v := range jobs[name].Variables {
			if _, ok := made.variables[k]; !ok {
				made.variables[k] = v.value
			}
		}
		if len(jobs[name].Script) == 1 && made.script == "" {
			made.script = jobs[name].Script[0].Value
		}
	}
	if made.script == "" {
		t.Fatal("the job has no script")
	}
	return made
}

// variable is a variable, which may be written as {value: …}.
type variable struct{ value string }

func (v *variable) UnmarshalYAML(node *yaml.Node) error {
	var long struct{ Value string }
	if node.Kind == yaml.ScalarNode {
		v.value = node.Value
		return nil
	}
	err := node.Decode(&long)
	v.value = long.Value
	return err
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
