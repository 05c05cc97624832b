// Command gotest runs go test, prints its output, and lists which tests were
// skipped, and why. go test itself says that only among everything else.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: gotest FILE [ARGUMENT OF GO TEST …]: writes into FILE what was skipped")
		os.Exit(2)
	}
	code, err := run(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// run returns the exit code of go test.
func run(file string, args []string) (code int, err error) {
	tests := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	tests.Stderr = os.Stderr
	events, err := tests.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := tests.Start(); err != nil {
		return 1, err
	}
	skipped, err := read(events, os.Stdout)
	ended := tests.Wait()
	if err := os.WriteFile(file, []byte(skipped.String()), 0o600); err != nil {
		return 1, err
	}
	var exit *exec.ExitError
	if errors.As(ended, &exit) {
		return max(exit.ExitCode(), 1), err // -1 if a signal ended it
	}
	return 0, errors.Join(ended, err)
}

// event is a line of go test -json: https://pkg.go.dev/cmd/test2json
type event struct {
	Action, Package, Test, Output string
}

// skips are the tests that were skipped, by reason.
type skips map[string][]string

func (s skips) String() string {
	var b strings.Builder
	for _, reason := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "%s\n", reason)
		for _, test := range slices.Sorted(slices.Values(s[reason])) {
			fmt.Fprintf(&b, "    %s\n", test)
		}
	}
	return b.String()
}

// read reads events to their end. For a test that failed or did not end it
// prints all output, for a package that passed its last line.
func read(events io.Reader, out io.Writer) (skips, error) {
	skipped := skips{}
	said := map[event]*bytes.Buffer{} // by package and test, which is "" for the package itself
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				_, _ = out.Write(line) // not of a test
			} else {
				take(e, said, skipped, out)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return skipped, nil
		case err != nil:
			return skipped, fmt.Errorf("read the events of go test: %w", err)
		}
	}
}

func take(e event, said map[event]*bytes.Buffer, skipped skips, out io.Writer) {
	key := event{Package: e.Package, Test: e.Test}
	switch e.Action {
	case "output":
		if said[key] == nil {
			said[key] = &bytes.Buffer{}
		}
		said[key].WriteString(e.Output)
	case "build-output":
		_, _ = io.WriteString(out, e.Output)
	case "pass", "skip", "fail":
		text := ""
		if said[key] != nil {
			text = said[key].String()
		}
		delete(said, key)
		switch {
		case e.Test == "" && e.Action == "fail":
			// Tests that did not end, as after a panic, come first.
			for _, other := range slices.SortedFunc(maps.Keys(said), func(a, b event) int { return strings.Compare(a.Test, b.Test) }) {
				if other.Package == e.Package {
					_, _ = io.WriteString(out, readable(said[other].String()))
					delete(said, other)
				}
			}
			_, _ = io.WriteString(out, text)
		case e.Test == "":
			_, _ = io.WriteString(out, lastLine(text))
		case e.Action == "fail":
			_, _ = io.WriteString(out, readable(text))
		case e.Action == "skip":
			reason := why(text)
			skipped[reason] = append(skipped[reason], e.Package+" "+e.Test)
		}
	}
}

// readable removes the marks of test2json.
func readable(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "=== ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// where matches the beginning of a test's output line: the file and the line.
var where = regexp.MustCompile(`^[^ :]+\.go:\d+: `)

// why returns the output of a test before it was skipped, in one line.
func why(text string) string {
	var said []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- SKIP") {
			continue
		}
		said = append(said, strings.TrimPrefix(where.ReplaceAllString(line, ""), "*** NOT RUN *** "))
	}
	if len(said) == 0 {
		return "(without a reason)"
	}
	return strings.Join(said, " ")
}

func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return ""
	}
	return text[strings.LastIndexByte(text, '\n')+1:] + "\n"
}
