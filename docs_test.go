package hubrelay

// These tests compare the pages with the code and with each other.
// runbook_test.go does the same for docs/operations.md.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/skip"
)

// pages returns all pages of the repository.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) == ".md" {
			found = append(found, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 10 {
		t.Fatalf("found only %v", found)
	}
	return found
}

// prose returns a page without fenced blocks and comments, in which nothing is a
// title or a link.
func prose(page string) string {
	page = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```[ \t]*$").ReplaceAllString(page, "")
	return regexp.MustCompile(`(?s)<!--.*?-->`).ReplaceAllString(page, "")
}

// links returns the targets of the links and pictures in a text, in their order.
func links(text string) []string {
	text = regexp.MustCompile("`[^`\n]+`").ReplaceAllString(text, "code")
	var found []string
	for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)|(?m:^\[[^\]]+\]:\s*(\S+))|\b(?:href|src)="([^"]+)"`).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1]+m[2]+m[3])
	}
	return found
}

// anchors returns the anchors of a page's titles, as GitHub makes them.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ +(.+?) *$`).FindAllStringSubmatch(prose(page), -1) {
		title := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(m[1], "$1")
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r):
				return unicode.ToLower(r)
			}
			return -1
		}, title)
		name := anchor
		for n := 1; found[name]; n++ {
			name = fmt.Sprintf("%s-%d", anchor, n)
		}
		found[name] = true
	}
	return found
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, page := range pages(t) {
		for _, link := range links(prose(read(t, page))) {
			if regexp.MustCompile(`^[a-z]+:`).MatchString(link) {
				continue
			}
			checked++
			file, fragment, _ := strings.Cut(link, "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			info, err := os.Stat(target)
			switch {
			case err != nil:
				t.Errorf("%s: %s: %v", page, link, err)
			case fragment != "" && (info.IsDir() || filepath.Ext(target) != ".md" || !anchors(read(t, target))[fragment]):
				t.Errorf("%s: %s leads to no title of %s", page, link, target)
			}
		}
	}
	if checked < 100 {
		t.Errorf("%d links checked", checked)
	}
}

func TestAnchorsAreThoseOfGitHub(t *testing.T) {
	t.Parallel()
	page := "# Let go of the *old* version\n## 7. A real tag\n## A real tag\n## A real tag\n## `once_per`: why?\n## 約束すること\n```sh\n# no title\n```\n### See [this](x.md)\n"
	got := anchors(page)
	for _, want := range []string{"let-go-of-the-old-version", "7-a-real-tag", "a-real-tag", "a-real-tag-1", "once_per-why", "約束すること", "see-this"} {
		if !got[want] {
			t.Errorf("there is no %s", want)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		t.Errorf("there are also %v", got)
	}
}

// outline is what two pages in different languages must have in common, part by
// part: the level of titles, lists, tables, blocks, and in each paragraph, item
// and row its links and the text in backquotes. These may be in a different
// order in each language.
func outline(page string) []string {
	var found []string
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		switch {
		case line == "":
			continue
		case strings.HasPrefix(line, "```"):
			block := line
			for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
				block += "\n" + strings.TrimSpace(lines[i])
			}
			found = append(found, block)
			continue
		case strings.HasPrefix(line, "<!--"), strings.HasPrefix(line, "|--"):
			found = append(found, line)
			continue
		}
		kind := regexp.MustCompile(`^(?:#+ |- |[0-9]+\. |\| )`).FindString(line)
		if kind == "| " {
			kind = fmt.Sprintf("row of %d ", strings.Count(line, " | ")+1)
		}
		if strings.HasPrefix(line, "English · ") || strings.HasSuffix(line, " · 日本語") {
			found = append(found, "the other language")
			continue
		}
		bold := strings.Count(line, "**") / 2
		parts := append(links(line), regexp.MustCompile("`[^`]+`").FindAllString(line, -1)...)
		slices.Sort(parts)
		found = append(found, fmt.Sprintf("%s%s bold %d", kind, strings.Join(parts, " "), bold))
	}
	return found
}

func TestTheReadmesSayTheSame(t *testing.T) {
	t.Parallel()
	english, japanese := outline(read(t, "README.md")), outline(read(t, "README.ja.md"))
	for i := range max(len(english), len(japanese)) {
		var en, ja string
		if i < len(english) {
			en = english[i]
		}
		if i < len(japanese) {
			ja = japanese[i]
		}
		if en != ja {
			t.Fatalf("part %d is in README.md\n\t%s\nand in README.ja.md\n\t%s", i+1, en, ja)
		}
	}
	if len(english) < 80 {
		t.Errorf("only %d parts were compared", len(english))
	}
}

