package hubrelay

// The buildpack of Cloud Functions allows no package hubrelay_test here.

import (
	"cmp"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/getto-systems/hubrelay"

// mayImport is the table of docs/architecture.md: which packages of ours each
// package may import. Tests may import anything.
var mayImport = map[string][]string{
	".": {"functions/notify", "functions/trigger", "functions/webhook", "internal/gc", "internal/gcplog", "internal/httpserver", "internal/version"},

	"functions/webhook": {"internal/auth", "internal/dockerhub", "internal/env", "internal/gcplog", "internal/httpserver", "internal/pubsub"},
	"functions/trigger": {
		"internal/dockerhub", "internal/env", "internal/gcplog", "internal/gitlab", "internal/httpserver", "internal/hub",
		"internal/ledger", "internal/pubsub", "internal/reconcile", "internal/registry", "internal/route",
	},
	"functions/notify": {
		"internal/auth", "internal/dockerhub", "internal/env", "internal/gcplog", "internal/httpserver",
		"internal/ledger", "internal/pubsub", "internal/route", "internal/slack",
	},

	"internal/env":        nil,
	"internal/gc":         nil,
	"internal/gcplog":     nil,
	"internal/version":    nil,
	"internal/httpserver": {"internal/gcplog", "internal/version"},
	"internal/httpclient": nil,
	"internal/auth":       {"internal/httpclient"},
	"internal/dockerhub":  nil,
	"internal/route":      {"internal/dockerhub"},

	"internal/reconcile": {
		"internal/dockerhub", "internal/hub", "internal/ledger", "internal/pubsub", "internal/registry", "internal/route",
	},

	// Adapters do not know each other.
	"internal/gitlab":     {"internal/env", "internal/httpclient"},
	"internal/hub":        {"internal/dockerhub", "internal/env", "internal/httpclient"},
	"internal/deadletter": {"internal/pubsub"},
	"internal/ledger":     nil,
	"internal/pubsub":     nil,
	"internal/registry":   {"internal/dockerhub", "internal/env", "internal/httpclient"},
	"internal/slack":      {"internal/env", "internal/httpclient"},

	"internal/check": {
		"functions/notify", "functions/trigger", "functions/webhook", "internal/dockerhub", "internal/env", "internal/gitlab",
		"internal/httpclient", "internal/hub", "internal/ledger", "internal/registry", "internal/route", "internal/slack", "internal/version",
	},

	// Fakes imitate outside systems.
	"internal/gitlab/gitlabtest":     nil,
	"internal/slack/slacktest":       nil,
	"internal/hub/hubtest":           nil,
	"internal/registry/registrytest": nil,
	"internal/gcptest":               {"internal/skip"},

	// They are for the tests.
	"internal/gotest": nil,
	"internal/skip":   nil,

	"internal/coordinator": nil,

	"internal/sandbox": {
		"functions/notify", "functions/trigger", "functions/webhook", "internal/coordinator", "internal/dockerhub", "internal/env",
		"internal/gcplog", "internal/gitlab/gitlabtest", "internal/hub", "internal/hub/hubtest", "internal/ledger", "internal/pubsub",
		"internal/reconcile", "internal/route", "internal/slack/slacktest",
	},
	"internal/console": {"internal/ledger", "internal/sandbox", "internal/slack/slacktest"},
	"cmd/hubrelay": {
		"internal/check", "internal/console", "internal/deadletter", "internal/dockerhub", "internal/env", "internal/httpclient", "internal/hub", "internal/ledger", "internal/pubsub",
		"internal/reconcile", "internal/registry", "internal/route", "internal/sandbox", "internal/version",
	},
}

// onlyIn says which packages may import the client libraries of outside
// systems.
var onlyIn = map[string][]string{
	"github.com/xanzy/go-gitlab":                  {"internal/gitlab"},
	"github.com/slack-go/slack":                   {"internal/slack"},
	"github.com/coreos/go-oidc":                   {"internal/auth"},
	"github.com/google/go-containerregistry":      {"internal/registry", "internal/sandbox"},
	"cloud.google.com/go":                         {"internal/deadletter", "internal/ledger", "internal/pubsub", "internal/sandbox"},
	"google.golang.org":                           {"internal/deadletter", "internal/ledger", "internal/pubsub", "internal/sandbox"},
	"github.com/GoogleCloudPlatform":              {"."},
	"github.com/Masterminds/semver":               {"internal/route"},
	"github.com/go-jose/go-jose":                  {"internal/gitlab/gitlabtest"},
	"github.com/google/go-cmp":                    {},
	"github.com/hashicorp/hcl":                    {"internal/check"},
	"github.com/zclconf/go-cty":                   {"internal/check"},
	"github.com/rogpeppe/go-internal":             {},
	"github.com/getto-systems/hubrelay/functions": {".", "internal/check", "internal/sandbox"},
}

func TestImports(t *testing.T) {
	t.Parallel()
	seen := map[string]map[string]bool{} // of each package, what it imports
	for file, imports := range goFiles(t) {
		dir := filepath.ToSlash(filepath.Dir(file))
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		if seen[dir] == nil {
			seen[dir] = map[string]bool{}
		}
		allowed, ok := mayImport[dir]
		if !ok {
			t.Errorf("%s is not in the table of who may import whom", dir)
			continue
		}
		for _, imported := range imports {
			ours, ok := strings.CutPrefix(imported, module+"/")
			if ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s", file, ours)
			}
			seen[dir][ours] = true
			for prefix, where := range onlyIn {
				if (imported == prefix || strings.HasPrefix(imported, prefix+"/")) && !slices.Contains(where, dir) {
					t.Errorf("%s imports %s", file, imported)
				}
			}
		}
	}
	for dir, allowed := range mayImport {
		if seen[dir] == nil {
			t.Errorf("the table names %s, which is not there", dir)
		}
		for _, ours := range allowed {
			if !seen[dir][ours] {
				t.Errorf("the table has %s import %s, and it does not", dir, ours)
			}
		}
	}
}

