package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// module creates a module with a package for each file.
func module(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.com/m\n\ngo 1.24\n"
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	skipping = `package skipping
import "testing"
func TestOne(t *testing.T) { t.Parallel(); t.Log("noise of a test that passes") }
func TestTwo(t *testing.T) { t.Parallel(); t.Skip("*** NOT RUN *** gcloud is not installed: install it") }
func TestThree(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Skipf("gcloud is not installed: %s it", "install") }) }
func TestFour(t *testing.T) { t.SkipNow() }
`
	failing = `package failing
import "testing"
func TestGood(t *testing.T) { t.Log("noise of a test that passes") }
func TestBad(t *testing.T) {
	t.Run("fine", func(t *testing.T) { t.Log("noise of a test that passes") })
	t.Run("sub", func(t *testing.T) { t.Error("it broke") })
}
`
	panicking = `package panicking
import "testing"
func TestPanics(t *testing.T) { t.Log("before it"); panic("oh no") }
`
	broken = `package broken
import "testing"
func TestBroken(t *testing.T) { undefined() }
`
	passing = `package passing
import ("fmt"; "testing")
func TestPasses(t *testing.T) { fmt.Println("noise of a test that passes") }
`
)

// gotest runs the command in a module, and returns its output, its list of
// skipped tests, and its exit code.
func gotest(t *testing.T, dir string) (printed, skipped string, code int) {
	t.Helper()
	command := filepath.Join(t.TempDir(), "gotest")
	if out, err := exec.Command("go", "build", "-o", command, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(t.TempDir(), "skipped")
	run := exec.Command(command, file, "./...")
	run.Dir = dir
	run.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, _ := run.CombinedOutput()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out), string(text), run.ProcessState.ExitCode()
}

func TestFailuresAreShownAndSuccessesAreOneLine(t *testing.T) {
	t.Parallel()
	printed, skipped, code := gotest(t, module(t, map[string]string{
		"passing/x_test.go": passing, "failing/x_test.go": failing, "panicking/x_test.go": panicking, "broken/x_test.go": broken,
		"bare/x.go": "package bare\n",
	}))
	if code != 1 || skipped != "" {
		t.Errorf("it ended with %d, and skipped %q", code, skipped)
	}
	for _, want := range []string{
		"ok  \texample.com/m/passing\t", "FAIL\texample.com/m/failing\t", "x_test.go:6: it broke\n", "--- FAIL: TestBad/sub ", "--- FAIL: TestBad ",
		"FAIL\texample.com/m/panicking\t", "panic: oh no", "before it", "undefined: undefined", "FAIL\texample.com/m/broken [build failed]\n",
		"?   \texample.com/m/bare\t[no test files]\n",
	} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is not in\n%s", want, printed)
		}
	}
	if strings.Contains(printed, "noise") || strings.Contains(printed, "===") {
		t.Errorf("it prints\n%s", printed)
	}
}

func TestSkippedTestsAreListed(t *testing.T) {
	t.Parallel()
	printed, skipped, code := gotest(t, module(t, map[string]string{"skipping/x_test.go": skipping, "passing/x_test.go": passing}))
	if code != 0 || !strings.Contains(printed, "ok  \texample.com/m/skipping\t") {
		t.Errorf("it ended with %d: %s", code, printed)
	}
	const want = `(without a reason)
    example.com/m/skipping TestFour
gcloud is not installed: install it
    example.com/m/skipping TestThree/sub
    example.com/m/skipping TestTwo
`
	if skipped != want {
		t.Errorf("got\n%s", skipped)
	}
}

func TestLinesThatAreNotEventsArePrinted(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	skipped, err := read(strings.NewReader("go: something\n{\"Action\":\"output\",\"Package\":\"p\",\"Output\":\"ok  \\tp\\n\"}\n{\"Action\":\"pass\",\"Package\":\"p\"}\nno end"), &out)
	if err != nil || len(skipped) > 0 || out.String() != "go: something\nok  \tp\nno end" {
		t.Errorf("got %q, %v, %v", out.String(), skipped, err)
	}
}

// scripts/test.sh continues after a failure, and fails if anything failed, or
// was skipped in CI.
func TestTheScript(t *testing.T) {
	t.Parallel()
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, c := range []struct {
		name, tests, terraform, ci string
		ok                         bool
	}{
		{"all is well", passing, "exit 0", "", true},
		{"all is well in CI", passing, "exit 0", "true", true},
		{"a test fails", strings.ReplaceAll(skipping, "func TestFour(t *testing.T) { t.SkipNow() }", `func TestFour(t *testing.T) { t.Error("it broke") }`), "exit 0", "", false},
		{"Terraform's tests fail", passing, "exit 1", "", false},
		{"a test is skipped", skipping, "exit 0", "", true},
		{"a test is skipped in CI", skipping, "exit 0", "true", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := module(t, map[string]string{
				"x/x_test.go": c.tests, "internal/simulation/x_test.go": passing, "internal/gotest/main.go": read("main.go"), "scripts/test.sh": read("../../scripts/test.sh"),
				"scripts/terraform-test.sh": "#!/bin/sh\necho Terraform was tested\n" + c.terraform + "\n",
			})
			for _, script := range []string{"test.sh", "terraform-test.sh"} {
				if err := os.Chmod(filepath.Join(dir, "scripts", script), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			run := exec.Command("scripts/test.sh", "-timeout", "5m")
			run.Dir = dir
			run.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CI="+c.ci)
			out, err := run.CombinedOutput()
			if (err == nil) != c.ok {
				t.Errorf("it ended with %v", err)
			}
			wants := []string{"Terraform was tested", "\texample.com/m/x"}
			if c.tests != passing {
				wants = append(wants, "*** NOT RUN ***\n", "gcloud is not installed: install it\n    example.com/m/x TestThree/sub\n")
			}
			for _, want := range wants {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is not in\n%s", want, out)
				}
			}
		})
	}
}
