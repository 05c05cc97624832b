package pipeline

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/getto-systems/hubrelay/internal/skip"
)

// gitlab-ci-local reads the template independently of our coordinator.
func TestGitLabCILocalRunsTheTemplate(t *testing.T) {
	t.Parallel()
	h, n := newHub(t, true), newNotify(t)
	program := filepath.Join(tools(t), "node_modules", ".bin", "gitlab-ci-local")
	if _, err := os.Stat(program); err != nil {
		skip.UnlessCI(t, "gitlab-ci-local is not in .tools: run make tools")
	}
	for _, needed := range []string{"git", "rsync", "node"} {
		if _, err := exec.LookPath(needed); err != nil {
			skip.UnlessCI(t, needed+" is not installed")
		}
	}
	digest := h.push("1.0.0")
	dir := t.TempDir()
	for name, content := range map[string]any{ // JSON is YAML
		"promote.yml": read(t, templateFile),
		".gitlab-ci.yml": map[string]any{"include": []any{map[string]any{"local": "promote.yml", "inputs": map[string]any{
			"notify_url": n.url, "notify_audience": "notify", "registry": h.host, "image_repository": "acme/api", "image_tag": "1.0.0",
			"image_digest": digest, "image_pushed_at": at(1), "promotion_id": somePromotion,
		}}}},
		".gitlab-ci-local-variables.yml": map[string]string{
			"NOTIFY_ID_TOKEN": idToken, "CI_PIPELINE_URL": url1, "COSIGN_KEY": keys(t) + "/cosign.key", "COSIGN_PASSWORD": keyPassword,
			"DOCKERHUB_USERNAME": username, "DOCKERHUB_TOKEN": password,
		},
	} {
		text, ok := content.(string)
		if !ok {
			encoded, err := json.Marshal(content)
			if err != nil {
				t.Fatal(err)
			}
			text = string(encoded)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(program string, args ...string) {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		cmd.Env = append(offline(), "PATH="+filepath.Join(keyDir, "bin")+":"+tools(t)+":"+os.Getenv("PATH"), "HOME="+dir, "NO_COLOR=1",
			"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@localhost", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@localhost")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	run("git", "init", "--quiet", "--initial-branch=main")
	run("git", "remote", "add", "origin", "git@gitlab.localhost:acme/images.git")
	run("git", "add", ".")
	run("git", "commit", "--quiet", "--message", "Promote an image")
	run(program, "--force-shell-executor", "--ignore-predefined-vars", "CI_PIPELINE_URL")
	n.want("status", "success", "message", "signed; latest moved to it", "promotion_id", somePromotion)
	h.wantSigned(digest, "1.0.0", url1)
	h.wantTag("latest", digest)
}