// TestThePageShowsWhoImportsWhom compares the list and the table of
// docs/architecture.md with the packages there are.
func TestThePageShowsWhoImportsWhom(t *testing.T) {
	t.Parallel()
	_, page, _ := strings.Cut(read(t, "docs/architecture.md"), "\n## Who imports whom\n")
	page, _, _ = strings.Cut(page, "\n## ")
	list, table, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(page), "```"), "```")
	if !ok {
		t.Fatal("docs/architecture.md has no list of packages")
	}

	called := map[string]string{} // as the table calls them, to their folders
	for dir := range mayImport {
		name := strings.TrimPrefix(dir, "internal/")
		if strings.HasSuffix(name, "test") {
			name = path.Base(name)
		}
		called[name] = dir
	}
	called["hubrelay"] = "."
	documented := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*) \\| (.*) \\|$").FindAllStringSubmatch(table, -1) {
		imports := []string{}
		if strings.Contains(row[2], "the three functions") {
			imports = append(imports, "functions/notify", "functions/trigger", "functions/webhook")
		}
		for _, name := range captures("`([^`]+)`", row[2]) {
			imports = append(imports, cmp.Or(called[name], name))
		}
		for _, name := range captures("`([^`]+)`", row[1]) {
			documented[cmp.Or(called[name], name)] = imports
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(mayImport)) {
		got, ok := documented[dir]
		if !ok {
			t.Errorf("the table of docs/architecture.md does not have %s", dir)
		} else if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(mayImport[dir]))) {
			t.Errorf("%s may import %v; docs/architecture.md says %v", dir, mayImport[dir], got)
		}
		delete(documented, dir)
	}
	if len(documented) > 0 {
		t.Errorf("the table of docs/architecture.md has what is no package: %v", slices.Sorted(maps.Keys(documented)))
	}

	listed := map[string]bool{}
	for line := range strings.Lines(list) {
		packages, about, _ := strings.Cut(strings.TrimSpace(line), "   ")
		for name := range strings.FieldsSeq(packages) {
			if before, several, ok := strings.Cut(name, "{"); ok {
				for one := range strings.SplitSeq(strings.Trim(several, "}"), ",") {
					listed[before+one] = true
				}
				continue
			}
			listed[name] = true
		}
		for _, fake := range captures(`its fake is ([a-z]+)`, about) {
			listed[packages+"/"+fake] = true
		}
	}
	delete(listed, "hubrelay.go")
	there := map[string]bool{}
	for file := range goFiles(t) {
		there[filepath.ToSlash(filepath.Dir(file))] = true
	}
	delete(there, ".")
	if listed, there := slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(there)); !slices.Equal(listed, there) {
		t.Errorf("docs/architecture.md lists\n%v, and there are\n%v", listed, there)
	}
}

// The buildpack takes every Go file of the root for one package, looks at the
// root's own imports to choose its template, and breaks on a go.work file.
func TestRootIsWhatTheBuildpackTakes(t *testing.T) {
	t.Parallel()
	imports := map[string]bool{}
	for file, list := range goFiles(t) {
		if filepath.Dir(file) != "." {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		if parsed.Name.Name != "hubrelay" {
			t.Errorf("%s is of package %s", file, parsed.Name.Name)
		}
		for _, i := range list {
			imports[i] = true
		}
	}
	if !imports["github.com/GoogleCloudPlatform/functions-framework-go/functions"] {
		t.Error("the root package does not import the functions framework itself")
	}
	if _, err := os.Stat("go.work"); err == nil {
		t.Error("there is a go.work file")
	}
	gomod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(gomod)) {
		if strings.HasPrefix(line, "toolchain") || strings.HasPrefix(line, "tool ") {
			t.Errorf("go.mod has the line %q", line)
		}
	}
	if !strings.Contains(string(gomod), "\ngo 1.26.0\n") {
		t.Error("go.mod does not say go 1.26.0, which every go126 runtime has")
	}
}

// goFiles returns the Go files of the module, and what each imports.
func goFiles(t *testing.T) map[string][]string {
	t.Helper()
	files := map[string][]string{}
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if path.Ext(file) != ".go" {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		files[file] = nil
		for _, i := range parsed.Imports {
			files[file] = append(files[file], strings.Trim(i.Path.Value, `"`))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("found only %v", slices.Sorted(maps.Keys(files)))
	}
	return files
}
