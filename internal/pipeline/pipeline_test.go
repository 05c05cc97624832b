// Package pipeline makes templates/promote.yml, the GitLab component, and tests
// it: our coordinator runs its jobs as GitLab would, against a registry in
// memory, with the real crane, cosign and curl.
package pipeline

import (
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/internal/coordinator"
	"github.com/getto-systems/hubrelay/internal/version"
)

const templateFile = "../../templates/promote.yml"

var update = flag.Bool("update", false, "write "+templateFile)

// build returns template.yml with the version in the place of @VERSION@, and
// with each line `# inline: a.sh b.sh` replaced by those files, indented as the
// line is: GitLab hands a consumer the template alone.
func build(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	text := strings.ReplaceAll(read(t, "template.yml"), "@VERSION@", version.Number)
	for line := range strings.Lines(text) {
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
// script, an input could then be code.
func TestNoScriptHoldsAnInput(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"common.sh", "registry.sh", "cosign.sh", "content-trust.sh", "promote.sh", "report.sh"} {
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

// consumer is the project of whoever includes the template, with the inputs
// that its file gives.
func consumer(t *testing.T, inputs map[string]any) coordinator.Project {
	t.Helper()
	given, err := json.Marshal(inputs) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	return coordinator.Project{
		Path:      "acme/images/api",
		Files:     map[string]string{".gitlab-ci.yml": "include:\n  - component: gitlab.example/acme/hubrelay/promote@1\n    inputs: " + string(given) + "\n"},
		Elsewhere: map[string]string{"gitlab.example/acme/hubrelay/promote@1": read(t, templateFile)},
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
