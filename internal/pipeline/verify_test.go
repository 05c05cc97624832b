package pipeline

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The commands of docs/verify.md, as they stand there, against what the pipeline
// has signed.
func TestTheDocumentedCommandsVerify(t *testing.T) {
	t.Parallel()
	text := read(t, "../../docs/verify.md")
	_, section, ok := strings.Cut(text, "\n## With cosign 3\n")
	section, _, ok2 := strings.Cut(section, "\n## ")
	if !ok || !ok2 {
		t.Fatal("docs/verify.md has no section about cosign 3")
	}
	var commands []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
		commands = append(commands, block[1])
	}
	_, gitlab, _ := strings.Cut(read(t, "../../docs/gitlab.md"), "## Verify an image\n\n```sh\n")
	command, _, _ := strings.Cut(gitlab, "```")
	if len(commands) != 3 || !strings.Contains(commands[2], "--new-bundle-format=false") {
		t.Fatalf("the commands are %q", commands)
	}
	plain, old := append(commands[:2:2], command), commands[2:]
	for _, c := range []struct {
		format   string
		attested bool
		commands []string
	}{{"bundle", true, plain}, {"legacy", false, plain}, {"legacy", true, old}} {
		h := newHub(t, c.format == "bundle")
		digest := h.push("1.4.0")
		if c.attested {
			h.attest(digest, "cosign") // must not count
		}
		for _, signed := range []bool{false, true} {
			if signed {
				h.promote("1.4.0", digest, "signature_format", c.format).want(0, "success", "signed")
			}
			for _, command := range c.commands {
				out, err := h.verify(command)
				if (err == nil) != signed {
					t.Errorf("%s, attested %t, signed %t: %v\n%s\n%s", c.format, c.attested, signed, err, command, out)
				}
				if signed && strings.Contains(command, "--output json") && !strings.Contains(out, `"pipeline":"`+url1+`"`) {
					t.Errorf("the output does not name the pipeline: %s", out)
				}
			}
			// Any other key is refused.
			if out, err := h.verify(strings.ReplaceAll(c.commands[0], "cosign.pub", "other.pub")); err == nil {
				t.Errorf("%s: another key will do: %s", c.format, out)
			}
		}
	}
}

// verify runs a documented command, with this registry instead of Docker Hub.
func (h *hub) verify(command string) (string, error) {
	h.t.Helper()
	config := h.t.TempDir()
	auths, err := json.Marshal(map[string]any{"auths": map[string]any{h.host: map[string]string{"username": username, "password": password}}})
	if err == nil {
		err = os.WriteFile(filepath.Join(config, "config.json"), auths, 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", strings.ReplaceAll(command, "docker.io/", h.host+"/"))
	cmd.Dir = keys(h.t)
	cmd.Env = append(offline(), "PATH="+tools(h.t)+":"+os.Getenv("PATH"), "HOME="+config, "DOCKER_CONFIG="+config)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
