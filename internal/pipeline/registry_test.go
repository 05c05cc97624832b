package pipeline

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/internal/skip"
)

// flat reads JSON like Go, in every awk that images have.
func TestJSONIsReadByAwk(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	words := []string{"", "a", "mediaType", "x/y", "a b", "{", "}", "[", "]", ",", ":", `\"`, "é", "1.10", "null", `},"config":{"mediaType":"x`, "'$(id)", "&", `\n`}
	word := func() string { return words[random.IntN(len(words))] }
	var make func(depth int) any
	make = func(depth int) any {
		switch n := random.IntN(6); {
		case depth > 4 || n < 2:
			return word() + word()
		case n == 2:
			return random.IntN(100_000)
		case n == 3:
			return random.IntN(2) == 0
		case n == 4:
			list := []any{}
			for range random.IntN(4) {
				list = append(list, make(depth+1))
			}
			return list
		default:
			object := map[string]any{}
			for i := range random.IntN(4) {
				object[fmt.Sprint("k", i, strings.ReplaceAll(word(), "\t", ""))] = make(depth + 1)
			}
			return object
		}
	}
	dir := t.TempDir()
	var want []string
	for i := range 60 {
		value := map[string]any{"top": make(0), "other": make(0)}
		text, err := json.MarshalIndent(value, "", strings.Repeat(" ", i%3))
		if i%3 == 0 {
			text, err = json.Marshal(value)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d.json", i)), text, 0o600); err != nil {
			t.Fatal(err)
		}
		var lines []string
		flatten("", value, &lines)
		slices.Sort(lines)
		want = append(want, lines...)
		want = append(want, "--")
	}
	for i, broken := range []string{"", "{", "}}}}", `{"a":[`, `{"a" "b"}`, `"`, `{"a":"b`, "[,,,]", "\x00", "<html>{}</html>"} {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("broken%d", i)), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := "work=" + dir + "\n" + read(t, "registry.sh") + `for f in "$work"/*.json; do flat < "$f" | sort; echo --; done; for f in "$work"/broken*; do flat < "$f" > /dev/null; done`
	run := func(name string, env []string, command ...string) {
		t.Helper()
		cmd := exec.Command(command[0], append(command[1:], "-c", script)...)
		cmd.Env = append(env, "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("%s: line %d is %q, want %q", name, i, got[i], want[i])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d lines, want %d", name, len(got), len(want))
		}
	}
	run("sh", []string{"PATH=" + os.Getenv("PATH")}, "sh")
	for _, awk := range []string{"mawk", "gawk", "original-awk"} {
		path, err := exec.LookPath(awk)
		if err != nil {
			continue // sh had one of them
		}
		bin := t.TempDir()
		if err := os.Symlink(path, filepath.Join(bin, "awk")); err != nil {
			t.Fatal(err)
		}
		run(awk, []string{"PATH=" + bin + ":" + os.Getenv("PATH")}, "sh")
	}
	if _, err := exec.LookPath("busybox"); err != nil {
		skip.UnlessCI(t, "busybox is not installed")
	}
	run("busybox", []string{"PATH=" + applets(t)}, "busybox", "sh")
}

// flatten is what flat is to print. Escapes stay as JSON writes them.
func flatten(path string, value any, lines *[]string) {
	under := func(key string) string {
		if path == "" {
			return key
		}
		return path + "/" + key
	}
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			flatten(under(quoted(key)), inner, lines)
		}
	case []any:
		for i, inner := range v {
			flatten(under(fmt.Sprint(i)), inner, lines)
		}
	case string:
		*lines = append(*lines, path+"\t"+quoted(v))
	default:
		*lines = append(*lines, fmt.Sprintf("%s\t%v", path, v))
	}
}

func quoted(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return strings.ReplaceAll(string(text[1:len(text)-1]), `\/`, "/")
}
