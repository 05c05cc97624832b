package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Runner runs the jobs of pipelines like GitLab Runner's shell executor: build
// folders stay, and the next job finds what the last one left. Its methods may
// be called from several goroutines. Jobs of one project run one after the
// other, as with `concurrent = 1`.
type Runner struct {
	Dir   string   // of the build folders
	Shell []string // bash -l if it is nil; sh -l is what Alpine has
	Old   bool     // pipes nothing into the script, as runners before mid-2026 do
	Env   []string // of the runner's process; nothing of this machine's is added
	// Token makes the id token of a job. May be nil.
	Token func(p *Pipeline, audience string) (string, error)
	// Heard is called with each line that a job prints. May be nil.
	Heard func(job, line string)
	// Sabotage may end a job's script from outside; nil if none is.
	Sabotage func(job string, attempt int) Sabotage

	mu     sync.Mutex
	groups map[string]*sync.Mutex
	folder sync.Mutex
}

// Sabotage is how a job is disturbed.
type Sabotage struct {
	Before bool          // the job ends before its script begins
	Cancel time.Duration // somebody cancels the job then; never if it is 0
	Kill   time.Duration // the script is killed then; never if it is 0
}

// Result is how a pipeline ended.
type Result struct {
	Status string             // success, failed or canceled
	Jobs   map[string]Attempt // the last attempt of each job that ran
	Order  []string           // of the attempts, by name
}

// Attempt is one run of a job.
type Attempt struct {
	Status string // success, failed or canceled
	Code   int    // the script's exit code
	Reason string // of a failure: script_failure or runner_system_failure
	Log    string
	Dotenv map[string]string // the variables that it passed on
	Number int               // 1 for the first
}

// Bounds of a job's log, and of one line.
const (
	maxLog  = 4 << 20
	maxLine = 64 << 10
)

// Run runs a pipeline to its end. An error means a failure of this machine, not
// of a job.
func (r *Runner) Run(ctx context.Context, p *Pipeline) (*Result, error) {
	result := &Result{Status: "success", Jobs: map[string]Attempt{}}
	dotenv := map[string]map[string]string{}
	for _, j := range p.Jobs {
		switch {
		case result.Status == "canceled":
			continue
		case j.When == "manual", j.When == "on_failure" && result.Status != "failed", j.When == "on_success" && result.Status == "failed":
			continue
		}
		handed := map[string]string{}
		for _, before := range p.Jobs {
			if before.stage < j.stage && (j.Dependencies == nil || slices.Contains(j.Dependencies, before.Name)) {
				maps.Copy(handed, dotenv[before.Name])
			}
		}
		attempt, err := r.withRetries(ctx, p, j, handed, result)
		if err != nil {
			return nil, fmt.Errorf("job %s: %w", j.Name, err)
		}
		result.Jobs[j.Name] = attempt
		dotenv[j.Name] = attempt.Dotenv
		switch {
		case attempt.Status == "canceled":
			result.Status = "canceled"
		case attempt.Status == "failed" && !j.AllowFailure:
			result.Status = "failed"
		}
	}
	return result, nil
}

// RunJob runs one job of a pipeline, like a manual retry. handed are the
// variables of earlier jobs' dotenv files.
func (r *Runner) RunJob(ctx context.Context, p *Pipeline, name string, handed map[string]string) (Attempt, error) {
	j := p.Job(name)
	if j == nil {
		return Attempt{}, fmt.Errorf("the pipeline has no job %s", name)
	}
	return r.attempt(ctx, p, j, handed, 1)
}

func (r *Runner) withRetries(ctx context.Context, p *Pipeline, j *Job, handed map[string]string, result *Result) (Attempt, error) {
	for number := 1; ; number++ {
		result.Order = append(result.Order, j.Name)
		a, err := r.attempt(ctx, p, j, handed, number)
		if err != nil || a.Status != "failed" || number > j.RetryMax || !j.retries(a) {
			return a, err
		}
	}
}

