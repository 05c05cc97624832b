package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Runner runs the real template of the pipeline on this machine, by
// gitlab-ci-local, which stands in for GitLab and its runners. The images are
// really signed, with a key that goes with the Runner.
type Runner struct {
	template, tools string
	dir             string // of the key, and of the pipelines

	mu sync.Mutex // as resource_group, which gitlab-ci-local does not know
}

// NewRunner takes the path of the template, and that of the directory in which
// `make tools` puts crane, cosign and gitlab-ci-local.
func NewRunner(template, tools string) (_ *Runner, err error) {
	r := &Runner{}
	for _, p := range []struct {
		to   *string
		path string
	}{{&r.template, template}, {&r.tools, tools}} {
		if *p.to, err = filepath.Abs(p.path); err != nil {
			return nil, err
		}
	}
	for _, needed := range []string{r.template, filepath.Join(r.tools, "crane"), filepath.Join(r.tools, "cosign"), r.gitlab()} {
		if _, err := os.Stat(needed); err != nil {
			return nil, fmt.Errorf("%w: make tools builds what the template needs", err)
		}
	}
	for _, program := range []string{"git", "rsync", "curl", "node"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("the template cannot be run here: %w", err)
		}
	}
	if r.dir, err = os.MkdirTemp("", "hubrelay"); err != nil {
		return nil, err
	}
	keys := r.command(context.Background(), r.dir, filepath.Join(r.tools, "cosign"), "generate-key-pair")
	if out, err := keys.CombinedOutput(); err != nil {
		r.Close()
		return nil, fmt.Errorf("make a key: %w\n%s", err, out)
	}
	return r, nil
}

// Close removes all that the Runner has written.
func (r *Runner) Close() { _ = os.RemoveAll(r.dir) }

// PublicKey is the path of the key to verify signatures with.
func (r *Runner) PublicKey() string { return filepath.Join(r.dir, "cosign.pub") }

func (r *Runner) gitlab() string {
	return filepath.Join(r.tools, "node_modules", ".bin", "gitlab-ci-local")
}

// command runs in an environment that knows the tools, and nothing of whose
// machine this is.
func (r *Runner) command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + r.tools + string(os.PathListSeparator) + os.Getenv("PATH"),
		"HOME=" + r.dir, "COSIGN_PASSWORD=", "NO_COLOR=1",
		"GIT_AUTHOR_NAME=sandbox", "GIT_AUTHOR_EMAIL=sandbox@localhost", "GIT_COMMITTER_NAME=sandbox", "GIT_COMMITTER_EMAIL=sandbox@localhost",
	}
	return cmd
}

// Run is one pipeline.
type Run struct {
	Registry    string            // host and port
	NotifyURL   string            // where it reports to
	Token       string            // the id token with which it does
	PipelineURL string            //
	Inputs      map[string]string // of the template: image_repository and so on
	WithoutKey  bool              // so that it fails
}

// Run runs a pipeline, and tells heard what its jobs print. It returns an error
// for a pipeline that failed.
func (r *Runner) Run(ctx context.Context, run Run, heard func(line string)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	dir, err := os.MkdirTemp(r.dir, "pipeline")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := r.checkout(ctx, dir, run); err != nil {
		return err
	}
	cmd := r.command(ctx, dir, r.gitlab(), "--force-shell-executor", "--ignore-predefined-vars", "CI_PIPELINE_URL")
	out, to := io.Pipe()
	cmd.Stdout, cmd.Stderr = to, to
	var reading sync.WaitGroup
	reading.Go(func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			heard(lines.Text())
		}
		_, _ = io.Copy(io.Discard, out) // a line that is too long ends the scanner
	})
	err = cmd.Run()
	_ = to.Close()
	reading.Wait()
	if err != nil {
		return fmt.Errorf("the pipeline failed: %w", err)
	}
	return nil
}

// checkout makes the project as GitLab would check it out: a .gitlab-ci.yml
// that includes the template.
func (r *Runner) checkout(ctx context.Context, dir string, run Run) error {
	inputs := map[string]string{"notify_url": run.NotifyURL, "notify_audience": audience, "registry": run.Registry}
	for name, value := range run.Inputs {
		inputs[name] = value
	}
	key := filepath.Join(r.dir, "cosign.key")
	if run.WithoutKey {
		key = ""
	}
	template, err := os.ReadFile(r.template)
	if err != nil {
		return err
	}
	for name, content := range map[string]any{ // JSON is YAML
		"promote.yml":    template,
		".gitlab-ci.yml": map[string]any{"include": []any{map[string]any{"local": "promote.yml", "inputs": inputs}}},
		".gitlab-ci-local-variables.yml": map[string]string{
			"NOTIFY_ID_TOKEN": run.Token, "CI_PIPELINE_URL": run.PipelineURL,
			"COSIGN_KEY": key, "DOCKERHUB_USERNAME": "sandbox", "DOCKERHUB_TOKEN": "sandbox",
		},
	} {
		data, ok := content.([]byte)
		if !ok {
			if data, err = json.Marshal(content); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main"},
		{"remote", "add", "origin", "git@gitlab.localhost:acme/images.git"},
		{"add", "."},
		{"commit", "--quiet", "--message", "Promote an image"},
	} {
		if out, err := r.command(ctx, dir, "git", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