func TestReadmesThatDifferAreFound(t *testing.T) {
	t.Parallel()
	const page = "# A\n\nThe `x` of [y](z.md).\n\n```sh\nmake run\n```\n\n| a | b |\n|---|---|\n| `c` | d |\n| `e` | f |\n\n1. one\n2. two\n"
	same := strings.NewReplacer("# A", "# あ", "The `x` of [y](z.md).", "[わい](z.md) の `x`", "one", "いち").Replace(page)
	if !slices.Equal(outline(page), outline(same)) {
		t.Errorf("a translation differs:\n%q\n%q", outline(page), outline(same))
	}
	for what, edit := range map[string][2]string{
		"another level":         {"# A", "## A"},
		"a link less":           {"[y](z.md)", "y"},
		"another link":          {"z.md", "w.md"},
		"another name":          {"`x`", "`w`"},
		"a name twice":          {"`x`", "`x` `x`"},
		"another command":       {"make run", "make test"},
		"another language":      {"```sh", "```"},
		"a row less":            {"| `e` | f |\n", ""},
		"a cell more":           {"| `e` | f |", "| `e` | f | g |"},
		"another name in a row": {"`e`", "`g`"},
		"an item less":          {"2. two\n", ""},
	} {
		other := strings.Replace(page, edit[0], edit[1], 1)
		if other == page || slices.Equal(outline(page), outline(other)) {
			t.Errorf("%s is not found", what)
		}
	}
}

