// Package e2e tests hubrelay as it is deployed: three processes, built as the
// buildpack of Cloud Functions builds them, with a real push subscription
// between them. It holds tests only.
package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// generatedMain is the main package that the buildpack generates: it imports
// the root package for its init, and starts the framework.
const generatedMain = `package main

import (
	"log"
	"os"

	_ "github.com/getto-systems/hubrelay"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
)

func main() {
	if err := funcframework.Start(os.Getenv("PORT")); err != nil {
		log.Fatalf("Function failed to start: %v\n", err)
	}
}
`

// program builds hubrelay once for all tests.
var program = sync.OnceValues(func() (string, error) { return build(generatedMain) })

// build does what the buildpack does with the source and the main that it
// generates, and returns the program.
func build(main string) (string, error) {
	dir, err := os.MkdirTemp("", "hubrelay-e2e-")
	if err != nil {
		return "", err
	}
	buildDirs = append(buildDirs, dir)
	source := filepath.Join(dir, "serverless_function_source_code")
	if err := copySource("../..", source); err != nil {
		return "", err
	}
	app := filepath.Join(source, "functions.local", "app")
	if err := os.MkdirAll(app, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(app, "main.go"), []byte(main), 0o600); err != nil {
		return "", err
	}
	out := filepath.Join(dir, "main")
	for _, args := range [][]string{{"mod", "tidy"}, {"build", "-o", out, "./functions.local/app"}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = source
		if msg, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, msg)
		}
	}
	return out, nil
}

var buildDirs []string // to be removed in the end

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range buildDirs {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// copySource copies what terraform/source.tf deploys, by its own lists.
func copySource(from, to string) error {
	config, err := os.ReadFile(filepath.Join(from, "terraform", "source.tf"))
	if err != nil {
		return err
	}
	included, excluded := patterns(config, "source_included"), patterns(config, "source_excluded")
	if len(included) == 0 || len(excluded) == 0 {
		return errors.New("terraform/source.tf has no lists of what is deployed")
	}
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if slash := filepath.ToSlash(name); !matchAny(included, slash) || matchAny(excluded, slash) {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
}

// patterns reads a list of Terraform's fileset patterns.
func patterns(config []byte, name string) []*regexp.Regexp {
	list := regexp.MustCompile(`(?m)^\s+` + name + `\s+= \[(.*)\]$`).FindSubmatch(config)
	if list == nil {
		return nil
	}
	var found []*regexp.Regexp
	for _, m := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(string(list[1]), -1) {
		p := regexp.QuoteMeta(m[1])
		p = strings.NewReplacer(`\*\*/`, `(?:.*/)?`, `\*\*`, `.*`, `\*`, `[^/]*`).Replace(p)
		found = append(found, regexp.MustCompile("^"+p+"$"))
	}
	return found
}

func matchAny(patterns []*regexp.Regexp, name string) bool {
	return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) })
}

func TestWhatIsDeployed(t *testing.T) {
	t.Parallel()
	to := t.TempDir()
	if err := copySource("../..", to); err != nil {
		t.Fatal(err)
	}
	var files []string
	err := filepath.WalkDir(to, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name, _ := filepath.Rel(to, path)
			files = append(files, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"go.mod", "go.sum", "hubrelay.go"} {
		if !slices.Contains(files, want) {
			t.Errorf("%s is not deployed", want)
		}
	}
	deployed := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			t.Errorf("%s is deployed", file)
		}
		if strings.HasSuffix(file, ".go") {
			deployed[path.Dir(file)] = true
		}
	}
	// Exactly the files that the functions are built from.
	list, err := exec.Command("go", "list", "-C", "../..", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	needed := map[string]bool{}
	for dir := range strings.FieldsSeq(string(list)) {
		name, err := filepath.Rel(root, dir)
		if err != nil {
			t.Fatal(err)
		}
		needed[filepath.ToSlash(name)] = true
	}
	if diff := cmp.Diff(needed, deployed); diff != "" {
		t.Errorf("packages that are needed (-) and deployed (+):\n%s", diff)
	}
}

// process is one function, running.
type process struct {
	URL  string
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
	err  error // of Wait, once done is closed
}

// output collects what a process writes; it is read while it grows.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// spawn starts a function without waiting for it to listen.
func spawn(t *testing.T, target string, settings map[string]string) *process {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	p := &process{URL: "http://127.0.0.1:" + port, cmd: exec.Command(binary), out: &output{}, done: make(chan struct{})}
	p.cmd.Env = []string{"FUNCTION_TARGET=" + target, "PORT=" + port, "HOME=" + t.TempDir()}
	for name, value := range settings {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGKILL)
		<-p.done
		if t.Failed() {
			t.Logf("%s wrote:\n%s", target, p.out)
		}
	})
	return p
}

// start starts a function and waits until it is ready.
func start(t *testing.T, target string, settings map[string]string) *process {
	t.Helper()
	p := spawn(t, target, settings)
	eventually(t, target+" is ready", func() error {
		select {
		case <-p.done:
			t.Fatalf("%s ended: %v\n%s", target, p.err, p.out)
		default:
		}
		res, err := http.Get(p.URL + "/ready")
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
	return p
}

// freePort returns a port that was free a moment ago.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// eventually waits until check succeeds, for a minute at most.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if err = check(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s: not within a minute: %v", what, err)
}

// Libraries fill the heap when they are initialised. Collecting garbage then
// would take a tenth of the time until the first answer.
func TestNothingIsCollectedBeforeTheFirstAnswer(t *testing.T) {
	t.Parallel()
	p := start(t, "Webhook", map[string]string{
		"WEBHOOK_TOKENS": webhookToken, "TOPIC": topic, "PUBSUB_EMULATOR_HOST": "127.0.0.1:1", "GODEBUG": "gctrace=1,inittrace=1",
	})
	out := p.out.String()
	if !strings.Contains(out, "init github.com/getto-systems/hubrelay @") {
		t.Fatalf("the runtime traces nothing:\n%s", out)
	}
	if strings.Contains(out, "gc 1 @") {
		t.Error("the collector ran")
	}
}