// retries reports whether GitLab runs the job once more after such a failure.
func (j *Job) retries(a Attempt) bool {
	if len(j.RetryWhen) == 0 && len(j.RetryCodes) == 0 || slices.Contains(j.RetryWhen, "always") {
		return true
	}
	return slices.Contains(j.RetryWhen, a.Reason) || a.Reason == "script_failure" && slices.Contains(j.RetryCodes, a.Code)
}

func (r *Runner) group(key string) *sync.Mutex {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.groups == nil {
		r.groups = map[string]*sync.Mutex{}
	}
	if r.groups[key] == nil {
		r.groups[key] = new(sync.Mutex)
	}
	return r.groups[key]
}

func (r *Runner) attempt(ctx context.Context, p *Pipeline, j *Job, handed map[string]string, number int) (Attempt, error) {
	if j.ResourceGroup != "" {
		group := r.group(p.project.Path + "\n" + j.ResourceGroup)
		group.Lock()
		defer group.Unlock()
	}
	r.folder.Lock()
	defer r.folder.Unlock()
	folder := filepath.Join(r.Dir, "builds", filepath.FromSlash(p.project.Path))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return Attempt{}, err
	}
	a := Attempt{Status: "success", Number: number, Dotenv: map[string]string{}}
	var sabotage Sabotage
	if r.Sabotage != nil {
		sabotage = r.Sabotage(j.Name, number)
	}
	variables, files, err := r.variables(p, j, handed, folder)
	if err != nil {
		return Attempt{}, err
	}
	log := &boundedLog{heard: func(line string) {
		if r.Heard != nil {
			r.Heard(j.Name, line)
		}
	}}
	if sabotage.Before {
		a.Status, a.Reason = "failed", "runner_system_failure"
	} else {
		code, why, err := r.script(ctx, folder, j.Script, variables, files, "running", log, sabotage)
		if err != nil {
			return Attempt{}, err
		}
		a.Code = code
		switch {
		case why == "canceled":
			a.Status = "canceled"
		case code != 0:
			a.Status, a.Reason = "failed", "script_failure"
		}
		if len(j.After) > 0 {
			if _, _, err := r.script(context.WithoutCancel(ctx), folder, j.After, variables, files, a.Status, log, Sabotage{}); err != nil {
				return Attempt{}, err
			}
		}
	}
	upload := j.ArtifactsWhen == "always" || j.ArtifactsWhen == "on_success" && a.Status == "success" || j.ArtifactsWhen == "on_failure" && a.Status == "failed"
	if j.Dotenv != "" && upload {
		if a.Dotenv, err = readDotenv(filepath.Join(folder, j.Dotenv)); err != nil {
			return Attempt{}, err
		}
	}
	a.Log = log.String()
	return a, os.RemoveAll(folder + ".tmp")
}

// variables returns the variables that the job's shell exports, and the
// contents of those that are files.
func (r *Runner) variables(p *Pipeline, j *Job, handed map[string]string, folder string) (values map[string]string, files map[string]string, err error) {
	values, files = map[string]string{}, map[string]string{}
	raw := map[string]bool{}
	maps.Copy(values, p.predefined)
	values["CI_JOB_NAME"], values["CI_PROJECT_DIR"], values["CI_RESOURCE_GROUP"] = j.Name, folder, j.ResourceGroup
	set := func(name, value string, isRaw bool) {
		values[name], raw[name] = value, isRaw
		delete(files, name)
	}
	for name, value := range j.Variables {
		set(name, value, j.raw[name])
	}
	for name, value := range handed {
		set(name, value, true)
	}
	for _, v := range p.project.Variables {
		set(v.Name, v.Value, v.Raw || v.File)
		if v.File {
			files[v.Name] = v.Value
			values[v.Name] = filepath.Join(folder+".tmp", v.Name)
		}
	}
	for name, value := range p.request.Variables {
		set(name, value, false)
	}
	for name, audience := range j.IDTokens {
		if r.Token == nil {
			continue
		}
		token, err := r.Token(p, audience)
		if err != nil {
			return nil, nil, err
		}
		set(name, token, true)
	}
	expanded := map[string]string{}
	for name, value := range values {
		if !raw[name] {
			value = expand(value, values)
		}
		expanded[name] = value
	}
	return expanded, files, nil
}