// TestTheSettingsOfTheReadmeAreThoseOfTheCode compares the names, the functions
// and the defaults.
func TestTheSettingsOfTheReadmeAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	type setting struct{ functions, fallback string }
	documented := map[string]setting{}
	_, table, _ := strings.Cut(read(t, "README.md"), "\n## Settings\n")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| (`[A-Z_`, ]+`) \\| ([A-Za-z, ]+) \\| ([^|]+) \\| [^|]+ \\|$").FindAllStringSubmatch(table, -1) {
		for _, name := range captures("`([A-Z_]+)`", m[1]) {
			documented[name] = setting{m[2], m[3]}
		}
	}
	// Neither is read by the functions' own settings.
	delete(documented, "SSL_CERT_FILE")
	delete(documented, "GOOGLE_CLOUD_PROJECT")

	functions := map[string][]string{}
	for _, name := range []string{"Webhook", "Trigger", "Notify"} {
		code := source(t, func(file string) bool {
			return strings.HasPrefix(file, "functions/"+strings.ToLower(name)+"/") && !strings.HasSuffix(file, "_test.go")
		})
		for _, wanted := range captures(`(?:r\.[A-Z][A-Za-z]+\(|env\.Parse\(r, )"([A-Z_]+)"`, code) {
			functions[wanted] = append(functions[wanted], name)
		}
		for _, m := range regexp.MustCompile(`r\.URL\("([A-Z_]+)", "([^"]+)"\)|r\.OneOf\("([A-Z_]+)", "([^"]+)"`).FindAllStringSubmatch(code, -1) {
			wanted, fallback := m[1]+m[3], m[2]+m[4]
			if got := documented[wanted].fallback; got != "`"+fallback+"`" {
				t.Errorf("the default of %s is %s, README.md says %s", wanted, fallback, got)
			}
		}
		for _, wanted := range captures(`r\.Required\("([A-Z_]+)"\)`, code) {
			if !strings.Contains(documented[wanted].fallback, "required") {
				t.Errorf("%s is required, README.md says %q", wanted, documented[wanted].fallback)
			}
		}
	}
	if len(functions) < 20 {
		t.Fatalf("found only %v", functions)
	}
	for wanted, names := range functions {
		if got := documented[wanted].functions; got != strings.Join(names, ", ") {
			t.Errorf("%s is of %v, README.md says %q", wanted, names, got)
		}
		delete(documented, wanted)
	}
	if len(documented) > 0 {
		t.Errorf("README.md has settings that nothing reads: %v", documented)
	}
}

func TestTheRecipesQuoteWhatHubrelaySays(t *testing.T) {
	t.Parallel()
	code, quotes := deployed(t), 0
	for _, row := range regexp.MustCompile(`(?m)^\| .*`).FindAllString(read(t, "docs/recipes.md"), -1) {
		for _, quote := range captures(`"([a-z][a-z ]+)"`, strings.SplitN(row, " | ", 2)[0]) {
			quotes++
			if !strings.Contains(code, quote) {
				t.Errorf("docs/recipes.md quotes %q, which nothing says", quote)
			}
		}
	}
	if quotes < 5 {
		t.Errorf("%d quotes", quotes)
	}
}

// TestTheRecipesWork reads each block of terraform.tfvars in docs/ with
// Terraform, and its routes with the functions. If a table of tags follows, it
// is compared with the decisions of the route.
func TestTheRecipesWork(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("terraform"); err != nil {
		skip.UnlessCI(t, "the recipes' settings: there is no terraform")
	}
	dir := t.TempDir()
	for _, name := range []string{"grammar.tf", "variables.tf"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(read(t, "terraform/"+name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	terraform := func(input string, args ...string) (string, error) {
		cmd := exec.Command("terraform", append([]string{"-chdir=" + dir}, args...)...)
		cmd.Stdin = strings.NewReader(input)
		cmd.Env = append(os.Environ(), "TF_IN_AUTOMATION=1", "NO_COLOR=1", "TF_CLI_ARGS=", "TF_DATA_DIR="+filepath.Join(dir, ".terraform"))
		var errors bytes.Buffer
		cmd.Stderr = &errors
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("terraform %s: %w\n%s%s", args[0], err, out, errors.String())
		}
		return string(out), err
	}
	if _, err := terraform("", "init", "-backend=false", "-input=false"); err != nil {
		t.Fatal(err)
	}
	base := `{"project_id": "acme-hubrelay", "region": "europe-west1", "default_channel": "C0123456789",
		"routes": {"acme/*": {"gitlab": {"project": "acme/images/{name}"}, "slack": {"channel": "C0123456789"}}},
		"webhook_tokens": ["0123456789abcdef0123"], "gitlab_trigger_tokens": {"*": "glptt-0123456789"},
		"slack_bot_token": "xoxb-0123456789", "registry_auth": %s}`
	tried, tags := 0, 0
	for _, page := range []string{"docs/recipes.md", "docs/migrate.md"} {
		for _, part := range strings.Split(read(t, page), "<!-- tfvars -->")[1:] {
			block := regexp.MustCompile("(?s)^\\s*```hcl\n(.*?)```(.*)$").FindStringSubmatch(part)
			if block == nil {
				t.Fatalf("%s: no block follows:\n%s", page, part)
			}
			auth := "null"
			if strings.Contains(block[1], "registry_auth") {
				auth = `"{\"auths\": {\"https://index.docker.io/v1/\": {\"auth\": \"dXNlcjp0b2tlbg==\"}}}"`
			}
			for name, text := range map[string]string{"base.tfvars.json": fmt.Sprintf(base, auth), "recipe.tfvars": block[1]} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			files := []string{"-var-file=base.tfvars.json", "-var-file=recipe.tfvars"}
			if _, err := terraform("", append([]string{"plan", "-input=false"}, files...)...); err != nil {
				t.Errorf("%s:\n%s\n%v", page, block[1], err)
				continue
			}
			out, err := terraform("jsonencode(var.routes)\n", append([]string{"console"}, files...)...)
			if err != nil {
				t.Fatal(err)
			}
			var text string
			if err := json.Unmarshal([]byte(out), &text); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			routes, err := route.Parse(text)
			if err != nil {
				t.Errorf("%s:\n%s\n%v", page, block[1], err)
				continue
			}
			tried++
			_, table, ok := strings.Cut(block[2], "| tag | what happens |\n|---|---|\n")
			if !ok {
				continue
			}
			table, _, _ = strings.Cut(table, "\n\n")
			for line := range strings.Lines(table) {
				cells := strings.SplitN(line, " | ", 2)
				for _, tag := range captures("`([^`]+)`", cells[0]) {
					tags++
					want := "promoted"
					if reason := routes.All()[0].Unwanted(tag); reason != "" {
						want = "`" + reason + "`"
					}
					if !strings.HasPrefix(cells[1], want) {
						t.Errorf("%s: %s is %s, the page says %s", page, tag, want, cells[1])
					}
				}
			}
		}
	}
	if tried < 8 || tags < 15 {
		t.Errorf("%d blocks and %d tags were tried", tried, tags)
	}
}
