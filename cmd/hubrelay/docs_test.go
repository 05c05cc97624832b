package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const cliPage = "../../docs/cli.md"

// docs/cli.md has the help of all commands. Every command is in it, and in the
// list of hubrelay help.
func TestCLIDocs(t *testing.T) {
	for _, setting := range os.Environ() { // some are shown as defaults
		name, _, _ := strings.Cut(setting, "=")
		t.Setenv(name, "")
	}
	var listed []string
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+) `).FindAllStringSubmatch(usage, -1) {
		listed = append(listed, m[1])
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(commands)), slices.Sorted(slices.Values(listed))); diff != "" {
		t.Fatalf("hubrelay help does not list the commands there are (-commands +listed):\n%s", diff)
	}
	var page strings.Builder
	page.WriteString(cliIntroduction)
	section := func(args ...string) {
		var help bytes.Buffer
		if err := run(t.Context(), args, &help); err != nil && !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%v: %v", args, err)
		}
		if !strings.Contains(help.String(), "Usage: hubrelay ") {
			t.Errorf("%v says %q", args, help.String())
		}
		fmt.Fprintf(&page, "\n```text\n$ hubrelay %s\n%s```\n", strings.Join(args, " "), help.String())
	}
	section("help")
	for _, name := range listed {
		fmt.Fprintf(&page, "\n## hubrelay %s\n", name)
		section(name, "-h")
	}
	if *update {
		if err := os.WriteFile(cliPage, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(cliPage)
	if err != nil {
		t.Fatalf("%v: run go test ./cmd/hubrelay -run TestCLIDocs -update", err)
	}
	if diff := cmp.Diff(string(written), page.String()); diff != "" {
		t.Errorf("docs/cli.md is not what the commands say: run go test ./cmd/hubrelay -run TestCLIDocs -update (-written +said):\n%s", diff)
	}
}

const cliIntroduction = `# The command

This page is generated from the command's own help, by ` + "`go test ./cmd/hubrelay -run TestCLIDocs -update`" + `. A test fails if the two differ.

` + "`go run ./cmd/hubrelay`" + ` in a clone of the repository is the same as ` + "`hubrelay`" + `. Flags have one dash or two. Results go to standard output, mistakes to standard error, in one line. Unless a command says otherwise, the exit status is 0, or 1 after a mistake or a failure. (` + "`go run`" + ` itself ends with 1 after any failure. Where the status matters, as with ` + "`check`" + `, use an installed command.) [operations.md](operations.md) says when to use which command.
`