// script runs one shell like the runner: a login shell gets the script on its
// standard input, and stops at the first error. The commands have no input.
func (r *Runner) script(ctx context.Context, folder string, commands []string, variables, files map[string]string, status string, log io.Writer, s Sabotage) (code int, why string, err error) {
	if err := os.MkdirAll(folder+".tmp", 0o700); err != nil {
		return 0, "", err
	}
	var exports strings.Builder
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder+".tmp", name), []byte(content), 0o600); err != nil {
			return 0, "", err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		fmt.Fprintf(&exports, "export %s=%s\n", name, quote(variables[name]))
	}
	body := exports.String() + "export CI_JOB_STATUS=" + status + "\ncd " + quote(folder) + "\n" + strings.Join(commands, "\n") + "\n"
	run := "(trap 'exit 1' TERM; eval " + quote(body) + ") < /dev/null"
	if r.Old {
		run = ": | eval " + quote(body)
	}
	text := "trap 'exit 1' TERM\n\n" + `case "$(set -o)" in *"pipefail"*) set -o pipefail;; esac; set -o errexit` + "\nset +o noclobber\n" + run + "\nexit 0\n"

	shell := r.Shell
	if shell == nil {
		shell = []string{"bash", "-l"}
	}
	cmd := exec.Command(shell[0], shell[1:]...)
	cmd.Dir = folder
	cmd.Env = r.Env
	cmd.Stdin = strings.NewReader(text)
	cmd.Stdout, cmd.Stderr = log, log
	newGroup(cmd)
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return 0, "", err
	}
	// The runner terminates the whole group, and kills what does not end.
	signal := func(sig syscall.Signal) { signalGroup(cmd, sig) }
	ended := make(chan struct{})
	stopped := make(chan string, 1)
	go func() {
		var cancel, kill <-chan time.Time
		if s.Cancel > 0 {
			cancel = time.After(s.Cancel)
		}
		if s.Kill > 0 {
			kill = time.After(s.Kill)
		}
		select {
		case <-ended:
			stopped <- ""
			return
		case <-kill:
			signal(syscall.SIGKILL)
			stopped <- "killed"
			return
		case <-cancel:
		case <-ctx.Done():
		}
		signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			signal(syscall.SIGKILL)
		}
		stopped <- "canceled"
	}()
	err = cmd.Wait()
	close(ended)
	why = <-stopped
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return 0, "", err
	}
	code = cmd.ProcessState.ExitCode()
	if code < 0 {
		code = 128 + int(syscall.SIGKILL)
	}
	return code, why, nil
}

// quote makes one word of text, for a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// readDotenv reads a dotenv report as GitLab does. The file may be missing.
func readDotenv(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, err
	}
	if len(text) > 5<<10 {
		return map[string]string{}, nil // GitLab refuses the report
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if !ok {
			return map[string]string{}, nil
		}
		values[name] = value
	}
	return values, nil
}

// boundedLog keeps the log of a job, and passes its lines on.
type boundedLog struct {
	mu    sync.Mutex
	text  strings.Builder
	part  string
	heard func(string)
}

func (l *boundedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len()+len(b) <= maxLog {
		l.text.Write(b)
	}
	l.part += string(b)
	for {
		line, rest, ok := strings.Cut(l.part, "\n")
		if !ok {
			break
		}
		l.heard(line)
		l.part = rest
	}
	if len(l.part) > maxLine {
		l.part = ""
	}
	return len(b), nil
}

func (l *boundedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
