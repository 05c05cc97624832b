package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// readmes are the pages whose commands people type first. All have the same
// commands.
var readmes = []string{"README.md", "README.ja.md"}

// notRun says why a command is in no story, by its beginning.
var notRun = map[string]string{
	"make test":                        "it runs the stories",
	"terraform -chdir=terraform apply": "it needs an account of Google Cloud",
	"docker push":                      "it needs an account of Docker Hub",
	"cosign verify":                    "it is docs/verify.md's, whose commands a test of internal/pipeline runs",
}

// The placeholders in the READMEs, and what a story has instead.
var placeholders = strings.NewReplacer("projects/P/", "projects/demo/")

// Each command of the READMEs is run by a story as it stands, with at most some
// flags after it, or there is a reason why not.
func TestEveryCommandOfTheREADMEIsRunByAStory(t *testing.T) {
	t.Parallel()
	run, used := storyCommands(t), map[string]bool{}
	if len(run) < 50 {
		t.Fatalf("the stories run %d commands", len(run))
	}
	verify, err := os.ReadFile("../../docs/verify.md")
	if err != nil {
		t.Fatal(err)
	}
	var first []string
	for _, page := range readmes {
		text, err := os.ReadFile(filepath.Join("../..", page))
		if err != nil {
			t.Errorf("%s is missing: the commands of the other pages have to be there, too (%v)", page, err)
			continue
		}
		commands := shellCommands(string(text))
		if len(commands) < 5 {
			t.Errorf("%s has %d commands", page, len(commands))
		}
		for _, command := range commands {
			excused := false
			for start := range notRun {
				if strings.HasPrefix(command, start) {
					excused, used[start] = true, true
				}
			}
			if strings.HasPrefix(command, "cosign verify") && !strings.Contains(string(verify), command+"\n") {
				t.Errorf("%s: docs/verify.md does not have this as it stands:\n%s", page, command)
			}
			typed := placeholders.Replace(command)
			if !excused && !slices.ContainsFunc(run, func(c string) bool { return c == typed || strings.HasPrefix(c, typed+" -") }) {
				t.Errorf("%s: no story in testdata/script runs this as it stands, and notRun has no reason why not:\n%s", page, command)
			}
		}
		if first == nil {
			first = commands
		}
		if !slices.Equal(commands, first) {
			t.Errorf("%s has other commands than %s:\n%s\n\n%s", page, readmes[0], strings.Join(commands, "\n"), strings.Join(first, "\n"))
		}
	}
	for start := range notRun {
		if !used[start] {
			t.Errorf("notRun has a reason for %q, which is in no README", start)
		}
	}
}

var (
	shellBlock = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")
	comment    = regexp.MustCompile(`(^|\s+)#.*$`)
)

// shellCommands returns the commands of a page's blocks of shell, without their
// comments.
func shellCommands(page string) []string {
	var commands []string
	for _, block := range shellBlock.FindAllStringSubmatch(page, -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", "")) {
			if line = strings.TrimSpace(comment.ReplaceAllString(strings.TrimSpace(line), "")); line != "" {
				commands = append(commands, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return commands
}

// storyCommands returns what the stories run by exec, as people would type it.
func storyCommands(t *testing.T) []string {
	t.Helper()
	var commands []string
	err := filepath.WalkDir("testdata/script", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		commands = append(commands, typed(text)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return commands
}

var (
	execLine  = regexp.MustCompile(`^exec (?:into \S+ |sorted |plain |ends \d )*(.*?)(?: &\w*&)?$`)
	shellLine = regexp.MustCompile(`^sh -c '(.*)'$`)
	shellFile = regexp.MustCompile(`^sh -e (\S+)$`)
)

// typed returns the commands that a story runs: by itself, and in those of its
// files that a shell reads.
func typed(story []byte) []string {
	var (
		commands []string
		archive  = txtar.Parse(story)
	)
	for line := range strings.Lines(string(archive.Comment)) {
		command, ok := typedIn(line)
		if !ok {
			continue
		}
		commands = append(commands, command)
		read := shellFile.FindStringSubmatch(command)
		for _, f := range archive.Files {
			if read != nil && f.Name == read[1] {
				for line := range strings.Lines(string(f.Data)) {
					commands = append(commands, strings.TrimSpace(line))
				}
			}
		}
	}
	return commands
}

// typedIn returns the command that a line of a story runs.
func typedIn(line string) (string, bool) {
	m := execLine.FindStringSubmatch(strings.TrimSpace(line))
	if m == nil {
		return "", false
	}
	if quoted := shellLine.FindStringSubmatch(m[1]); quoted != nil {
		return strings.ReplaceAll(quoted[1], "''", "'"), true
	}
	return m[1], true
}

func TestWhatAREADMEAndAStoryHavePeopleType(t *testing.T) {
	t.Parallel()
	page := "```sh\nmake run   # it runs\n# a comment\n```\n```yaml\nno: command\n```\n- item\n  ```sh\n  hubrelay push \\\n    URL a:1\n  ```\n"
	if got, want := fmt.Sprintf("%q", shellCommands(page)), `["make run" "hubrelay push URL a:1"]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for line, want := range map[string]string{
		"exec make run": "make run", "exec into $WORK/run.txt make run &run&": "make run", "exec sorted hubrelay replay": "hubrelay replay",
		`exec into run.txt sh -c 'make run FLAGS="-a b"' &run&`: `make run FLAGS="-a b"`, "! exec hubrelay": "", "stdout x": "",
		"exec plain ends 2 hubrelay check": "hubrelay check",
	} {
		if got, _ := typedIn(line); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
	story := "exec sh -e a.sh\nexec b\n-- a.sh --\ncp x y/\n. z\n-- c.sh --\nnobody runs this\n"
	if got, want := fmt.Sprintf("%q", typed([]byte(story))), `["sh -e a.sh" "cp x y/" ". z" "b"]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
