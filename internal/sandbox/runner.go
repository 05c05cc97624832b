package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"github.com/getto-systems/hubrelay/internal/coordinator"
)

// Runner runs the real template of the pipeline on this machine, with the
// coordinator instead of GitLab and its runners. The images are really signed,
// with a key that is deleted with the Runner.
type Runner struct {
	template, tools string
	dir             string // of the key, and of the build folder
	key             string

	mu sync.Mutex // there is one build folder
}

// NewRunner takes the path of the template, and that of the directory in which
// `make tools` puts crane and cosign.
func NewRunner(template, tools string) (_ *Runner, err error) {
	r := &Runner{}
	text, err := os.ReadFile(template)
	if err != nil {
		return nil, fmt.Errorf("there is no template to run, such as templates/promote.yml: %w", err)
	}
	r.template = string(text)
	if r.tools, err = filepath.Abs(tools); err != nil {
		return nil, err
	}
	for _, needed := range []string{"crane", "cosign"} {
		if _, err := os.Stat(filepath.Join(r.tools, needed)); err != nil {
			return nil, fmt.Errorf("%w: make tools builds what the template needs", err)
		}
	}
	for _, program := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("the template cannot be run here: %w", err)
		}
	}
	if r.dir, err = os.MkdirTemp("", "hubrelay"); err != nil {
		return nil, err
	}
	keys := exec.Command(filepath.Join(r.tools, "cosign"), "generate-key-pair")
	keys.Dir = r.dir
	keys.Env = []string{"HOME=" + r.dir, "COSIGN_PASSWORD="}
	if out, err := keys.CombinedOutput(); err != nil {
		r.Close()
		return nil, fmt.Errorf("make a key: %w\n%s", err, out)
	}
	key, err := os.ReadFile(filepath.Join(r.dir, "cosign.key"))
	if err != nil {
		r.Close()
		return nil, err
	}
	r.key = string(key)
	return r, nil
}

// Close removes all that the Runner has written.
func (r *Runner) Close() { _ = os.RemoveAll(r.dir) }

// PublicKey is the path of the key to verify signatures with.
func (r *Runner) PublicKey() string { return filepath.Join(r.dir, "cosign.pub") }

// Run is one pipeline.
type Run struct {
	Registry    string            // host and port
	NotifyURL   string            // where it reports to
	Token       string            // the id token of its reports
	PipelineURL string            // ends in the pipeline's id
	Inputs      map[string]string // of the template: image_repository and so on
	WithoutKey  bool              // so that it fails
}

var lastNumber = regexp.MustCompile(`[0-9]+$`)

// consumer is the .gitlab-ci.yml of a project that includes the template.
const consumer = `spec:
  inputs:
    registry: {default: docker.io}
    notify_url:
    image_repository: {type: string, default: ""}
    image_tag: {type: string, default: ""}
    image_digest: {type: string, default: ""}
    image_pushed_at: {type: string, default: ""}
    promotion_id: {type: string, default: ""}
---
include:
  - local: promote.yml
    inputs:
      notify_audience: ` + audience + `
      notify_url: "$[[ inputs.notify_url ]]"
      registry: "$[[ inputs.registry ]]"
      image_repository: "$[[ inputs.image_repository ]]"
      image_tag: "$[[ inputs.image_tag ]]"
      image_digest: "$[[ inputs.image_digest ]]"
      image_pushed_at: "$[[ inputs.image_pushed_at ]]"
      promotion_id: "$[[ inputs.promotion_id ]]"
`

// Run runs a pipeline, and calls heard with each line that its jobs print. It
// returns an error for a pipeline that failed.
func (r *Runner) Run(ctx context.Context, run Run, heard func(line string)) error {
	project := coordinator.Project{
		Path:  "acme/images",
		Files: map[string]string{".gitlab-ci.yml": consumer, "promote.yml": r.template},
		Variables: []coordinator.Variable{
			{Name: "PATH", Value: r.tools + string(os.PathListSeparator) + os.Getenv("PATH"), Raw: true},
			{Name: "DOCKERHUB_USERNAME", Value: "sandbox"}, {Name: "DOCKERHUB_TOKEN", Value: "sandbox"}, {Name: "COSIGN_PASSWORD"},
		},
	}
	if !run.WithoutKey {
		project.Variables = append(project.Variables, coordinator.Variable{Name: "COSIGN_KEY", Value: r.key, File: true})
	}
	inputs := map[string]any{"registry": run.Registry, "notify_url": run.NotifyURL}
	for name, value := range run.Inputs {
		inputs[name] = value
	}
	id, _ := strconv.Atoi(lastNumber.FindString(run.PipelineURL))
	pipeline, err := project.Create(coordinator.Request{Inputs: inputs, URL: run.PipelineURL, ID: id})
	if err != nil {
		return fmt.Errorf("create the pipeline: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	runner := coordinator.Runner{
		Dir: r.dir, Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir},
		Token: func(*coordinator.Pipeline, string) (string, error) { return run.Token, nil },
		Heard: func(_, line string) { heard(line) },
	}
	result, err := runner.Run(ctx, pipeline)
	if err != nil {
		return err
	}
	if result.Status != "success" {
		return fmt.Errorf("the pipeline is %s", result.Status)
	}
	return nil
}
